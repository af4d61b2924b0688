"""How well the rails of places never seen are found, with and without a few annotated frames.

    python bench/rails.py RUN RUN RUN [--shots 1 5 10] [--draws 20] [--json FILE]

RUN: runs of one recipe on the folds 0, 1 and 2 of `rails`, so that every place is tested once.  In each fold, and for
each number of shots, `--draws` supports are drawn from the places that are tested, and the others are the queries.  A
place's figure is the mean over the draws in which it is a query; means and 95 % intervals are over places.  Rows:

- zero-shot: the run as it was meta-trained; adapted: after its inner loop; each also with the mean of a picture and its
  mirror image, but of a decoder that adds to the mean line of the support, which no mirror turns;
- fine-tuning: the same network as pre-training left it (of a run that had some), its decoder trained on the same frames
  by Adam, with the rate and the steps that do best on the run's validation tasks;
- support mean: the floor.

`over adapted` is a row's path IoU less that of the adapted run, paired by place.
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
from torch import Tensor, nn

from handful.backbones import BACKBONES
from handful.data.rails.store import RailFrames
from handful.data.rails.targets import targets_of
from handful.episodes import Episode
from handful.evaluation import evaluate_method, interval
from handful.files import read_tensors, write_text
from handful.inner_loop import InnerAdam
from handful.methods.gradient_based import GradientBased
from handful.problems import RailLines
from handful.problems.rail_lines.predictions import mirrored
from handful.problems.rail_lines.tasks import beside, seen
from handful.registry import build
from handful.run import Run
from handful.runtime import environment

RATES, STEPS, TRIED = (1e-4, 3e-4, 1e-3), 20, 10  # of plain fine-tuning, and the tasks to choose by
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
    for folder in options.runs:
        for key, scores in one_fold(Run.open(folder), options.shots, options.draws).items():
            found[key].append(scores)
            print(f"{folder.name}, {key[1]} shots, {key[0]}: path IoU {scores['path_iou'].mean():.3f}", flush=True)
    whole = {
        key: {name: np.concatenate([fold[name] for fold in folds]) for name in folds[0]} for key, folds in found.items()
    }
    machine = {f"machine_{key}": value for key, value in environment().items()}
    rows = [
        {"row": name, "shots": shots, **summary(scores, whole["adapted", shots]), **machine}
        for (name, shots), scores in whole.items()
    ]
    print(table(rows))
    if options.json:
        write_text(options.json, json.dumps(rows, indent=1))


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("runs", nargs="+", type=Path)
    parser.add_argument("--shots", nargs="+", type=int, default=[1, 5, 10])
    parser.add_argument("--draws", type=int, default=20)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--json", type=Path)
    return parser.parse_args()


def one_fold(run: Run, shots: list[int], draws: int) -> dict[tuple[str, int], Scores]:
    """(row, shots) -> the figures of every tested place of a run."""
    method, data = run.method, run.data
    assert isinstance(method, GradientBased)
    assert isinstance(data, RailFrames)
    assert isinstance(method.problem, RailLines)
    tuned, steps = fine_tuned(run)
    places = places_of(data, method)
    others = places_of(data, tuned) if tuned else places
    random = np.random.default_rng(0)
    sums: dict[tuple[str, int], dict[str, Tensor]] = {}
    counts: dict[int, Tensor] = {}
    for shot in shots:
        counts[shot] = torch.zeros(len(places.targets))
        for _ in range(draws):
            order = torch.from_numpy(random.permutation(len(places.targets)))
            support, query = order[:shot], order[shot:]
            counts[shot][query] += 1
            predictions = answered(method, places, support, query)
            rows = {"zero-shot": predictions[0], "adapted": predictions[-1]}
            if tuned:
                rows["fine-tuning"] = answered(tuned, others, support, query)[steps]
            targets = beside(places.targets[query][None], places.targets[support][None])
            scored = {}
            for name, both in rows.items():
                plain, flipped = both.chunk(2)
                scored[name] = figures(method, plain, targets)
                if not method.problem.residual:
                    scored[f"{name}, mirrored too"] = figures(method, (plain + mirrored(flipped)) / 2, targets)
            floor = method.problem.floors(Episode(targets, targets, targets, targets.movedim(1, 0)))
            scored["support mean"] = floor["support mean"]
            for name, values in scored.items():
                total = sums.setdefault((name, shot), {})
                for figure, value in values.items():
                    total.setdefault(figure, torch.zeros(len(places.targets), dtype=torch.float64))[query] += value
    return {
        key: {name: (total / counts[key[1]]).numpy() for name, total in value.items()} for key, value in sums.items()
    }


def places_of(data: RailFrames, method: GradientBased) -> Fold:
    """What a method is tested on, the train's own rails in the pictures as they are; it takes features from then on.

    They are computed once, since its inner loop moves the head alone; SystemExit if it moves more.
    """
    if not all(name.startswith("head.") for name in method.inner_names):
        raise SystemExit("This bench computes features once: it takes runs that adapt the head alone.")
    body = method.backbone
    method.network.backbone = nn.Identity()
    ids = data.test.ids
    images, targets = seen(data.test.fetch(ids).float().div(255), [targets_of(data.lines[i])["ego"] for i in ids], None)
    with torch.no_grad():
        features, flipped = (torch.cat([body(part) for part in x.split(4)]) for x in (images, images.flip(-1)))
    return Fold(features, flipped, targets)


def answered(method: GradientBased, places: Fold, support: Tensor, query: Tensor) -> Tensor:
    """Predictions after every inner step for the queries, then for their mirror images, [S + 1, 2q, L, R', C + 1]."""
    known, asked = (beside(places.targets[ids][None], places.targets[support][None]) for ids in (support, query))
    x = torch.cat([places.features[query], places.flipped[query]])[None]
    return method.predict(Episode(places.features[support][None], known, x, asked.repeat(1, 2, 1, 1, 1)))[:, 0]


def figures(method: GradientBased, predictions: Tensor, targets: Tensor) -> dict[str, Tensor]:
    """Every figure of each query: predictions [q, L, R', C + 1], targets [1, q, L, R, 4]."""
    alone = predictions.unsqueeze(1), targets.movedim(1, 0)
    return {method.problem.metric: method.problem.score(*alone), **method.problem.measures(*alone)}


def fine_tuned(run: Run) -> tuple[GradientBased | None, int]:
    """What pre-training left, its decoder to be trained by Adam, and for how many steps; None if there was none."""
    if run.recipe.pretrain is None:
        return None, 0
    weights, _ = read_tensors(run.folder / "pretrain" / "checkpoints" / "best" / "model.safetensors")
    network = {name.removeprefix("network."): value for name, value in weights.items() if name.startswith("network.")}
    protocol = run.recipe.protocols()[0].model_copy(update={"tasks": TRIED, "inner_steps": STEPS})
    found: list[tuple[float, GradientBased, int]] = []
    for rate in RATES:
        backbone = build("backbone", BACKBONES, run.recipe.backbone.spec(), input_shape=run.data.input_shape)
        method = GradientBased(backbone, optimizer=InnerAdam(rate), inner_steps=STEPS, adapted=["head"])
        method.problem = run.method.problem
        method.attach_head(method.problem.outputs(1))
        method.network.load_state_dict(network)
        by_step = evaluate_method(method, run.data.val, protocol, seed=run.recipe.seed).by_inner_step
        step = int(np.argmax(by_step))
        print(f"{run.folder.name}, fine-tuning by {rate:g}: best {by_step[step]:.3f} after {step} steps", flush=True)
        found.append((by_step[step], method, step))
    _, best, steps = max(found, key=lambda tried: tried[0])
    return best, steps


def summary(scores: Scores, adapted: Scores) -> dict[str, Any]:
    """Means with intervals over places, the worst tenth, and the paired difference to the adapted run."""
    iou = scores["path_iou"]
    worst = np.sort(iou)[: max(1, len(iou) // 10)]
    difference = iou - adapted["path_iou"]
    return {
        **{name: float(values.mean()) for name, values in scores.items()},
        **{f"{name}_ci95": float(interval(values)) for name, values in scores.items()},
        "places": len(iou),
        "path_iou_median": float(np.median(iou)),
        "path_iou_worst_tenth": float(worst.mean()),
        "over_adapted": float(difference.mean()),
        "over_adapted_ci95": float(interval(difference)),
    }


def table(rows: list[dict[str, Any]]) -> str:
    """For the screen."""
    named = ("path_iou", "points_20px", "f1", "gauge_error", "limit_error")
    lines = [
        f"{'row':<28} {'shots':>5}  "
        + "  ".join(f"{name:>15}" for name in named)
        + "  median  worst tenth   over adapted"
    ]
    for row in rows:
        cells = "  ".join(f"{row[name]:>6.3f} ± {row[f'{name}_ci95']:.3f} " for name in named)
        lines.append(
            f"{row['row']:<28} {row['shots']:>5}  {cells}  {row['path_iou_median']:.3f}   "
            f"{row['path_iou_worst_tenth']:.3f}   "
            f"{row['over_adapted']:+.4f} ± {row['over_adapted_ci95']:.4f}"
        )
    return "\n".join(lines)


if __name__ == "__main__":
    main()
