"""Leaving pictures out, and what is read off it, against naive loops."""

from __future__ import annotations

import math

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from handful.model.leave_one_out import ALONE, FOLDS, leave_one_out, likeness, open_set_threshold, temperature, wilson


@pytest.mark.parametrize(("counts", "folds"), [((3, 1, 2), 6), ((20, 21), ALONE), ((2, 40, 1, 25), FOLDS)])
def test_each_picture_is_judged_once_by_the_others_and_no_class_is_left_out(
    counts: tuple[int, ...], folds: int
) -> None:
    way, labels = len(counts), torch.arange(len(counts)).repeat_interleave(torch.tensor(counts))
    asked: list[Tensor] = []

    def judge(learn: Tensor, out: Tensor) -> Tensor:
        assert not set(learn.tolist()) & set(out.tolist())
        assert len(learn) + len(out) == len(labels)
        assert labels[learn].unique().tolist() == list(range(way))
        asked.append(out)
        return F.one_hot(out % way, way) * (1.0 + out[:, None])  # logits that say which picture they are of

    which, logits = leave_one_out(judge, labels, way)
    assert len(asked) <= folds
    if len(labels) <= ALONE:
        assert all(len(out) == 1 for out in asked)
    judged = [index for index, label in enumerate(labels.tolist()) if counts[label] > 1]
    assert which.tolist() == judged == torch.cat(asked).sort().values.tolist()
    assert logits.sum(1).tolist() == [1.0 + index for index in judged]


def test_one_picture_a_class_leaves_nothing_to_judge() -> None:
    which, logits = leave_one_out(lambda learn, out: torch.zeros(len(out), 3), torch.arange(3), 3)
    assert (len(which), tuple(logits.shape)) == (0, (0, 3))
    assert temperature(logits, which) == 1.0


@pytest.mark.parametrize("true", [0.3, 1.0, 4.0])
def test_temperature_is_found_again(true: float) -> None:
    """Labels drawn from softmax(t * logits) are likeliest at t."""
    generator = torch.Generator().manual_seed(0)
    logits = 2 * torch.randn(20_000, 4, generator=generator)
    labels = (true * logits).softmax(-1).multinomial(1, generator=generator).squeeze(1)
    assert temperature(logits, labels) == pytest.approx(true, rel=0.1)


def test_temperature_stays_finite_where_nothing_was_named_wrong() -> None:
    logits = torch.eye(5).repeat(4, 1)
    found = temperature(logits, torch.arange(5).repeat(4))
    right = float((found * logits[0]).softmax(-1)[0])
    assert right == pytest.approx(1 - 1 / 22, abs=0.01)


def test_wilson() -> None:
    """Against the ends of the interval, the roots of (p - share)^2 = z^2 p (1 - p) / n."""
    for right, count in ((25, 25), (3, 10), (0, 7), (500, 1000)):
        share, z = right / count, 1.96
        a, b, c = 1 + z * z / count, -(2 * share + z * z / count), share * share
        root = math.sqrt(b * b - 4 * a * c)
        ends = ((-b - root) / (2 * a), (-b + root) / (2 * a))
        assert wilson(right, count) == pytest.approx(ends, abs=1e-12)
    assert wilson(25, 25) == pytest.approx((0.8668, 1.0), abs=1e-4)


@pytest.mark.parametrize("shots", [(3, 2, 4), (1, 1, 1)])
def test_open_set_threshold_against_loops(shots: tuple[int, ...]) -> None:
    labels = torch.arange(3).repeat_interleave(torch.tensor(shots))
    features = torch.randn(len(labels), 2, 5, generator=torch.Generator().manual_seed(1)).double()
    features += 2 * F.one_hot(labels, 5)[:, None]
    known, unknown = [], []
    for i, own in enumerate(labels):
        alike = {}
        for j in range(len(labels)):
            cosines = [F.cosine_similarity(features[i, 0], view, dim=0).item() for view in features[j]]
            alike[j] = (1 + max(cosines)) / 2
        unknown.append(max(alike[j] for j in alike if labels[j] != own))
        if (labels == own).sum() > 1:
            known.append(max(alike[j] for j in alike if j != i))
    found = open_set_threshold(features, labels)
    if not known:
        assert found.threshold == pytest.approx(sorted(unknown)[1], abs=1e-9)
        assert found.none_of_own is None
        assert found.none_of_others == pytest.approx(1 / 3)
        return
    rates = {
        t: sum(k >= t - 1e-12 for k in known) / len(known) + sum(u < t - 1e-12 for u in unknown) / len(unknown)
        for t in known + unknown
    }
    best = min(t for t in rates if rates[t] == max(rates.values()))
    assert found.threshold == pytest.approx(best, abs=1e-9)
    assert found.none_of_own == pytest.approx(sum(k < best - 1e-12 for k in known) / len(known))
    assert found.none_of_others == pytest.approx(sum(u < best - 1e-12 for u in unknown) / len(unknown))


def test_likeness_is_the_largest_cosine_as_a_share() -> None:
    support = torch.tensor([[1.0, 0.0], [0.0, 1.0]])
    found = likeness(torch.tensor([[3.0, 0.0], [-1.0, 0.0], [1.0, 1.0]]), support)
    assert found.tolist() == pytest.approx([1.0, 0.5, (1 + math.sqrt(0.5)) / 2])
