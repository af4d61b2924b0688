"""What each part of `ped2-mpn-small` adds to the plain network, paired over seeds.

    python bench/video_parts.py --out FOLDER [--seeds 3] [--steps 1500] [--episodes 60] [--draws 3] [--json FILE]

For each seed the recipe is trained twice, without the prototype unit and with it, both stages shortened, and scored on
all test clips: as pre-training left it and after the meta stage, before and after the inner steps on a support of
normal footage.  Trainings are kept in FOLDER and go on where they stopped.  Rows: each form, in frame AUC in percent;
then what a part adds, the mean difference of two forms of one seed, with its 95 % interval over seeds (Student's t).
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from scipy.stats import t as student

from handful.evaluation import evaluate_method
from handful.files import read_tensors, to_json, write_text
from handful.recipe import load_recipe
from handful.run import Run
from handful.training import train_recipe

RECIPE = "ped2-mpn-small"
UNITS = {"plain": 0, "unit": 10}  # prototypes
FIGURES = ("auc/raw", "auc/minmax", "auc/minmax_smoothed", "auc/macro", "local_auc/raw", "online_auc/raw")
ADDED = (  # what is asked, with it, without it
    ("the unit", "unit, pre-trained", "plain, pre-trained"),
    ("the inner steps, after pre-training", "plain, pre-trained, adapted", "plain, pre-trained"),
    ("the meta stage", "plain, meta-trained", "plain, pre-trained"),
    ("the meta stage and the inner steps", "plain, meta-trained, adapted", "plain, pre-trained"),
)

Figures = dict[str, float]


def main() -> None:
    options = arguments()
    found: dict[str, list[Figures]] = {}
    for seed in range(options.seeds):
        for unit in UNITS:
            for form, figures in scored(options, unit, seed).items():
                found.setdefault(form, []).append(figures)
    rows = [*forms(found), *added(found)]
    print(table(rows))
    if options.json:
        write_text(options.json, to_json(rows))


def arguments(words: Sequence[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, required=True, help="folder of the trainings")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--steps", type=int, default=1500, help="of pre-training")
    parser.add_argument("--episodes", type=int, default=60, help="steps of the meta stage")
    parser.add_argument("--draws", type=int, default=3, help="of the support")
    parser.add_argument("--set", action="append", default=[], help="change a key of the recipe: a.b=value")
    parser.add_argument("--json", type=Path)
    options = parser.parse_args(words)
    if options.seeds < 2:
        parser.error("an interval over seeds takes 2 of them")
    return options


def scored(options: argparse.Namespace, unit: str, seed: int) -> dict[str, Figures]:
    """The figures of one seed, of each form of the network."""
    changes = {
        "seed": seed,
        "decoder.prototypes": UNITS[unit],
        "pretrain.steps": options.steps,
        "pretrain.validate_every": options.steps,
        "train.steps": options.episodes,
        "train.validate_every": options.episodes,
        "evaluate.tasks": options.draws,
    }
    recipe = load_recipe(RECIPE, [*(f"{key}={value}" for key, value in changes.items()), *options.set])
    run, _ = train_recipe(recipe, options.out / f"{unit}-{seed}", quiet=True)
    stages = {"pre-trained": run.folder / "pretrain" / "checkpoints" / "best", "meta-trained": last(run)}
    found = {}
    for stage, folder in stages.items():
        run.method.load_state_dict(read_tensors(folder / "model.safetensors")[0])
        for name, steps in ((f"{unit}, {stage}", 0), (f"{unit}, {stage}, adapted", run.method.inner_steps)):
            protocol = recipe.protocols()[0].model_copy(update={"inner_steps": steps})
            result = evaluate_method(run.method, run.data.test, protocol, seed=seed)
            found[name] = {figure: 100 * result.measures[figure]["mean"] for figure in FIGURES}
            print(f"seed {seed}, {name}: {found[name]['auc/raw']:.2f}", flush=True)
    return found


def last(run: Run) -> Path:
    """Where the weights after the last step of the meta stage are, better than before it or not."""
    return run.weights("last").parent


def forms(found: dict[str, list[Figures]]) -> list[dict[str, Any]]:
    """The mean of each form over seeds."""
    return [
        {"measured": form, "unit": "%", "seeds": len(by_seed), **{name: mean_of(by_seed, name) for name in FIGURES}}
        for form, by_seed in found.items()
    ]


def mean_of(by_seed: Sequence[Figures], name: str) -> float:
    return float(np.mean([figures[name] for figures in by_seed]))


def added(found: dict[str, list[Figures]]) -> list[dict[str, Any]]:
    """What a part adds: mean and half the 95 % interval of the differences; and what other scores of one network do."""
    rows = []
    for name, with_it, without in ADDED:
        differences = {
            figure: [a[figure] - b[figure] for a, b in zip(found[with_it], found[without])] for figure in FIGURES
        }
        rows.append({"measured": f"adds: {name}", "unit": "points", **summed(differences)})
    plain = found["plain, pre-trained"]
    for score, figure in (("the local score", "local_auc/raw"), ("the online score", "online_auc/raw")):
        rows.append(
            {
                "measured": f"adds: {score}, to the raw mean error",
                "unit": "points",
                **summed({"auc/raw": [figures[figure] - figures["auc/raw"] for figures in plain]}),
            }
        )
    return rows


def summed(differences: dict[str, list[float]]) -> dict[str, Any]:
    """Mean, and half the interval, of each figure's differences."""
    found: dict[str, Any] = {"seeds": len(next(iter(differences.values())))}
    for figure, values in differences.items():
        width = student.ppf(0.975, len(values) - 1) * np.std(values, ddof=1) / np.sqrt(len(values))
        found |= {figure: float(np.mean(values)), f"{figure} ±": float(width)}
    return found


def table(rows: Sequence[dict[str, Any]]) -> str:
    """As a page of the docs has it."""
    lines = [f"| | {' | '.join(FIGURES)} |", f"|---|{'---|' * len(FIGURES)}"]
    for of in rows:
        sign = "+" if of["unit"] == "points" else ""
        cells = [
            "" if name not in of else f"{of[name]:{sign}.2f}" + (f" ± {of[f'{name} ±']:.2f}" if sign else "")
            for name in FIGURES
        ]
        lines.append(f"| {of['measured']} | {' | '.join(cells)} |")
    return "\n".join(lines)


if __name__ == "__main__":
    main()
