from __future__ import annotations

import pytest
import torch

from handful.backbones.dropblock import DropBlock


def trained(rate: float, size: int = 5) -> DropBlock:
    """After as many calls as the full rate takes."""
    block = DropBlock(rate, size)
    block.calls.fill_(block.calls_to_full_rate)
    return block


def test_nothing_happens_in_evaluation_or_at_rate_zero() -> None:
    maps = torch.rand(2, 3, 10, 10)
    assert trained(0.1).eval()(maps) is maps
    still = trained(0.0).train()
    assert still(maps) is maps
    assert int(still.calls) == 40_000


@pytest.mark.parametrize(("side", "gamma"), [(10, 0.1 / 25 * 100 / 36), (5, 0.1), (3, 0.1)])
def test_gamma_of_the_published_schedule(side: int, gamma: float) -> None:
    """0.0111 on maps of 10x10; on 5x5 and smaller ones whole channels are dropped."""
    assert float(trained(0.1).gamma(side, side)) == pytest.approx(gamma)


def test_the_rate_rises_with_the_calls_in_training_and_stays() -> None:
    block, maps = DropBlock(0.1), torch.rand(1, 2, 5, 5)
    rates = []
    for _ in range(3):
        block.train()(maps)
        block.eval()(maps)
        rates.append(float(block.gamma(5, 5)))
    assert rates == pytest.approx([0.1 * call / 40_000 for call in (1, 2, 3)])
    assert int(block.state_dict()["calls"]) == 3
    block.calls.fill_(100_000)
    assert float(block.gamma(5, 5)) == pytest.approx(0.1)


def test_what_is_dropped_is_blocks_and_the_mean_is_kept() -> None:
    torch.manual_seed(0)
    out = trained(0.1).train()(torch.ones(64, 32, 10, 10, dtype=torch.float64))
    assert float(out.mean()) == pytest.approx(1, abs=1e-6)
    zero = out == 0
    begins = torch.zeros_like(zero[..., :6, :6])
    for i in range(6):
        for j in range(6):
            begins[..., i, j] = zero[..., i : i + 5, j : j + 5].all(-1).all(-1)
    covered = torch.zeros_like(zero)
    for i in range(6):
        for j in range(6):
            covered[..., i : i + 5, j : j + 5] |= begins[..., i, j, None, None]
    assert torch.equal(covered, zero)  # every zero lies in a block of zeros
    gamma = 0.1 / 25 * 100 / 36
    reach = torch.zeros(10, dtype=torch.long)
    for i in range(6):
        reach[i : i + 5] += 1  # starts whose block covers a row
    kept = ((1 - gamma) ** (reach[:, None] * reach).double()).mean()
    assert float((~zero).double().mean()) == pytest.approx(float(kept), abs=0.01)


def test_maps_of_which_nothing_is_kept_are_zero() -> None:
    block = trained(0.999999).train()
    torch.manual_seed(0)
    assert torch.equal(block(torch.ones(1, 1, 5, 5)), torch.zeros(1, 1, 5, 5))
