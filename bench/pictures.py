"""Draws the pictures of docs/glossary.md, from the glyphs and from nothing that was trained.

    python bench/pictures.py [--out docs/images]

What looks computed is: the inner and outer steps, the class means, the intervals, the likenesses.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import FancyBboxPatch
from numpy.typing import NDArray
from torch import Tensor

from handful.data import ClassSplit, load
from handful.data.pictures import Picture, decode_views
from handful.episodes import EpisodeSampler
from handful.evaluation import interval
from handful.model.leave_one_out import likeness, open_set_threshold
from handful.model.start import VIEWS
from handful.problems import Classification
from handful.report.style import BLUE, GREEN, INK, LINE, MUTED, ORANGE, PANEL, RIGHT, SKY, WRONG, save, styled

CELL = 0.46  # inches: a drawing's side
PITCH = 0.54
INNER_RATE, INNER_STEPS, OUTER_RATE, OUTER_STEPS = 0.25, 3, 0.35, 40


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=Path(__file__).parents[1] / "docs" / "images")
    for path in draw(load("glyphs").test, parser.parse_args().out):
        print(path)


def draw(split: ClassSplit, out: Path) -> list[Path]:
    """All pictures, from drawings of the classes of a split."""
    figures = {
        "task": task(split),
        "stages": stages(split),
        "loops": loops(),
        "transductive": transductive(split),
        "floor": floor(split),
        "interval": intervals(split),
        "views": views(split),
        "open-set": open_set(split),
    }
    return [save(figure, out / f"glossary-{name}.png") for name, figure in figures.items()]


@styled
def task(split: ClassSplit) -> Figure:
    """One episode, 3-way 2-shot with four queries a class."""
    way, shot, query = 3, 2, 4
    figure, axes = sheet(7.4, 2.75)
    drawn = EpisodeSampler(split, way, shot, query).episodes(0, 1)
    support = drawn.support_x[0].unflatten(0, (way, shot))
    queries = drawn.query_x[0].unflatten(0, (way, query))
    left, right, top = 1.5, 3.3, 1.62
    panel(axes, left - 0.14, 0.36, shot * PITCH + 0.2, 1.9)
    panel(axes, right - 0.14, 0.36, query * PITCH + 0.2, 1.9)
    for row in range(way):
        axes.text(left - 0.3, top - row * PITCH + CELL / 2, f"class {row + 1}", ha="right", va="center")
        for column in range(shot):
            paste(axes, support[row, column], left + column * PITCH, top - row * PITCH)
        for column in range(query):
            paste(axes, queries[row, column], right + column * PITCH, top - row * PITCH)
    bracket(axes, (0.62, top + CELL), (0.62, top - 2 * PITCH), "way: 3", (-0.08, 0), rotation=90)
    end = left + PITCH + CELL
    bracket(axes, (left, 0.26), (end, 0.26), "shot: 2", (0, -0.13))
    bracket(axes, (right, 0.26), (right + 3 * PITCH + CELL, 0.26), "4 queries a class", (0, -0.13))
    title(axes, (left + end) / 2, 2.4, "support")
    title(axes, right + 1.5 * PITCH + CELL / 2, 2.4, "query")
    arrow(axes, (right + query * PITCH + 0.16, 1.31), (right + query * PITCH + 0.5, 1.31))
    axes.text(
        right + query * PITCH + 0.58, 1.31, "named by what was\nlearned on the left;\nscored", va="center", fontsize=9
    )
    return figure


@styled
def stages(split: ClassSplit) -> Figure:
    """What is learned when: pre-training, meta-training, fit on a backbone that stays as it is."""
    rows = (
        ("pre-training", "a classifier of all\ntraining classes", True, "then the classifier is thrown away"),
        ("meta-training", "the method's head", True, "on tasks: the query loss is descended"),
        ("fit, without a run", "solved on the support", False, "the backbone is frozen"),
    )
    figure, axes = sheet(7.4, 3.3)
    for number, (name, head, learned, remark) in enumerate(rows):
        y = 2.3 - number * 1.08
        axes.text(0.1, y + 0.76, name, fontweight="bold")
        axes.text(7.3, y + 0.76, remark, ha="right", color=MUTED, fontsize=9)
        paste(axes, image_of(split, number), 0.1, y + 0.1)
        arrow(axes, (0.64, y + 0.33), (1.0, y + 0.33))
        box(axes, 1.08, y, 1.5, 0.66, "backbone", BLUE if learned else None)
        arrow(axes, (2.66, y + 0.33), (3.02, y + 0.33))
        bars(axes, image_of(split, number), 3.1, y + 0.06)
        arrow(axes, (4.02, y + 0.33), (4.38, y + 0.33))
        box(axes, 4.46, y, 1.8, 0.66, head, ORANGE)
        arrow(axes, (6.34, y + 0.33), (6.7, y + 0.33))
        axes.text(6.78, y + 0.33, "class", va="center")
    axes.text(3.52, 3.22, "features", ha="center", va="top", color=MUTED, fontsize=9)
    return figure


@styled
def loops() -> Figure:
    """Inner steps of three tasks from a start, before and after the outer loop: two parameters, computed."""
    goals = np.array([[-1.3, 0.6], [0.5, 1.5], [1.2, -0.9]])
    bowls = np.array([[[2.2, 0.7], [0.7, 0.8]], [[0.7, 0.2], [0.2, 2.4]], [[1.0, -0.8], [-0.8, 2.0]]])
    starts = [np.array([-2.6, -1.7])]
    shrink = np.eye(2) - INNER_RATE * bowls  # a gradient step on a quadratic loss is linear
    through = np.stack([np.linalg.matrix_power(one, INNER_STEPS) for one in shrink])
    for _ in range(OUTER_STEPS):
        adapted = goals + np.einsum("bij,bj->bi", through, starts[-1] - goals)
        inner = np.einsum("bij,bj->bi", bowls, adapted - goals)
        starts.append(starts[-1] - OUTER_RATE * np.einsum("bji,bj->bi", through, inner).mean(0))
    figure = Figure(figsize=(7.4, 3.5))
    both = figure.subplots(1, 2, sharex=True, sharey=True)
    places = ((-7, 7), (8, 1))  # where no path runs
    for axes, start, name, place in zip(both, (starts[0], starts[-1]), ("before the outer loop", "after it"), places):
        for number, (goal, colour) in enumerate(zip(goals, (BLUE, ORANGE, GREEN))):
            path = [start]
            for _ in range(INNER_STEPS):
                path.append(path[-1] - INNER_RATE * bowls[number] @ (path[-1] - goal))
            axes.plot(*np.array(path).T, "-o", color=colour, markersize=3.5, linewidth=1.4)
            axes.plot(*goal, "*", color=colour, markersize=11)
            axes.annotate(f"task {number + 1}", goal, (9, -4), textcoords="offset points", color=colour)
        axes.plot(*start, "o", color=INK, markersize=7)
        axes.annotate("start", start, place, textcoords="offset points", ha="left" if place[0] > 0 else "right")
        axes.set_title(name)
        axes.set(aspect="equal", xlim=(-3.3, 2.2), ylim=(-2.4, 2.2), xticks=[], yticks=[], xlabel="one parameter")
        axes.grid(False)
    both[0].set_ylabel("another")
    both[1].plot(*np.array(starts).T, color=LINE, linewidth=2, zorder=0)
    both[1].annotate("outer steps", starts[2], (8, -12), textcoords="offset points", color=MUTED)
    return figure


@styled
def transductive(split: ClassSplit) -> Figure:
    """Judged one by one, and judged together."""
    way = 4
    figure, axes = sheet(7.4, 2.45)
    drawn = EpisodeSampler(split, way, 1, 1, seed=1).episodes(0, 1)
    for left, together in ((0.35, False), (4.15, True)):
        title(axes, left + 1.42, 2.3, "transductive" if together else "inductive")
        axes.text(
            left - 0.12, 1.62 + CELL / 2, "support", ha="right", va="center", rotation=90, color=MUTED, fontsize=9
        )
        axes.text(left - 0.12, 0.72 + CELL / 2, "query", ha="right", va="center", rotation=90, color=MUTED, fontsize=9)
        panel(axes, left, 1.54, 2.84, 0.62)
        if together:
            panel(axes, left, 0.64, 2.84, 0.62, SKY)
        for place in range(way):
            x = left + 0.17 + place * 0.68
            paste(axes, drawn.support_x[0, place], x, 1.62)
            if not together:
                panel(axes, x - 0.08, 0.64, CELL + 0.16, 0.62, SKY)
            paste(axes, drawn.query_x[0, place], x, 0.72)
            arrow(axes, (x + CELL / 2, 0.6), (x + CELL / 2, 0.4))
        words = "the queries share a mean and a variance" if together else "each is judged by the support and itself"
        axes.text(left + 1.42, 0.2, words, ha="center", va="center", fontsize=9)
    return figure


@styled
def floor(split: ClassSplit) -> Figure:
    """5-way 5-shot in pixels: each class's mean picture, and below it the queries that are nearest to it."""
    way, shot, query = 5, 5, 7
    drawn = EpisodeSampler(split, way, shot, query).episodes(0, 1)
    means = drawn.support_x[0].unflatten(0, (way, shot)).mean(1)
    named = torch.cdist(drawn.query_x[0].flatten(1), means.flatten(1)).argmin(1)
    most = int(torch.bincount(named, minlength=way).max())
    height = 1.35 + (way - 1) * PITCH
    figure, axes = sheet(7.4, height)
    title(axes, 1.1, height - 0.25, "mean")
    title(axes, 1.95 + most * PITCH / 2, height - 0.25, "queries nearest to it")
    for row in range(way):
        y = height - 0.95 - row * PITCH
        axes.text(0.72, y + CELL / 2, f"class {row + 1}", ha="right", va="center")
        paste(axes, means[row], 0.88, y)
        for column, index in enumerate(torch.nonzero(named == row).flatten().tolist()):
            truth = int(drawn.query_y[0, index])
            paste(axes, drawn.query_x[0, index], 1.75 + column * PITCH, y, frame=RIGHT if truth == row else WRONG)
    right = int((named == drawn.query_y[0]).sum())
    axes.text(
        axes.get_xlim()[1] / 2,
        0.14,
        f"{right} of {way * query} right; the others have red frames",
        ha="center",
        fontsize=9,
    )
    return figure


