"""Logistic regression: its solution has no slope, classes count alike, and two classes are as any others."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from handful.errors import HandfulError
from handful.methods.logistic import LogisticHead


def task(*counts: int, seed: int = 0) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    x = torch.randn(1, sum(counts), 5, generator=generator, dtype=torch.float64)
    return x, torch.arange(len(counts)).repeat_interleave(torch.tensor(counts))[None]


@pytest.mark.parametrize("counts", [(2, 2, 2), (1, 4, 2), (3, 1)])
def test_the_formula_has_no_slope_at_the_solution(counts: tuple[int, ...]) -> None:
    support, labels = task(*counts)
    strength, n, way = 3.0, sum(counts), len(counts)
    weights = LogisticHead(strength).learn(support, labels, way)[0].requires_grad_()
    u = support[0] / support[0].norm(dim=1, keepdim=True)
    loss = torch.zeros((), dtype=torch.float64)
    for c in range(way):
        own = u[labels[0] == c]
        loss = loss + F.cross_entropy(own @ weights[:, :5].T + weights[:, 5], torch.full((len(own),), c)) / way
    loss = loss + weights[:, :5].square().sum() / (2 * strength * n)
    (slope,) = torch.autograd.grad(loss, weights)
    assert slope.abs().max() < 1e-4
    assert weights.abs().max() > 0.1


def test_tasks_are_solved_one_by_one_and_queries_have_any_length() -> None:
    (first, labels), (second, _) = task(2, 1, 3), task(2, 1, 3, seed=1)
    head, (query, _) = LogisticHead(1.0), task(4, seed=2)
    both = head(torch.cat([first, second]), labels.expand(2, -1), query.expand(2, -1, -1), 3)
    assert torch.allclose(both[0], head(first, labels, query, 3)[0])
    assert torch.allclose(both[1], head(second, labels, 7 * query, 3)[0])


def test_one_class_and_a_strength_of_nothing() -> None:
    support, labels = task(3)
    assert LogisticHead(1.0)(support, labels, support, 1).eq(0).all()
    with pytest.raises(HandfulError, match="strength of logistic regression is 0"):
        LogisticHead(0)
