"""Convolution and batch norm with second derivatives in closed form.

Second-order MAML differentiates the inner gradient once more.  Left to itself autograd spells out the second
derivative of batch norm as some 190 element-wise products and that of a convolution as convolutions with huge
kernels; both have short closed forms.  The functions here compute exactly what `torch.conv2d` and `F.batch_norm` on
batch statistics compute, with those forms as double backward.

`FastOps` swaps them in for the unchanged module that runs inside it; whatever it does not know falls through.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.autograd.function import once_differentiable
from torch.overrides import TorchFunctionMode

Geometry = tuple[tuple[int, int], tuple[int, int], tuple[int, int], int]  # stride, padding, dilation, groups


def _conv_backward(gy: Tensor, x: Tensor, w: Tensor, geometry: Geometry, mask: list[bool]) -> list[Tensor]:
    stride, padding, dilation, groups = geometry
    return torch.ops.aten.convolution_backward(gy, x, w, None, stride, padding, dilation, False, (0, 0), groups, mask)


class _Conv(torch.autograd.Function):
    """y = conv(x, w) + bias."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, w: Tensor, bias: Tensor | None, geometry: Geometry) -> Tensor:
        stride, padding, dilation, groups = ctx.geometry = geometry
        ctx.save_for_backward(x, w)
        return torch.conv2d(x, w, bias, stride, padding, dilation, groups)

    @staticmethod
    def backward(ctx: Any, gy: Tensor) -> tuple[Tensor | None, ...]:
        x, w = ctx.saved_tensors
        need_x, need_w, need_bias, _ = ctx.needs_input_grad
        if torch.is_grad_enabled():
            gx, gw = _ConvBackward.apply(gy, x, w, ctx.geometry, need_x)
        else:
            gx, gw, _ = _conv_backward(gy, x, w, ctx.geometry, [need_x, need_w, False])
        gb = gy.sum((0, 2, 3)) if need_bias else None
        return (gx if need_x else None), (gw if need_w else None), gb, None


class _ConvBackward(torch.autograd.Function):
    """(gx, gw) of a convolution, whose own derivative is four ordinary convolution calls."""

    @staticmethod
    def forward(ctx: Any, gy: Tensor, x: Tensor, w: Tensor, geometry: Geometry, need_x: bool) -> tuple[Tensor, Tensor]:
        ctx.geometry, ctx.need_x = geometry, need_x
        ctx.set_materialize_grads(False)
        ctx.save_for_backward(gy, x, w)
        gx, gw, _ = _conv_backward(gy, x, w, geometry, [need_x, True, False])
        return (gx if need_x else gy.new_empty(0)), gw

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, ggx: Tensor | None, ggw: Tensor | None) -> tuple[Any, ...]:
        gy, x, w = ctx.saved_tensors
        stride, padding, dilation, groups = ctx.geometry
        need_gy, need_x, need_w = ctx.needs_input_grad[:3]
        to_gy = to_x = to_w = None
        if ggx is not None and ctx.need_x:
            if need_gy:
                to_gy = torch.conv2d(ggx, w, None, stride, padding, dilation, groups)
            if need_w:
                to_w = _conv_backward(gy, ggx, w, ctx.geometry, [False, True, False])[1]
        if ggw is not None:
            if need_gy:
                term = torch.conv2d(x, ggw, None, stride, padding, dilation, groups)
                to_gy = term if to_gy is None else to_gy.add_(term)
            if need_x:
                to_x = _conv_backward(gy, x, ggw, ctx.geometry, [True, False, False])[0]
        return to_gy, to_x, to_w, None, None


class _BatchNorm(torch.autograd.Function):
    """Batch norm on the statistics of the batch: y = w (x - mean) / sqrt(var + eps) + b, per channel.

    running: buffers (mean, var) that move towards the batch's by `momentum`, or (None, None).
    """

    @staticmethod
    def forward(
        ctx: Any,
        x: Tensor,
        w: Tensor,
        b: Tensor,
        running: tuple[Tensor | None, Tensor | None],
        momentum: float,
        eps: float,
    ) -> Tensor:
        y, mean, inverse = torch.native_batch_norm(x, w, b, *running, True, momentum, eps)
        ctx.eps = eps
        ctx.save_for_backward(x, w, mean, inverse)
        return y

    @staticmethod
    def backward(ctx: Any, gy: Tensor) -> tuple[Any, ...]:
        x, w, mean, inverse = ctx.saved_tensors
        if torch.is_grad_enabled():
            return *_BatchNormBackward.apply(gy, x, w, mean, inverse, ctx.eps), None, None, None
        gx, gw, gb = torch.ops.aten.native_batch_norm_backward(
            gy, x, w, None, None, mean, inverse, True, ctx.eps, [True, True, True]
        )
        return gx, gw, gb, None, None, None