@styled
def intervals(split: ClassSplit) -> Figure:
    """Tasks differ: their scores, and the mean with its interval over more and more of them."""
    way, shot, query, tasks = min(5, len(split)), 1, min(15, int(split.counts.min()) - 1), 600
    episodes = EpisodeSampler(split, way, shot, query).episodes(0, tasks)
    scores = 100 * Classification().floors(episodes)["pixel class mean"]["accuracy"].numpy()
    figure = Figure(figsize=(7.4, 2.9))
    spread, closer = figure.subplots(1, 2)
    values, counts = np.unique(scores.round(6), return_counts=True)
    spread.bar(values, counts, width=0.8 * 100 / (way * query), color=SKY)
    spread.set(xlabel="accuracy of a task, %", ylabel="tasks", title=f"{tasks} tasks, one predictor")
    sizes = [10, 30, 100, 300, 600]
    means = [scores[:size].mean() for size in sizes]
    widths = [float(interval(scores[:size])) for size in sizes]
    closer.errorbar(range(len(sizes)), means, widths, fmt="o", color=BLUE, capsize=4)
    closer.axhline(scores.mean(), color=LINE, linewidth=1, zorder=0)
    for place, (mean, width) in enumerate(zip(means, widths)):
        closer.annotate(f"± {width:.1f}", (place, mean), (6, 3), textcoords="offset points", fontsize=9)
    closer.set_xticks(range(len(sizes)), [str(size) for size in sizes])
    closer.set(
        xlim=(-0.4, len(sizes) - 0.1), xlabel="tasks", ylabel="mean accuracy, %", title="mean ± half its 95 % interval"
    )
    return figure


