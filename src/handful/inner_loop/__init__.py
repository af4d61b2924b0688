"""The inner loop: differentiable adaptation of an unchanged module to a batch of tasks.

Any module will do whose gradient autograd can take twice, but for activation checkpointing: that is refused.

Parameters are dictionaries by name, as in `torch.func.functional_call`.  Those that are adapted carry a leading task
dimension, [B, ...]: one copy a task.

`adaptation` steps down the support loss, `updates` says how far, `tasks` runs the module for B tasks at once,
`statistics` decides what batch norm normalises with; `folding` and `fast_ops` make it fast without changing a number.
"""

from handful.inner_loop.adaptation import (
    Params,
    SupportLoss,
    Update,
    adapt,
    per_task,
    random_state,
    set_random_state,
    with_gradient,
)
from handful.inner_loop.statistics import (
    Moments,
    NormStats,
    PerStepNorm,
    freeze_statistics,
    has_batch_norm,
    keep_statistics,
)
from handful.inner_loop.tasks import GROUPED_IMAGES, GROUPED_VALUES, TaskForward, evaluating, ways_of_passing
from handful.inner_loop.updates import GradientDescent, InnerAdam, InnerOptimizer, Rates, ScaledDescent

__all__ = [
    "GROUPED_IMAGES",
    "GROUPED_VALUES",
    "GradientDescent",
    "InnerAdam",
    "InnerOptimizer",
    "Moments",
    "NormStats",
    "Params",
    "PerStepNorm",
    "Rates",
    "ScaledDescent",
    "SupportLoss",
    "TaskForward",
    "Update",
    "adapt",
    "evaluating",
    "freeze_statistics",
    "has_batch_norm",
    "keep_statistics",
    "per_task",
    "random_state",
    "set_random_state",
    "ways_of_passing",
    "with_gradient",
]
