"""What the benches of rail lines share: plain fine-tuning of a run's network, and the figures of each query."""

from __future__ import annotations

import argparse
import math
from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from handful.backbones import BACKBONES
from handful.episodes import Episode
from handful.evaluation import evaluate_method
from handful.files import read_tensors
from handful.inner_loop import InnerAdam
from handful.methods.gradient_based import GradientBased
from handful.model.rails.start import FIFTHS
from handful.problems import RailLines
from handful.problems.rail_lines.predictions import mirrored
from handful.problems.rail_lines.tasks import beside
from handful.registry import build
from handful.run import Run

RATES = (1e-3, 3e-3, 1e-2)  # of plain fine-tuning


def opened(run: Run) -> tuple[GradientBased, RailLines]:
    """The method and the problem of a run of rail lines; SystemExit for another run."""
    method = run.method
    if not isinstance(method, GradientBased) or not isinstance(method.problem, RailLines):
        raise SystemExit(f"This bench takes runs of rail lines that adapt, and {run.folder} is another.")
    return method, method.problem


def tuning_arguments(parser: argparse.ArgumentParser) -> None:
    """What plain fine-tuning is chosen from, and by."""
    parser.add_argument("--tuning-steps", type=int, default=40, help="of plain fine-tuning, at most")
    parser.add_argument(
        "--tuning-tasks", type=int, default=10, help="validation tasks that its rate and steps suit best"
    )


def fine_tuned(run: Run, most: int, tasks: int) -> tuple[GradientBased | None, int]:
    """What pre-training left, its decoder to be trained by Adam, and for how many steps; None if there was none.

    Rate and steps, at most so many, are those that do best on so many validation tasks.
    """
    if run.recipe.pretrain is None:
        return None, 0
    weights, _ = read_tensors(run.folder / "pretrain" / "checkpoints" / "best" / "model.safetensors")
    network = {name.removeprefix("network."): value for name, value in weights.items() if name.startswith("network.")}
    protocol = run.recipe.protocols()[0].model_copy(update={"tasks": tasks, "inner_steps": most})
    found: list[tuple[float, GradientBased, int]] = []
    for rate in RATES:
        backbone = build("backbone", BACKBONES, run.recipe.backbone.spec(), input_shape=run.data.input_shape)
        method = GradientBased(backbone, optimizer=InnerAdam(rate), inner_steps=most, adapted=["head"])
        method.problem = run.method.problem
        method.attach_head(method.problem.outputs(1))
        method.network.load_state_dict(network)
        by_step = evaluate_method(method, run.data.val, protocol, seed=run.recipe.seed).by_inner_step
        step = int(np.argmax(by_step))
        print(f"{run.folder.name}, fine-tuning by {rate:g}: best {by_step[step]:.3f} after {step} steps", flush=True)
        found.append((by_step[step], method, step))
    _, best, steps = max(found, key=lambda tried: tried[0])
    return best, steps


def parted(method: GradientBased) -> nn.Module:
    """The backbone of a method, which takes features from then on: they are computed once.

    SystemExit if its inner loop moves more than the head.
    """
    if not all(name.startswith("head.") for name in method.inner_names):
        raise SystemExit("This bench computes features once: it takes runs that adapt the head alone.")
    body = method.backbone
    method.network.backbone = nn.Identity()
    return body


def helps(method: GradientBased, problem: RailLines, views: Sequence[Tensor], targets: Tensor) -> bool:
    """Whether the inner loop does a support good, as `fit` asks: what is left out in turn is answered no worse by it.

    views: features [K, d] of the support, of its mirror image too if both are asked, which `fit` finds out by itself;
    targets [K, L, R, 2].  Of a single frame nothing is known: it is adapted to.
    """
    count = len(targets)
    if count == 1:
        return True
    sums = {0: 0.0, method.inner_steps: 0.0}
    parts = min(FIFTHS, count)
    for part in range(parts):
        out = list(range(part, count, parts))
        others = [frame for frame in range(count) if frame not in out]
        known, asked = (beside(targets[None, frames], targets[None, others]) for frames in (others, out))
        x = torch.cat([view[out] for view in views])[None]
        episode = Episode(views[0][None, others], known, x, asked.repeat(1, len(views), 1, 1, 1))
        for steps in sums:
            straight, *turned = method.predict(episode, steps, every_step=False)[-1, 0].split(len(out))
            said = sum((mirrored(other) for other in turned), straight) / len(views)
            sums[steps] += float(figures(problem, said, asked)[problem.metric].sum())
    return sums[method.inner_steps] >= sums[0]


def figures(problem: RailLines, predictions: Tensor, targets: Tensor) -> dict[str, Tensor]:
    """Every figure of each query [q]: predictions [q, L, R', C + 1], targets [1, q, L, R, 4]."""
    alone = predictions.unsqueeze(1), targets.movedim(1, 0)
    return {problem.metric: problem.score(*alone), **problem.measures(*alone)}


def floor_figures(problem: RailLines, targets: Tensor) -> dict[str, Tensor]:
    """Every figure of the mean line of the support, of each query [q]: targets [1, q, L, R, 4]."""
    (found,) = problem.floors(Episode(targets, targets, targets, targets.movedim(1, 0))).values()
    return found


def spread_over(values: NDArray[np.float64], groups: list[str]) -> float:
    """Half width of the 95 % interval of a mean [n] over groups, since the values of one group move together.

    With one value in each group it is `interval`; of a single group nothing is known.
    """
    _, number = np.unique(groups, return_inverse=True)
    sums = np.bincount(number, values - values.mean())
    if len(sums) == 1:
        return math.nan
    return 1.96 * math.sqrt(len(sums) / (len(sums) - 1) * np.square(sums).sum()) / len(values)
