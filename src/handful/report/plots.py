"""The pictures: functions of plain arrays that return a matplotlib Figure.  No pyplot: no display, no state.

Accuracies come in as fractions and are drawn as percentages.  Errors are drawn on a logarithmic axis, on which halving
one looks alike wherever it happens: they fall by orders of magnitude, and a few tasks hold most of the error.  Titles
state what was found, so that a picture can be read without its caption.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np
from matplotlib.axes import Axes
from matplotlib.axis import Axis, XAxis
from matplotlib.figure import Figure
from matplotlib.ticker import LogLocator, MaxNLocator, NullFormatter

from handful import wording
from handful.comparison import clear_of_zero
from handful.errors import HandfulError
from handful.evaluation import interval
from handful.report.rates import step_sizes
from handful.report.sheet import contact_sheet
from handful.report.style import BLUE, GREEN, INK, MUTED, SERIES, SKY, Floats, as_floats, png, save, styled

if TYPE_CHECKING:
    from handful.report.style import Array

ROW = 0.085  # share of the frame that a row of text takes
ONE_LINE = 28  # letters of a difference that need no second line
FLAT = 0.25  # steps that span less than this share of the whole curve get a panel of their own

__all__ = [
    "adaptation_curve",
    "contact_sheet",
    "forest",
    "learning_curve",
    "png",
    "save",
    "step_sizes",
    "task_histogram",
]


@styled
def learning_curve(
    steps: Array,
    loss: Array,
    val_steps: Array,
    val_mean: Array,
    val_ci95: Array,
    metric: str = "accuracy",
) -> Figure:
    """Training loss (raw, and its running mean) and validation with its 95 % band, side by side.

    steps [n], loss [n]; val_steps [m], val_mean [m], val_ci95 [m] in the unit of the metric, accuracies as
    fractions.  Without a validation (m = 0) there is the loss alone.
    """
    x, raw = as_floats(steps), as_floats(loss)
    at, mean, ci = as_floats(val_steps), as_floats(val_mean), as_floats(val_ci95)
    x, raw = x[np.isfinite(raw)], raw[np.isfinite(raw)]
    figure = Figure(figsize=(9.2 if len(at) else 5.2, 3.3))
    axes = figure.subplots(1, 2 if len(at) else 1, squeeze=False)[0]

    smooth = _running_mean(raw, len(raw) // 50)
    axes[0].plot(x, raw, color=BLUE, alpha=0.25, linewidth=0.7)
    axes[0].plot(x, smooth, color=BLUE)
    if len(raw):
        axes[0].set_title(f"Training loss {smooth[0]:.3g} → {smooth[-1]:.3g}")
        low, high = min(smooth.min(), np.percentile(raw, 0.5)), max(smooth.max(), np.percentile(raw, 99.5))
        # a few spikes leave the frame rather than flatten the curve
        if _orders(raw, metric):
            _logarithmic(axes[0].yaxis)
            axes[0].set_ylim(low / 1.15, high * 1.15)
        else:
            margin = 0.06 * (high - low or 1.0)
            axes[0].set_ylim(0 if 0 <= low < high - low else low - margin, high + margin)
    axes[0].set_ylabel("training loss")

    if len(at):
        factor = wording.scale(metric)
        best = int(np.argmin(mean) if wording.lower_is_better(metric) else np.argmax(mean))
        _band(axes[1], at, mean * factor, ci * factor, GREEN)
        if _orders(mean, metric):
            _logarithmic(axes[1].yaxis)
            axes[1].set_ylim(bottom=max((mean - ci).min() / 1.15, mean.min() / 3))  # a band may reach below zero
        axes[1].plot(at[best], mean[best] * factor, "o", markersize=9, mfc="none", mec=INK, mew=1.2)
        said = wording.measured(mean[best], ci[best], metric)
        axes[1].set_title(f"Best validation {said} at step {at[best]:,.0f}")
        axes[1].set_ylabel(f"validation {wording.axis(metric)}")
    for ax in axes:
        ax.set_xlabel("training step")
        ax.xaxis.set_major_locator(MaxNLocator(6, integer=True))
        ax.xaxis.set_major_formatter("{x:,.0f}")
        ax.margins(x=0.03)
    return figure


@styled
def adaptation_curve(
    curves: Mapping[str, tuple[Array, Array | None]],
    metric: str = "accuracy",
    floors: Mapping[str, float] | None = None,
) -> Figure:
    """The metric on the queries after 0 to S inner steps: a line and a 95 % band for each run, floors dashed.

    curves: label -> (mean [S + 1], ci95 [S + 1] or None); a metric of fractions is given as fractions.  A curve of
    one value has no inner steps and is dotted across.  Where the first step outweighs all that follows, several
    runs get a second panel from step 1 on; floors that would flatten the curves are named at the edge instead.
    """
    if not curves:
        raise HandfulError("adaptation_curve needs at least one curve, not 0.")
    factor, several = wording.scale(metric), len(curves) > 1
    drawn: dict[str, tuple[Floats, Floats]] = {}
    for label, (values, width) in curves.items():
        mean = as_floats(values) * factor
        drawn[label] = mean, np.zeros_like(mean) if width is None else as_floats(width) * factor
    everything = np.concatenate([*(mean for mean, _ in drawn.values()), list((floors or {}).values())])
    orders = _orders(everything, metric)
    zoomed = several and not orders and _flattened(drawn)
    figure = Figure(figsize=(9.2 if zoomed else 5.6, 3.5 + 0.2 * len(drawn) * several))
    axes = figure.subplots(1, 2 if zoomed else 1, squeeze=False)[0]
    for first, ax in enumerate(axes):
        _adaptation_lines(ax, drawn, first)
        ax.set_xlabel("inner steps on the support set")
        ax.xaxis.set_major_locator(MaxNLocator(10, integer=True))
    axes[0].set_ylabel(wording.axis(metric))
    reach = (0.0, math.inf) if orders else _reach(drawn, 0)  # on a logarithmic axis every floor is near
    if orders:
        axes[0].autoscale(axis="y")
        _logarithmic(axes[0].yaxis)
    _mark_floors(axes[0], {name: value * factor for name, value in (floors or {}).items()}, reach, metric)
    if several:
        axes[0].set_title(f"{len(drawn)} runs, adapted step by step")
        figure.legend(*axes[0].get_legend_handles_labels(), loc="outside lower left")
    else:
        ((mean, ci),) = drawn.values()
        start = wording.measured(mean[0] / factor, None, metric)
        end = wording.measured(mean[-1] / factor, ci[-1] / factor, metric)
        axes[0].set_title(f"{wording.count(len(mean) - 1, 'inner step')}: {start} → {end}")
    if zoomed:
        axes[1].set_title("The same from step 1 on")
    return figure


@styled
def task_histogram(per_task: Array, floors: Mapping[str, float] | None = None, metric: str = "accuracy") -> Figure:
    """How the tasks spread around their mean, with its 95 % interval and the floors as vertical lines.

    per_task [T] and floors (name -> mean) in the unit of the metric, accuracies as fractions.
    """
    values, factor = as_floats(per_task), wording.scale(metric)
    values = values[np.isfinite(values)]
    if not len(values):
        raise HandfulError("task_histogram needs at least one finite value, not 0.")
    mean, ci = interval95(values)
    figure = Figure(figsize=(6.4, 3.5))
    ax = figure.subplots()
    orders = _orders(values, metric)
    counts, edges = np.histogram(values, bins=_decades(values) if orders else _bins(values))
    ax.bar(edges[:-1] * factor, counts, np.diff(edges) * factor, align="edge", color=SKY, ec="white", lw=0.6)
    if orders:
        _logarithmic(ax.xaxis)
    ax.axvspan((mean - ci) * factor, (mean + ci) * factor, color=BLUE, alpha=0.25, linewidth=0)
    ax.axvline(mean * factor, color=BLUE, linewidth=1.8)
    nearest = sorted((floors or {}).items(), key=lambda floor: abs(floor[1] - mean))
    ax.set_ylim(0, counts.max() * (1.18 + 0.1 * len(nearest)))
    for row, (_, value) in enumerate(nearest, start=1):  # the farther a floor, the lower its line ends
        ax.axvline(value * factor, 0, 1 - ROW * row, color=MUTED, linewidth=1.3, linestyle=(0, (4, 3)))
    ax.autoscale_view()  # matplotlib puts it off, and labels are placed by the limits
    _label_line(ax, 0, f"mean {wording.measured(mean, ci, metric)}", mean * factor, ci * factor, BLUE, mean * factor)
    for row, (label, value) in enumerate(nearest, start=1):
        text = f"{label} {wording.measured(value, None, metric)}"
        _label_line(ax, row, text, value * factor, 0.0, MUTED, mean * factor)
    ax.set_title(f"{wording.measured(mean, ci, metric)} over {wording.count(len(values), 'task')}")
    ax.set_xlabel(wording.axis(metric, "of a task"))
    ax.set_ylabel("tasks")
    ax.yaxis.set_major_locator(MaxNLocator(6, integer=True))
    ax.grid(axis="x", visible=False)
    return figure


@styled
def forest(rows: Sequence[tuple[str, float, float]], metric: str = "accuracy") -> Figure:
    """Paired differences with their 95 % intervals about the zero line, drawn top down.

    rows: (label, mean, ci95), accuracies as fractions, drawn as percentage points.  An interval that holds zero is
    hollow and grey.
    """
    if not rows:
        raise HandfulError("forest needs at least one difference, not 0.")
    factor = wording.scale(metric)
    labels = [label if len(label) <= ONE_LINE else label.replace(" − ", "\n− ") for label, _, _ in rows]
    lines = [line for label in labels for line in label.splitlines()]
    figure = Figure(figsize=(5.4 + 0.08 * max(map(len, lines)), 1.35 + 0.2 * (len(rows) + len(lines))))
    ax = figure.subplots()
    ax.axvline(0, color=INK, linewidth=1.1)
    clear = 0
    for y, (_, mean, ci) in enumerate(rows):
        beyond = abs(mean) > ci
        clear += beyond
        colour = BLUE if beyond else MUTED
        ax.errorbar(
            mean * factor,
            y,
            xerr=ci * factor,
            fmt="o",
            color=colour,
            mfc=colour if beyond else "white",
            markersize=6.5,
            elinewidth=1.8,
            capsize=3.5,
            capthick=1.4,
        )
        ax.annotate(
            wording.measured(mean, ci, metric, signed=True).removesuffix(" points"),
            (1.02, y),
            xycoords=("axes fraction", "data"),
            va="center_baseline",
            color=colour,
            annotation_clip=False,
        )
    ax.set_yticks(range(len(rows)), labels)
    ax.set_ylim(len(rows) - 0.4, -0.6)
    ax.set_title(clear_of_zero(clear, len(rows)))
    ax.set_xlabel(
        f"difference in {wording.name(metric)}"
        + (" (percentage points)" if factor == 100 else "")
        + (" · lower is better" if wording.lower_is_better(metric) else "")
    )
    ax.tick_params(axis="y", length=0)
    ax.spines["left"].set_visible(False)
    ax.grid(axis="y", visible=False)
    return figure


def interval95(values: Floats) -> tuple[float, float]:
    """Mean of values [T] and the half width of its 95 % interval, 0 if there is but one."""
    return float(values.mean()), float(interval(values)) if len(values) > 1 else 0.0


def _running_mean(values: Floats, reach: int) -> Floats:
    """Mean over up to `reach` neighbours on each side: centred, so that the smooth curve does not lag."""
    total = np.concatenate([[0.0], np.cumsum(values)])
    index = np.arange(len(values))
    low, high = np.maximum(index - reach, 0), np.minimum(index + reach + 1, len(values))
    smooth: Floats = (total[high] - total[low]) / (high - low)
    return smooth


def _band(ax: Axes, x: Floats, mean: Floats, ci: Floats, colour: str, label: str | None = None) -> None:
    """A line through the means, with dots if they are few, and the band mean ± ci."""
    ax.fill_between(x, mean - ci, mean + ci, color=colour, alpha=0.18, linewidth=0)
    ax.plot(x, mean, color=colour, marker="o" if len(x) <= 12 else None, markersize=4, label=label)


def _bins(values: Floats, most: int = 40) -> Floats:
    """Edges of at most `most` + 1 bins, each as wide as a whole number of steps between neighbouring values.

    A task's accuracy is a multiple of 1 / queries; bins of any other width hold now one, now two such values,
    and draw a comb that is not in the data.
    """
    distinct = np.unique(values.round(6))
    if len(distinct) == 1:
        one: Floats = distinct[0] + np.array([-0.01, 0.01]) * (abs(distinct[0]) or 1.0)
        return one
    step = np.diff(distinct).min()
    spread = distinct[-1] - distinct[0]
    width = step * math.ceil(round(spread / step) / most)
    edges: Floats = distinct[0] - step / 2 + width * np.arange(math.ceil((spread + step / 2) / width) + 1)
    return edges


Curves = Mapping[str, tuple[Floats, Floats]]


def _reach(curves: Curves, first: int) -> tuple[float, float]:
    """Lowest and highest end of a band from step `first` on; a curve of one value counts at every step."""
    parts = [(mean[first:], ci[first:]) if len(mean) > 1 else (mean, ci) for mean, ci in curves.values()]
    ends = np.concatenate([[*(mean - ci), *(mean + ci)] for mean, ci in parts])
    ends = ends[np.isfinite(ends)]  # a run that diverged
    return (float(ends.min()), float(ends.max())) if len(ends) else (0.0, 1.0)


def _flattened(curves: Curves) -> bool:
    """Whether what follows the first step spans little of the whole."""
    (low, high), (later_low, later_high) = _reach(curves, 0), _reach(curves, 1)
    return any(len(mean) > 2 for mean, _ in curves.values()) and later_high - later_low < FLAT * (high - low)


def _adaptation_lines(ax: Axes, curves: Curves, first: int) -> None:
    """The curves from step `first` on, and a y range of their own."""
    for i, (label, (mean, ci)) in enumerate(curves.items()):
        colour = SERIES[i % len(SERIES)]
        if len(mean) > 1:
            steps = np.arange(first, len(mean), dtype=np.float64)
            _band(ax, steps, mean[first:], ci[first:], colour, label)
        else:
            ax.axhspan(mean[0] - ci[0], mean[0] + ci[0], color=colour, alpha=0.12, linewidth=0)
            ax.axhline(mean[0], color=colour, linestyle=(0, (1, 1.5)), label=f"{label} (no inner steps)")
    low, high = _reach(curves, first)
    margin = 0.08 * (high - low or abs(high) or 1.0)
    ax.set_ylim(low - margin, high + margin)


def _mark_floors(ax: Axes, floors: Mapping[str, float], reach: tuple[float, float], metric: str) -> None:
    """Floors as dashed lines; those farther off than the curves are high are named at the edge, with an arrow."""
    height = reach[1] - reach[0]
    low, high = reach[0] - height, reach[1] + height
    said = {name: f"{name} {wording.measured(v / wording.scale(metric), None, metric)}" for name, v in floors.items()}
    ordered = sorted(floors, key=floors.__getitem__)
    near = [name for name in ordered if low <= floors[name] <= high]
    for i, name in enumerate(near):
        ax.axhline(floors[name], color=MUTED, linewidth=1.1, linestyle=(0, (4, 3)), zorder=1)
        below = i == 0 and len(near) > 1  # so that two floors that are close can both be read
        _at_the_right(ax, said[name], (floors[name], "data"), -3 if below else 3)
    under = [name for name in ordered if floors[name] < low]
    over = [name for name in reversed(ordered) if floors[name] > high]
    for i, name in enumerate(under):
        _at_the_right(ax, f"↓ {said[name]}", (0, "axes fraction"), 3 + 11 * i)
    for i, name in enumerate(over):
        _at_the_right(ax, f"↑ {said[name]}", (1, "axes fraction"), -3 - 11 * i)
    if ax.get_yscale() == "log":
        return
    bottom = min([ax.get_ylim()[0], *(floors[name] - 0.1 * height for name in near)])
    top = max([ax.get_ylim()[1], *(floors[name] + 0.1 * height for name in near)])
    row = 0.07 * (top - bottom)
    ax.set_ylim(bottom - row * len(under), top + row * len(over))


def _at_the_right(ax: Axes, text: str, place: tuple[float, str], points: float) -> None:
    """A grey note at the right edge, above its place or, if `points` is negative, below."""
    ax.annotate(
        text,
        (1, place[0]),
        (0, points),
        xycoords=("axes fraction", place[1]),
        textcoords="offset points",
        ha="right",
        va="top" if points < 0 else "bottom",
        color=MUTED,
        fontsize=8.5,
    )


def _label_line(ax: Axes, row: int, text: str, x: float, half: float, colour: str, mean: float) -> None:
    """The label of a vertical line of the histogram, in a row of its own, on the side away from the mean if it fits."""
    place = ax.transData + ax.transAxes.inverted()
    start, middle, end = (float(place.transform((value, 0))[0]) for value in (x - half, mean, x + half))
    width = (len(text) * 5.2 + 8) / 370  # of 8.5 point letters in the frame, both in points
    outward = x > mean or (x == mean and middle < 0.5)
    to_right = end + width < 1 if outward else start - width < 0
    ax.annotate(
        text,
        (x + half if to_right else x - half, 1 - ROW * row),
        (4 if to_right else -4, 0),
        xycoords=("data", "axes fraction"),
        textcoords="offset points",
        ha="left" if to_right else "right",
        va="top",
        color=colour,
        fontsize=8.5,
        bbox={"facecolor": "white", "edgecolor": "none", "alpha": 0.85, "pad": 0.8},
    )


def _decades(values: Floats, most: int = 40) -> Floats:
    """Edges of at most `most` bins of one width on a logarithmic axis; values > 0."""
    low, high = values.min(), values.max()
    if low == high:
        low, high = low / 1.1, high * 1.1
    edges: Floats = np.geomspace(low, high, min(most, math.ceil(math.sqrt(len(values)) * 1.5)) + 1)
    edges[0], edges[-1] = low, high  # rounding must not lose a task
    return edges


def _orders(values: Floats, metric: str) -> bool:
    """Whether an axis of these values is logarithmic: errors, all of them above zero."""
    return wording.lower_is_better(metric) and bool((values > 0).all())


def _logarithmic(axis: Axis) -> None:
    """Make an axis logarithmic, with ticks such as 0.1, 0.2, 0.5, 1, and at powers of ten if there are many."""
    axis.axes.set(**{"xscale" if isinstance(axis, XAxis) else "yscale": "log"})
    low, high = axis.get_view_interval()
    axis.set_major_locator(LogLocator(subs=(1, 2, 5) if high < 1000 * low else (1,)))
    axis.set_major_formatter("{x:g}")
    axis.set_minor_formatter(NullFormatter())
