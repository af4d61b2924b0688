"""Ridge systems: factors, inverses and their gradients, and what is refused."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor
from torch.autograd import gradcheck

from handful.errors import HandfulError
from handful.methods.linear_algebra import ridge_factor, ridge_inverse


def gram(*shape: int) -> Tensor:
    x = torch.randn(*shape, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    return x @ x.mT


def test_factor_and_inverse() -> None:
    matrices, penalty = gram(2, 3, 5, 4), torch.tensor([[0.1, 1.0, 2.0], [3.0, 0.5, 0.2]]).double()
    full = matrices + torch.diag_embed(penalty.unsqueeze(-1).expand(-1, -1, 5))
    factor = ridge_factor(matrices, penalty)
    assert torch.equal(factor, factor.tril())
    torch.testing.assert_close(factor @ factor.mT, full)
    torch.testing.assert_close(ridge_inverse(matrices, penalty) @ full, torch.eye(5).double().expand_as(full))


def test_the_gradient_of_the_inverse() -> None:
    def inverse(rows: Tensor, penalty: Tensor) -> Tensor:
        return ridge_inverse(rows @ rows.mT, penalty)

    rows = torch.randn(2, 3, 2, dtype=torch.float64, requires_grad=True)
    penalty = torch.tensor([0.5, 2.0], dtype=torch.float64, requires_grad=True)
    assert gradcheck(inverse, (rows, penalty))


def test_a_lost_penalty_is_refused() -> None:
    """The square of 1e6 in float32 swallows a penalty of 1."""
    rows = torch.full((1, 3, 2), 1e6)
    with pytest.raises(HandfulError, match=r"penalty of 1\.0e\+00 is lost in float32 .* add up to 6\.0e\+12; raise"):
        ridge_factor(rows @ rows.mT, torch.ones(1))
    assert ridge_factor((rows @ rows.mT).double(), torch.ones(1).double()).isfinite().all()


@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
def test_what_is_not_a_number_stays_so(bad: float) -> None:
    """A loss that is not a number is reported by training, with step and batch."""
    rows = torch.ones(2, 3, 2)
    rows[1, 0, 0] = bad
    assert ridge_factor(rows @ rows.mT, torch.ones(2)).isnan().any()
