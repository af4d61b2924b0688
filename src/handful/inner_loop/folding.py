"""Tasks as groups: runs one module for B tasks with B sets of parameters, at the price of one pass.

The task dimension is folded into the channels, [B, n, C, ...] -> [n, B*C, ...], and a layer with one set of weights a
task becomes the same layer with B groups.  Element-wise functions and pooling do not notice.  `torch.func.vmap` does
the same for every function there is, at some 4 ms of Python a pass; here the few functions that make up the usual
networks are done directly.  A function not in this file raises `NotFoldable`, and the caller turns to vmap.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.overrides import TorchFunctionMode


class NotFoldable(Exception):
    """A function whose meaning on folded tensors is not known."""


def fold(x: Tensor) -> Tensor:
    """[B, n, C, ...] -> [n, B*C, ...]."""
    return x.transpose(0, 1).flatten(1, 2)


def unfold(x: Tensor, tasks: int) -> Tensor:
    """[n, B*C, ...] -> [B, n, C, ...]."""
    unfolded: Tensor = x.unflatten(1, (tasks, -1)).transpose(0, 1)
    return unfolded


class Fold(TorchFunctionMode):
    """Within it a module sees folded activations; its weights are [B, ...] (one set a task) or [...] (shared)."""

    def __init__(self, tasks: int) -> None:
        super().__init__()
        self.tasks = tasks

    def __torch_function__(
        self,
        func: Callable[..., Any],
        types: Any,
        args: tuple[Any, ...] = (),
        kwargs: dict[str, Any] | None = None,
    ) -> Any:
        """Called for every torch function inside the mode."""
        kwargs = kwargs or {}
        if func in UNTOUCHED or (func in ARITHMETIC and _alike(*args, **kwargs)):
            return func(*args, **kwargs)
        if func in LAYERS:
            try:
                return LAYERS[func](self.tasks, *args, **kwargs)
            except TypeError as error:  # an argument that is not handled here
                raise NotFoldable(str(error)) from error
        raise NotFoldable(getattr(func, "__name__", str(func)))


def _alike(first: Any, second: Any = None, **others: Any) -> bool:
    """Whether an operation on two operands is element by element: equal shapes, or a number.

    Anything else broadcasts, and a folded activation would meet the wrong samples, channels or tasks.
    """
    if others or not isinstance(first, Tensor):
        return False
    return isinstance(second, int | float) or (isinstance(second, Tensor) and second.shape == first.shape)


def _conv2d(tasks: int, x: Tensor, weight: Tensor, bias: Tensor | None = None, *geometry: Any, **named: Any) -> Tensor:
    if weight.dim() == 4 and bias is not None and bias.dim() == 2:
        raise NotFoldable("a shared kernel with a bias for each task")
    if weight.dim() == 4:
        return _shared(torch.conv2d, tasks, x, weight, bias, *geometry, **named)
    named = {"groups": 1, **dict(zip(("stride", "padding", "dilation", "groups"), geometry)), **named}
    named["groups"] *= tasks
    return torch.conv2d(x, weight.flatten(0, 1), _flat(bias, tasks), **named)


def _linear(tasks: int, x: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    if x.dim() != 2:
        raise NotFoldable("linear on more than two dimensions")
    rows = x.unflatten(1, (tasks, -1)).transpose(0, 1)  # [B, n, I]
    y = rows @ weight.mT
    if bias is not None:
        y = y + (bias if bias.dim() == 1 else bias.unsqueeze(1))
    return y.transpose(0, 1).flatten(1, 2)


def _batch_norm(
    tasks: int,
    x: Tensor,
    running_mean: Tensor | None,
    running_var: Tensor | None,
    weight: Tensor | None = None,
    bias: Tensor | None = None,
    *rest: Any,
    **named: Any,
) -> Tensor:
    mean, var, gamma, beta = (_flat(value, tasks) for value in (running_mean, running_var, weight, bias))
    return F.batch_norm(x, mean, var, gamma, beta, *rest, **named)


def _group_norm(
    tasks: int,
    x: Tensor,
    groups: int,
    weight: Tensor | None = None,
    bias: Tensor | None = None,
    eps: float = 1e-5,
) -> Tensor:
    return F.group_norm(x, groups * tasks, _flat(weight, tasks), _flat(bias, tasks), eps)


def _mean(tasks: int, x: Tensor, dim: Any = None, keepdim: bool = False) -> Tensor:
    dims = [d % x.dim() for d in ((dim,) if isinstance(dim, int) else dim or ())]
    if not dims or min(dims) < 2:
        raise NotFoldable("mean over samples or channels")
    return x.mean(dims, keepdim)


def _flatten(tasks: int, x: Tensor, start_dim: int = 0, end_dim: int = -1) -> Tensor:
    if start_dim < 1:
        raise NotFoldable("flatten from the first dimension")
    return x.flatten(start_dim, end_dim)


def _shared(func: Callable[..., Tensor], tasks: int, x: Tensor, *args: Any, **named: Any) -> Tensor:
    """A layer with one set of weights for all tasks: their images are just more images."""
    y = func(x.unflatten(1, (tasks, -1)).flatten(0, 1), *args, **named)
    return y.unflatten(0, (-1, tasks)).flatten(1, 2)


def _flat(value: Tensor | None, tasks: int) -> Tensor | None:
    """Per-channel values [B, C] or [C] -> [B*C]."""
    if value is None:
        return None
    return value.flatten() if value.dim() == 2 else value.repeat(tasks)


LAYERS: dict[Callable[..., Any], Callable[..., Tensor]] = {
    torch.conv2d: _conv2d,
    F.linear: _linear,
    F.batch_norm: _batch_norm,
    F.group_norm: _group_norm,
    torch.mean: _mean,
    Tensor.mean: _mean,
    torch.flatten: _flatten,
    Tensor.flatten: _flatten,
}
# Element by element, or within each channel's map: the same on folded activations.
UNTOUCHED = {
    *(F.relu, torch.relu, Tensor.relu, F.leaky_relu, F.elu, F.gelu, F.silu, F.softplus),
    *(F.sigmoid, torch.sigmoid, F.tanh, torch.tanh, Tensor.tanh, F.dropout),
    *(F.max_pool2d, torch.max_pool2d, F.avg_pool2d, F.adaptive_avg_pool2d, F.interpolate),
    *(Tensor.dim, Tensor.dtype.__get__, Tensor.device.__get__),  # type: ignore[attr-defined]
}
ARITHMETIC = {
    *(torch.add, Tensor.add, Tensor.__add__, Tensor.add_, Tensor.__iadd__),
    *(torch.mul, Tensor.mul, Tensor.__mul__, torch.div, Tensor.div, Tensor.__truediv__),
}
