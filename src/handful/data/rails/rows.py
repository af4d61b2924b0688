"""Lines on the rows of a picture, which is what a network learns, and back to points.

A picture of height H has R rows, bands of H / R pixels; a line is where it crosses the middle of each, and how much of
each it spans.  Places are shares of the picture's sides, so that they are the same at any size: x = 0 is the left
border, 1 the right one, which half a pixel beyond the centres of its first and last column is.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from handful.data.rails.frame import Line, climbing

ROWS = 144  # of a target: 2 pixels of a picture of 288
FOOT = 0.01  # of the height
UNIT = 1 / 64  # of the width: about the column of a map at stride 8 of a picture 512 wide


def rows_of(line: Line | None, width: int, height: int, rows: int = ROWS) -> NDArray[np.float32]:
    """A line in pixels as [rows, 2] from the top: x as a share of the width, and the share of the row that it spans.

    A line that ends within a hundredth of the height of the lower border is taken to go on to it: annotations have a
    point every few pixels.  x is that of the nearest end in rows that the line does not reach, and 0 if there is no
    line.  What of a line is outside the picture is not there.
    """
    found = np.zeros((rows, 2), np.float32)
    if line is None:
        return found
    x, y = climbing(line).T
    band = height / rows
    borders = np.arange(rows + 1) * band - 0.5
    foot = height - 0.5 if y[0] >= height - 0.5 - FOOT * height else y[0]
    over, under = np.maximum(borders[:-1], y[-1]), np.minimum(borders[1:], foot)
    found[:, 1] = ((under - over) / band).clip(0, 1)
    middle = np.where(found[:, 1] > 0, (over + under) / 2, (borders[:-1] + borders[1:]) / 2)
    found[:, 0] = (np.interp(middle, y[::-1], x[::-1]) + 0.5) / width
    found[(found[:, 0] < 0) | (found[:, 0] > 1), 1] = 0
    return found


def line_on(x: NDArray[np.float64], first: float, last: float, width: int, height: int) -> Line:
    """The points of a line from x [R], shares of the width on the rows, between two heights, shares from the top.

    Bottom to top, in pixels: where it begins, the middle of each row between, and where it ends.
    """
    rows = len(x)
    middles = (np.arange(rows) + 0.5) / rows
    inside = middles[(middles > first) & (middles < last)]
    y = np.concatenate([[last], inside[::-1], [first]])
    across = np.interp(y, middles, x)
    for end, (near, next_one) in ((first, (0, 1)), (last, (-1, -2))):  # np.interp stays where the last row is
        beyond = (y == end) & ((end < middles[0]) | (end > middles[-1]))
        slope = (x[next_one] - x[near]) / (middles[next_one] - middles[near])
        across = np.where(beyond, x[near] + slope * (end - middles[near]), across)
    return np.stack([across * width - 0.5, y * height - 0.5], 1)
