"""The contact sheet: one task as pictures, the mistakes in red."""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import cache
from typing import TYPE_CHECKING, Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.font_manager import FontProperties
from matplotlib.patches import Rectangle
from matplotlib.textpath import text_to_path
from numpy.typing import NDArray

from handful import wording
from handful.errors import HandfulError
from handful.report.style import LINE, MUTED, PANEL, RIGHT, WRONG, as_array, as_floats, font_families, styled

if TYPE_CHECKING:
    from handful.report.style import Array

CELL, GAP, MARGIN = (
    46.0,
    6.0,
    14.0,
)  # points: a picture's side, the space between two, the border of the sheet
CAPTION = 7.5  # points: the text under a picture
ACROSS = (5, 15)  # support and query pictures in a line before it is wrapped


@styled
def contact_sheet(
    support_x: Array,
    support_y: Array,
    query_x: Array,
    query_y: Array,
    predicted: Array,
    class_names: Sequence[str] | None = None,
    probability: Array | None = None,
) -> Figure:
    """One task as pictures: a row a class, its support pictures, then its queries, framed by right or wrong.

    support_x [S, C, H, W] and query_x [Q, C, H, W] in 0..1 with C = 1 or 3; support_y [S], query_y [Q] and
    predicted [Q] number the classes from 0; class_names: one a class; probability: [Q] of the class
    predicted, or [Q, N] of all.  A mistake has a thick red frame, and below it the name that it was given.
    """
    shown, asked = _pictures(support_x, "support_x"), _pictures(query_x, "query_x")
    given, truth, answer = (as_array(labels).astype(int) for labels in (support_y, query_y, predicted))
    if len(shown) != len(given) or not len(asked) == len(truth) == len(answer):
        raise HandfulError(
            f"contact_sheet has {len(shown)} support pictures for {len(given)} labels, and {len(asked)} "
            f"queries for {len(truth)} labels and {len(answer)} predictions; these must agree."
        )
    way = 1 + int(np.concatenate([given, truth, answer]).max(initial=0))
    names = [f"class {label + 1}" for label in range(way)] if class_names is None else list(class_names)
    if len(names) < way:
        raise HandfulError(f"contact_sheet has {len(names)} class names for {way} classes; give one a class.")
    sure = None if probability is None else as_floats(probability)
    if sure is not None and sure.ndim == 2:
        sure = sure[np.arange(len(answer)), answer]
    captions = [
        _caption(names[answer[i]], answer[i] == truth[i], None if sure is None else sure[i]) for i in range(len(answer))
    ]

    # The sheet is laid out in points, y downwards: name | support | queries, one line or more a class.
    rows = [(np.flatnonzero(given == label), np.flatnonzero(truth == label)) for label in range(way)]
    shots, asks = (max(1, min(most, max(len(row[part]) for row in rows))) for part, most in enumerate(ACROSS))
    labels = [fitted_text(name, 2 * CELL, 9.5, lines=3) for name in names[:way]]
    named = 1.1 * max(text_width(line, 9.5) for lines in labels for line in lines)  # bold is a tenth wider
    pitch, support_left = CELL + GAP, MARGIN + named + 12
    query_left = support_left + shots * pitch + 16
    width, top = max(query_left + asks * pitch - GAP + MARGIN, 420.0), 70.0

    figure = Figure(layout="none")  # type: ignore[arg-type]  # the stubs lack the value that switches layout off
    ax = figure.add_axes((0, 0, 1, 1))
    ax.axis("off")
    correct = int((answer == truth).sum())
    share = f" ({wording.measured(correct / len(answer))})" if len(answer) else ""
    ax.text(MARGIN, 22, f"{correct} of {len(answer)} named correctly{share}", size=13, weight="bold", va="center")
    ax.text(MARGIN, 40, _key(rows, correct < len(answer), sure is not None), size=9, color=MUTED, va="center")
    for left, text in (support_left, "support"), (query_left, "queries"):
        ax.text(left, top - 8, text, size=8.5, color=MUTED, va="bottom")

    y = bottom = top
    for label, (supports, queries) in enumerate(rows):
        text = "\n".join(labels[label])
        ax.text(support_left - 12, y + CELL / 2, text, size=9.5, weight="bold", ha="right", va="center")
        for line in range(max(1, math.ceil(len(supports) / shots), math.ceil(len(queries) / asks))):
            for column, i in enumerate(supports[line * shots : (line + 1) * shots]):
                draw_picture(ax, shown[i], support_left + column * pitch, y, LINE, 0.6)
            here = queries[line * asks : (line + 1) * asks]
            for column, i in enumerate(here):
                right, left = answer[i] == truth[i], query_left + column * pitch
                draw_picture(ax, asked[i], left, y, *((RIGHT, 1.0) if right else (WRONG, 2.4)))
                ax.text(
                    left + CELL / 2,
                    y + CELL + 3.5,
                    "\n".join(captions[i]),
                    size=CAPTION,
                    ha="center",
                    va="top",
                    color=MUTED if right else WRONG,
                    linespacing=1.1,
                )
            bottom = y + CELL + 1.25 * CAPTION * max((len(captions[i]) for i in here), default=0)
            y = bottom + GAP
        y += GAP
    height = bottom + MARGIN
    panel = (support_left - 6, top - 6), shots * pitch - GAP + 12, bottom - top + 12
    ax.add_patch(Rectangle(*panel, color=PANEL, linewidth=0, zorder=0))
    ax.set(xlim=(0, width), ylim=(height, 0))
    figure.set_size_inches(width / 72, height / 72)
    return figure


