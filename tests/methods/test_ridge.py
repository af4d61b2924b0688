"""The ridge head: both forms of its weights, the bias, the scalings, and its gradient (F15)."""

from __future__ import annotations

from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor
from torch.autograd import gradcheck

from handful.errors import HandfulError
from handful.methods.ridge import RidgeHead, ridge_weights

TASKS, WAY, QUERIES, E = 2, 3, 4, 6


def randn(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


def task(supports: int) -> tuple[Tensor, Tensor, Tensor]:
    return randn(TASKS, supports, E), (torch.arange(supports) % WAY).expand(TASKS, -1), randn(TASKS, QUERIES, E, seed=1)


def made(**options: Any) -> RidgeHead:
    return RidgeHead(**options).double()


@pytest.mark.parametrize("supports", [3, 7, 30], ids=["n < e", "n = e + 1", "n > e"])
def test_logits_are_those_of_the_published_formula(supports: int) -> None:
    """(F15) a column of ones, X and Y divided by sqrt(n), both inverses; the code here takes the smaller."""
    support, labels, query = task(supports)
    head = made(penalty=0.5, scale=3.0)
    with torch.no_grad():
        head.offset.fill_(0.25)
    x = torch.cat([support, torch.ones(TASKS, supports, 1)], -1) / supports**0.5
    y = F.one_hot(labels, WAY).double() / supports**0.5
    penalty = head.log_penalty.exp().detach()
    assert penalty.item() == pytest.approx(0.5)
    eye = torch.eye(supports, dtype=torch.float64), torch.eye(E + 1, dtype=torch.float64)
    woodbury = x.mT @ torch.linalg.inv(x @ x.mT + penalty * eye[0]) @ y
    direct = torch.linalg.inv(x.mT @ x + penalty * eye[1]) @ x.mT @ y
    torch.testing.assert_close(woodbury, direct)
    logits = 3.0 * (query @ direct[:, :E] + direct[:, E:]) + 0.25
    torch.testing.assert_close(head(support, labels, query, WAY), logits)


@pytest.mark.parametrize("supports", [4, 12])
def test_weights_are_where_the_loss_is_flat(supports: int) -> None:
    x, y, penalty = randn(TASKS, supports, E), randn(TASKS, supports, WAY, seed=1), torch.tensor(0.3).double()
    weights = ridge_weights(x, y, penalty).requires_grad_()
    loss = (x @ weights - y).square().sum() / supports + penalty * weights.square().sum()
    (slope,) = torch.autograd.grad(loss, weights)
    assert slope.abs().max() < 1e-13
    assert weights.abs().max() > 0.01


@pytest.mark.parametrize("supports", [4, 12])
def test_a_great_penalty_leaves_sums_of_prototypes(supports: int) -> None:
    """(F15) penalty W -> X^T Y / n."""
    support, labels, _ = task(supports)
    y = F.one_hot(labels, WAY).double()
    penalty = torch.tensor(1e8).double()
    torch.testing.assert_close(
        penalty * ridge_weights(support, y, penalty), support.mT @ y / supports, rtol=1e-6, atol=1e-9
    )


@pytest.mark.parametrize("supports", [4, 12])
def test_gradients_are_those_of_finite_differences(supports: int) -> None:
    x, y = randn(TASKS, supports, E).requires_grad_(), randn(TASKS, supports, WAY, seed=1).requires_grad_()
    assert gradcheck(ridge_weights, (x, y, torch.tensor(0.7, dtype=torch.float64, requires_grad=True)))


def test_what_is_learned() -> None:
    support, labels, query = task(6)
    for learn in (False, True):
        head = made(learn_penalty=learn)
        assert head.log_penalty.exp().item() == pytest.approx(50)
        head(support, labels, query, WAY).square().sum().backward()
        assert (head.log_penalty.grad is not None) == learn
        assert head.scale.grad is not None
        assert head.offset.grad is not None


def test_maps_are_flattened_and_orders_do_not_matter() -> None:
    support, labels, query = task(7)
    head = made(penalty=0.2)
    expected = head(support, labels, query, WAY)
    torch.testing.assert_close(head(support.view(TASKS, 7, 2, 3), labels, query.view(TASKS, 4, 2, 3), WAY), expected)
    order = [6, 2, 0, 4, 1, 3, 5]
    torch.testing.assert_close(head(support[:, order], labels[:, order], query, WAY), expected)


def test_float32_is_close_and_half_precision_is_raised() -> None:
    support, labels, query = randn(1, 25, 640), (torch.arange(25) % 5).expand(1, -1), randn(1, 75, 640, seed=1)
    exact = made(penalty=0.1)(support, labels, query, 5)
    torch.testing.assert_close(
        RidgeHead(penalty=0.1)(support.float(), labels, query.float(), 5).double(), exact, rtol=1e-4, atol=1e-5
    )
    half = RidgeHead(penalty=0.1)(support.bfloat16(), labels, query.bfloat16(), 5)
    assert half.dtype == torch.float32
    torch.testing.assert_close(half.double(), exact, rtol=0.1, atol=0.05)


@pytest.mark.parametrize("penalty", [0.0, -1.0])
def test_a_penalty_that_is_none_is_refused(penalty: float) -> None:
    with pytest.raises(HandfulError, match=rf"penalty is {penalty}, .* above 0"):
        RidgeHead(penalty=penalty)


def test_a_class_without_supports_is_refused() -> None:
    with pytest.raises(HandfulError, match="Class 3 of task 0 has no support image"):
        made()(*task(6), WAY + 1)
