"""What a task may ask of a frame: which pair of its lines is meant by left and right."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TypeAlias

import numpy as np

from handful.data.rails.frame import Line, climbing

Pair: TypeAlias = tuple[Line | None, Line | None]

HEAD, BETWEEN = 70, 1505  # millimetres: the width of a rail's head; from the middle of one rail to that of the other
INSIDE = HEAD / 2 / BETWEEN


def targets_of(lines: Mapping[str, Line]) -> dict[str, Pair]:
    """The pairs of lines that a frame has, by what they are: (left, right), either of which may be absent.

    `ego`: the rails of the train's own track, in the middle of their heads; `inner edge`: those edges of theirs that
    the wheels touch; `left neighbour`, `right neighbour`: the rails of the track beside; `left-hand`, `right-hand`: of
    the ways through a switch.
    """
    left, right = lines.get("left"), lines.get("right")
    found: dict[str, Pair] = {}
    if left is not None or right is not None:
        found["ego"] = left, right
    if left is not None and right is not None:
        found["inner edge"] = shifted(left, right, INSIDE), shifted(right, left, INSIDE)
        beside = lines.get("neighbour left"), lines.get("neighbour right")
        if beside[0] is not None and beside[1] is not None:
            found["left neighbour" if beside[0][0, 0] < left[0, 0] else "right neighbour"] = beside
    for way in ("left-hand", "right-hand"):
        if f"{way} left" in lines and f"{way} right" in lines:
            found[way] = lines[f"{way} left"], lines[f"{way} right"]
    return found


def shifted(line: Line, towards: Line, share: float) -> Line:
    """A line moved along its rows by a share of the way towards another; below and above that one, by its ends."""
    (x, y), (other_x, other_y) = line.T, climbing(towards).T
    return np.stack([x + share * (np.interp(y, other_y[::-1], other_x[::-1]) - x), y], 1)
