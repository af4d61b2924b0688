"""How well the rails of places never seen are found, with and without a few annotated frames.

    python bench/rails.py RUN RUN RUN [--shots 1 5 10] [--draws 20] [--json FILE] [--sheet FILE] [--reliability FILE]

RUN: runs of one recipe on the folds 0, 1 and 2 of `rails`, so that every place is tested once.  In each fold, and for
each number of shots, `--draws` supports are drawn from the places that are tested, and the others are the queries.  A
place's figure is the mean over the draws in which it is a query; means and 95 % intervals are over places.  Rows:

- zero-shot: the run as it was meta-trained; adapted: after its inner loop; fitted: whichever of both answers the frames
  of the support better, each left out in turn, as `fit` does it; each also with the mean of a picture and its mirror
  image, but of a decoder that adds to the mean line of the support, which no mirror turns;
- pre-trained: the same network as pre-training left it, of a run that had some; fine-tuning: its decoder trained on the
  same frames by Adam, with the rate and the steps that do best on the run's validation tasks;
- support mean: the floor.

`over fitted` is a row's path IoU less that of fitted, not mirrored, paired by place.

At 5 shots, or the number nearest to it, the answers of `fitted`, with mirror images where there are any, can be
drawn: --sheet, the best, the median and the worst places; --reliability, the confidences of their lines against the
share of their points that is right, the means of which are then printed too (`rail_answers`).  What adaptation is for,
tasks that need their support, is in `bench/rail_tasks.py`.
"""

from __future__ import annotations

import argparse
import json
from collections import defaultdict
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from handful.data.rails.store import RailFrames
from handful.data.rails.targets import targets_of
from handful.episodes import Episode
from handful.evaluation import interval
from handful.files import write_text
from handful.methods.gradient_based import GradientBased
from handful.problems.rail_lines import Lines
from handful.problems.rail_lines.predictions import mirrored
from handful.problems.rail_lines.tasks import beside, seen
from handful.report import save
from handful.report.rails import reliability
from handful.run import Run
from handful.runtime import environment
from rail_answers import Answered, calibration, sheet, together
from rail_parts import figures, fine_tuned, floor_figures, helps, opened, parted, tuning_arguments

DRAWN = 5  # shots of the answers that are drawn
Scores = dict[str, NDArray[np.float64]]  # figure -> its value for each place


class Fold(NamedTuple):
    """The tested places: what the head takes of each [n, d], of its mirror image, and the targets [n, L, R, 2]."""

    features: Tensor
    flipped: Tensor
    targets: Tensor


def main() -> None:
    options = arguments()
    torch.set_num_threads(options.threads)
    found: dict[tuple[str, int], list[Scores]] = defaultdict(list)
    answers: list[Answered] = []
    for folder in options.runs:
        scored, answered = one_fold(Run.open(folder), options)
        answers.append(answered)
        for key, scores in scored.items():
            found[key].append(scores)
            print(f"{folder.name}, {key[1]} shots, {key[0]}: path IoU {scores['path_iou'].mean():.3f}", flush=True)
    whole = {
        key: {name: np.concatenate([fold[name] for fold in folds]) for name in folds[0]} for key, folds in found.items()
    }
    machine = {f"machine_{key}": value for key, value in environment().items()}
    rows = [
        {"row": name, "shots": shots, **summary(scores, whole["fitted", shots]), **machine}
        for (name, shots), scores in whole.items()
    ]
    print(table(rows))
    if options.json:
        write_text(options.json, json.dumps(rows, indent=1))
    if options.sheet:
        save(sheet(answers, pictures=not options.lines_only), options.sheet)
    if options.reliability:
        save(reliability(*together(answers)), options.reliability)
    if options.sheet or options.reliability:
        print(calibration([folder.name for folder in options.runs], answers))


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("runs", nargs="+", type=Path)
    parser.add_argument("--shots", nargs="+", type=int, default=[1, 5, 10])
    parser.add_argument("--draws", type=int, default=20)
    tuning_arguments(parser)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--json", type=Path)
    parser.add_argument("--sheet", type=Path, help="PNG")
    parser.add_argument("--lines-only", action="store_true", help="no pictures on the sheet: not all may be shown")
    parser.add_argument("--reliability", type=Path, help="PNG")
    return parser.parse_args()


