"""One look for every picture: the palette, the style, and what draws and writes a figure in it.

Colours are Okabe and Ito's, which colour-blind readers can tell apart; what a colour says is also said by a
width, a shape or a word.
"""

from __future__ import annotations

import io
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import cache, wraps
from pathlib import Path
from typing import TYPE_CHECKING, Any, ParamSpec, TypeAlias

import matplotlib.style
import numpy as np
from matplotlib.figure import Figure
from matplotlib.font_manager import get_font_names
from numpy.typing import ArrayLike, NDArray

from handful.files import write_bytes

if TYPE_CHECKING:
    import torch

    Array: TypeAlias = ArrayLike | torch.Tensor

P = ParamSpec("P")
Floats: TypeAlias = NDArray[np.float64]

INK, MUTED, LINE, GRID, PANEL = "#1f2933", "#667080", "#9aa3ad", "#e6e8eb", "#f1f4f7"
BLUE, ORANGE, GREEN, PINK, SKY = "#0072b2", "#d98e00", "#009e73", "#cc79a7", "#56b4e9"
RIGHT, WRONG = (
    "#7cc4ae",
    "#d0202e",
)  # frames of the contact sheet; the wrong one is also thicker, and captioned
SERIES = (BLUE, ORANGE, GREEN, PINK, SKY, INK)
OTHER_SCRIPTS = (
    "Noto Sans CJK SC",
    "Noto Sans CJK JP",
    "PingFang SC",
    "Microsoft YaHei",
    "WenQuanYi Zen Hei",
)
DOTS_PER_INCH = 200
STYLE: dict[str, Any] = {
    "font.size": 9.5,
    "text.color": INK,
    "text.parse_math": False,  # a class may be called "$5"
    "figure.facecolor": "white",
    "figure.constrained_layout.use": True,
    "figure.constrained_layout.h_pad": 0.1,
    "figure.constrained_layout.w_pad": 0.1,
    "axes.edgecolor": LINE,
    "axes.labelcolor": INK,
    "axes.linewidth": 0.8,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.axisbelow": True,
    "axes.grid": True,
    "axes.titlesize": 10.5,
    "axes.titleweight": "bold",
    "axes.titlelocation": "left",
    "axes.titlepad": 9,
    "grid.color": GRID,
    "grid.linewidth": 0.7,
    "lines.linewidth": 1.8,
    "lines.solid_capstyle": "round",
    "xtick.color": LINE,
    "ytick.color": LINE,
    "xtick.labelcolor": INK,
    "ytick.labelcolor": INK,
    "xtick.labelsize": 9,
    "ytick.labelsize": 9,
    "legend.frameon": False,
    "legend.fontsize": 9,
}


def styled(draw: Callable[P, Figure]) -> Callable[P, Figure]:
    """Draws in the house style, whatever the reader's matplotlibrc says, and leaves no setting behind."""

    @wraps(draw)
    def drawn(*args: P.args, **kwargs: P.kwargs) -> Figure:
        fonts = {"font.family": font_families()}
        with matplotlib.style.context(["default", STYLE, fonts]), _boxes_for_missing_letters():
            figure = draw(*args, **kwargs)
            figure.draw_without_rendering()  # ticks are made when first drawn, and take their style then
            return figure

    return drawn


def png(figure: Figure) -> bytes:
    """The figure as a PNG file."""
    buffer = io.BytesIO()
    with _boxes_for_missing_letters():
        figure.savefig(buffer, format="png", dpi=DOTS_PER_INCH)
    return buffer.getvalue()


def save(figure: Figure, path: Path) -> Path:
    """Writes the figure as a PNG file, under a temporary name first; gives `path` back."""
    write_bytes(path, png(figure))
    return path


def as_array(values: Array) -> NDArray[Any]:
    """A numpy array of anything like one, such as a tensor that needs a gradient or lies on a GPU."""
    detach = getattr(values, "detach", None)
    return np.asarray(values if detach is None else detach().cpu())


def as_floats(values: Array) -> Floats:
    """The same in float64."""
    return as_array(values).astype(np.float64)


@cache
def font_families() -> list[str]:
    """DejaVu, which matplotlib ships, and what is installed for the scripts that it lacks."""
    return ["DejaVu Sans", *(family for family in OTHER_SCRIPTS if family in get_font_names())]


@contextmanager
def _boxes_for_missing_letters() -> Iterator[None]:
    """A letter that no font has is drawn as a box; a warning for each helps nobody."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="Glyph .* missing from")
        yield
