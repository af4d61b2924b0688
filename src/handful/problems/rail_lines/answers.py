"""Lines on rows as what a person gets: points in pixels, and how sure they are."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from handful.data.rails.frame import Line
from handful.data.rails.rows import line_on
from handful.problems.rail_lines.predictions import Lines, spans

NAMES = ("left", "right")


class Answer(NamedTuple):
    """A line: points (x, y) in pixels, bottom to top.

    confidence: the probability that the network gives to the columns that the line is in, on the average over its rows;
    about the share of its points that are right, within 20 pixels of a picture that is 1,920 wide (docs/rails.md).
    """

    points: Line
    confidence: float


def answers(lines: Lines, width: int, height: int) -> list[dict[str, Answer]]:
    """Lines [n, L, R] of n pictures of this size, by name; one that is nowhere has no entry."""
    begin, end = (limits.tolist() for limits in spans(lines.there))
    sure, rows = confidences(lines).tolist(), lines.x.shape[-1]
    found: list[dict[str, Answer]] = []
    for image, x in enumerate(lines.x.double().numpy()):
        found.append({})
        for line, name in enumerate(NAMES):
            first, last = begin[image][line], end[image][line]
            if last > first:
                points = line_on(x[line], first / rows, last / rows, width, height)
                found[-1][name] = Answer(points, sure[image][line])
    return found


def confidences(lines: Lines) -> Tensor:
    """How sure lines [..., L, R] are, [..., L]: the mean of the rows that each reaches, 0 if nowhere."""
    begin, end = (limit.unsqueeze(-1) for limit in spans(lines.there))
    row = torch.arange(lines.x.shape[-1], device=lines.x.device)
    inside = (row + 1 > begin) & (row < end)
    return (lines.sure * inside).sum(-1) / inside.sum(-1).clamp(min=1)
