"""What each part of the first stage of `rails-maml` adds, on places never seen: the stage as it is, and without each.

    python bench/rail_training.py --out FOLDER [--steps 400] [--folds 0 1 2] [--only FORM]... [--json FILE]

Each form of the recipe is trained on single frames alone, with `--steps` steps, once for each fold of `rails`, so that
every place is tested once; nothing adapts.  Trainings are kept in FOLDER and go on where they stopped.  Rows: the mean
over places with its 95 % interval, of the picture alone and of the mean with its mirror image; and the difference to
the stage as it is, paired by place.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch

from handful.data.rails.store import RailFrames
from handful.evaluation import interval
from handful.files import to_json, write_text
from handful.problems.rail_lines.predictions import mirrored
from handful.problems.rail_lines.tasks import beside
from handful.recipe import load_recipe
from handful.run import Run
from handful.runtime import environment
from handful.training import train_recipe
from rail_parts import figures, opened
from rails import Scores, answered, places_of

RECIPE = "rails-maml"
WHOLE = "as it is"
FORMS: dict[str, list[str]] = {
    WHOLE: [],
    "without rendered scenes": ["data.scenes=0"],
    "without other cameras": ["pretrain.augment=none"],
    "a frozen backbone": ["backbone.frozen=true"],
}
FIGURES = ("path_iou", "points_20px", "f1", "gauge_error", "limit_error")


def main() -> None:
    options = arguments()
    torch.set_num_threads(options.threads)
    found: dict[tuple[str, str], list[Scores]] = {}
    for fold in options.folds:
        for form in options.only or FORMS:
            for view, scores in scored(trained(options, form, fold)).items():
                found.setdefault((form, view), []).append(scores)
                print(f"fold {fold}, {form}, {view}: path IoU {scores['path_iou'].mean():.3f}", flush=True)
    whole = {
        key: {name: np.concatenate([fold[name] for fold in folds]) for name in FIGURES} for key, folds in found.items()
    }
    rows = [row(form, view, scores, whole.get((WHOLE, view))) for (form, view), scores in whole.items()]
    print(table(rows))
    if options.json:
        machine = {f"machine_{key}": value for key, value in environment().items()}
        write_text(options.json, to_json([{**of, "steps": options.steps, **machine} for of in rows]))


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, required=True, help="folder of the trainings")
    parser.add_argument("--steps", type=int, default=400)
    parser.add_argument("--folds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--only", choices=FORMS, action="append", help="only this form; may be given again")
    parser.add_argument("--set", action="append", default=[], help="change a key of the recipe: a.b=value")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--json", type=Path)
    return parser.parse_args()


def trained(options: argparse.Namespace, form: str, fold: int) -> Run:
    """The run of one form and fold, trained on single frames."""
    steps = [f"pretrain.steps={options.steps}", f"pretrain.validate_every={options.steps}", "train.steps=0"]
    changes = [*options.set, *FORMS[form], *steps, "evaluate.tasks=2", f"data.fold={fold}"]
    run, _ = train_recipe(load_recipe(RECIPE, changes), options.out / f"{form.replace(' ', '-')}-{fold}", quiet=True)
    return run


def scored(run: Run) -> dict[str, Scores]:
    """The figures of every tested place, of the picture alone and with its mirror image."""
    (method, problem), data = opened(run), run.data
    assert isinstance(data, RailFrames)
    places = places_of(data, method)
    every = torch.arange(len(places.targets))
    plain, flipped = answered(method, places, every[:1], every, 0).chunk(2)
    targets = beside(places.targets[None], places.targets[None])
    said = {"alone": plain, "mirrored too": (plain + mirrored(flipped)) / 2}
    return {
        view: {name: value.numpy() for name, value in figures(problem, of, targets).items()}
        for view, of in said.items()
    }


def row(form: str, view: str, scores: Scores, whole: Scores | None) -> dict[str, Any]:
    """Means with intervals over places, and the paired difference to the stage as it is."""
    means = {name: float(values.mean()) for name, values in scores.items()}
    widths = {f"{name} ±": float(interval(values)) for name, values in scores.items()}
    found = {"measured": f"{form}, {view}", "places": len(scores["path_iou"]), **means, **widths}
    if whole is None or whole is scores:
        return found
    difference = scores["path_iou"] - whole["path_iou"]
    return {**found, "over_whole": float(difference.mean()), "over_whole ±": float(interval(difference))}


def table(rows: Sequence[dict[str, Any]]) -> str:
    """As a page of the docs has it."""
    lines = [f"| | {' | '.join(FIGURES)} | path_iou less the stage as it is |", f"|---|{'---|' * len(FIGURES)}---|"]
    for of in rows:
        cells = [f"{of[name]:.3f} ± {of[f'{name} ±']:.3f}" for name in FIGURES]
        difference = f"{of['over_whole']:+.3f} ± {of['over_whole ±']:.3f}" if "over_whole" in of else ""
        lines.append(f"| {of['measured']} | {' | '.join(cells)} | {difference} |")
    return "\n".join(lines)


if __name__ == "__main__":
    main()
