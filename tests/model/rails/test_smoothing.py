"""Lines made steadier by the frames before."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from handful.model.rails.smoothing import Smoother
from handful.problems.rail_lines import Lines

ROWS = 9


def frame(x: Tensor, spread: float = 0.02, there: float = 0.9) -> Lines:
    return Lines(x, torch.full_like(x, there), torch.full_like(x, spread), torch.ones_like(x))


def noisy(count: int) -> list[Tensor]:
    """Places [2, R] of a line that stays where it is, 0.4, with noise."""
    draw = torch.Generator().manual_seed(0)
    return [0.4 + 0.02 * torch.randn(2, ROWS, generator=draw) for _ in range(count)]


def test_the_first_frame_is_unchanged() -> None:
    x = noisy(1)[0]
    found = Smoother(0.8)(frame(x))
    torch.testing.assert_close(found.x, x)
    torch.testing.assert_close(found.there, torch.full_like(x, 0.9))


def test_no_memory_changes_nothing() -> None:
    smoother = Smoother(0.0)
    for x in noisy(3):
        torch.testing.assert_close(smoother(frame(x)).x, x)


@pytest.mark.parametrize(("memory", "least"), [(0.5, 1.5), (0.8, 2.5)])
def test_noise_shrinks_as_theory_has_it(memory: float, least: float) -> None:
    """The deviation of a running mean of independent values is sqrt((1 - m) / (1 + m)) of theirs."""
    smoother, given = Smoother(memory), noisy(300)
    found = torch.stack([smoother(frame(x)).x for x in given])[50:]
    share = float((found - 0.4).std() / (torch.stack(given)[50:] - 0.4).std())
    assert share == pytest.approx(((1 - memory) / (1 + memory)) ** 0.5, rel=0.1)
    assert share < 1 / least


def test_a_jump_is_followed() -> None:
    smoother = Smoother(0.7)
    for _ in range(20):
        smoother(frame(torch.full((2, ROWS), 0.3)))
    after = [float(smoother(frame(torch.full((2, ROWS), 0.6))).x[0, 0]) for _ in range(20)]
    assert 0.3 < after[0] < after[3] < after[-1]
    assert after[0] == pytest.approx(0.3 + 0.3 * (1 - 0.7), abs=0.01)
    assert after[-1] == pytest.approx(0.6, abs=1e-3)


def test_a_row_that_is_unsure_counts_less() -> None:
    smoother = Smoother(0.5)
    smoother(frame(torch.full((2, ROWS), 0.3), spread=0.01))
    found = smoother(frame(torch.full((2, ROWS), 0.6), spread=0.1))
    assert float(found.x[0, 0]) < 0.31
    smoother = Smoother(0.5)
    smoother(frame(torch.full((2, ROWS), 0.3), spread=0.1))
    assert float(smoother(frame(torch.full((2, ROWS), 0.6), spread=0.01)).x[0, 0]) > 0.59


def test_a_line_that_goes_fades_away() -> None:
    smoother = Smoother(0.5)
    smoother(frame(torch.full((2, ROWS), 0.3), there=1.0))
    shares = [float(smoother(frame(torch.full((2, ROWS), 0.9), there=0.0)).there[0, 0]) for _ in range(3)]
    assert shares == pytest.approx([0.5, 0.25, 0.125])
    assert float(smoother(frame(torch.full((2, ROWS), 0.9), there=0.0)).x[0, 0]) == pytest.approx(0.3, abs=1e-3)
