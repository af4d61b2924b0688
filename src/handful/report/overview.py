"""The sheets of `handful data check --sheet`: of each class its first pictures, or frames with their lines."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import PurePath
from typing import Any

import numpy as np
from matplotlib.figure import Figure
from numpy.typing import NDArray

from handful import wording
from handful.data.rails import Frame
from handful.errors import HandfulError
from handful.report.sheet import CELL, GAP, MARGIN, draw_picture, fitted_text, text_width
from handful.report.style import LINE, MUTED, ORANGE, PANEL, PINK, SKY, WRONG, styled

NAME = 9.5  # points: the text of a class
FRAMES, COLUMNS, WIDE = 60, 4, 200.0  # frames of a sheet, in a row, and the points that one is wide
RAILS = {"left": WRONG, "right": SKY}  # colours of the lines; others take turns
OTHERS = (ORANGE, "#f0e442", PINK, "white")


@styled
def class_sheet(
    samples: Mapping[str, Sequence[NDArray[np.uint8] | None]],
    counts: Mapping[str, int],
    nouns: tuple[str, str] = ("class", "picture"),
) -> Figure:
    """Some pictures of some classes: uint8 [3, H, W], or None for one that cannot be read, which is crossed out.

    counts: pictures of every class, those that are not shown too; nouns: what both are, such as clips and frames.
    """
    lines = {name: fitted_text(name, 2.5 * CELL, NAME, lines=2) for name in samples}
    left = MARGIN + 1.1 * max(text_width(line, NAME) for own in lines.values() for line in own) + 12
    across = max(map(len, samples.values()))
    width, pitch, top = max(left + across * (CELL + GAP) + 40 + MARGIN, 360.0), CELL + GAP, 54.0
    height = top + len(samples) * pitch + MARGIN
    figure = Figure(figsize=(width / 72, height / 72), layout="none")  # type: ignore[arg-type]
    ax = figure.add_axes((0, 0, 1, 1))
    ax.axis("off")
    classes, pictures = wording.count(len(counts), nouns[0]), wording.count(sum(counts.values()), nouns[1])
    ax.text(MARGIN, 22, f"{classes}, {pictures}", size=13, weight="bold", va="center")
    if (hidden := len(counts) - len(samples)) > 0:
        ax.text(
            MARGIN, 40, f"{wording.count(hidden, f'further {nouns[0]}')} not drawn", size=9, color=MUTED, va="center"
        )
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


@styled
def frame_sheet(frames: Sequence[Frame], captions: Sequence[str] | None = None) -> Figure:
    """Annotated frames with their lines and the names of these; a picture that cannot be read is crossed out.

    captions: one below each frame, the name of its picture if not said.

    Of more than 60 frames, 60 at equal distances are drawn.  Raises HandfulError if there are none.
    """
    if not frames:
        raise HandfulError("There are no annotated frames to draw.")
    captions = captions or [PurePath(frame.picture.name).name for frame in frames]
    shown = [
        (frames[i], captions[i]) for i in np.linspace(0, len(frames) - 1, min(len(frames), FRAMES)).round().astype(int)
    ]
    tall = WIDE * max(frame.height / frame.width for frame, _ in shown)
    top, pitch = 54.0, (WIDE + GAP, tall + 18.0)
    columns = min(COLUMNS, max(len(shown), 2))
    width = 2 * MARGIN + columns * pitch[0] - GAP
    height = top + -(-len(shown) // columns) * pitch[1] + MARGIN
    figure = Figure(figsize=(width / 72, height / 72), layout="none")  # type: ignore[arg-type]
    ax = figure.add_axes((0, 0, 1, 1))
    ax.axis("off")
    names = list(dict.fromkeys(name for frame in frames for name in frame.lines))
    others = iter(OTHERS * len(names))
    colours = {name: RAILS.get(name) or next(others) for name in names}
    hidden = f", {len(shown)} of them drawn" if len(shown) < len(frames) else ""
    ax.text(MARGIN, 22, f"{wording.count(len(frames), 'frame')}{hidden}", size=13, weight="bold", va="center")
    (told,) = fitted_text("lines: " + ", ".join(names or ["none"]), width - 2 * MARGIN, 9, lines=1)
    ax.text(MARGIN, 40, told, size=9, color=MUTED, va="center")
    for i, (frame, caption) in enumerate(shown):
        x, y = MARGIN + i % columns * pitch[0], top + i // columns * pitch[1]
        scale = WIDE / frame.width
        try:
            extent = (x, x + WIDE, y + frame.height * scale, y)
            ax.imshow(frame.pixels(), extent=extent, aspect="auto", zorder=2)
        except HandfulError:
            _crossed_out(ax, x, y, WIDE, frame.height * scale)
        for name, line in sorted(frame.lines.items(), key=lambda drawn: drawn[0] in RAILS):  # these on top
            at = (line + 0.5) * scale + (x, y)  # a pixel's centre lies half a pixel inside
            ax.plot(*at.T, color=colours[name], lw=0.9, zorder=3)
        title = fitted_text(caption, WIDE, 7.5, lines=1)[0]
        ax.text(x, y + frame.height * scale + 3, title, size=7.5, color=MUTED, va="top")
    ax.set(xlim=(0, width), ylim=(height, 0))
    return figure


def _crossed_out(ax: Any, x: float, y: float, width: float = CELL, height: float = CELL) -> None:
    """A cell whose picture cannot be read."""
    ax.fill([x, x + width, x + width, x], [y, y, y + height, y + height], color=PANEL)
    ax.plot([x, x + width], [y, y + height], color=WRONG, lw=1.4)
    ax.plot([x, x + width], [y + height, y], color=WRONG, lw=1.4)
