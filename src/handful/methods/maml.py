"""Model-Agnostic Meta-Learning, and its first-order form FOMAML.

Finn, Abbeel, Levine: Model-Agnostic Meta-Learning for Fast Adaptation of Deep Networks, ICML 2017, arXiv 1703.03400.

Learn an initialisation theta from which a few gradient steps on a task's support set give a good model of that task:

    phi_0 = theta,   phi_{s+1} = phi_s - a grad L_support(phi_s)        (inner loop)
    theta <- Adam(theta, grad_theta mean over tasks of L_query(phi_S))  (outer loop)

The outer gradient goes through the inner gradients, so it holds second derivatives: for one step it is
(I - a H) grad L_query(phi_1).  FOMAML takes the inner gradients for constants and keeps grad L_query(phi_S) alone.
With norm_stats="batch", as published, it is transductive.
"""

from __future__ import annotations

import math
from typing import Annotated

from pydantic import Field
from torch import nn

from handful.inner_loop import GradientDescent, NormStats, Rates, ScaledDescent
from handful.methods.gradient_based import Backprop, GradientBased, QueryLoss
from handful.registry import METHODS, part


@part(METHODS, "maml")
def MAML(
    backbone: nn.Module,
    *,
    inner_lr: float = 0.4,
    inner_steps: int = 5,
    scaled: bool = False,
    first_order: bool = False,
    zero_shot: Annotated[float, Field(ge=0, lt=1)] = 0,
    rates: Rates = "fixed",
    adapt: list[str] = [],  # noqa: B006 - shown as the default of a recipe key, never written
    norm_stats: NormStats = "batch",
    fast_ops: bool = True,
    backprop: Backprop = "auto",
) -> GradientBased:
    """MAML and FOMAML over any backbone: an nn.Module with `out_features`.

    inner_lr: step size a on the *mean* support loss (the paper's 0.4 for 5-way Omniglot is on the sum over classes,
    so 2.0 here); inner_steps: gradient steps in training, and in evaluation unless asked otherwise; scaled: divide
    each gradient by its own size, as Adam does (`ScaledDescent`), so that a is the length of a step; first_order:
    FOMAML; zero_shot: the share of the outer loss that is the query loss before any inner step, so that what is
    learned answers without a support too (0 as published); rates: `fixed`, or learned from inner_lr on `per_tensor`,
    `per_step` or `per_element`; adapt: the part of the network that the inner loop moves, by parameter names or their
    beginnings, all if empty; norm_stats: whose batch-norm statistics; fast_ops, backprop: same numbers, less time or
    memory (`GradientBased`).
    """
    return GradientBased(
        backbone,
        optimizer=(ScaledDescent if scaled else GradientDescent)(inner_lr, rates, inner_steps),
        inner_steps=inner_steps,
        objective=QueryLoss(zero_shot=zero_shot),
        adapted=adapt,
        first_order_steps=math.inf if first_order else 0,
        norm_stats=norm_stats,
        fast_ops=fast_ops,
        backprop=backprop,
    )
