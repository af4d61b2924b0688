"""MAML++: five mends of MAML's training, each a switch.

Antoniou, Edwards, Storkey: How to Train Your MAML, ICLR 2019, arXiv 1810.09502.

- multi-step loss: the outer loss is sum_s w_s L_query(phi_s), from equal weights to the last step alone;
- per-step rates: a learned inner rate for each tensor and inner step;
- per-step norm: batch norm with scale, shift and running statistics of its own for each inner step, not adapted;
- derivative-order annealing: first order for a while, then second;
- cosine annealing of the outer rate: `train.schedule: cosine` with `train.min_lr`, as for every method here.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated

from pydantic import Field
from torch import nn

from handful.inner_loop import GradientDescent, NormStats
from handful.methods.gradient_based import Backprop, GradientBased, QueryLoss
from handful.registry import METHODS, part

EPOCH = 500  # outer steps between two changes of the weights, as in the authors' code
LEAST = 0.03  # what the weights of the earlier steps fall to, together with 1 / S


@dataclass(frozen=True)
class AnnealedWeights:
    """Weights of the query losses after 1 ... S inner steps; their sum is 1 at every outer step.

    w_s = max(1/S - e / (S E), 0.03/S) for s < S, and the last has the rest; after E epochs e it has all.
    """

    epochs: int

    def __call__(self, outer_step: int, steps: int) -> Sequence[float]:
        """[S]"""
        epoch = outer_step // EPOCH
        if epoch >= self.epochs:
            return [0.0] * (steps - 1) + [1.0]
        early = max(1 / steps - epoch / (steps * self.epochs), LEAST / steps)
        return [early] * (steps - 1) + [1 - early * (steps - 1)]


@part(METHODS, "maml++")
def MAMLPlusPlus(
    backbone: nn.Module,
    *,
    inner_lr: float = 0.1,
    inner_steps: int = 5,
    multi_step_epochs: Annotated[int, Field(ge=0)] = 10,
    per_step_rates: bool = True,
    per_step_norm: bool = True,
    first_order_steps: Annotated[int, Field(ge=0)] = 0,
    adapt: list[str] = [],  # noqa: B006 - shown as the default of a recipe key, never written
    norm_stats: NormStats = "batch",
    fast_ops: bool = True,
    backprop: Backprop = "auto",
) -> GradientBased:
    """MAML++; without its switches it is MAML.

    multi_step_epochs: epochs of 500 outer steps until the multi-step loss has become the loss after the last step, 0
    to have that from the start; per_step_rates, per_step_norm: as above; first_order_steps: outer steps in first order
    before the second order begins (the authors' released runs have none); norm_stats: `batch`, or `per_step` for the
    running statistics of each step.  No more inner steps in testing than in training, for these have no rates and no
    norms.  Other options as those of MAML.
    """
    return GradientBased(
        backbone,
        optimizer=GradientDescent(inner_lr, "per_step" if per_step_rates else "fixed", inner_steps),
        inner_steps=inner_steps,
        objective=QueryLoss(AnnealedWeights(multi_step_epochs)),
        adapted=adapt,
        first_order_steps=first_order_steps,
        norm_stats=norm_stats,
        per_step_norm=per_step_norm,
        fast_ops=fast_ops,
        backprop=backprop,
    )