class _BatchNormBackward(torch.autograd.Function):
    """(gx, gw, gb) of batch norm.

    With s = 1/sigma and the projection P(v) = v - mean(v) - xhat mean(v xhat), which is symmetric:
    u = s P(gy), gx = w u, gw = sum gy xhat, gb = sum gy.
    """

    @staticmethod
    def forward(
        ctx: Any, gy: Tensor, x: Tensor, w: Tensor, mean: Tensor, inverse: Tensor, eps: float
    ) -> tuple[Tensor, Tensor, Tensor]:
        u, gw, gb = _project(gy, x, mean, inverse, eps)
        ctx.eps = eps
        ctx.save_for_backward(x, w, mean, inverse, gw, u)
        return u * _channel(w, x), gw, gb

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, ggx: Tensor, ggw: Tensor, ggb: Tensor) -> tuple[Any, ...]:
        x, w, mean, inverse, gw, u = ctx.saved_tensors
        m = x.numel() // x.shape[1]
        v, ggx_xhat, _ = _project(ggx, x, mean, inverse, ctx.eps)  # v = s P(ggx)
        to_w = (ggx * u).sum([0, *range(2, x.dim())])
        # The cotangents of gy and x are combinations of v, u, xhat and 1 with one coefficient a channel, where
        # xhat = s x - s mean is written out so that it is never formed.
        to_gy = _combine((w, v), (ggw * inverse, x), offset=ggb - ggw * inverse * mean)
        on_v = -w * gw * inverse / m
        on_u = ggw - w * ggx_xhat * inverse / m
        on_xhat = -w * to_w * inverse / m
        to_x = _combine((on_v, v), (on_u, u), (on_xhat * inverse, x), offset=-on_xhat * inverse * mean)
        return to_gy, to_x, to_w, None, None, None


def _project(g: Tensor, x: Tensor, mean: Tensor, inverse: Tensor, eps: float) -> tuple[Tensor, Tensor, Tensor]:
    """(s P(g), sum g xhat, sum g): the fused first backward of batch norm with unit weight."""
    return torch.ops.aten.native_batch_norm_backward(
        g, x, None, None, None, mean, inverse, True, eps, [True, True, True]
    )


def _channel(v: Tensor, like: Tensor) -> Tensor:
    """[C] -> [1, C, 1, ...]."""
    return v.view(-1, *[1] * (like.dim() - 2))


def _combine(*terms: tuple[Tensor, Tensor], offset: Tensor) -> Tensor:
    """Sum of coefficient [C] times value [n, C, ...], plus an offset [C]."""
    (first, value), *rest = terms
    total = torch.addcmul(_channel(offset, value), value, _channel(first, value))
    for coefficient, value in rest:
        total.addcmul_(value, _channel(coefficient, value))
    return total


def _conv2d(
    x: Tensor,
    w: Tensor,
    bias: Tensor | None = None,
    stride: Any = 1,
    padding: Any = 0,
    dilation: Any = 1,
    groups: int = 1,
) -> Tensor:
    if isinstance(padding, str) or x.dim() == 3:
        return torch.conv2d(x, w, bias, stride, padding, dilation, groups)
    pair = torch.nn.modules.utils._pair
    return _Conv.apply(x, w, bias, (pair(stride), pair(padding), pair(dilation), groups))


def _batch_norm(
    x: Tensor,
    running_mean: Tensor | None,
    running_var: Tensor | None,
    weight: Tensor | None = None,
    bias: Tensor | None = None,
    training: bool = False,
    momentum: float = 0.1,
    eps: float = 1e-5,
) -> Tensor:
    alone = x.numel() == x.shape[1]  # one value a channel is no batch: PyTorch refuses it
    if alone or not training or weight is None or bias is None:
        return F.batch_norm(x, running_mean, running_var, weight, bias, training, momentum, eps)
    return _BatchNorm.apply(x, weight, bias, (running_mean, running_var), momentum, eps)


class FastOps(TorchFunctionMode):
    """Within it, `torch.conv2d` and `F.batch_norm` on batch statistics have closed second derivatives."""

    REPLACED: ClassVar[dict[Callable[..., Any], Callable[..., Any]]] = {
        torch.conv2d: _conv2d,
        F.batch_norm: _batch_norm,
    }

    def __torch_function__(
        self,
        func: Callable[..., Any],
        types: Any,
        args: tuple[Any, ...] = (),
        kwargs: dict[str, Any] | None = None,
    ) -> Any:
        """Called for every torch function inside the mode."""
        return self.REPLACED.get(func, func)(*args, **(kwargs or {}))
