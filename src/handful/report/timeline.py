"""The timeline of a clip: its score over time, the threshold, and when there was an alarm."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

import numpy as np
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter

from handful import wording
from handful.report.style import BLUE, INK, WRONG, styled

MINUTES = 120  # seconds from which on an axis is in minutes


@styled
def score_timeline(
    places: Sequence[float],
    scores: Sequence[float | None],
    alarms: Sequence[bool],
    threshold: float,
    timed: bool = True,
) -> Figure:
    """Scores over time, alarms shaded: places [n] in seconds, or frame numbers if not `timed`, scores [n], alarms [n].

    None is a frame without a score, where the line has a gap.
    """
    x, y = np.array(places, float), np.array([np.nan if score is None else score for score in scores], float)
    figure = Figure(figsize=(9.2, 2.9))
    axes = figure.subplots()
    step = x[1] - x[0] if len(x) > 1 else 1.0
    edges = [*x.tolist(), (x[-1] if len(x) else 0.0) + step]
    for (begin, end), alarm in zip(pairwise(edges), alarms):
        if alarm:
            axes.axvspan(begin, end, color=WRONG, alpha=0.18, linewidth=0)
    axes.plot(x, y, color=BLUE, linewidth=1.2)
    axes.axhline(threshold, color=INK, linestyle=(0, (4, 2.5)), linewidth=1)
    axes.annotate(
        f"threshold {threshold:.2f}",
        (1, threshold),
        xycoords=("axes fraction", "data"),
        xytext=(-4, 3),
        textcoords="offset points",
        ha="right",
        fontsize=8.5,
    )
    known = y[~np.isnan(y)]
    axes.set_ylim(min(known.min(initial=0), 0) - 0.3, 1.08 * max(known.max(initial=threshold), threshold) + 0.3)
    axes.set_xlim(edges[0], edges[-1])
    axes.set_ylabel("score")
    axes.set_xlabel("time (s)" if timed else "frame")
    if timed and edges[-1] > MINUTES:
        axes.set_xlabel("time (min:s)")
        axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: clock(value)))
    begun = sum(alarm and not before for before, alarm in pairwise([False, *alarms]))
    highest = f"; the highest score, {known.max():.2f}, {when(x[np.nanargmax(y)], timed)}" if len(known) else ""
    axes.set_title(f"{wording.count(begun, 'alarm') if begun else 'No alarm'}{highest}")
    return figure


def when(place: float, timed: bool) -> str:
    """`at 13.1 s`, `at 2:05`, `in frame 120`."""
    if not timed:
        return f"in frame {place:.0f}"
    return f"at {place:.1f} s" if place <= MINUTES else f"at {clock(place)}"


def clock(seconds: float) -> str:
    """`2:05`."""
    return f"{int(seconds) // 60}:{int(seconds) % 60:02}"
