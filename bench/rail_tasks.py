"""What adaptation brings on tasks of rail lines that need their support, as a paired difference.

    python bench/rail_tasks.py RUN RUN RUN [--shots 5] [--queries 5] [--tasks 100] [--json FILE]

RUN: runs of one recipe on the folds 0, 1 and 2 of `rails`.  A task's frames share a camera of its own, and what is
asked of them, which nothing but the support says.  Of each run so many tasks are drawn from the places that it was not
trained on, which have the train's own rails and the inner edges of these, and as many from the test split of
`rail_scenes`, rendered, which have neighbouring tracks and both ways through a switch too.  Rows:

- adapted: the run after its inner loop; zero-shot: as it was meta-trained; fitted: whichever of both answers the frames
  of the support better, each left out in turn, as `fit` does it;
- pre-trained: the same network as pre-training left it, of a run that had some; fine-tuning: its decoder trained on the
  same frames by Adam, with the rate and the steps that do best on the run's validation tasks;
- support mean: the floor.

`fitted over it` is that less the row, paired by query.  The 95 % intervals are over places, or scenes, each
of which is a query in several tasks; the supports are taken as given.
"""

from __future__ import annotations

import argparse
import json
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from handful.data import load
from handful.data.rails.store import RailFrames
from handful.episodes import Episode
from handful.files import write_text
from handful.methods.gradient_based import GradientBased
from handful.problems.rail_lines import FrameTasks
from handful.run import Run
from handful.runtime import environment
from rail_parts import figures, fine_tuned, floor_figures, helps, opened, parted, spread_over, tuning_arguments

PHOTOS, SCENES = "photographs", "rendered scenes"
ALL = "all"
FIGURES = ("path_iou", "points_20px")


class Task(NamedTuple):
    """A task's source and kind, the names of its queries [q], and row -> figure -> its value for each [q]."""

    source: str
    kind: str
    queries: list[str]
    rows: dict[str, dict[str, NDArray[np.float64]]]


def main() -> None:
    options = arguments()
    torch.set_num_threads(options.threads)
    tasks = [task for number, folder in enumerate(options.runs) for task in of_run(Run.open(folder), options, number)]
    machine = {f"machine_{key}": value for key, value in environment().items()}
    rows = [{"shots": options.shots, **row, **machine} for row in summary(tasks)]
    print(table(rows))
    if options.json:
        write_text(options.json, json.dumps(rows, indent=1))


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("runs", nargs="+", type=Path)
    parser.add_argument("--shots", type=int, default=5)
    parser.add_argument("--queries", type=int, default=5)
    parser.add_argument("--tasks", type=int, default=100, help="of each run and source")
    tuning_arguments(parser)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--json", type=Path)
    return parser.parse_args()


def of_run(run: Run, options: argparse.Namespace, seed: int) -> list[Task]:
    """Tasks of both sources, answered by a run."""
    method, problem = opened(run)
    tuned, steps = fine_tuned(run, options.tuning_steps, options.tuning_tasks)
    rendered = load("rail_scenes", scenes=1, targets="varied")
    assert isinstance(run.data, RailFrames)
    assert isinstance(rendered, RailFrames)
    body, own = parted(method), {"adapted": method.inner_steps, "zero-shot": 0}
    if tuned:
        tuned_body, plain = parted(tuned), {"pre-trained": 0, "fine-tuning": steps}
    tasks: list[Task] = []
    for source, data in ((PHOTOS, replace(run.data, targets="varied")), (SCENES, rendered)):
        sampler = FrameTasks(data.test, options.shots, options.queries, seed)
        for number in range(options.tasks):
            (_, kind), frames, _ = sampler.drawn(number)
            episode = sampler.episodes(number, number + 1)
            features = embedded(body, episode)
            said = {name: answer(method, features, count) for name, count in own.items()}
            better = helps(method, problem, [features.support_x[0]], features.support_y[0, ..., :2])
            said["fitted"] = said["adapted" if better else "zero-shot"]
            if tuned:
                features = embedded(tuned_body, episode)
                said |= {name: answer(tuned, features, count) for name, count in plain.items()}
            rows = {name: figures(problem, found, episode.query_y) for name, found in said.items()}
            rows["support mean"] = floor_figures(problem, episode.query_y)
            names = [data.names[frame] for frame in frames[options.shots :]]
            values = {name: {figure: value.numpy() for figure, value in row.items()} for name, row in rows.items()}
            tasks.append(Task(source, kind, names, values))
        own_tasks = tasks[-options.tasks :]
        means = {name: np.mean([task.rows[name]["path_iou"] for task in own_tasks]) for name in tasks[-1].rows}
        told = ", ".join(f"{name} {mean:.3f}" for name, mean in means.items())
        print(f"{run.folder.name}, {options.tasks} tasks of {source}, path IoU: {told}", flush=True)
    return tasks


def embedded(body: nn.Module, episode: Episode) -> Episode:
    """Features instead of the images of a task."""
    with torch.no_grad():
        support, query = (body(x[0])[None] for x in (episode.support_x, episode.query_x))
    return episode._replace(support_x=support, query_x=query)


def answer(method: GradientBased, episode: Episode, steps: int) -> Tensor:
    """What is said of the queries after so many inner steps [q, L, R', C + 1]."""
    return method.predict(episode, steps, every_step=False)[-1, 0]


def summary(tasks: list[Task]) -> list[dict[str, Any]]:
    """A dictionary a source, kind (all of them first) and row."""
    found = []
    for source in (PHOTOS, SCENES):
        own = [task for task in tasks if task.source == source]
        for kind in (ALL, *sorted({task.kind for task in own})):
            chosen = [task for task in own if kind in (ALL, task.kind)]
            names = [name for task in chosen for name in task.queries]
            rows = {
                row: {
                    figure: np.concatenate([task.rows[row][figure] for task in chosen])
                    for figure in chosen[0].rows[row]
                }
                for row in chosen[0].rows
            }
            for row, scores in rows.items():
                summed: dict[str, Any] = {
                    "source": source,
                    "kind": kind,
                    "row": row,
                    "tasks": len(chosen),
                    "places": len(set(names)),
                }
                for figure, values in scores.items():
                    over = rows["fitted"][figure] - values
                    summed |= {figure: float(values.mean()), f"{figure}_ci95": spread_over(values, names)}
                    summed |= {f"fitted_over_{figure}": float(over.mean())}
                    summed |= {f"fitted_over_{figure}_ci95": spread_over(over, names)}
                found.append(summed)
    return found


def table(rows: list[dict[str, Any]]) -> str:
    """For the screen."""
    lines = [
        f"{'tasks':<38} {'row':<13}"
        + "".join(f"{name:>16}" for name in FIGURES)
        + "".join(f"{f'fitted over it, {name}':>30}" for name in FIGURES)
    ]
    for row in rows:
        said = f"{row['source']}, {row['kind']} ({row['tasks']})"
        cells = "".join(f"   {row[name]:.3f} ± {row[f'{name}_ci95']:.3f}" for name in FIGURES)
        if row["row"] != "fitted":
            over = ((row[f"fitted_over_{name}"], row[f"fitted_over_{name}_ci95"]) for name in FIGURES)
            cells += "".join(f"{f'{mean:+.4f} ± {width:.4f}':>30}" for mean, width in over)
        lines.append(f"{said:<38} {row['row']:<13}{cells}")
    return "\n".join(lines)


if __name__ == "__main__":
    main()
