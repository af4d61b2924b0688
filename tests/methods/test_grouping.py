"""Supports by class: against a loop, for every order and number, and what is refused."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from handful.errors import HandfulError
from handful.methods.grouping import by_class

LABELS = {
    "class-major": [[0, 0, 1, 1, 2, 2], [0, 0, 1, 1, 2, 2]],
    "shot-major": [[0, 1, 2, 0, 1, 2], [0, 1, 2, 0, 1, 2]],
    "one task of each": [[0, 0, 1, 1, 2, 2], [2, 1, 0, 0, 2, 1]],
    "unbalanced": [[2, 0, 2, 1, 2, 2], [1, 1, 1, 0, 2, 0]],
}


def looped(features: Tensor, labels: Tensor, way: int, most: int) -> Tensor:
    grouped = torch.zeros(len(labels), way, most, *features.shape[2:], dtype=features.dtype)
    for b in range(len(labels)):
        for n in range(way):
            own = features[b, labels[b] == n]
            grouped[b, n, : len(own)] = own
    return grouped


@pytest.mark.parametrize("shape", [(4,), (3, 4)])
@pytest.mark.parametrize("order", LABELS)
def test_as_a_loop_would(order: str, shape: tuple[int, ...]) -> None:
    labels = torch.tensor(LABELS[order])
    features = torch.randn(2, 6, *shape, dtype=torch.float64, requires_grad=True)
    grouped, counts = by_class(features, labels, 3)
    assert counts.tolist() == [[row.count(n) for n in range(3)] for row in LABELS[order]]
    expected = looped(features, labels, 3, int(counts.max()))
    assert torch.equal(grouped, expected)
    weights = torch.randn_like(expected)
    (found,) = torch.autograd.grad((grouped * weights).sum(), features)
    (wanted,) = torch.autograd.grad((expected * weights).sum(), features)
    assert torch.equal(found, wanted)
    assert found.abs().min() > 0


def test_class_major_supports_are_not_copied() -> None:
    both = torch.randn(2, 10, 5)
    features = both[:, :6]  # as cut from a batch of supports and queries
    grouped, _ = by_class(features, torch.tensor(LABELS["class-major"]), 3)
    assert grouped.data_ptr() == both.data_ptr()


def test_shot_major_goes_there_and_back() -> None:
    """(G6) with its labels any order is read right."""
    class_major = torch.randn(2, 3, 2, 5)
    shot_major = class_major.transpose(1, 2).flatten(1, 2)
    grouped, _ = by_class(shot_major, torch.tensor(LABELS["shot-major"]), 3)
    assert torch.equal(grouped, class_major)
    assert torch.equal(grouped.transpose(1, 2).flatten(1, 2), shot_major)


@pytest.mark.parametrize("label", [3, -1])
def test_a_label_outside_is_refused(label: int) -> None:
    with pytest.raises(HandfulError, match=rf"label {label}, but the labels of a 3-way task are 0 to 2"):
        by_class(torch.randn(1, 3, 4), torch.tensor([[0, 1, label]]), 3)


@pytest.mark.parametrize("labels", [[0, 0, 2, 2], []])
def test_a_class_without_supports_is_refused(labels: list[int]) -> None:
    batch = torch.tensor([labels], dtype=torch.int64)
    missing = 1 if labels else 0
    with pytest.raises(HandfulError, match=rf"Class {missing} of task 0 has no support image.*at least 1"):
        by_class(torch.randn(1, len(labels), 4), batch, 3)
