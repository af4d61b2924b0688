"""RailSem19's masks, uint8/rs19_val/*.png: what of the train's own track can be read from them."""

from __future__ import annotations

from collections.abc import Callable
from itertools import pairwise
from typing import Any

import numpy as np
from numpy.typing import NDArray

from handful.data.rails.frame import Line

RAILS, BED = (17, 18), (3, 12)  # rail-raised, rail-embedded; tram-track and rail-track, the ground between two rails
STEP = 8  # rows between two points
GAP = 15  # rows of 1080 without a rail over which it is followed
PAIR_LOST = 3.0  # pixels between the rails at which they have met
MEMORY = 12  # rows whose slope says where a rail goes on


def ego_track(mask: NDArray[np.uint8]) -> dict[str, Line]:
    """`left` and `right` from a mask [H, W] of class numbers; {} where no two rails with track between them are.

    The mask says which pixels are rail, not whose: the track is the one whose foot is nearest to the middle of the
    lower border.  Both rails are followed upwards, row by row, in the middle of their pixels, until one is lost, or
    they meet.  At a switch the straighter way is taken, as the mask does not say how it is set.
    """
    height, width = mask.shape
    rows = [runs(row) for row in np.isin(mask, RAILS)]
    bed = np.cumsum(np.isin(mask, BED), 1)
    best = None
    for y in range(height - 1, -1, -1):
        if best is not None and height - 1 - y >= best[0]:
            break  # no higher pair can be nearer
        for one, other in pairwise(rows[y]):
            between = other[0] - one[1]
            if between > PAIR_LOST and bed[y, int(other[0]) - 1] - bed[y, int(one[1])] >= between / 2:
                away = float(np.hypot((middle(one) + middle(other) - width + 1) / 2, height - 1 - y))
                if best is None or away < best[0]:
                    best = (away, y, middle(one), middle(other))
    if best is None:
        return {}
    gap = max(1, round(GAP * height / 1080))
    foot = followed(rows, range(best[1], height), best[2:], gap)[-1]  # the nearest pair need not be the lowest
    points = followed(rows, range(int(foot[0]), -1, -1), foot[1:], gap)
    if len(points) < 2:
        return {}
    kept = np.array([*points[:-1:STEP], points[-1]])
    return {"left": kept[:, [1, 0]], "right": kept[:, [2, 0]]}


def followed(
    rows: list[list[tuple[float, float]]], order: range, feet: tuple[float, float], gap: int
) -> list[tuple[float, float, float]]:
    """(y, x of the left rail, x of the right rail) in rows of that order, from the feet in its first row."""
    points = [(float(order[0]), *feet)]
    for row in order[1:]:
        if abs(points[-1][0] - row) > gap:
            break
        recent = np.array(points[-MEMORY:])
        climbed = recent[0, 0] - recent[-1, 0]
        slope = (recent[-1, 1:] - recent[0, 1:]) / climbed if climbed else np.zeros(2)
        expected = recent[-1, 1:] + slope * (recent[-1, 0] - row)
        allowed = max(3.0, 0.15 * (points[-1][2] - points[-1][1]))
        found = [min(rows[row], key=away_from(x), default=None) for x in expected.tolist()]
        left, right = found
        if left is None or right is None:
            continue
        if left == right or right[0] - left[1] < PAIR_LOST:
            break
        if all(abs(middle(own) - x) <= allowed for own, x in zip((left, right), expected.tolist())):
            points.append((float(row), middle(left), middle(right)))
    return points


def away_from(x: float) -> Callable[[tuple[float, float]], float]:
    """How far a run's middle lies from x."""
    return lambda run: abs(middle(run) - x)


def runs(row: NDArray[Any]) -> list[tuple[float, float]]:
    """First and last pixel of each run of True in a row [W]."""
    edges = np.flatnonzero(np.diff(np.concatenate([[False], row, [False]]).astype(np.int8)))
    return [(float(first), float(after - 1)) for first, after in edges.reshape(-1, 2)]


def middle(run: tuple[float, float]) -> float:
    """The middle of a run of pixels."""
    return (run[0] + run[1]) / 2
