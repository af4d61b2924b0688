"""The score of a live camera: what it takes is known from normal footage alone, and nothing waits for a later frame.

The *level* of a frame is its local error in decibels: that of the worst box of an eighth of its sides.  Its *score* is
the level less the mean, over the standard deviation, both of normal footage that nothing was fitted to; and smoothed:

    s_t = 0.7 s_(t-1) + 0.3 (level_t - mean) / deviation

The field's scores are brought to [0, 1] by the least and the greatest of the whole clip and filtered over frames to
come, so that they exist only when all is over.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple, TypeAlias

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from handful.problems.video_anomaly import decibels
from handful.problems.video_anomaly.scores import causal

Floats: TypeAlias = NDArray[np.float64]

ROUNDING = (1 / 255) ** 2 / 12  # mean squared error of rounding to 8 bits: what is below it is not told apart
LEAST = 0.5  # decibels, of a deviation: that of pictures that stand still is none


class Normal(NamedTuple):
    """What levels are in normal footage, in decibels: their mean, and their standard deviation."""

    mean: float
    deviation: float

    def deviations(self, levels: Floats) -> Floats:
        """How many deviations above the mean levels lie."""
        return (levels - self.mean) / self.deviation


class Smoother:
    """Scores of one frame after another, each smoothed by those before it."""

    def __init__(self) -> None:
        self.last: float | None = None

    def __call__(self, score: float) -> float:
        """The next score, smoothed; the first is left as it is."""
        known = [score] if self.last is None else [self.last, score]
        self.last = float(causal(np.array(known))[-1])
        return self.last


class Threshold(NamedTuple):
    """A threshold of scores, and the share of further normal frames above it that the known ones let expect.

    value: above it is an alarm; promised: whether there are enough known scores for the share that was asked for.
    """

    value: float
    promised: bool


def levels(errors: Tensor) -> Floats:
    """Errors of any shape in decibels, none below what rounding makes of them."""
    return decibels(np.maximum(errors.double().numpy(), ROUNDING))


def normal_of(runs: Sequence[Floats]) -> Normal:
    """Of the levels of normal frames, in runs of successive ones."""
    every = np.concatenate(runs)
    return Normal(float(every.mean()), max(float(every.std()), LEAST))


def scores(runs: Sequence[Floats], normal: Normal) -> list[Floats]:
    """The scores of levels, each run smoothed by itself."""
    return [causal(normal.deviations(run)) for run in runs]


def threshold(normal: Floats, false_alarms: float) -> Threshold:
    """That above which a share of `false_alarms` of normal frames lies, from n scores [n] of such frames.

    It is the ceil((n + 1)(1 - false_alarms))-th smallest of them: a further score, were it drawn as they were, is above
    it with a probability of at most false_alarms (split conformal prediction, Vovk et al. 2005).  Where n + 1 is less
    than 1 / false_alarms no score is high enough, and the highest is taken without a promise.
    """
    rank = math.ceil((len(normal) + 1) * (1 - false_alarms) - 1e-9)
    return Threshold(float(np.sort(normal)[min(rank, len(normal)) - 1]), rank <= len(normal))


def crossed(normal: Floats, false_alarms: float) -> float | None:
    """The share of each half of the scores [n] above the threshold of the other, together; None of too few to say.

    Successive frames are alike, and a camera has busy times: this is what the share is where neither half knows the
    other.
    """
    halves = normal[: len(normal) // 2], normal[len(normal) // 2 :]
    if not all(len(half) and threshold(half, false_alarms).promised for half in halves):
        return None
    above = [half > threshold(other, false_alarms).value for half, other in zip(halves, halves[::-1])]
    return float(np.concatenate(above).mean())