def one_fold(run: Run, options: argparse.Namespace) -> tuple[dict[tuple[str, int], Scores], Answered]:
    """(row, shots) -> the figures of every tested place of a run; and its answers that are drawn."""
    (method, problem), data = opened(run), run.data
    assert isinstance(data, RailFrames)
    tuned, steps = fine_tuned(run, options.tuning_steps, options.tuning_tasks)
    places = places_of(data, method)
    others = places_of(data, tuned) if tuned else places
    random = np.random.default_rng(0)
    sums: dict[tuple[str, int], dict[str, Tensor]] = {}
    counts: dict[int, Tensor] = {}
    drawn = min(options.shots, key=lambda shot: abs(shot - DRAWN))
    kept: list[tuple[Tensor, Lines, Tensor, Tensor]] = []
    for shot in options.shots:
        counts[shot] = torch.zeros(len(places.targets))
        for _ in range(options.draws):
            order = torch.from_numpy(random.permutation(len(places.targets)))
            support, query = order[:shot], order[shot:]
            counts[shot][query] += 1
            rows = {
                "zero-shot": answered(method, places, support, query, 0),
                "adapted": answered(method, places, support, query, method.inner_steps),
            }
            views = [places.features[support], places.flipped[support]][: 1 if problem.residual else 2]
            better = helps(method, problem, views, places.targets[support])
            rows["fitted"] = rows["adapted" if better else "zero-shot"]
            if tuned:
                rows["pre-trained"] = answered(tuned, others, support, query, 0)
                rows["fine-tuning"] = answered(tuned, others, support, query, steps)
            targets = beside(places.targets[query][None], places.targets[support][None])
            said = {}
            for name, both in rows.items():
                said[name], flipped = both.chunk(2)
                if not problem.residual:
                    said[f"{name}, mirrored too"] = (said[name] + mirrored(flipped)) / 2
            scored = {name: figures(problem, plain, targets) for name, plain in said.items()}
            scored["support mean"] = floor_figures(problem, targets)
            for name, values in scored.items():
                total = sums.setdefault((name, shot), {})
                for figure, value in values.items():
                    total.setdefault(figure, torch.zeros(len(places.targets), dtype=torch.float64))[query] += value
            if shot == drawn:
                best = "fitted" + ("" if problem.residual else ", mirrored too")
                kept.append((query, problem.lines(said[best], targets[0]), targets[0], scored[best]["path_iou"]))
    means = {
        key: {name: (total / counts[key[1]]).numpy() for name, total in value.items()} for key, value in sums.items()
    }
    place, lines, of, iou = zip(*kept)
    return means, Answered(
        names=[data.names[i] for i in data.test.ids],
        pictures=data.test.fetch(data.test.ids),
        place=torch.cat(place),
        lines=Lines(*map(torch.cat, zip(*lines))),
        targets=torch.cat(of),
        iou=torch.cat(iou),
    )


def places_of(data: RailFrames, method: GradientBased) -> Fold:
    """What a method is tested on, the train's own rails in the pictures as they are; it takes features from then on.

    They are computed once, since its inner loop moves the head alone.
    """
    body = parted(method)
    ids = data.test.ids
    images, targets = seen(data.test.fetch(ids).float().div(255), [targets_of(data.lines[i])["ego"] for i in ids], None)
    with torch.no_grad():
        features, flipped = (torch.cat([body(part) for part in x.split(4)]) for x in (images, images.flip(-1)))
    return Fold(features, flipped, targets)


def answered(method: GradientBased, places: Fold, support: Tensor, query: Tensor, steps: int) -> Tensor:
    """Predictions after so many inner steps for the queries, then for their mirror images, [2q, L, R', C + 1]."""
    known, asked = (beside(places.targets[ids][None], places.targets[support][None]) for ids in (support, query))
    x = torch.cat([places.features[query], places.flipped[query]])[None]
    episode = Episode(places.features[support][None], known, x, asked.repeat(1, 2, 1, 1, 1))
    return method.predict(episode, steps, every_step=False)[-1, 0]


def summary(scores: Scores, fitted: Scores) -> dict[str, Any]:
    """Means with intervals over places, the worst tenth, and the paired difference to what `fit` does."""
    iou = scores["path_iou"]
    worst = np.sort(iou)[: max(1, len(iou) // 10)]
    difference = iou - fitted["path_iou"]
    return {
        **{name: float(values.mean()) for name, values in scores.items()},
        **{f"{name}_ci95": float(interval(values)) for name, values in scores.items()},
        "places": len(iou),
        "path_iou_median": float(np.median(iou)),
        "path_iou_worst_tenth": float(worst.mean()),
        "over_fitted": float(difference.mean()),
        "over_fitted_ci95": float(interval(difference)),
    }


def table(rows: list[dict[str, Any]]) -> str:
    """For the screen."""
    named = ("path_iou", "points_20px", "f1", "gauge_error", "limit_error")
    lines = [
        f"{'row':<28} {'shots':>5}  "
        + "  ".join(f"{name:>15}" for name in named)
        + "  median  worst tenth   over fitted"
    ]
    for row in rows:
        cells = "  ".join(f"{row[name]:>6.3f} ± {row[f'{name}_ci95']:.3f} " for name in named)
        lines.append(
            f"{row['row']:<28} {row['shots']:>5}  {cells}  {row['path_iou_median']:.3f}   "
            f"{row['path_iou_worst_tenth']:.3f}   "
            f"{row['over_fitted']:+.4f} ± {row['over_fitted_ci95']:.4f}"
        )
    return "\n".join(lines)


if __name__ == "__main__":
    main()
