"""The picture of learned step sizes: which parts of a network the inner loop moves, and how far.

A step size before a batch norm that removes its parameter (the bias of a convolution) gets no gradient and stays
where it started; such rates are drawn hollow and left out of the title.
"""

from __future__ import annotations

import math
import textwrap
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
from matplotlib.axes import Axes
from matplotlib.colors import LinearSegmentedColormap, Normalize, to_rgb
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator
from torch import nn

from handful.errors import HandfulError, unknown
from handful.inner_loop import GradientDescent
from handful.methods import GradientBased
from handful.report.style import BLUE, INK, LINE, MUTED, ORANGE, PANEL, Floats, as_floats, save, styled

if TYPE_CHECKING:
    from handful.report.style import Array
    from handful.run import Run

Per = Literal["tensor", "step", "element"]
KINDS = ("tensor", "step", "element")
DOMINANT = 3.0  # a step size more than this many times the next is where adaptation happens
NUMBERED_STEPS = 12  # more columns than this have no room for numbers
ROW, GAP, FRAME = 0.235, 0.35, 1.15  # inches a row; rows between layers; inches above and below the rows


@styled
def step_sizes(rates: Mapping[str, Array], per: Per, initial: float | None = None) -> Figure:
    """Learned step sizes, a row a parameter tensor in the given order, the tensors of a layer together.

    rates: `layer.parameter` -> one value [] (per="tensor"), one an inner step [S] (per="step": a row of numbers
    on colours), or one an entry, of any shape (per="element": median, quartiles and 5 to 95 %).  initial: where
    all of them started.
    """
    if per not in KINDS:
        raise unknown("kind of step sizes", per, KINDS)
    if not rates:
        raise HandfulError("step_sizes needs at least one step size, not 0.")
    values = {name: as_floats(rate).ravel() for name, rate in rates.items()}
    _check(values, per)
    moved = {name: initial is None or not np.allclose(v, initial, rtol=1e-5, atol=0) for name, v in values.items()}
    digits = _digits(values)
    rows = _rows(list(values))
    width = 7.4 if per != "step" else min(3.6 + 0.55 * len(next(iter(values.values()))), 9.2)
    figure = Figure(figsize=(width, FRAME + ROW * (max(rows.values()) + 1)))
    ax = figure.subplots()
    _label_rows(ax, rows)
    if per == "step":
        _heat(figure, ax, values, rows, moved, digits, initial)
    else:
        _whiskers(ax, values, rows, moved, digits, initial)
    title = textwrap.fill(_title(values, moved, per, digits, initial), round(11.5 * width))
    figure.suptitle(title, x=0.012, ha="left", size=10.5, weight="bold")
    return figure


def draw_step_sizes(run: Run) -> Path | None:
    """Draw the step sizes that a run's method has learned to `plots/step_sizes.png`; nothing if it learned none."""
    method = run.method
    if not (isinstance(method, GradientBased) and isinstance(method.optimizer, GradientDescent)):
        return None
    rates = {name: as_floats(rate) for name, rate in method.learned_rates().items()}
    if not rates:
        return None
    per: Any = method.optimizer.kind.removeprefix("per_")
    layers = layer_names(method.network)
    figure = step_sizes(
        {_renamed(name, layers): rate for name, rate in rates.items()},
        per,
        run.recipe.method.spec().get("inner_lr"),
    )
    return save(figure, run.folder / "plots" / "step_sizes.png")


def layer_names(network: nn.Module) -> dict[str, str]:
    """Dotted module name -> `conv 4`, `norm 4`, `linear 1` by kind and order, `head`; other kinds are not renamed."""
    names: dict[str, str] = {}
    counts: dict[str, int] = {}
    for dotted, module in network.named_modules():
        kind = _kind(module)
        if kind and list(module.parameters(recurse=False)) and dotted != "head":
            counts[kind] = counts.get(kind, 0) + 1
            names[dotted] = f"{kind} {counts[kind]}"
    return names


def _kind(module: nn.Module) -> str | None:
    name = type(module).__name__.lower()
    return next((kind for kind in ("conv", "norm", "linear") if kind in name), None)


