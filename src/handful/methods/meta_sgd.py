"""Meta-SGD: learn the initialisation, and the direction and length of the inner step with it.

Li, Zhou, Chen, Li: Meta-SGD: Learning to Learn Quickly for Few-Shot Learning, 2017, arXiv 1707.09835.

    phi = theta - a ⊙ grad L_support(theta),   a of theta's own shape, learned with it, of either sign.

For one step dL_query/da = -grad L_query(phi) ⊙ grad L_support(theta).  A constant a is MAML.
"""

from __future__ import annotations

from torch import nn

from handful.inner_loop import GradientDescent, NormStats
from handful.methods.gradient_based import Backprop, GradientBased
from handful.registry import METHODS, part


@part(METHODS, "meta-sgd")
def MetaSGD(
    backbone: nn.Module,
    *,
    inner_lr: float = 0.4,
    inner_steps: int = 1,
    norm_stats: NormStats = "batch",
    fast_ops: bool = True,
    backprop: Backprop = "auto",
) -> GradientBased:
    """Meta-SGD: one learned step size for every entry of every parameter.

    inner_lr: what all of them start from; inner_steps: one in the paper, more steps share the sizes; other options as
    those of MAML.
    """
    return GradientBased(
        backbone,
        optimizer=GradientDescent(inner_lr, "per_element", inner_steps),
        inner_steps=inner_steps,
        norm_stats=norm_stats,
        fast_ops=fast_ops,
        backprop=backprop,
    )
