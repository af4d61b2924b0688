"""Reptile: move the initialisation towards the adapted weights.

Nichol, Achiam, Schulman: On First-Order Meta-Learning Algorithms, 2018, arXiv 1803.02999.

For each of B tasks phi = k steps of an inner optimizer on mini-batches of the task's images, from theta; then

    theta <- theta + eps * mean over tasks of (phi - theta).

There is no query set and no second derivative.  `forward` returns a loss whose gradient is theta - phi, so plain SGD
with rate eps is that outer rule: `train.optimizer: sgd`, `train.lr: 1.0`, `train.schedule: linear`.  The inner
optimizer is Adam with beta1 = 0, as in the paper's runs.

Both ways of testing: norm_stats="batch" passes all queries in one batch (transductive), "support+1" each query in one
batch with the support set (inductive).
"""

from __future__ import annotations

import math
from typing import Annotated

import torch
from pydantic import Field
from torch import nn

from handful.episodes import Episode
from handful.inner_loop import InnerAdam, NormStats
from handful.methods.gradient_based import GradientBased
from handful.methods.method import Outcome
from handful.registry import METHODS, part


@part(METHODS, "reptile")
def Reptile(
    backbone: nn.Module,
    *,
    inner_lr: float = 1e-3,
    inner_steps: int = 5,
    inner_batch: Annotated[int, Field(ge=1)] | None = 10,
    norm_stats: NormStats = "batch",
    fast_ops: bool = True,
) -> GradientBased:
    """Reptile with its inner Adam.

    inner_lr: of Adam, so about the length of a step in every entry; inner_steps: k; inner_batch: images of an inner
    step, taken in turn from the shuffled support set, all if null; norm_stats: `batch` or `support+1`.
    """
    return GradientBased(
        backbone,
        optimizer=InnerAdam(inner_lr),
        inner_steps=inner_steps,
        objective=displacement,
        first_order_steps=math.inf,
        norm_stats=norm_stats,
        fast_ops=fast_ops,
        inner_batch=inner_batch,
    )


def displacement(method: GradientBased, episode: Episode) -> Outcome:
    """A loss with the value of the adapted networks' query loss and the gradient theta - mean phi."""
    adaptation = method.adaptation(episode, method.norm_stats)
    *_, adapted = adaptation.steps(method.inner_steps)
    method.optimizer.keep(adaptation.update)
    theta = dict(method.network.named_parameters())
    pull = torch.stack([(theta[n] * (theta[n] - phi.mean(0)).detach()).sum() for n, phi in adapted.items()]).sum()
    with torch.no_grad():
        predictions = adaptation.query(method.inner_steps, adapted)
        loss = method.problem.loss(predictions, episode.query_y).mean()
    return Outcome(pull - pull.detach() + loss, method.problem.score(predictions, episode.query_y))
