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
from handful.errors import HandfulError
from handful.evaluation import interval
from handful.report.sheet import contact_sheet
from handful.report.style import BLUE, GREEN, INK, MUTED, SERIES, SKY, Floats, as_floats, png, save, styled

if TYPE_CHECKING:
    from handful.report.style import Array

__all__ = [
    "adaptation_curve",
    "contact_sheet",
    "forest",
    "learning_curve",
    "png",
    "save",
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

    curves: label -> (mean [S + 1], ci95 [S + 1] or None); a metric of fractions is given as fractions.
    """
    if not curves:
        raise HandfulError("adaptation_curve needs at least one curve, not 0.")
    figure = Figure(figsize=(5.6, 3.5))
    ax, factor = figure.subplots(), wording.scale(metric)
    for i, (label, (values, width)) in enumerate(curves.items()):
        mean = as_floats(values)
        ci = np.zeros_like(mean) if width is None else as_floats(width)
        _band(
            ax,
            np.arange(len(mean), dtype=np.float64),
            mean * factor,
            ci * factor,
            SERIES[i % len(SERIES)],
            label,
        )
        change = f"{wording.measured(mean[0], None, metric)} → {wording.measured(mean[-1], ci[-1], metric)}"
        title = f"{wording.count(len(mean) - 1, 'inner step')}: {change}"
    ax.set_title(title if len(curves) == 1 else f"{len(curves)} runs, adapted step by step")
    if len(curves) > 1:
        ax.legend(loc="best")
    for i, (label, value) in enumerate(sorted((floors or {}).items(), key=lambda floor: floor[1])):
        ax.axhline(value * factor, color=MUTED, linewidth=1.1, linestyle=(0, (4, 3)), zorder=1)
        below = i == 0 and len(floors or {}) > 1  # so that two floors that are close can both be read
        ax.annotate(
            f"{label} {wording.measured(value, None, metric)}",
            (1, value * factor),
            (0, -3 if below else 3),
            xycoords=("axes fraction", "data"),
            textcoords="offset points",
            ha="right",
            va="top" if below else "bottom",
            color=MUTED,
            fontsize=8.5,
        )
    shown = [as_floats(values) for values, _ in curves.values()]
    if _orders(np.concatenate([*shown, list((floors or {}).values())]), metric):
        _logarithmic(ax.yaxis)
    ax.margins(y=0.1)
    ax.set_xlabel("inner steps on the support set")
    ax.set_ylabel(wording.axis(metric))
    ax.xaxis.set_major_locator(MaxNLocator(10, integer=True))
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
    lines = [
        ("mean", mean, ci, BLUE),
        *((label, value, 0.0, MUTED) for label, value in (floors or {}).items()),
    ]
    for _, value, _, _ in lines[1:]:
        ax.axvline(value * factor, color=MUTED, linewidth=1.3, linestyle=(0, (4, 3)))
    ax.set_ylim(0, counts.max() * (1.08 + 0.1 * len(lines)))
    place = ax.transData + ax.transAxes.inverted()
    for i, (label, value, half, colour) in enumerate(lines):  # a row of text for each line: none covers another
        left = place.transform((value * factor, 0))[0] < 0.5
        ax.annotate(
            f"{label} {wording.measured(value, half, metric)}",
            (value * factor, 1 - 0.085 * i),
            (4 if left else -4, 0),
            xycoords=("data", "axes fraction"),
            textcoords="offset points",
            ha="left" if left else "right",
            va="top",
            color=colour,
            fontsize=8.5,
        )
    ax.set_title(f"{wording.measured(mean, ci, metric)} over {wording.count(len(values), 'task')}")
    ax.set_xlabel(wording.axis(metric, "of a task"))
    ax.set_ylabel("tasks")
    ax.yaxis.set_major_locator(MaxNLocator(6, integer=True))
    ax.grid(axis="x", visible=False)
    return figure


@styled
def forest(rows: Sequence[tuple[str, float, float]], metric: str = "accuracy") -> Figure:
    """Paired differences with their 95 % intervals about the zero line, drawn top down.

    rows: (label, mean, ci95), accuracies as fractions, drawn as percentage points.  An interval that
    holds zero is hollow and grey.
    """
    if not rows:
        raise HandfulError("forest needs at least one difference, not 0.")
    factor = wording.scale(metric)
    figure = Figure(figsize=(7.2, 1.35 + 0.36 * len(rows)))
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
            va="center",
            color=colour,
            annotation_clip=False,
        )
    ax.set_yticks(range(len(rows)), [label for label, _, _ in rows])
    ax.set_ylim(len(rows) - 0.4, -0.6)
    ax.set_title(f"{clear} of {wording.count(len(rows), 'paired difference')} clear of zero")
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
