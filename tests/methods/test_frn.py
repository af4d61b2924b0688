"""FRN: the head's formula, its scalars and auxiliary losses, and the class matrices of pre-training (F11 to F14)."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor
from torch.autograd import gradcheck

from handful.errors import HandfulError
from handful.methods.frn import FLOOR, FRNClassMatrix, FRNHead, overlap

TASKS, WAY, SHOT, QUERIES, POSITIONS, D = 2, 3, 2, 5, 4, 6


def randn(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


def task(shot: int = SHOT) -> tuple[Tensor, Tensor, Tensor]:
    """Supports, labels and queries, class-major."""
    labels = torch.arange(WAY).repeat_interleave(shot).expand(TASKS, -1)
    return randn(TASKS, WAY * shot, POSITIONS, D), labels, randn(TASKS, QUERIES, POSITIONS, D, seed=1)


def made(alpha: float = 0.3, beta: float = -0.2, scale: float = 1.7, **options: Any) -> FRNHead:
    head = FRNHead(**options).double()
    with torch.no_grad():
        for parameter, value in ((head.alpha, alpha), (head.beta, beta), (head.scale, scale)):
            parameter.fill_(value)
    return head


def published(support: Tensor, labels: Tensor, query: Tensor, head: FRNHead) -> Tensor:
    """The paper's equations in loops, by an explicit inverse."""
    found = torch.empty(*query.shape[:2], WAY, dtype=torch.float64)
    divisor = math.sqrt(D) if head.divide else 1.0
    for b in range(len(support)):
        for n in range(WAY):
            s = support[b, labels[b] == n].reshape(-1, D) / divisor
            penalty = len(s) / D * math.exp(head.alpha.item()) + 1e-6
            hat = s.T @ torch.linalg.inv(s @ s.T + penalty * torch.eye(len(s), dtype=torch.float64)) @ s
            for i in range(query.shape[1]):
                q = query[b, i] / divisor
                found[b, i, n] = -head.scale * (q - math.exp(head.beta.item()) * q @ hat).square().sum(1).mean()
    return found


@pytest.mark.parametrize("shot", [1, 2, 4])
@pytest.mark.parametrize("divide", [True, False])
@pytest.mark.parametrize("form", ["auto", "closed", "woodbury", "direct"])
def test_logits_are_those_of_the_paper(shot: int, divide: bool, form: Any) -> None:
    given, head = task(shot), made(divide=divide, form=form)
    torch.testing.assert_close(head(*given, WAY), published(*given, head))


@pytest.mark.parametrize("shot", [1, 4])  # fewer rows than channels, and more
@pytest.mark.parametrize("beta", [-0.2, 1.0])  # a rho below 2, and one of 2.7
def test_what_is_settled_before_any_query_gives_the_same_logits(shot: int, beta: float) -> None:
    (support, labels, query), head = task(shot), made(beta=beta)
    settled = head.settled(support, labels, WAY)
    torch.testing.assert_close(head.judge(query, settled), published(support, labels, query, head))
    rows = shot * POSITIONS
    assert settled.matrices.shape == (TASKS, WAY, rows if rows < D and beta < 0 else D, D)


def test_supports_in_any_order_and_number() -> None:
    support, _, query = task()
    labels = torch.tensor([[2, 0, 2, 1, 2, 2], [1, 1, 1, 0, 2, 0]])
    head = made()
    found = head(support, labels, query, WAY)
    torch.testing.assert_close(found, published(support, labels, query, head))
    order = [5, 1, 0, 3, 2, 4]
    torch.testing.assert_close(head(support[:, order], labels[:, order], query, WAY), found)
    names = torch.tensor([1, 2, 0])  # what each class is called now: its column moves with it (F11)
    torch.testing.assert_close(head(support, names[labels], query, WAY)[..., names], found)


def test_the_first_scalars_and_that_they_are_learned() -> None:
    head = FRNHead()
    assert {name: p.item() for name, p in head.named_parameters()} == {"alpha": 0.0, "beta": 0.0, "scale": 1.0}


def test_gradients_of_the_head() -> None:
    """(F12) and the gradient in scale is minus the distance."""
    support, labels, query = (tensor[:1] for tensor in task(1))

    def logits(s: Tensor, q: Tensor, alpha: Tensor, beta: Tensor, scale: Tensor) -> Tensor:
        values = {"alpha": alpha, "beta": beta, "scale": scale}
        return torch.func.functional_call(head, values, (s, labels, q, WAY))

    head = made()
    scalars = [p.detach().clone().requires_grad_() for p in head.parameters()]
    assert gradcheck(logits, [support.requires_grad_(), query[:, :2].requires_grad_(), *scalars])
    distances = -head(support, labels, query, WAY) / head.scale
    (slope,) = torch.autograd.grad(head(support, labels, query, WAY).sum(), head.scale)
    torch.testing.assert_close(slope, -distances.sum())


def test_one_model_serves_all_shots() -> None:
    """(F7) each support twice gives the same logits, but for the floor of the penalty."""
    support, labels, query = task()
    head = made()
    once = head(support, labels, query, WAY)
    twice = head(torch.cat([support, support], 1), torch.cat([labels, labels], 1), query, WAY)
    torch.testing.assert_close(twice, once, rtol=1e-5, atol=0)
    assert not torch.equal(twice, once)
    assert FLOOR == 1e-6


