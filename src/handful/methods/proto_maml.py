"""Proto-MAML: MAML whose head starts as a prototype classifier, so that it takes any number of ways.

Triantafillou et al.: Meta-Dataset: A Dataset of Datasets for Learning to Learn from Few Examples, ICLR 2020,
arXiv 1903.03096, section 3.

With p_c the mean feature of class c's support images, squared distances to prototypes are a linear layer,
-|f - p_c|^2 = 2 p_c . f - |p_c|^2 - |f|^2, whose last term all classes share.  So

    head_0:  w_c = 2 p_c,   b_c = -|p_c|^2

and the inner loop goes on from there, moving body and head.  The outer gradient also flows through the prototypes.
"""

from __future__ import annotations

import math

from torch import nn

from handful.inner_loop import GradientDescent, NormStats, Rates
from handful.methods.gradient_based import Backprop, GradientBased
from handful.registry import METHODS, part


@part(METHODS, "proto-maml")
def ProtoMAML(
    backbone: nn.Module,
    *,
    inner_lr: float = 0.1,
    inner_steps: int = 5,
    first_order: bool = False,
    rates: Rates = "fixed",
    norm_stats: NormStats = "batch",
    fast_ops: bool = True,
    backprop: Backprop = "auto",
) -> GradientBased:
    """Proto-MAML: a run made for 5 ways can fit 7; most options are MAML's."""
    return GradientBased(
        backbone,
        optimizer=GradientDescent(inner_lr, rates, inner_steps),
        inner_steps=inner_steps,
        prototype_head=True,
        first_order_steps=math.inf if first_order else 0,
        norm_stats=norm_stats,
        fast_ops=fast_ops,
        backprop=backprop,
    )
