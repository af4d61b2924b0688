"""Gradient steps on the support loss of B tasks, with the way back to where they started."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import nullcontext
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable
from torch.nn.attention import SDPBackend, sdpa_kernel

Params = Mapping[str, Tensor]
SupportLoss = Callable[[int, Params], Tensor]  # inner step, parameters [B, ...] -> [B], one loss a task
Update = Callable[[int, Params, Params], Params]  # inner step, parameters, their gradients -> new parameters


def adapt(
    support_loss: SupportLoss,
    params: Params,
    update: Update,
    steps: int,
    *,
    differentiable: bool,
    first_order: bool = False,
    recompute: bool = False,
    through: Sequence[Tensor] = (),
) -> Iterator[Params]:
    """Yield the adapted parameters after 0, 1, ..., `steps` steps on the support set.

    phi_{s+1} = update(s, phi_s, grad L_support(phi_s)), each phi [B, ...]; with gradient descent as update this is
    MAML's inner loop (Finn et al. 2017, eq. 1).  New tensors at every step; `params` is never written.

    `differentiable` keeps the way from phi_S back to `params`, through the gradients too unless `first_order` (which
    takes them for constants).  `recompute` keeps phi_0 ... phi_S but no step's graph: on the way back each step is
    run once more and differentiated alone, so that a hundred steps need the memory of one.  The gradient is the same.
    For that, `through` names what requires a gradient and enters the loss or the update otherwise than by `params`
    (shared weights, learned rates); none of them may depend on another.
    """
    if not differentiable:
        params = {name: value.detach().requires_grad_() for name, value in params.items()}
    yield params
    second_order = differentiable and not first_order
    for step in range(steps):
        # The fused attention kernels have no second derivative; the plain formula has.
        with torch.enable_grad(), sdpa_kernel(SDPBackend.MATH) if second_order else nullcontext():
            if second_order and recompute:
                taken = _Recomputed.apply(support_loss, update, step, list(params), through, *params.values(), *through)
                params = dict(zip(params, taken))
            else:
                params = take_step(support_loss, params, update, step, create_graph=second_order)
        if not differentiable:
            params = {name: value.detach().requires_grad_() for name, value in params.items()}
        yield params


def take_step(support_loss: SupportLoss, params: Params, update: Update, step: int, create_graph: bool) -> Params:
    """One inner step of all tasks.

    Tasks do not share a parameter copy, so the gradient of the summed losses holds the gradient of each.
    """
    total = support_loss(step, params).sum()
    grads = torch.autograd.grad(total, list(params.values()), create_graph=create_graph, materialize_grads=True)
    return update(step, params, dict(zip(params, grads)))


def per_task(params: Mapping[str, Tensor], tasks: int) -> dict[str, Tensor]:
    """[...] -> [B, ...]: one copy a task, without copying memory."""
    return {name: value.expand(tasks, *value.shape) for name, value in params.items()}


class _Recomputed(torch.autograd.Function):
    """One inner step that keeps its input and output only.

    Backward receives v_{s+1} = dL/dphi_{s+1}, builds the graph of this one step anew and returns the product of v
    with the step's Jacobian: for gradient descent v_s = v_{s+1} - a H_s v_{s+1}, and dL/da = -g_s . v_{s+1}.
    """

    @staticmethod
    def forward(
        ctx: Any,
        support_loss: SupportLoss,
        update: Update,
        step: int,
        names: list[str],
        through: Sequence[Tensor],
        *tensors: Tensor,
    ) -> tuple[Tensor, ...]:
        ctx.taken, ctx.names, ctx.through = (support_loss, update, step), names, through
        ctx.save_for_backward(*tensors[: len(names)])
        ctx.drawn = random_state(tensors[0].device)
        return tuple(value.detach() for value in _again(ctx, tensors[: len(names)], create_graph=False)[1].values())

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *cotangents: Tensor) -> tuple[Any, ...]:
        device = ctx.saved_tensors[0].device
        with torch.random.fork_rng([device] if device.type == "cuda" else []), sdpa_kernel(SDPBackend.MATH):
            set_random_state(ctx.drawn, device)  # dropout draws the masks that it drew on the way forward
            before, after = _again(ctx, ctx.saved_tensors, create_graph=True)
            inputs = [*before.values(), *ctx.through]
            with torch.enable_grad():
                grads = torch.autograd.grad(list(after.values()), inputs, cotangents, allow_unused=True)
        return None, None, None, None, None, *grads


def with_gradient(value: Tensor, gradients: Sequence[tuple[Tensor, Tensor | None]]) -> Tensor:
    """A scalar whose gradient is known already, as pairs (with respect to what, gradient).

    A part of a loss that is differentiated as soon as it is computed need not keep its graph until all parts are there.
    """
    known = [(tensor, gradient) for tensor, gradient in gradients if gradient is not None]
    return _Known.apply(value, [gradient for _, gradient in known], *(tensor for tensor, _ in known))


class _Known(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, value: Tensor, gradients: list[Tensor], *tensors: Tensor) -> Tensor:
        ctx.save_for_backward(*gradients)
        return value.detach().clone()

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, cotangent: Tensor) -> tuple[Any, ...]:
        return None, None, *(cotangent * gradient for gradient in ctx.saved_tensors)


def _again(ctx: Any, values: Sequence[Tensor], create_graph: bool) -> tuple[Params, Params]:
    """Take the step from detached copies of its parameters: (before, after)."""
    support_loss, update, step = ctx.taken
    with torch.enable_grad():
        before = {name: value.detach().requires_grad_() for name, value in zip(ctx.names, values)}
        return before, take_step(support_loss, before, update, step, create_graph)


def random_state(device: torch.device) -> tuple[Tensor, ...]:
    """Of the CPU's generator, and of the device's own."""
    state = (torch.get_rng_state(),)
    return (*state, torch.cuda.get_rng_state(device)) if device.type == "cuda" else state


def set_random_state(state: tuple[Tensor, ...], device: torch.device) -> None:
    """Put both back."""
    torch.set_rng_state(state[0])
    if device.type == "cuda":
        torch.cuda.set_rng_state(state[1], device)