def _renamed(name: str, layers: Mapping[str, str]) -> str:
    """`backbone.blocks.9.weight` -> `conv 4.weight`."""
    layer, _, parameter = name.rpartition(".")
    return f"{layers.get(layer, layer)}.{parameter}".lstrip(".")


def _check(values: Mapping[str, Floats], per: Per) -> None:
    """Refuse rates that are not finite, or not as many as `per` says."""
    for name, rate in values.items():
        if not np.isfinite(rate).all():
            raise HandfulError(f"The step size of {name} is not a finite number.")
    counts = {len(rate) for rate in values.values()}
    if (per == "tensor" and counts != {1}) or (per == "step" and len(counts) > 1):
        raise HandfulError(f"step_sizes with per={per!r} needs as many values for every tensor, not {sorted(counts)}.")


def _rows(names: list[str]) -> dict[str, float]:
    """The place of each tensor, counted in rows from the top, with a gap between layers."""
    places, place, last = {}, 0.0, _layer(names[0])
    for name in names:
        place += GAP if _layer(name) != last else 0.0
        places[name], last = place, _layer(name)
        place += 1
    return places


def _layer(name: str) -> str:
    return name.rpartition(".")[0]


def _words(name: str) -> str:
    """`conv 4.weight` -> `conv 4 weight`; a dotted layer keeps its dots."""
    layer, _, parameter = name.rpartition(".")
    return f"{layer} {parameter}".strip() if "." not in layer else name


def _label_rows(ax: Axes, rows: Mapping[str, float]) -> None:
    """Names on the left, a pale band behind each layer."""
    for layer in dict.fromkeys(map(_layer, rows)):
        places = [place for name, place in rows.items() if _layer(name) == layer]
        ax.axhspan(min(places) - 0.5, max(places) + 0.5, color=PANEL, linewidth=0, zorder=0)
    ax.set_yticks(list(rows.values()), [_words(name) for name in rows])
    ax.set_ylim(max(rows.values()) + 0.5, -0.5)
    ax.tick_params(axis="y", length=0)
    ax.spines["left"].set_visible(False)
    ax.grid(axis="y", visible=False)


def _whiskers(
    ax: Axes,
    values: Mapping[str, Floats],
    rows: Mapping[str, float],
    moved: Mapping[str, bool],
    digits: int,
    initial: float | None,
) -> None:
    """A bar from zero to a single rate; median, quartiles and 5 to 95 % of many."""
    ax.axvline(0, color=INK, linewidth=1.1, zorder=1)
    if initial is not None:
        ax.axvline(initial, color=MUTED, linewidth=1.1, linestyle=(0, (4, 3)), zorder=1)
        ax.annotate(
            f"start {initial:g}",
            (initial, 1),
            (0, 3),
            xycoords=("data", "axes fraction"),
            textcoords="offset points",
            ha="center",
            color=MUTED,
            fontsize=8.5,
        )
    single = all(len(rate) == 1 for rate in values.values())
    room = 8 + 5.5 * max(len(_number(float(np.median(rate)), digits)) for rate in values.values())
    for name, rate in values.items():
        low, lower, middle, upper, high = np.percentile(rate, (5, 25, 50, 75, 95))
        colour = (BLUE if middle >= 0 else ORANGE) if moved[name] else LINE
        ends = [(min(middle, 0.0), max(middle, 0.0), 3.2)] if single else [(low, high, 1.1), (lower, upper, 4.2)]
        for left, right, thick in ends:
            alpha = 0.45 if single or thick > 2 else 1.0
            ax.hlines(rows[name], left, right, color=colour, linewidth=thick, alpha=alpha, zorder=2)
        face = colour if moved[name] else "white"
        ax.plot(middle, rows[name], "o", color=colour, mfc=face, markersize=5.5, mew=1.3, zorder=3)
        ax.annotate(
            _number(float(middle), digits),
            (1, rows[name]),
            (room, 0),
            xycoords=("axes fraction", "data"),
            textcoords="offset points",
            ha="right",
            va="center_baseline",
            color=colour if moved[name] else MUTED,
            fontsize=8.5,
            annotation_clip=False,
        )
    said = "learned step size" if single else "learned step sizes: median, middle half (thick), 5 to 95 % (thin)"
    ax.set_xlabel(said + ("" if all(moved.values()) else " · hollow: still where it started"))
    ax.xaxis.set_major_locator(MaxNLocator(8, steps=[1, 2, 5, 10]))
    ax.margins(x=0.05)


