"""What the benches of rail lines share: plain fine-tuning of a run's network, and the figures of each query."""

from __future__ import annotations

import argparse
import math

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from handful.backbones import BACKBONES
from handful.episodes import Episode
from handful.evaluation import evaluate_method
from handful.files import read_tensors
from handful.inner_loop import InnerAdam
from handful.methods.gradient_based import GradientBased
from handful.problems import RailLines
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
