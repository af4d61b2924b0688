"""From squared errors of predicted frames to how well abnormal frames are told from normal ones.

The anomaly score of a frame is the error of its prediction in decibels, 10 log10 of the mean squared error of values in
[0, 1]: minus the PSNR that the field's tables are made of, so that a higher score is more abnormal.  What a score goes
through before the area under its ROC curve is taken is worth more than most methods add, so all forms stand side by
side: raw; smoothed over time; brought to [0, 1] within each clip, which needs the whole clip and can make a clip that
is abnormal throughout look like any other; the mean over the clips that have frames of both kinds (macro); and by
place (pixel).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import NamedTuple, TypeAlias

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from sklearn.metrics import roc_auc_score
from torch import Tensor

Floats: TypeAlias = NDArray[np.float64]

QUIETEST = 1e-10  # mean squared error of a frame that is predicted perfectly, whose decibels would be minus infinity
TAPS, SIGMA = 15, 2.0  # of the filter over time, in frames (MPN, MNAD)
BOX = 8  # the local score looks at boxes of an eighth of the frame's sides
KEPT = 0.7  # of the score before, in a live score
COVERED = 0.4  # of the abnormal pixels of a frame must be found (Mahadevan et al., CVPR 2010)


class FrameErrors(NamedTuple):
    """What is wrong with n predicted frames: squared errors of values in [0, 1].

    mean [n]; local [n]: the largest mean over a box of an eighth of the sides; feature [n]: the distance from the
    prototypes, zeros without a prototype unit; place [n, H, W]: the mean over the box around each place.
    """

    mean: Tensor
    local: Tensor
    feature: Tensor
    place: Tensor


def frame_errors(predictions: Tensor, targets: Tensor) -> FrameErrors:
    """Predictions [n, C, H, W], or [n, C + 2, H, W] of a decoder with prototypes, against targets [n, C, H, W].

    A prediction that no frame can have, below black or above white, counts as the nearest that one can.
    """
    channels = targets.shape[1]
    squares = (predictions[:, :channels].clamp(0, 1) - targets).square().mean(1, keepdim=True)
    mean = squares.mean((1, 2, 3))
    has_prototypes = predictions.shape[1] > channels
    feature = predictions[:, channels].mean((1, 2)) if has_prototypes else torch.zeros_like(mean)
    place = boxed(squares)[:, 0]
    return FrameErrors(mean, place.amax((1, 2)), feature, place)


def boxed(squares: Tensor) -> Tensor:
    """Means over the boxes around every place of [n, 1, H, W], of the part of a box that is in the frame."""
    sides = [max(1, side // BOX) for side in squares.shape[-2:]]
    before, after = zip(*((side // 2, (side - 1) // 2) for side in sides))
    padding = (before[1], after[1], before[0], after[0])

    def mean(values: Tensor) -> Tensor:
        """Down, then across: a box of 16 x 16 takes 32 additions and not 256."""
        down = F.avg_pool2d(F.pad(values, padding), (sides[0], 1), stride=1)
        return F.avg_pool2d(down, (1, sides[1]), stride=1)

    return mean(squares) / mean(torch.ones_like(squares[:1]))


def decibels(errors: Floats) -> Floats:
    """10 log10 of squared errors, those of a perfect prediction at -100."""
    found: Floats = 10 * np.log10(np.maximum(errors, QUIETEST))
    return found


def smoothed(scores: Floats) -> Floats:
    """Scores of the frames of a clip [n], filtered by a Gaussian over time; before its first frame is its first."""
    half = TAPS // 2
    taps = np.exp(-np.square(np.arange(-half, half + 1)) / (2 * SIGMA**2))
    return np.convolve(np.pad(scores, half, mode="edge"), taps / taps.sum(), "valid")


def within_clip(scores: Floats) -> Floats:
    """Scores of the frames of a clip [n], brought to [0, 1] by their least and greatest; zeros if they are all one."""
    low, high = scores.min(), scores.max()
    return (scores - low) / (high - low) if high > low else np.zeros_like(scores)


def whole_clips(scores: Sequence[Floats], labels: Sequence[NDArray[np.uint8]]) -> dict[str, float]:
    """Areas under the ROC curve of the scores of clips, against labels, 1 for abnormal.

    raw, raw_smoothed, minmax, minmax_smoothed: over the frames of all clips together; macro: the mean over the clips
    with frames of both kinds, NaN if there is none.  The smoothed min-max is what the field's tables hold.
    """
    every = np.concatenate(labels)

    def together(form: Callable[[Floats], Floats]) -> float:
        return area(every, np.concatenate([form(clip) for clip in scores]))

    each = [area(of, clip) for clip, of in zip(scores, labels) if 0 < of.sum() < len(of)]
    return {
        "raw": together(lambda clip: clip),
        "raw_smoothed": together(smoothed),
        "minmax": together(within_clip),
        "minmax_smoothed": together(lambda clip: smoothed(within_clip(clip))),
        "macro": float(np.mean(each)) if each else float("nan"),
    }


def area(labels: NDArray[np.uint8], scores: Floats) -> float:
    """Area under the ROC curve; NaN where all frames are of one kind, or a score is not finite."""
    if not 0 < labels.sum() < len(labels) or not np.isfinite(scores).all():
        return float("nan")
    return float(roc_auc_score(labels, scores))


def covering(place: Floats, mask: NDArray[np.bool_]) -> float:
    """The score of a frame by place [H, W], its true abnormal pixels being `mask` [h, w].

    Of a frame with abnormal pixels, the highest threshold at which 40 % of them are found; of one without, that at
    which nothing is found any more.  The area under the ROC curve of these is the pixel-level one.
    """
    if not mask.any():
        return float(place.max())
    rows, columns = (((np.arange(size) + 0.5) * of / size).astype(int) for size, of in zip(mask.shape, place.shape))
    found = np.sort(place[np.ix_(rows, columns)][mask])[::-1]
    return float(found[int(np.ceil(COVERED * len(found))) - 1])


def causal(scores: Floats, keep: float = KEPT) -> Floats:
    """Scores [n] smoothed by what came before alone: each keeps a share of the one before, the first is as it is."""
    found = scores.copy()
    for place in range(1, len(found)):
        found[place] = keep * found[place - 1] + (1 - keep) * scores[place]
    return found
