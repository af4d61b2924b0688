"""How adapting changes an answer, as a picture."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from handful.report.style import LINE, SERIES, styled

DOTS_PER_INCH = 160


@styled
def probabilities(shares: Mapping[str, Sequence[float]]) -> Figure:
    """The probability of each class after 0, 1, ..., S inner steps, in the order of the last; the first is bold."""
    figure = Figure(figsize=(5.6, 2.8), dpi=DOTS_PER_INCH)
    axes = figure.subplots()
    for rank, (name, values) in enumerate(sorted(shares.items(), key=lambda item: -item[1][-1])):
        colour = SERIES[rank] if rank < len(SERIES) else LINE
        percent = [100 * value for value in values]
        axes.plot(percent, color=colour, marker="o", markersize=4, lw=1.2 if rank else 2.4, label=name, clip_on=False)
    axes.set_title("Its answer while it adapts")
    axes.set_ylim(0, 100)
    axes.xaxis.set_major_locator(MaxNLocator(10, integer=True))
    axes.set_xlabel("inner steps on what was taught")
    axes.set_ylabel("probability (%)")
    figure.legend(*(entries[: len(SERIES)] for entries in axes.get_legend_handles_labels()), loc="outside right upper")
    return figure
