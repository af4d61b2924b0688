"""GLoFA: the published formula with its N-fold product, what masks can and cannot be, and the traps (G1 to G6)."""

from __future__ import annotations

from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor
from torch.autograd import gradcheck

from handful.errors import HandfulError
from handful.methods.glofa import Gates, GLoFAHead, SetFunction

TASKS, WAY, SHOT, QUERIES, D = 2, 3, 2, 5, 6


def randn(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


def task(shot: int = SHOT) -> tuple[Tensor, Tensor, Tensor]:
    """Supports, labels and queries, class-major."""
    labels = torch.arange(WAY).repeat_interleave(shot).expand(TASKS, -1)
    return randn(TASKS, WAY * shot, D), labels, randn(TASKS, QUERIES, D, seed=1)


def gates(seed: int = 1, alive: bool = True, **options: Any) -> Gates:
    """Alive: with balances as if learned, so that both masks are seen."""
    torch.manual_seed(seed)
    made = Gates(D, **options).double()
    if alive:
        with torch.no_grad():
            made.of_balance.rho[-1].bias.add_(2.0)  # type: ignore[operator]
    return made


def set_function(network: SetFunction, x: Tensor) -> Tensor:
    """rho of the sum over one set: x [K, d] -> [outputs]."""
    return network.rho(torch.cat([network.psi(x), x], 1).sum(0))


def published(support: Tensor, labels: Tensor, query: Tensor, head: GLoFAHead) -> Tensor:
    """As the published code: every query under every mask against every prototype, and the diagonal of that."""
    found = []
    for b in range(TASKS):
        task_mask = head.gates.delta / 6 * F.relu6(set_function(head.gates.of_task, support[b]))
        balance = F.relu(set_function(head.gates.of_balance, support[b]))
        own = [support[b][labels[b] == n] for n in range(WAY)]
        class_masks = torch.stack([head.gates.delta / 6 * F.relu6(set_function(head.gates.of_class, x)) for x in own])
        factor = (1 + task_mask * balance[0]) * (1 + class_masks * balance[1])  # [N, d]
        prototypes = F.normalize(torch.stack([(x * g).mean(0) for x, g in zip(own, factor)]), dim=1)
        masked = query[b].unsqueeze(0) * factor.unsqueeze(1)  # [N, Q, d]
        every = masked @ prototypes.T  # [N, Q, N]
        found.append(every[torch.arange(WAY), :, torch.arange(WAY)].T / head.temperature)
    return torch.stack(found)


@pytest.mark.parametrize("shot", [1, 2, 4])
def test_logits_are_the_diagonal_of_the_published_product(shot: int) -> None:
    """(G2)"""
    given, head = task(shot), GLoFAHead(gates(delta=2.0), temperature=0.5)
    torch.testing.assert_close(head(*given, WAY), published(*given, head))
    balance = head.gates.masks(*given[:2], WAY)[2]
    assert all(a.min() > 0 for a in balance)  # or the masks would not have been seen


def test_supports_in_any_order_and_number() -> None:
    """(G3, G6) classes by their labels, not by their places."""
    support, labels, query = task()
    head = GLoFAHead(gates())
    odd = torch.tensor([[2, 0, 2, 1, 2, 2], [1, 1, 1, 0, 2, 0]])
    torch.testing.assert_close(head(support, odd, query, WAY), published(support, odd, query, head))
    expected = head(support, labels, query, WAY)
    order = [5, 1, 0, 3, 2, 4]
    torch.testing.assert_close(head(support[:, order], labels[:, order], query, WAY), expected)
    names = torch.tensor([1, 2, 0])
    torch.testing.assert_close(head(support, names[labels], query, WAY)[..., names], expected)
    shot_major = support.view(TASKS, WAY, SHOT, D).transpose(1, 2).flatten(1, 2)
    read_right = head(shot_major, torch.arange(WAY).repeat(SHOT).expand(TASKS, -1), query, WAY)
    torch.testing.assert_close(read_right, expected)
    assert (head(shot_major, labels, query, WAY) - expected).abs().max() > 0.01  # read as if it were class-major


@pytest.mark.parametrize("weightless", ["delta", "balance"])
def test_without_masks_it_is_a_cosine_prototype_classifier(weightless: str) -> None:
    """(G1) whose logits carry the length of the query, unless it is normalised."""
    support, labels, query = task()
    made = gates(delta=0.0 if weightless == "delta" else 1.0)
    if weightless == "balance":
        torch.nn.init.constant_(made.of_balance.rho[-1].bias, -1e3)  # type: ignore[arg-type]
    prototypes = support.view(TASKS, WAY, SHOT, D).mean(2)
    cosine = torch.cosine_similarity(query.unsqueeze(2), prototypes.unsqueeze(1), dim=-1)
    length = torch.linalg.vector_norm(query, dim=-1, keepdim=True)
    head = GLoFAHead(made, temperature=0.5)
    torch.testing.assert_close(head(support, labels, query, WAY), length * cosine / 0.5)
    normalized = GLoFAHead(made, temperature=0.5, normalize_query=True)
    torch.testing.assert_close(normalized(support, labels, query, WAY), cosine / 0.5)


def test_normalized_queries_give_cosines_in_each_masked_space() -> None:
    support, labels, query = task()
    made = gates()
    factor = made(support, labels, WAY)
    prototypes = support.view(TASKS, WAY, SHOT, D).mean(2) * factor
    cosine = torch.cosine_similarity(query.unsqueeze(2) * factor.unsqueeze(1), prototypes.unsqueeze(1), dim=-1)
    torch.testing.assert_close(GLoFAHead(made, normalize_query=True)(support, labels, query, WAY), cosine)


@pytest.mark.parametrize("activation", ["relu", "softplus"])
def test_what_masks_can_be(activation: Any) -> None:
    """(G4) masks in [0, delta], a at least 0, gates at least 1; far inputs reach both ends of the masks."""
    support, labels, _ = task()
    made = gates(delta=0.7, activation=activation)
    of_task, of_class, balance = made.masks(200 * support, labels, WAY)
    assert (of_task.shape, of_class.shape) == ((TASKS, 1, D), (TASKS, WAY, D))
    for mask in (of_task, of_class):
        assert mask.min() == 0
        assert mask.max().item() == pytest.approx(0.7)
    assert all((a >= 0).all() for a in balance)
    assert (made(200 * support, labels, WAY) >= 1).all()


def test_sums_see_how_many_supports_there_are_and_means_do_not() -> None:
    """(G5)"""
    support, labels, _ = task()
    for aggregation, same in (("sum", False), ("mean", True)):
        made = gates(aggregation=aggregation)
        once = made(support, labels, WAY)
        twice = made(torch.cat([support, support], 1), torch.cat([labels, labels], 1), WAY)
        assert torch.allclose(twice, once) == same
    own = gates(aggregation="mean").of_class
    inputs = torch.cat([own.psi(support[0, :2]), support[0, :2]], 1)  # of class 0
    mask = 1 / 6 * F.relu6(own.rho(inputs.mean(0)))
    torch.testing.assert_close(gates(aggregation="mean").masks(support, labels, WAY)[1][0, 0], mask)


def test_softplus_starts_alive_and_relu_need_not() -> None:
    """A dead a leaves its mask without gradient; of relu's, some are dead in many seeds."""
    support, labels, query = task()
    for a in gates(alive=False, activation="softplus").masks(support, labels, WAY)[2]:
        torch.testing.assert_close(a, torch.full_like(a, 0.1))

    def dead(seed: int) -> bool:
        return any(a.max() == 0 for a in gates(seed, alive=False).masks(support, labels, WAY)[2])

    seeds = [seed for seed in range(30) if dead(seed)]
    assert len(seeds) > 5
    for activation, learns in (("relu", False), ("softplus", True)):
        made = gates(seeds[0], alive=False, activation=activation)
        GLoFAHead(made)(support, labels, query, WAY).square().sum().backward()
        slopes = [p.grad for network in (made.of_task, made.of_class) for p in network.rho[-1].parameters()]
        assert all(slope is not None and bool(slope.any()) for slope in slopes) == learns


def test_parameters_are_as_many_as_published() -> None:
    made = Gates(640)
    counts = [sum(p.numel() for p in part.parameters()) for part in (made.of_task, made.of_class, made.of_balance)]
    assert counts == [5_738_880, 5_738_880, 4_921_602]


def test_gradients_are_those_of_finite_differences() -> None:
    support, labels, query = (tensor[:1] for tensor in task())
    head = GLoFAHead(gates(activation="softplus"), normalize_query=True)

    def logits(s: Tensor, q: Tensor) -> Tensor:
        return head(s, labels, q, WAY)

    assert gradcheck(logits, (support.requires_grad_(), query.requires_grad_()))


def test_a_query_of_zeros_is_no_division_by_zero() -> None:
    support, labels, query = task()
    logits = GLoFAHead(gates(), normalize_query=True)(support, labels, torch.zeros_like(query), WAY)
    assert torch.equal(logits, torch.zeros_like(logits))


def test_a_class_without_supports_is_refused() -> None:
    with pytest.raises(HandfulError, match="Class 3 of task 0 has no support image"):
        GLoFAHead(gates())(*task(), WAY + 1)


def test_temperature_is_a_divisor() -> None:
    given, made = task(), gates()
    torch.testing.assert_close(GLoFAHead(made, temperature=4.0)(*given, WAY), GLoFAHead(made)(*given, WAY) / 4)