def _heat(
    figure: Figure,
    ax: Axes,
    values: Mapping[str, Floats],
    rows: Mapping[str, float],
    moved: Mapping[str, bool],
    digits: int,
    initial: float | None,
) -> None:
    """A row of S cells a tensor, blue above zero and orange below it; the start is marked on the scale."""
    steps = len(next(iter(values.values())))
    reach = max(float(np.abs(rate).max()) for rate in values.values()) or 1.0
    colours = LinearSegmentedColormap.from_list("signed", [ORANGE, "white", BLUE])
    norm = Normalize(-reach, reach)
    for name, rate in values.items():
        extent = (0.5, steps + 0.5, rows[name] + 0.5, rows[name] - 0.5)
        cells = ax.imshow(rate[None], extent=extent, aspect="auto", cmap=colours, norm=norm, zorder=1)
        for step, value in enumerate(rate, start=1):
            if steps <= NUMBERED_STEPS:
                dark = np.dot(to_rgb(colours(norm(value))), (0.3, 0.59, 0.11)) < 0.55
                colour = "white" if dark else INK if moved[name] else LINE
                said = _number(float(value), digits)
                ax.text(step, rows[name], said, ha="center", va="center_baseline", size=8, color=colour)
    ax.set_xlim(0.5, steps + 0.5)
    ax.set_ylim(max(rows.values()) + 0.5, -0.5)  # imshow has set its own
    ax.xaxis.set_major_locator(MaxNLocator(12, integer=True))
    ax.set_xlabel("inner step" + ("" if all(moved.values()) else " · grey: still where it started"))
    ax.grid(visible=False)
    ax.spines["bottom"].set_visible(False)
    ax.tick_params(axis="x", length=0)
    scale = figure.colorbar(cells, ax=ax, label="learned step size", aspect=30, pad=0.03)
    scale.outline.set_visible(False)
    scale.ax.axhline(0, color=INK, linewidth=1.1)
    if initial is not None and abs(initial) <= reach:
        scale.ax.axhline(initial, color=INK, linewidth=1.1, linestyle=(0, (2, 1.5)))
        scale.ax.annotate(
            f"start {initial:g}",
            (0, initial),
            (-3, 0),
            xycoords=("axes fraction", "data"),
            textcoords="offset points",
            ha="right",
            va="center",
            color=MUTED,
            fontsize=8,
            rotation=90,
        )


def _title(
    values: Mapping[str, Floats], moved: Mapping[str, bool], per: Per, digits: int, initial: float | None
) -> str:
    """What was found: the tensor with the largest step size, or the one whose entries differ most."""
    found = {name: rate for name, rate in values.items() if moved[name]}
    if not found:
        return f"No step size has moved from its start, {initial:g}"
    if per == "element":
        ends = {name: np.percentile(rate, (5, 95)) for name, rate in found.items()}
        widest = max(ends, key=lambda name: ends[name][1] - ends[name][0])
        low, high = (_number(float(end), digits) for end in ends[widest])
        return f"Step sizes differ most in {_words(widest)}: {low} to {high} (5 to 95 %)"
    peaks = {name: float(rate[np.abs(rate).argmax()]) for name, rate in found.items()}
    first, *others = sorted(peaks, key=lambda name: -abs(peaks[name]))
    said = _number(peaks[first], digits)
    if per == "step":
        said += f" in step {1 + int(np.abs(values[first]).argmax())}"
    if others and abs(peaks[first]) > DOMINANT * abs(peaks[others[0]]):
        which = "all others" if all(moved.values()) else "all others that moved"
        within = _number(abs(peaks[others[0]]), digits)
        return f"Adaptation happens in {_words(first)}: {said}; {which} within {within} of zero"
    return f"Largest step size: {_words(first)}, {said}"


def _digits(values: Mapping[str, Floats]) -> int:
    """Decimals that give the typical step size two digits, at least two."""
    typical = float(np.median(np.abs(np.concatenate(list(values.values())))))
    return min(max(1 - math.floor(math.log10(typical)), 2), 5) if typical > 0 else 2


def _number(value: float, digits: int) -> str:
    return f"{value:.{digits}f}".replace("-", "−")
