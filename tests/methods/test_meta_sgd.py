"""Meta-SGD: a learned size for every entry (that a constant is MAML, and their gradient: M6)."""

from __future__ import annotations

import torch

from handful.methods import MetaSGD
from tests.methods.family import LR, Smooth, close, episode, flat, gradient, group_norm, made, plain_loss


def test_there_is_a_size_for_every_entry_of_every_parameter() -> None:
    method = made(MetaSGD, inner_lr=LR)
    theta = dict(method.network.named_parameters())
    rates = method.learned_rates()
    assert {name: value.shape for name, value in rates.items()} == {name: p.shape for name, p in theta.items()}
    assert flat(rates).eq(LR).all()
    count = sum(p.numel() for p in theta.values())
    assert sum(p.numel() for p in method.parameters() if p.requires_grad) == 2 * count


def test_a_negative_size_climbs_and_a_size_of_zero_stays() -> None:
    """No sign is imposed: the plain loop with the same sizes gives the same loss and gradient."""
    method, batch = made(MetaSGD, inner_lr=LR, inner_steps=2), episode()
    theta = dict(method.network.named_parameters())
    rates = dict(zip(theta, method.optimizer.parameters()))
    with torch.no_grad():
        rates["backbone.conv.weight"].neg_()
        rates["backbone.conv.bias"].zero_()
        rates["head.weight"][0].zero_()
    loss, leaves = plain_loss(method, batch, rate=lambda step, name: rates[name], steps=2)
    torch.testing.assert_close(method(batch).loss, loss)
    plain = torch.autograd.grad(loss, list(leaves.values()))
    close(gradient(method, batch), {f"network.{name}": g for name, g in zip(leaves, plain)})
    *_, phi = method.adaptation(batch, "batch").steps(2)
    assert torch.equal(phi["backbone.conv.bias"][0], theta["backbone.conv.bias"])
    assert torch.equal(phi["head.weight"][:, 0], theta["head.weight"][0].expand(len(batch.support_x), -1))
    assert (phi["head.weight"][:, 1] != theta["head.weight"][1]).any()


def test_both_the_start_and_the_sizes_learn() -> None:
    """A few outer steps on one batch lower its loss and move both."""
    method, batch = made(MetaSGD, lambda: Smooth(group_norm), inner_lr=0.05), episode()
    before = {name: value.clone() for name, value in method.named_parameters()}
    adam = torch.optim.Adam(method.parameters(), lr=0.02)
    losses = []
    for _ in range(15):
        adam.zero_grad()
        loss = method(batch).loss
        loss.backward()
        adam.step()
        losses.append(loss.item())
    assert losses[-1] < losses[0] / 2
    assert all((value != before[name]).any() for name, value in method.named_parameters())
