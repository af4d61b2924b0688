"""Several processes that work on one run: who does what, and what they tell each other.

Every process does the same things in the same order, with the same weights.  Of a step's tasks each takes its share;
Lightning Fabric starts the processes (`handful.launching`) and averages their outer gradients, and a batch norm that
sees all tasks of a step together takes its moments over all processes (`SharedMoments`).  Of an evaluation's tasks each
scores its share and tells the others.  The first alone writes, so all must see the same run folder.
"""

from __future__ import annotations

import socket
from collections.abc import Callable, Iterable
from typing import Any, TypeVar

import torch
import torch.distributed as dist
import torch.nn.functional as F
from torch import Tensor
from torch.autograd.function import once_differentiable

from handful.errors import HandfulError
from handful.inner_loop.statistics import BatchNormMode, moments, normalise

T = TypeVar("T")


def world() -> int:
    """How many processes work together."""
    return dist.get_world_size() if dist.is_initialized() else 1


def rank() -> int:
    """The number of this one; the first, 0, is the one that writes."""
    return dist.get_rank() if dist.is_initialized() else 0


def share(count: int) -> range:
    """Which of `count` things this process takes: consecutive ones, as many as the others or one more."""
    return range(count * rank() // world(), count * (rank() + 1) // world())


def even_share(count: int, key: str) -> range:
    """The same, of as many for each process.

    Raises HandfulError, with the recipe's key that says how many, if that cannot be.
    """
    check_even(count, world(), key)
    return share(count)


def check_even(count: int, processes: int, key: str) -> None:
    """Raise HandfulError, with the recipe's key that says how many, if so many processes cannot share them evenly."""
    if count % processes:
        raise HandfulError(
            f"{key} is {count}, which {processes} processes cannot share evenly; set it to a multiple of {processes}."
        )


def gathered(part: T) -> list[T]:
    """What every process has, in their order: anything that can be pickled."""
    if world() == 1:
        return [part]
    parts: list[Any] = [None] * world()
    dist.all_gather_object(parts, part)
    return parts


def beside() -> int:
    """How many processes work on this machine."""
    return gathered(socket.gethostname()).count(socket.gethostname())


def by_first(write: Callable[[], object]) -> None:
    """Let the first process write, while the others wait."""
    if rank() == 0:
        write()
    if world() > 1:
        gathered(None)


def agreed(wish: bool) -> bool:
    """Whether any process wishes it."""
    if world() == 1:
        return wish
    wishes = torch.tensor(float(wish), device="cuda" if dist.get_backend() == "nccl" else "cpu")
    dist.all_reduce(wishes)
    return bool(wishes)


def average(tensors: Iterable[Tensor]) -> None:
    """Set tensors of real numbers to their mean over the processes, by one message."""
    tensors = [tensor for tensor in tensors if tensor.is_floating_point()]
    if world() == 1 or not tensors:
        return
    flat = torch.cat([tensor.detach().flatten() for tensor in tensors])
    dist.all_reduce(flat)
    for tensor, mean in zip(tensors, (flat / world()).split([tensor.numel() for tensor in tensors])):
        tensor.copy_(mean.view_as(tensor))


class SharedMoments(BatchNormMode):
    """Within it a batch norm in training normalises by the batches of all processes, as if they were one.

    They must be of one size.  torch's own `SyncBatchNorm` does the same, on GPUs alone.
    """

    def batch_norm(
        self,
        x: Tensor,
        running_mean: Tensor | None,
        running_var: Tensor | None,
        weight: Tensor | None = None,
        bias: Tensor | None = None,
        training: bool = False,
        momentum: float = 0.1,
        eps: float = 1e-5,
    ) -> Tensor:
        """By the moments over all processes, in training."""
        if not training:
            return F.batch_norm(x, running_mean, running_var, weight, bias, False, momentum, eps)
        wide = x if x.dtype == torch.float64 else x.float()
        every = of_each(torch.stack(moments(wide)))  # [processes, 2, C]
        mean = every[:, 0].mean(0)
        var = every[:, 1].mean(0) + (every[:, 0] - mean).square().mean(0)
        if running_mean is not None and running_var is not None:
            count = world() * x.numel() // x.shape[1]
            with torch.no_grad():
                running_mean.lerp_(mean.to(running_mean), momentum)
                running_var.lerp_((var * (count / (count - 1))).to(running_var), momentum)
        return normalise(wide, mean, var, weight, bias, eps).to(x.dtype)


def of_each(values: Tensor) -> Tensor:
    """[...] -> [processes, ...], of all, differentiable: each puts its own into a sum of zeros."""
    every = [torch.zeros_like(values)] * world()
    every[rank()] = values
    total: Tensor = _Total.apply(torch.stack(every))
    return total


class _Total(torch.autograd.Function):
    """The sum over the processes.  What each makes of it counts for all, so its gradient is their sum too."""

    @staticmethod
    def forward(ctx: Any, values: Tensor) -> Tensor:
        total = values.clone()
        dist.all_reduce(total)
        return total

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, cotangent: Tensor) -> Tensor:
        return _Total.forward(ctx, cotangent.contiguous())
