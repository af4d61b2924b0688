"""What `bench/rails.py` was answered for the tested places: their pictures, and how sure the answers were.

The confidence of a line is the share of its points that is expected to be right: within 20 of 1,920 pixels of a true
line that is in that row.  A line of a place is looked at over all draws in which the place was a query and the line was
found: its mean confidence beside the mean share of right points.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import torch
from matplotlib.figure import Figure
from numpy.typing import NDArray
from torch import Tensor

from handful.data.rails import Frame
from handful.data.rails.store import HEIGHT, WIDTH
from handful.problems.rail_lines import Lines, answers
from handful.problems.rail_lines.answers import confidences
from handful.problems.rail_lines.predictions import NEAR, cut
from handful.report.rails import prediction_sheet
from handful.report.task import as_frame

SHOWN = 4  # places of each sort on the sheet
GREY = 0.25  # of the ground on which lines are drawn without their pictures

Floats = NDArray[np.float64]


class Answered(NamedTuple):
    """Answers for the places of a fold, m over all draws.

    names [n], pictures uint8 [n, 3, H, W]: of the places; place [m]: which one; lines [m, L, R']; targets [m, L, R, 4];
    iou [m].
    """

    names: list[str]
    pictures: Tensor
    place: Tensor
    lines: Lines
    targets: Tensor
    iou: Tensor


class Judged(NamedTuple):
    """Lines of places that were found, l: how many points were expected to be right, and how many are, as shares."""

    expected: Floats
    observed: Floats


def sheet(folds: Sequence[Answered], each: int = SHOWN, *, pictures: bool = True) -> Figure:
    """The places that were answered best, in the middle, and worst, each as in its first draw, on grey or pictures."""
    firsts = []
    for fold in folds:
        place = fold.place.tolist()
        firsts += [(float(fold.iou[first]), fold, first) for first in sorted({place.index(p) for p in place})]
    firsts.sort(key=lambda found: found[0])
    each = min(each, len(firsts))
    middle = (len(firsts) - each + 1) // 2
    chosen = {
        "best": firsts[-each:][::-1],
        "median": firsts[middle : middle + each][::-1],
        "worst": firsts[:each],
    }
    drawn = {sort: [tile(fold, number, pictures) for _, fold, number in found] for sort, found in chosen.items()}
    return prediction_sheet(drawn, f"Rails of {len(firsts)} places that were not trained on")


def tile(fold: Answered, number: int, pictures: bool) -> tuple[Frame, str]:
    """An answer as a picture with its lines, and what stands below it."""
    place = int(fold.place[number])
    (found,) = answers(Lines(*(part[number : number + 1] for part in fold.lines)), WIDTH, HEIGHT)
    picture = fold.pictures[place].float() / 255
    frame = as_frame(picture if pictures else torch.full_like(picture, GREY), found, fold.targets[number])
    return frame, f"{fold.names[place]}  IoU {fold.iou[number]:.2f}"


def judged(fold: Answered) -> Judged:
    """Expected and observed shares of the lines of a fold's places."""
    found = cut(fold.lines.x, fold.lines.there, fold.targets.shape[-2])
    right = ((found.x - fold.targets[..., 0]).abs() <= NEAR) & (fold.targets[..., 1] > 0.5) & found.seen
    observed = right.sum(-1) / found.seen.sum(-1).clamp(min=1)
    expected = confidences(fold.lines)
    seen = found.seen.any(-1).double()

    def over_draws(values: Tensor) -> Tensor:
        return torch.zeros(len(fold.names), values.shape[1]).double().index_add(0, fold.place, values.double() * seen)

    times = over_draws(seen)
    known = times > 0
    return Judged(*((over_draws(values)[known] / times[known]).numpy() for values in (expected, observed)))


def together(folds: Sequence[Answered]) -> Judged:
    """The same of several folds."""
    return Judged(*(np.concatenate(parts) for parts in zip(*map(judged, folds))))


def squared(found: Judged) -> float:
    """Mean squared difference of the two shares."""
    return float(np.square(found.expected - found.observed).mean())


def calibration(names: Sequence[str], folds: Sequence[Answered]) -> str:
    """The means of both shares, and how far they are from each other, in each fold and in all."""
    rows = [*((name, judged(fold)) for name, fold in zip(names, folds)), ("all", together(folds))]
    lines = [f"{'confidence':<40} {'lines':>6}  expected  observed  root mean squared difference"]
    for said, found in rows:
        lines.append(
            f"{said:<40} {len(found.expected):>6}  {found.expected.mean():>8.3f}  {found.observed.mean():>8.3f}  "
            f"{squared(found) ** 0.5:>28.3f}"
        )
    return "\n".join(lines)