def _pictures(x: Array, name: str) -> NDArray[Any]:
    """[n, C, H, W] in 0..1 -> [n, H, W] or [n, H, W, 3], clipped."""
    pictures = as_array(x)
    if pictures.ndim != 4 or pictures.shape[1] not in (1, 3):
        raise HandfulError(f"{name} must be [n, C, H, W] with 1 or 3 channels, not {list(pictures.shape)}.")
    if pictures.dtype.kind != "f":
        raise HandfulError(f"{name} must be floats in 0..1, not {pictures.dtype}; divide bytes by 255.")
    last = pictures.clip(0, 1).transpose(0, 2, 3, 1)
    return last[..., 0] if last.shape[-1] == 1 else last


def draw_picture(ax: Axes, picture: NDArray[Any], left: float, top: float, colour: str, width: float) -> None:
    """One picture in its frame, fitted into a cell without a change of its proportions."""
    h, w = picture.shape[0] * CELL / max(picture.shape[:2]), picture.shape[1] * CELL / max(picture.shape[:2])
    x, y = left + (CELL - w) / 2, top + (CELL - h) / 2
    ax.imshow(picture, cmap="gray", vmin=0, vmax=1, extent=(x, x + w, y + h, y), aspect="auto", zorder=2)
    grow = width / 2  # the frame lies around the picture, not on it
    corner, size = (x - grow, y - grow), (w + width, h + width)
    ax.add_patch(Rectangle(corner, *size, fill=False, edgecolor=colour, linewidth=width, zorder=3))


def _caption(name: str, right: bool, probability: float | None) -> list[str]:
    """The lines under a query: what a mistake was named, and how sure the model was."""
    lines = [] if right else fitted_text(name, CELL + GAP - 3, CAPTION, lines=2)
    return lines if probability is None else [*lines, f"{100 * probability:.0f} %"]


def _key(rows: list[tuple[NDArray[Any], NDArray[Any]]], mistakes: bool, probability: bool) -> str:
    """The line under the title that says what is seen."""
    shots = sorted({len(support) for support, _ in rows})
    shot = str(shots[0]) if len(shots) == 1 else f"{shots[0]} to {shots[-1]}"
    parts = [f"{len(rows)}-way {shot}-shot"]
    if mistakes:
        parts.append("red: wrong, with the name it was given")
    if probability:
        parts.append("%: probability of the name given")
    return "  ·  ".join(parts)


@cache
def text_width(text: str, size: float) -> float:
    """Width in points."""
    font = FontProperties(family=font_families(), size=size)
    return float(text_to_path.get_text_width_height_descent(text, font, ismath=False)[0])


def fitted_text(text: str, width: float, size: float, lines: int) -> list[str]:
    """The text in at most `lines` lines no wider than `width` points, broken after a space, _, / or -.

    What has no such place is broken where it must be; what does not fit ends in an ellipsis.
    """
    fitted: list[str] = []
    while text and len(fitted) < lines:
        ending = "…" if len(fitted) == lines - 1 and text_width(text, size) > width else ""
        n = len(text)
        while n > 1 and text_width(text[:n].rstrip() + ending, size) > width:
            n -= 1
        if n < len(text) and not ending:
            n = max((i + 1 for i in range(n) if text[i] in " _/-"), default=n)
        fitted.append(text[:n].rstrip() + ending)
        text = "" if ending else text[n:].lstrip()
    return fitted
