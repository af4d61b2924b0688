"""GLoFA's gates on FRN: against copies of every query for every class, and what gates must leave as it was (X1)."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor
from torch.autograd import gradcheck

from handful.methods.frn import FRNHead
from handful.methods.glofa import Gates
from handful.methods.glofa_frn import GLoFAFRNHead

TASKS, WAY, SHOT, QUERIES, POSITIONS, D = 2, 3, 2, 5, 4, 6


def randn(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


def task(shot: int = SHOT) -> tuple[Tensor, Tensor, Tensor]:
    """Supports, labels and queries, class-major."""
    labels = torch.arange(WAY).repeat_interleave(shot).expand(TASKS, -1)
    return randn(TASKS, WAY * shot, POSITIONS, D), labels, randn(TASKS, QUERIES, POSITIONS, D, seed=1)


def made(spatial: bool = False, form: Any = "auto", **options: Any) -> GLoFAFRNHead:
    """With scalars and a global mask as if learned."""
    torch.manual_seed(0)
    chosen: dict[str, Any] = {"aggregation": "mean", "activation": "softplus", "delta": 3.0, **options}
    head = GLoFAFRNHead(FRNHead(form=form), Gates(D, **chosen), D, spatial=spatial).double()
    with torch.no_grad():
        head.frn.alpha.fill_(0.3)
        head.frn.beta.fill_(-0.2)
        head.frn.scale.fill_(1.7)
        head.global_mask.copy_(randn(D, seed=2) / 3)
        for network in (head.gates.of_task, head.gates.of_class):
            network.rho[-1].bias.add_(1.0)  # type: ignore[operator]
    return head


def explicit(head: GLoFAFRNHead, support: Tensor, labels: Tensor, query: Tensor) -> Tensor:
    """In loops: the gates of a class, on copies of its supports and of all queries, to FRN as a task of one class."""
    found = torch.empty(TASKS, QUERIES, WAY, dtype=torch.float64)
    for b in range(TASKS):
        if head.spatial:
            each = [head.gates(support[b : b + 1, :, i], labels[b : b + 1], WAY)[0] for i in range(POSITIONS)]
            gate = torch.stack(each, 1)  # [N, r, d]
        else:
            gate = head.gates(support[b : b + 1].mean(2), labels[b : b + 1], WAY)[0].unsqueeze(1)
        gate = gate * (1 + head.global_mask)
        for n in range(WAY):
            g = gate[n] / gate[n].square().mean().sqrt()
            own = (support[b, labels[b] == n] * g).unsqueeze(0)
            one_class = torch.zeros(1, own.shape[1], dtype=torch.int64)
            found[b, :, n] = head.frn(own, one_class, (query[b] * g).unsqueeze(0), 1)[0, :, 0]
    return found


@pytest.mark.parametrize("spatial", [False, True])
@pytest.mark.parametrize("form", ["auto", "closed", "woodbury", "direct"])
def test_logits_are_those_with_copies(spatial: bool, form: Any) -> None:
    """(X1) lean == explicit, for unequal classes too."""
    support, labels, query = task()
    head = made(spatial, form)
    expected = explicit(head, support, labels, query)
    torch.testing.assert_close(head(support, labels, query, WAY), expected)
    odd = torch.tensor([[2, 0, 2, 1, 2, 2], [1, 1, 1, 0, 2, 0]])
    torch.testing.assert_close(head(support, odd, query, WAY), explicit(head, support, odd, query))
    torch.testing.assert_close(head.judge(query, head.settled(support, odd, WAY)), head(support, odd, query, WAY))
    plain = head.frn(support, labels, query, WAY)
    assert (expected - plain).abs().max() > 1e-2  # gates that do something


@pytest.mark.parametrize("spatial", [False, True])
@pytest.mark.parametrize("how", ["delta", "balance", "constant"])
def test_gates_that_say_nothing_leave_frn(spatial: bool, how: str) -> None:
    """(X1) no mask, masks without weight, masks that are the same in all channels."""
    support, labels, query = task()
    head = made(spatial, delta=0.0 if how == "delta" else 3.0)
    with torch.no_grad():
        head.global_mask.fill_(0.4 if how == "constant" else 0.0)
        if how == "balance":
            head.gates.of_balance.rho[-1].bias.fill_(-1e3)  # type: ignore[operator]
        if how == "constant":  # another constant for each class, but one for all positions, whose weights it would be
            for network in (head.gates.of_task, head.gates.of_class):
                last: Any = network.rho[-1]
                last.weight.copy_(last.weight[:1].clone() * (not spatial))
                last.bias.fill_(2.0)
    gates = head.gates(support.mean(2), labels, WAY)
    torch.testing.assert_close(gates, gates[..., :1].expand_as(gates))
    assert (gates.max() > 1.05) == (how == "constant")
    torch.testing.assert_close(head(support, labels, query, WAY), head.frn(support, labels, query, WAY))


def test_a_class_with_large_masks_is_not_farther() -> None:
    """A gate is scaled to a mean square of 1, so a factor in it is nothing."""
    support, labels, query = task()
    head = made()
    expected = head(support, labels, query, WAY)
    with torch.no_grad():
        head.global_mask.copy_(5 * (1 + head.global_mask) - 1)
    torch.testing.assert_close(head(support, labels, query, WAY), expected)
    gate = head.scaled(randn(TASKS, WAY, 1, D, seed=3))
    torch.testing.assert_close(gate.square().sum((2, 3)), torch.full((TASKS, WAY), float(D), dtype=torch.float64))


def test_positions_are_free_without_spatial_masks_alone() -> None:
    support, labels, query = task()
    moved = query[:, :, [2, 0, 3, 1]]
    for spatial in (False, True):
        head = made(spatial)
        same = torch.allclose(head(support, labels, moved, WAY), head(support, labels, query, WAY))
        assert same != spatial


def test_masks_do_not_depend_on_the_number_of_shots() -> None:
    support, labels, query = task()
    head = made()
    twice = head(torch.cat([support, support], 1), torch.cat([labels, labels], 1), query, WAY)
    torch.testing.assert_close(twice, head(support, labels, query, WAY), rtol=1e-5, atol=0)


@pytest.mark.parametrize("spatial", [False, True])
def test_gradients_are_those_of_finite_differences(spatial: bool) -> None:
    support, labels, query = (tensor[:1] for tensor in task(1))
    head = made(spatial)

    def logits(s: Tensor, q: Tensor, mask: Tensor) -> Tensor:
        return torch.func.functional_call(head, {"global_mask": mask}, (s, labels, q, WAY))

    mask = head.global_mask.detach().clone().requires_grad_()
    assert gradcheck(logits, (support.requires_grad_(), query[:, :2].requires_grad_(), mask))


def test_every_part_is_learned() -> None:
    support, labels, query = task()
    head = made()
    torch.nn.functional.cross_entropy(
        head(support, labels, query, WAY).flatten(0, 1), torch.arange(10) % WAY
    ).backward()
    without = {name for name, p in head.named_parameters() if p.grad is None or not p.grad.any()}
    # the last weights of softplus's balance are zero at first, so what lies before them waits for one step
    assert without == {name for name in without if name.startswith("gates.of_balance") and ".rho.2." not in name}


def test_the_auxiliary_loss_is_frns() -> None:
    support, labels, _ = task()
    head = made()
    found = head.auxiliary(support, labels, WAY)
    assert found > 0
    assert torch.equal(found, head.frn.auxiliary(support, labels, WAY))
