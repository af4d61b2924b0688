"""Almost No Inner Loop.

Raghu, Raghu, Bengio, Vinyals: Rapid Learning or Feature Reuse? Towards Understanding the Effectiveness of MAML,
ICLR 2020, arXiv 1909.09157.

MAML whose inner loop moves the head alone, in training and in testing:

    head_{s+1} = head_s - a grad_head L_support(body, head_s),   body as it is.

Exactly MAML with an inner rate of 0 for the body; the outer loop still moves both.  The features of the support and
the query set are therefore the same at every inner step and are computed once.
"""

from __future__ import annotations

import math

from torch import nn

from handful.inner_loop import GradientDescent, NormStats, Rates
from handful.methods.gradient_based import Backprop, GradientBased
from handful.registry import METHODS, part


@part(METHODS, "anil")
def ANIL(
    backbone: nn.Module,
    *,
    inner_lr: float = 0.4,
    inner_steps: int = 5,
    first_order: bool = False,
    rates: Rates = "fixed",
    norm_stats: NormStats = "batch",
    fast_ops: bool = True,
    backprop: Backprop = "auto",
) -> GradientBased:
    """ANIL: MAML that adapts the head alone; its other options are MAML's."""
    return GradientBased(
        backbone,
        optimizer=GradientDescent(inner_lr, rates, inner_steps),
        inner_steps=inner_steps,
        adapted=["head"],
        first_order_steps=math.inf if first_order else 0,
        norm_stats=norm_stats,
        fast_ops=fast_ops,
        backprop=backprop,
    )
