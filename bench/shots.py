"""Accuracy of runs over the number of shots, on the same tasks, with paired differences to the first run.

    python bench/shots.py RUN RUN... [--on DATA] [--shots 1 2 5 10] [--way 5] [--query 10] [--tasks 600]
        [--json FILE] [--plot FILE.png]

All runs are scored inductively: what a picture is named does not depend on the pictures named with it.
"""

from __future__ import annotations

import argparse
import json
import statistics
from itertools import cycle
from pathlib import Path
from typing import Any

from matplotlib.figure import Figure

from handful.comparison import compare, score_together
from handful.data import Data
from handful.evaluation import Result
from handful.files import write_text
from handful.recipe import read_data_recipe
from handful.report.style import SERIES, save, styled
from handful.run import open_data
from handful.runtime import environment
from handful.wording import axis, measured, scale


def main() -> None:
    options = arguments()
    data: Data | None = open_data(read_data_recipe(options.on)) if options.on else None
    by_shot: dict[int, dict[str, Result]] = {}
    for shot in options.shots:
        protocol = {"way": options.way, "shot": shot, "query": options.query, "tasks": options.tasks}
        by_shot[shot] = score_together(options.runs, **protocol, inductive=True, data=data)
        show(shot, by_shot[shot])
    if options.json:
        rows = [row(name, result) for results in by_shot.values() for name, result in results.items()]
        write_text(options.json, json.dumps(rows, indent=1))
    if options.plot:
        save(curves(by_shot), options.plot)


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("runs", type=Path, nargs="+", help="run folders; differences are to the first")
    parser.add_argument("--on", help="other data than the runs' own: a name, or a data section in YAML")
    parser.add_argument("--shots", type=int, nargs="+", default=[1, 2, 5, 10])
    parser.add_argument("--way", type=int, default=5)
    parser.add_argument("--query", type=int, default=10)
    parser.add_argument("--tasks", type=int, default=600)
    parser.add_argument("--json", type=Path)
    parser.add_argument("--plot", type=Path)
    return parser.parse_args()


def row(name: str, result: Result) -> dict[str, Any]:
    """A flat row of the bench's table; median, min and max are over tasks."""
    scores = result.per_task
    return {
        "measured": f"{result.metric} of {Path(name).name}, {result.way}-way {result.shot}-shot, {result.data}",
        "unit": "fraction" if scale(result.metric) == 100 else "squared unit of y",
        "repeats": result.tasks,
        "median": statistics.median(scores),
        "min": min(scores),
        "max": max(scores),
        "run": name,
        "mean": result.mean,
        "ci95": result.ci95,
        "data": result.data,
        "trained_on": result.trained_on,
        "way": result.way,
        "shot": result.shot,
        "query": result.query,
        "hash": result.task_hash,
        **{f"floor_{floor}": value["mean"] for floor, value in result.floors.items()},
        **{f"machine_{key}": value for key, value in environment().items()},
    }


def show(shot: int, results: dict[str, Result]) -> None:
    """One number of shots as rows of a Markdown table."""
    first = next(iter(results.values()))
    metric = first.metric
    floors = ", ".join(f"{name} {measured(floor['mean'], None, metric)}" for name, floor in first.floors.items())
    print(f"\n{first.data}, {first.way}-way {shot}-shot, {first.tasks} tasks `{first.task_hash}`; floors: {floors}")
    print("| run | accuracy | less the first |\n|---|---|---|")
    differences = {d.run: measured(d.mean, d.ci95, metric, signed=True) for d in compare(results)}
    for name, result in results.items():
        score = measured(result.mean, result.ci95, metric)
        print(f"| {Path(name).name} | {score} | {differences.get(name, '')} |", flush=True)


@styled
def curves(by_shot: dict[int, dict[str, Result]]) -> Figure:
    """A line a run, with 95 % intervals."""
    figure = Figure(figsize=(6.4, 4))
    axes = figure.subplots()
    shots = list(by_shot)
    first = next(iter(by_shot[shots[0]].values()))
    factor = scale(first.metric)
    for colour, name in zip(cycle(SERIES), by_shot[shots[0]]):
        results = [by_shot[shot][name] for shot in shots]
        means, widths = [factor * r.mean for r in results], [factor * r.ci95 for r in results]
        axes.errorbar(range(len(shots)), means, widths, color=colour, marker="o", capsize=3, label=Path(name).name)
    axes.set_xticks(range(len(shots)), [str(shot) for shot in shots])
    axes.set_xlabel("shots")
    axes.set_ylabel(axis(first.metric))
    axes.set_title(f"{first.data}, {first.way} ways, inductive")
    axes.legend()
    return figure


if __name__ == "__main__":
    main()
