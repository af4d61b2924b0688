"""Tasks as groups: runs one module for B tasks with B sets of parameters, at the price of one pass.

The task dimension is folded into the channels, [B, n, C, ...] -> [n, B*C, ...], and a layer with one set of weights a
task becomes the same layer with B groups.  Element-wise functions and pooling do not notice.  `torch.func.vmap` does
the same for every function there is, but spends Python on each call; here the few functions that make up the usual
networks are done directly.  Any other raises `NotFoldable`, and the caller turns to vmap.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.overrides import TorchFunctionMode


class NotFoldable(RuntimeError):
    """A function whose meaning on folded tensors is not known."""


def fold(x: Tensor) -> Tensor:
    """[B, n, C, ...] -> [n, B*C, ...], an activation."""
    return _activation(x.transpose(0, 1).flatten(1, 2))


def unfold(x: Tensor, tasks: int) -> Tensor:
    """[n, B*C, ...] -> [B, n, C, ...]."""
    _check(x)
    unfolded: Tensor = x.unflatten(1, (tasks, -1)).transpose(0, 1)
    return unfolded


class Fold(TorchFunctionMode):
    """Within it a module sees folded activations; its weights are [B, ...] (one set a task) or [...] (shared).

    What is an activation is not guessed from its shape: `fold` marks the input, and each function here marks what it
    makes of an activation.  A weight, a constant or the result of an unknown function is none, and is refused where
    an activation is wanted.
    """

    def __init__(self, tasks: int) -> None:
        super().__init__()
        self.tasks = tasks
        self.graph = torch.is_grad_enabled()

    def __torch_function__(
        self,
        func: Callable[..., Any],
        types: Any,
        args: tuple[Any, ...] = (),
        kwargs: dict[str, Any] | None = None,
    ) -> Any:
        """Called for every torch function inside the mode."""
        kwargs = kwargs or {}
        if func in FACTS:
            return func(*args, **kwargs)
        if func in SIZES:
            return SIZES[func](_shape(self.tasks, args[0]), *args[1:], **kwargs)
        if torch.is_grad_enabled() != self.graph:
            raise NotFoldable("a function with a backward of its own, or torch.no_grad")
        if func in ELEMENTWISE or (func in ARITHMETIC and _alike(*args, **kwargs)):
            result = func(*args, **kwargs)
            return _activation(result) if _is_activation(*args) else result
        if func not in LAYERS:
            raise NotFoldable(getattr(func, "__name__", str(func)))
        _check(*args, *kwargs.values())
        try:
            return _activation(LAYERS[func](self.tasks, *args, **kwargs))
        except TypeError as error:  # an argument that is not handled here
            raise NotFoldable(str(error)) from error


def _activation(x: Tensor) -> Tensor:
    x.folded = True  # type: ignore[attr-defined]
    return x


def _is_activation(x: Any = None, *others: Any) -> bool:
    return hasattr(x, "folded")


def _check(x: Any = None, *others: Any) -> None:
    """The first argument of a layer is an activation, and no other is."""
    if not _is_activation(x) or any(map(_is_activation, others)):
        raise NotFoldable("a layer of weights or constants")


def _alike(first: Any, second: Any = None, **others: Any) -> bool:
    """Whether an operation on two operands is element by element: activations of equal shapes, or with a number.

    Anything else broadcasts, and a folded activation would meet the wrong samples, channels or tasks.
    """
    if others or not isinstance(first, Tensor):
        return False
    if isinstance(second, int | float):
        return True
    return _is_activation(first) and _is_activation(second) and first.shape == second.shape


def _shape(tasks: int, x: Tensor) -> list[int]:
    """Of one task's activation."""
    _check(x)
    return [x.shape[0], x.shape[1] // tasks, *x.shape[2:]]


def _reshape(func: Callable[..., Tensor]) -> Callable[..., Tensor]:
    """view or reshape that leaves the samples apart: [n, B*C, ...] -> [n, B*D, ...]."""

    def reshape(tasks: int, x: Tensor, *shape: Any) -> Tensor:
        samples, *rest = shape[0] if len(shape) == 1 and isinstance(shape[0], Sequence) else shape
        if samples == -1 and tasks * math.prod(rest) == x[0].numel():
            samples = len(x)
        if not rest or samples != len(x):
            raise NotFoldable("a shape that mixes samples")
        return func(x, (samples, rest[0] if rest[0] == -1 else tasks * rest[0], *rest[1:]))

    return reshape


def _pool(func: Callable[..., Tensor]) -> Callable[..., Tensor]:
    """Pooling of maps [n, B*C, H, W]: each channel by itself."""

    def pool(tasks: int, x: Tensor, *args: Any, **named: Any) -> Tensor:
        if x.dim() != 4 or named.get("return_indices"):
            raise NotFoldable("pooling of what are no maps")
        return func(x, *args, **named)

    return pool


def _conv2d(tasks: int, x: Tensor, weight: Tensor, bias: Tensor | None = None, *geometry: Any, **named: Any) -> Tensor:
    if x.dim() != 4:
        raise NotFoldable("convolution of what are no maps")
    if weight.dim() == 4 and bias is not None and bias.dim() == 2:
        raise NotFoldable("a shared kernel with a bias for each task")
    if weight.dim() == 4:
        return _shared(torch.conv2d, tasks, x, weight, bias, *geometry, **named)
    named = {"groups": 1, **dict(zip(("stride", "padding", "dilation", "groups"), geometry)), **named}
    named["groups"] *= tasks
    return torch.conv2d(x, weight.flatten(0, 1), _flat(bias, tasks), **named)


def _linear(tasks: int, x: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    if x.dim() != 2 or (bias is not None and bias.dim() > 2):
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
    **{func: _reshape(func) for func in (Tensor.view, Tensor.reshape, torch.reshape)},
    **{func: _pool(func) for func in (F.max_pool2d, torch.max_pool2d, F.avg_pool2d, F.adaptive_avg_pool2d)},
    F.interpolate: lambda tasks, *args, **named: F.interpolate(*args, **named),
}
# Element by element: the same on folded activations, on weights of each task and on shared ones.
ELEMENTWISE = {
    *(F.relu, torch.relu, Tensor.relu, F.leaky_relu, F.elu, F.gelu, F.silu, F.softplus),
    *(F.sigmoid, torch.sigmoid, F.tanh, torch.tanh, Tensor.tanh, F.dropout, Tensor.__neg__),
}
ARITHMETIC = {
    *(torch.add, Tensor.add, Tensor.__add__, Tensor.__radd__, Tensor.add_, Tensor.__iadd__),
    *(torch.sub, Tensor.sub, Tensor.__sub__, Tensor.__rsub__),
    *(torch.mul, Tensor.mul, Tensor.__mul__, Tensor.__rmul__, torch.div, Tensor.div, Tensor.__truediv__),
}
# What a module asks of an activation is answered as for one task.
SIZES: dict[Any, Callable[..., Any]] = {
    Tensor.size: lambda shape, dim=None: torch.Size(shape) if dim is None else shape[dim],
    Tensor.shape.__get__: torch.Size,  # type: ignore[attr-defined]
    Tensor.__len__: lambda shape: shape[0],
    Tensor.dim: len,
}
FACTS = {Tensor.dtype.__get__, Tensor.device.__get__}  # type: ignore[attr-defined]