@styled
def views(split: ClassSplit) -> Figure:
    """The seven views in which `fit` sees a support picture."""
    ink = 255 - (255 * image_of(split, 4)).byte().permute(1, 2, 0).numpy()
    side = ink.shape[0]
    picture = Picture("drawing", "test", "class", lambda: ink)
    seen = decode_views(picture, (1, side, side), "", VIEWS)
    names = ("whole", "mirrored", "top left", "top right", "bottom left", "bottom right", "middle")
    figure, axes = sheet(7.4, 1.35)
    for place, (view, name) in enumerate(zip(seen, names)):
        x = 0.14 + place * 1.03
        paste(axes, 1 - torch.from_numpy(view).float() / 255, x, 0.36, size=0.9)
        axes.text(x + 0.45, 0.18, name, ha="center", va="center", fontsize=9)
    return figure


@styled
def open_set(split: ClassSplit) -> Figure:
    """Likenesses in pixels to the own class and to others alone, and the threshold between."""
    way, shot = min(5, len(split)), min(20, int(split.counts.min()))
    images = torch.stack([image_of(split, name, number) for name in range(way) for number in range(shot)]).flatten(1)
    labels = torch.arange(way).repeat_interleave(shot)
    centred = F.normalize(images - images.mean(0), dim=-1)
    threshold = open_set_threshold(centred[:, None], labels).threshold
    known, unknown = [], []
    for index, label in enumerate(labels):
        others = torch.arange(len(labels)) != index
        known.append(likeness(centred[index : index + 1], centred[others]))
        unknown.append(likeness(centred[index : index + 1], centred[labels != label]))
    figure = Figure(figsize=(7.4, 2.7))
    axes = figure.subplots()
    edges = np.linspace(0.5, 1, 41).tolist()
    axes.hist(
        torch.cat(unknown).numpy(),
        edges,
        color=ORANGE,
        alpha=0.85,
        label="of an unknown class: to the other classes alone",
    )
    axes.hist(
        torch.cat(known).numpy(),
        edges,
        histtype="step",
        color=BLUE,
        linewidth=1.8,
        label="of a known class: to all other pictures",
    )
    axes.axvline(threshold, color=INK, linewidth=1.2)
    axes.annotate(
        "threshold",
        (threshold, 0.97),
        (-5, 0),
        xycoords=("data", "axes fraction"),
        textcoords="offset points",
        ha="right",
        va="top",
    )
    axes.set(xlim=(0.55, 0.95), xlabel="likeness", ylabel="pictures")
    axes.legend(loc="lower left", bbox_to_anchor=(0, 1), ncols=2)
    return figure


