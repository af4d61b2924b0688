"""Pictures of found rails: the best, the median and the worst places, and whether confidences can be relied on."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from handful.data.rails import Frame
from handful.errors import HandfulError
from handful.evaluation import interval
from handful.report.sheet import GAP, MARGIN, fitted_text
from handful.report.style import BLUE, MUTED, SKY, WRONG, as_floats, styled

if TYPE_CHECKING:
    from handful.report.style import Array

WIDE, BELOW = 240.0, 16.0  # points: the width of a picture, and the text under it
TRUE = "#f0e442"  # yellow, which is seen on snow as well as in tunnels
COLOURS = {"true left": TRUE, "true right": TRUE, "left": WRONG, "right": SKY}
BINS = 10


@styled
def prediction_sheet(rows: Mapping[str, Sequence[tuple[Frame, str]]], title: str) -> Figure:
    """Rows of frames by their names, each frame with its caption.

    Of a frame the lines `true left` and `true right` are drawn in yellow, and upon them `left` and `right` as they were
    found.  Raises HandfulError if there are no frames.
    """
    if not any(rows.values()):
        raise HandfulError("There are no predictions to draw.")
    tall = WIDE * max(frame.height / frame.width for row in rows.values() for frame, _ in row)
    left, top = MARGIN + 52, 54.0
    width = left + max(2, *map(len, rows.values())) * (WIDE + GAP) - GAP + MARGIN
    height = top + len(rows) * (tall + BELOW) + MARGIN
    figure = Figure(figsize=(width / 72, height / 72), layout="none")  # type: ignore[arg-type]
    ax = figure.add_axes((0, 0, 1, 1))
    ax.axis("off")
    ax.text(MARGIN, 22, title, size=13, weight="bold", va="center")
    ax.text(MARGIN, 40, "yellow: as annotated; red and blue: as found", size=9, color=MUTED, va="center")
    for number, (name, row) in enumerate(rows.items()):
        y = top + number * (tall + BELOW)
        ax.text(MARGIN, y + tall / 2, name, size=9.5, weight="bold", va="center")
        for column, (frame, caption) in enumerate(row):
            x, scale = left + column * (WIDE + GAP), WIDE / frame.width
            below = y + frame.height * scale
            ax.imshow(frame.pixels(), extent=(x, x + WIDE, below, y), aspect="auto", zorder=2)
            for line, colour in COLOURS.items():
                if line in frame.lines:
                    at = (frame.lines[line] + 0.5) * scale + (x, y)  # a pixel's centre lies half a pixel inside
                    (drawn,) = ax.plot(*at.T, color=colour, lw=2.4 if line.startswith("true") else 1.0, zorder=3)
                    drawn.set_clip_path(ax.images[-1].get_clip_path())
            ax.text(x, below + 3, fitted_text(caption, WIDE, 8, lines=1)[0], size=8, color=MUTED, va="top")
    ax.set(xlim=(0, width), ylim=(height, 0))
    return figure


@styled
def reliability(expected: Array, observed: Array, bins: int = BINS, of: str = "line") -> Figure:
    """Confidences [n] in bins of equal width against the shares [n] that were right, above how many are in each bin.

    A point is the mean of a bin, with the 95 % interval of its observed shares; on the diagonal confidences are what
    they say.  of: one of what is counted.  Raises HandfulError if there are none, or not as many of both.
    """
    said, seen = as_floats(expected), as_floats(observed)
    if not len(said) or said.shape != seen.shape:
        raise HandfulError(f"reliability needs a share for each confidence, not {len(seen)} for {len(said)}.")
    figure = Figure(figsize=(4.6, 5.2))
    upper, lower = figure.subplots(2, 1, sharex=True, height_ratios=(3, 1))
    edges = np.linspace(0, 1, bins + 1)
    number = np.clip(np.digitize(said, edges) - 1, 0, bins - 1)
    counts = np.bincount(number, minlength=bins)
    upper.plot([0, 1], [0, 1], color=MUTED, linewidth=1.1, linestyle=(0, (4, 3)))
    for i in np.flatnonzero(counts):
        own = seen[number == i]
        width = float(interval(own)) if len(own) > 1 else 0.0
        upper.errorbar(said[number == i].mean(), own.mean(), yerr=width, fmt="o", color=BLUE, markersize=5, capsize=3)
    lower.bar(edges[:-1], counts, np.diff(edges), align="edge", color=SKY, ec="white", lw=0.6)
    for i in np.flatnonzero(counts):
        top = (edges[i] + edges[i + 1]) / 2, counts[i]
        lower.annotate(f"{counts[i]:,}", top, (0, 2), textcoords="offset points", ha="center", size=8, color=MUTED)
    upper.set(xlim=(0, 1), ylim=(0, 1.02), ylabel="observed share of right points")
    upper.set_title(f"Expected {said.mean():.3f}, observed {seen.mean():.3f}")
    lower.set(xlabel="expected share (confidence)", ylabel=f"{of}s", ylim=(0, 1.2 * counts.max()))
    lower.yaxis.set_major_locator(MaxNLocator(3, integer=True))
    return figure