def test_a_query_that_is_a_support_is_named_right() -> None:
    """(P5) at a small penalty."""
    support, labels, _ = task(1)
    logits = made(alpha=-12.0, beta=0.0)(support, labels, support, WAY)
    assert torch.equal(logits.argmax(-1), labels)
    assert (logits.amax(-1) > 10 * logits.sort(-1).values[..., 1]).all()


@pytest.mark.parametrize("divide", [True, False])
def test_class_matrices_are_supports(divide: bool) -> None:
    """(F13) with one image a class in the place of the matrices; these are not divided, so it has to be."""
    support, labels, query = (tensor[:1] for tensor in task(1))
    head = made(alpha=0.0, beta=0.0, divide=divide)
    pretraining = FRNClassMatrix(WAY, POSITIONS, D, divide=divide).double()
    with torch.no_grad():
        pretraining.matrices.copy_(support[0] / (math.sqrt(D) if divide else 1))
        pretraining.scale.copy_(head.scale)
    torch.testing.assert_close(pretraining(query[0]), head(support, labels, query, WAY)[0])


def test_class_matrices_are_learned() -> None:
    torch.manual_seed(0)
    head = FRNClassMatrix(64, 25, 640)
    assert head.matrices.numel() == 1_024_000  # as counted in the published model for mini-ImageNet
    assert head.matrices.std().item() == pytest.approx(1, abs=0.01)
    small = FRNClassMatrix(7, POSITIONS, D)
    adam = torch.optim.Adam(small.parameters(), lr=0.1)
    features, labels = torch.randn(14, POSITIONS, D), torch.arange(14) % 7
    losses = []
    for _ in range(100):
        loss = F.cross_entropy(small(features), labels)
        adam.zero_grad()
        loss.backward()
        adam.step()
        losses.append(loss.item())
    assert losses[0] == pytest.approx(math.log(7), rel=0.1)
    assert losses[-1] < losses[0] / 2


def test_official_auxiliary_loss() -> None:
    """(F14) as a double loop; it does not see a scale."""
    support, labels, _ = task()
    head = made(auxiliary_loss="official")
    rows = support.view(TASKS, WAY, SHOT * POSITIONS, D)
    losses = []
    for b in range(TASKS):
        unit = rows[b] / rows[b].norm()
        losses.append(sum((unit[i] @ unit[j].T).square().sum() for i in range(WAY) for j in range(i)))
    expected = 0.03 * sum(losses) / TASKS
    torch.testing.assert_close(head.auxiliary(support, labels, WAY), expected)
    torch.testing.assert_close(head.auxiliary(5 * support, labels, WAY), expected)


@pytest.mark.parametrize("shot", [1, 4])
def test_mean_auxiliary_loss_is_a_mean_of_squared_cosines(shot: int) -> None:
    """(F14) in descriptors of different classes; m below d and above."""
    support, labels, _ = task(shot)
    rows = F.normalize(support.view(TASKS, WAY, shot * POSITIONS, D), dim=-1)
    pairs = [rows[:, i] @ rows[:, j].mT for i in range(WAY) for j in range(i)]
    found = made(auxiliary_loss="mean", auxiliary_weight=0.5).auxiliary(support, labels, WAY)
    torch.testing.assert_close(found, 0.5 * torch.stack(pairs).square().mean())


def test_mean_auxiliary_loss_of_unequal_classes() -> None:
    """Each pair of classes counts the same, each descriptor the same within it."""
    support, _, _ = task()
    labels = torch.tensor([[2, 0, 2, 1, 2, 2], [1, 1, 1, 0, 2, 0]])
    expected = []
    for b in range(TASKS):
        rows = [F.normalize(support[b, labels[b] == n].reshape(-1, D), dim=-1) for n in range(WAY)]
        expected += [(rows[i] @ rows[j].T).square().mean() for i in range(WAY) for j in range(i)]
    found = made(auxiliary_loss="mean", auxiliary_weight=1.0).auxiliary(support, labels, WAY)
    torch.testing.assert_close(found, torch.stack(expected).mean())


def test_how_far_the_published_loss_is_from_the_papers() -> None:
    """(F14) (N m)^2 times, where all descriptors have one length; orthogonal classes have none of either."""
    support, labels, _ = task()
    support = 3 * F.normalize(support, dim=-1)
    rows = support.view(TASKS, WAY, SHOT * POSITIONS, D) / 3
    paper = 0.03 * overlap(rows).mean()
    official = made(auxiliary_loss="official").auxiliary(support, labels, WAY)
    torch.testing.assert_close(paper / official, torch.tensor((WAY * SHOT * POSITIONS) ** 2, dtype=torch.float64))
    apart = torch.zeros_like(support).view(TASKS, WAY, SHOT, POSITIONS, WAY, D // WAY)
    for n in range(WAY):
        apart[:, n, ..., n, :] = support.view(apart.shape)[:, n, ..., n, :]
    for kind in ("official", "mean"):
        head = made(auxiliary_loss=kind)
        assert head.auxiliary(apart.view_as(support), labels, WAY).abs() < 1e-15
        assert head.auxiliary(support, labels, WAY) > 1e-6


def test_no_auxiliary_loss() -> None:
    support, labels, _ = task()
    assert made(auxiliary_loss="off").auxiliary(support, labels, WAY) == 0
    one = made(auxiliary_loss="mean").auxiliary(support, torch.zeros_like(labels), 1)
    assert one.abs() < 1e-15  # one class has no pair


def test_a_class_without_supports_is_refused() -> None:
    support, labels, query = task()
    with pytest.raises(HandfulError, match="Class 3 of task 0 has no support image"):
        made()(support, labels, query, WAY + 1)
