"""The closed second derivatives against autograd's own, in float64."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor
from torch.autograd import gradcheck, gradgradcheck

from handful.inner_loop import TaskForward, per_task
from handful.inner_loop.fast_ops import FastOps

pytestmark = pytest.mark.filterwarnings("ignore:Backwards compatibility")


def leaf(*shape: int) -> Tensor:
    return torch.randn(*shape, dtype=torch.float64, requires_grad=True)


def fast(function: Callable[..., Tensor]) -> Callable[..., Tensor]:
    def run(*inputs: Tensor) -> Tensor:
        with FastOps():
            return function(*inputs)

    return run


@pytest.mark.parametrize("geometry", [(1, 0, 1, 1), (2, 1, 1, 2), ((2, 1), (0, 2), 1, 1), (1, 2, 2, 2)])
@pytest.mark.parametrize("bias", [True, False])
def test_conv2d(geometry: tuple[int, ...], bias: bool) -> None:
    torch.manual_seed(0)
    inputs = [leaf(2, 4, 6, 5), leaf(4, 4 // geometry[3], 3, 3)] + ([leaf(4)] if bias else [])

    def conv(x: Tensor, w: Tensor, b: Tensor | None = None) -> Tensor:
        return F.conv2d(x, w, b, *geometry)

    assert torch.equal(fast(conv)(*inputs), conv(*inputs))
    assert gradcheck(fast(conv), inputs)
    assert gradgradcheck(fast(conv), inputs)


@pytest.mark.parametrize("gamma_is_zero", [False, True])
@pytest.mark.parametrize("shape", [(3, 2, 4, 3), (6, 2)])
def test_batch_norm(shape: tuple[int, ...], gamma_is_zero: bool) -> None:
    torch.manual_seed(1)
    inputs = [leaf(*shape), leaf(2), leaf(2)]
    if gamma_is_zero:
        inputs[1].data[0] = 0

    def norm(x: Tensor, w: Tensor, b: Tensor) -> Tensor:
        return F.batch_norm(x, None, None, w, b, training=True)

    torch.testing.assert_close(fast(norm)(*inputs), norm(*inputs))
    assert gradcheck(fast(norm), inputs)
    assert gradgradcheck(fast(norm), inputs)


def test_what_it_does_not_know_falls_through() -> None:
    x, w = leaf(2, 3, 5, 5), leaf(4, 3, 3, 3)
    mean, var = torch.zeros(3, dtype=torch.float64), torch.ones(3, dtype=torch.float64)
    with FastOps():
        assert torch.equal(F.conv2d(x, w, padding="same"), torch.conv2d(x, w, padding="same"))
        torch.testing.assert_close(F.batch_norm(x, mean, var), x / (1 + 1e-5) ** 0.5)
        assert torch.equal(F.relu(x), x.clamp_min(0))


def test_only_what_is_needed_is_computed() -> None:
    """A frozen weight gets no gradient, and the input's is still right."""
    x, w = leaf(2, 3, 5, 5), leaf(4, 3, 3, 3).detach()
    with FastOps():
        y = F.conv2d(x, w)
    (gx,) = torch.autograd.grad(y.square().sum(), x, create_graph=True)
    (ggx,) = torch.autograd.grad(gx.square().sum(), x)
    plain = torch.conv2d(x, w)
    (px,) = torch.autograd.grad(plain.square().sum(), x, create_graph=True)
    torch.testing.assert_close(ggx, torch.autograd.grad(px.square().sum(), x)[0])


@pytest.mark.parametrize("fast_ops", [True, False])
@pytest.mark.parametrize("record", [True, False])
@pytest.mark.parametrize("tasks", [1, 3])
def test_one_value_a_channel_is_refused_as_by_torch(fast_ops: bool, record: bool, tasks: int) -> None:
    """Its variance is zero and its normalised value would be zero too, whatever it is."""
    forward = TaskForward(torch.nn.BatchNorm2d(2), fast_ops=fast_ops)
    forward.record = record
    params = per_task(dict(forward.module.named_parameters()), tasks)
    with pytest.raises(ValueError, match="Expected more than 1 value per channel"):
        forward.support(params, torch.randn(tasks, 1, 2, 1, 1))
    assert forward.support(params, torch.randn(tasks, 2, 2, 1, 1)).any()
