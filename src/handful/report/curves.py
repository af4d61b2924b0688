"""Fitted curves: a few regression tasks, their support points, and the fit before and after each inner step."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from matplotlib.axes import Axes
from matplotlib.colors import LinearSegmentedColormap
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from handful import wording
from handful.errors import HandfulError
from handful.report.style import BLUE, INK, LINE, MUTED, ORANGE, Floats, as_floats, styled

if TYPE_CHECKING:
    from handful.report.style import Array

ACROSS = 3  # panels in a row
STEPS = LinearSegmentedColormap.from_list("steps", ["#cfe3f0", BLUE])  # first to last inner step


@styled
def fitted_curves(support_x: Array, support_y: Array, x: Array, y: Array, fits: Array) -> Figure:
    """A panel a task: the true curve, the support, the fit before (dashed) and after 1, ..., S inner steps.

    support_x, support_y [T, K]; x [T, n] ascending, y [T, n] the true curve on it; fits [S + 1, T, n] the predictions
    on it after 0 to S steps.  The title of a panel is the mean squared error over the curve, before and after.
    """
    points, values, at, truth, curves = map(as_floats, (support_x, support_y, x, y, fits))
    if curves.shape[1:] != truth.shape or at.shape != truth.shape or points.shape != values.shape:
        raise HandfulError(
            f"fitted_curves has fits {list(curves.shape)} for curves {list(truth.shape)} on x {list(at.shape)}, and "
            f"support {list(points.shape)} and {list(values.shape)}; these must agree."
        )
    tasks, steps = len(truth), len(curves) - 1
    rows, columns = -(-tasks // ACROSS), min(tasks, ACROSS)
    figure = Figure(figsize=(3.1 * columns, 2.45 * rows + 0.55))
    axes = figure.subplots(rows, columns, sharex=True, sharey=True, squeeze=False)
    for task, ax in enumerate(axes.flat):
        if task >= tasks:
            ax.set_visible(False)
            continue
        _panel(ax, points[task], values[task], at[task], truth[task], curves[:, task])
    low, high = _limits(np.concatenate([truth.ravel(), values.ravel(), curves[-1].ravel()]))
    axes[0, 0].set_ylim(low, high)
    axes[0, 0].set_xlim(at.min(), at.max())
    for ax in axes[-1]:
        ax.set_xlabel("x")
    for ax in axes[:, 0]:
        ax.set_ylabel("y")
    handles = [
        Line2D([], [], color=LINE, linewidth=5, alpha=0.6, label="the function"),
        Line2D(
            [], [], color=INK, marker="o", linestyle="", markersize=5, label=f"its {points.shape[1]} support points"
        ),
        Line2D([], [], color=ORANGE, linestyle=(0, (4, 2.5)), linewidth=1.4, label="before"),
        Line2D([], [], color=STEPS(0.3), linewidth=1, label="on the way"),
        Line2D([], [], color=BLUE, linewidth=2, label=f"after {wording.count(steps, 'inner step')}"),
    ]
    figure.legend(handles=handles, loc="outside upper left", ncols=len(handles), columnspacing=1.6, handlelength=1.8)
    return figure


def _panel(ax: Axes, points: Floats, values: Floats, x: Floats, truth: Floats, curves: Floats) -> None:
    ax.plot(x, truth, color=LINE, linewidth=5, alpha=0.6)
    ax.plot(x, curves[0], color=ORANGE, linewidth=1.4, linestyle=(0, (4, 2.5)))
    for step, curve in enumerate(curves[1:-1], start=1):
        ax.plot(x, curve, color=STEPS(step / len(curves)), linewidth=1)
    ax.plot(x, curves[-1], color=BLUE, linewidth=2)
    ax.plot(points, values, "o", color=INK, markersize=5, markeredgecolor="white", markeredgewidth=0.7, zorder=4)
    before, after = (float(np.square(curve - truth).mean()) for curve in (curves[0], curves[-1]))
    ax.set_title(f"error {before:.2g} → {after:.2g}", color=MUTED, fontsize=9.5)


def _limits(values: Floats) -> tuple[float, float]:
    low, high = float(values.min()), float(values.max())
    margin = 0.08 * (high - low or 1.0)
    return low - margin, high + margin
