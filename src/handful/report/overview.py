"""The sheet of `handful data check --sheet`: a row a class, its first pictures."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from matplotlib.figure import Figure
from numpy.typing import NDArray

from handful import wording
from handful.report.sheet import CELL, GAP, MARGIN, draw_picture, fitted_text, text_width
from handful.report.style import LINE, MUTED, PANEL, WRONG, styled

NAME = 9.5  # points: the text of a class


@styled
def class_sheet(samples: Mapping[str, Sequence[NDArray[np.uint8] | None]], counts: Mapping[str, int]) -> Figure:
    """Some pictures of some classes: uint8 [3, H, W], or None for one that cannot be read, which is crossed out.

    counts: pictures of every class, those that are not shown too.
    """
    lines = {name: fitted_text(name, 2.5 * CELL, NAME, lines=2) for name in samples}
    left = MARGIN + 1.1 * max(text_width(line, NAME) for own in lines.values() for line in own) + 12
    across = max(map(len, samples.values()))
    width, pitch, top = max(left + across * (CELL + GAP) + 40 + MARGIN, 360.0), CELL + GAP, 54.0
    height = top + len(samples) * pitch + MARGIN
    figure = Figure(figsize=(width / 72, height / 72), layout="none")  # type: ignore[arg-type]
    ax = figure.add_axes((0, 0, 1, 1))
    ax.axis("off")
    classes, pictures = wording.count(len(counts), "class"), wording.count(sum(counts.values()), "picture")
    ax.text(MARGIN, 22, f"{classes}, {pictures}", size=13, weight="bold", va="center")
    if (hidden := len(counts) - len(samples)) > 0:
        ax.text(MARGIN, 40, f"{wording.count(hidden, 'further class')} not drawn", size=9, color=MUTED, va="center")
    for row, (name, shown) in enumerate(samples.items()):
        y = top + row * pitch
        text = "\n".join(lines[name])
        ax.text(left - 12, y + CELL / 2, text, size=NAME, weight="bold", ha="right", va="center")
        for column, picture in enumerate(shown):
            x = left + column * pitch
            if picture is None:
                _crossed_out(ax, x, y)
            else:
                draw_picture(ax, picture.transpose(1, 2, 0), x, y, LINE, 0.6)
        if (more := counts[name] - len(shown)) > 0:
            ax.text(left + len(shown) * pitch + 2, y + CELL / 2, f"+ {more:,}", size=9, color=MUTED, va="center")
    ax.set(xlim=(0, width), ylim=(height, 0))
    return figure


def _crossed_out(ax: Any, x: float, y: float) -> None:
    """A cell whose picture cannot be read."""
    ax.fill([x, x + CELL, x + CELL, x], [y, y, y + CELL, y + CELL], color=PANEL)
    ax.plot([x, x + CELL], [y, y + CELL], color=WRONG, lw=1.4)
    ax.plot([x, x + CELL], [y + CELL, y], color=WRONG, lw=1.4)
