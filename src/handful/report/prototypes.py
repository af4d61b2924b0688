"""The picture of a prototype unit: which prototype each place of a frame is nearest to, and what each is made of."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import matplotlib
import numpy as np
from matplotlib.figure import Figure

from handful.errors import HandfulError
from handful.report.style import as_floats, styled

if TYPE_CHECKING:
    from handful.report.style import Array

COLUMNS = 5  # of the small pictures
COLOURS = ("tab10", "tab20")  # for at most as many prototypes, in turn
SHINE = 0.55  # of the colours over the frame
BRIGHTEST = 99.5  # percentile of a place's part in a prototype that is drawn white


@styled
def prototype_map(frame: Array, attention: Array, shares: Array) -> Figure:
    """A frame, the prototype with the largest share at each place, and where every prototype comes from.

    frame [C, h, w] in [0, 1], C = 1 or 3; attention, shares [H*W, M]: of one window, as `NextFrame.encodings` names
    them, of a map in the frame's proportions.  In the small pictures a place is the brighter, the more of a prototype
    it makes; the title says how many times its even part the greatest has.  Raises HandfulError for tensors that are
    no maps of the frame.
    """
    pixels, made_of, asked = as_floats(frame), as_floats(attention), as_floats(shares)
    positions, count = asked.shape
    height, width = pixels.shape[1:]
    scale = math.sqrt(positions / (height * width))
    rows, columns = round(height * scale), round(width * scale)
    if rows * columns != positions or made_of.shape != asked.shape:
        raise HandfulError(
            f"prototype_map has a frame of {height}x{width} and {positions} positions, which are no map of it; give "
            "attention and shares [H*W, M] of one window."
        )
    picture = np.clip(np.moveaxis(pixels, 0, -1).repeat(3 // len(pixels), -1), 0, 1)
    nearest = asked.argmax(1).reshape(rows, columns)
    below = math.ceil(count / COLUMNS)
    figure = Figure(figsize=(9.2, 9.2 * height / width * (1 / 2 + below / COLUMNS) + 0.3 * (1 + below)))
    grid = figure.add_gridspec(1 + below, 2 * COLUMNS, height_ratios=[COLUMNS / 2, *below * [1.0]])
    before, over = figure.add_subplot(grid[0, :COLUMNS]), figure.add_subplot(grid[0, COLUMNS:])
    before.imshow(picture)
    before.set_title("The last frame")
    palette = matplotlib.colormaps[COLOURS[count > 10]]
    colours = np.array([palette(number % palette.N)[:3] for number in range(count)])
    area = np.bincount(nearest.ravel(), minlength=count) / positions
    extent = (-0.5, width - 0.5, height - 0.5, -0.5)
    over.imshow(picture)
    over.imshow(colours[nearest], alpha=SHINE, extent=extent, interpolation="nearest")
    over.set_title(f"{np.count_nonzero(area)} of {count} prototypes are nearest somewhere")
    for number in range(count):
        down, across = divmod(number, COLUMNS)
        axes = figure.add_subplot(grid[1 + down, 2 * across : 2 * across + 2])
        part = made_of[:, number] * positions
        top = max(np.percentile(part, BRIGHTEST), 1e-12)
        axes.imshow(part.reshape(rows, columns), cmap="gray", vmin=0, vmax=top, extent=extent)
        axes.set_title(
            f"{number}: {area[number]:.0%}, up to {part.max():.3g}x", color=0.8 * colours[number], fontsize=8
        )
    for axes in figure.axes:
        axes.set_axis_off()
    return figure
