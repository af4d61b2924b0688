"""Lines on rows as what a person gets: points in pixels, and how sure they are."""

from __future__ import annotations

import math
from typing import NamedTuple

import torch
from torch import Tensor

from handful.data.rails.frame import Line
from handful.data.rails.rows import line_on
from handful.problems.rail_lines.predictions import BLUR, NEAR, Lines, spans

NAMES = ("left", "right")
ERROR = 0.55  # of the excess spread is taken for the error's deviation: chosen by eye, its check is still to come


class Answer(NamedTuple):
    """A line: points (x, y) in pixels, bottom to top; confidence: the share of them that is expected to be right.

    A point is right within 20 pixels of a picture that is 1,920 wide.
    """

    points: Line
    confidence: float


def answers(lines: Lines, width: int, height: int) -> list[dict[str, Answer]]:
    """Lines [n, L, R] of n pictures of this size, by name; one that is nowhere has no entry."""
    begin, end = (limits.tolist() for limits in spans(lines.there))
    sure, rows = certainty(lines.spread), lines.x.shape[-1]
    found: list[dict[str, Answer]] = []
    for image, x in enumerate(lines.x.double().numpy()):
        found.append({})
        for line, name in enumerate(NAMES):
            first, last = begin[image][line], end[image][line]
            if last > first:
                points = line_on(x[line], first / rows, last / rows, width, height)
                inside = slice(math.floor(first), max(math.floor(first) + 1, math.ceil(last)))
                found[-1][name] = Answer(points, float(sure[image, line, inside].mean()))
    return found


def certainty(spread: Tensor) -> Tensor:
    """Probability that a place is within 20 of 1,920 pixels, from the standard deviation of its distribution.

    A distribution that is as narrow as those that were learned from says nothing against the place; a share of what it
    is wider by is taken for the deviation of an error that is normal.
    """
    wider = (spread.square() - BLUR**2).clamp(min=NEAR**2 / 16).sqrt()
    return torch.erf(NEAR / (ERROR * wider * math.sqrt(2)))