def sheet(width: float, height: float) -> tuple[Figure, Axes]:
    """Paper to draw on, in inches."""
    figure = Figure(figsize=(width, height), layout="none")  # type: ignore[arg-type]  # as in report/sheet.py
    axes: Axes = figure.add_axes((0, 0, 1, 1))
    axes.set(xlim=(0, width), ylim=(0, height))
    axes.axis("off")
    return figure, axes


def paste(axes: Axes, image: Tensor, x: float, y: float, size: float = CELL, frame: str | None = None) -> None:
    """A drawing [1, h, w] in [0, 1], ink bright, as ink on paper; its corner is at x, y."""
    extent = (x, x + size, y, y + size)
    limits = axes.get_xlim(), axes.get_ylim()
    axes.imshow(
        1 - image[0].numpy(),
        cmap="gray",
        vmin=0,
        vmax=1,
        extent=extent,
        zorder=3,
        aspect="auto",
        interpolation="nearest",
    )
    axes.set(xlim=limits[0], ylim=limits[1])
    thick = 2.6 if frame == WRONG else 1.4 if frame else 0.7
    edges = FancyBboxPatch((x, y), size, size, "square,pad=0", fill=False, ec=frame or LINE, lw=thick, zorder=4)
    axes.add_patch(edges)


def panel(axes: Axes, x: float, y: float, width: float, height: float, edge: str | None = None) -> None:
    """A pale background; with an edge, a box."""
    style = "round,pad=0,rounding_size=0.06"
    axes.add_patch(FancyBboxPatch((x, y), width, height, style, fc=PANEL, ec=edge or PANEL, lw=1.6))


def box(axes: Axes, x: float, y: float, width: float, height: float, words: str, colour: str | None) -> None:
    """A part that is learned, in a colour; without one it is frozen: grey, and its edge is broken."""
    style = "round,pad=0,rounding_size=0.06"
    edge, line = (colour, "solid") if colour else (MUTED, "dashed")
    axes.add_patch(FancyBboxPatch((x, y), width, height, style, fc=PANEL, ec=edge, lw=1.8, ls=line))
    axes.text(x + width / 2, y + height / 2, words, ha="center", va="center", linespacing=1.3, fontsize=9.5)


def bars(axes: Axes, image: Tensor, x: float, y: float) -> None:
    """A picture of features: twelve numbers, here the means of parts of the drawing."""
    values: NDArray[np.float64] = F.adaptive_avg_pool2d(image, (3, 4)).flatten().double().numpy()
    axes.bar(x + 0.035 + 0.07 * np.arange(len(values)), 0.54 * values / values.max(), 0.05, y, color=INK)


def arrow(axes: Axes, start: tuple[float, float], end: tuple[float, float]) -> None:
    """An arrow in inches."""
    axes.annotate(
        "", end, start, arrowprops={"arrowstyle": "-|>", "color": MUTED, "lw": 1.2, "shrinkA": 0, "shrinkB": 0}
    )


def bracket(
    axes: Axes,
    start: tuple[float, float],
    end: tuple[float, float],
    words: str,
    away: tuple[float, float],
    rotation: float = 0,
) -> None:
    """A line from start to end with a bar at both, and words beside its middle."""
    axes.annotate(
        "",
        end,
        start,
        arrowprops={
            "arrowstyle": "|-|, widthA=0.25, widthB=0.25",
            "color": MUTED,
            "lw": 1.0,
            "shrinkA": 0,
            "shrinkB": 0,
        },
    )
    x, y = (start[0] + end[0]) / 2 + away[0], (start[1] + end[1]) / 2 + away[1]
    axes.text(x, y, words, ha="right" if rotation else "center", va="center", rotation=rotation)


def title(axes: Axes, x: float, y: float, words: str) -> None:
    """A bold word over a part of the picture."""
    axes.text(x, y, words, ha="center", va="center", fontweight="bold", fontsize=10.5)


def image_of(split: ClassSplit, index: int, number: int = 0) -> Tensor:
    """A drawing of a class, [1, h, w] in [0, 1]."""
    return split.fetch(np.array([split.starts[index] + number]))[0].float() / 255


if __name__ == "__main__":
    main()
