"""The ways back through the inner loop: the graph, the recomputed one, the plain loop; their memory; attention."""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any, get_args

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.func import functional_call
from torch.nn.attention import SDPBackend, sdpa_kernel

from handful.episodes import Episode
from handful.inner_loop import GradientDescent, Rates, TaskForward, adapt, per_task, with_gradient
from handful.memory import peak_bytes
from handful.methods import ANIL, MAML, GradientBased, MAMLPlusPlus, MetaSGD, ProtoMAML
from handful.problems import Classification
from tests.methods.family import (
    LR,
    STEPS,
    TASKS,
    Smooth,
    Unfoldable,
    close,
    differ,
    episode,
    gradient,
    made,
    of_network,
    plain_gradient,
    plain_loss,
)

COMMON: dict[str, Any] = {"inner_lr": LR, "inner_steps": STEPS}
SETTINGS: dict[str, Callable[..., GradientBased]] = {
    **{
        f"MAML, rates {kind}": lambda body, k=kind, **way: MAML(body, rates=k, **COMMON, **way)
        for kind in get_args(Rates)
    },
    "MAML of a part": lambda body, **way: MAML(body, adapt=["backbone.norm", "head.bias"], **COMMON, **way),
    "Meta-SGD": lambda body, **way: MetaSGD(body, **COMMON, **way),
    "ANIL": lambda body, **way: ANIL(body, rates="per_step", **COMMON, **way),
    "Proto-MAML": lambda body, **way: ProtoMAML(body, rates="per_tensor", **COMMON, **way),
    "MAML++, every step's loss": lambda body, **way: MAMLPlusPlus(body, **COMMON, **way),
}


@pytest.mark.parametrize(
    "backbone", [Smooth, Unfoldable, lambda: Smooth(dropout=0.4)], ids=["smooth", "vmap", "dropout"]
)
@pytest.mark.parametrize("name", SETTINGS)
def test_recomputed_steps_give_the_gradient_of_the_graph(name: str, backbone: Callable[[], nn.Module]) -> None:
    """Of all that is learned: initialisation, rates, norms of every step; with dropout the masks are the same."""
    found = []
    for backprop, seed in (("graph", 5), ("recompute", 5), ("recompute", 6)):
        method = made(SETTINGS[name], backbone, backprop=backprop)
        torch.manual_seed(seed)
        found.append(gradient(method, episode()))
    close(found[1], found[0])
    assert differ(found[2], found[0]) == any(isinstance(m, nn.Dropout) and m.p for m in method.modules())


def test_the_way_back_draws_no_random_numbers_of_its_own() -> None:
    """A step that is computed again takes its masks from a copy of the generator."""
    after = []
    for backprop in ("graph", "recompute"):
        method = made(MAML, lambda: Smooth(dropout=0.4), backprop=backprop, **COMMON)
        torch.manual_seed(5)
        method(episode()).loss.backward()
        after.append(torch.rand(3))
    assert torch.equal(*after)


@pytest.mark.parametrize(("backprop", "first_order"), [("graph", False), ("recompute", False), ("graph", True)])
@pytest.mark.parametrize("kind", get_args(Rates))
def test_learned_rates_have_the_gradient_of_the_plain_loop(kind: Rates, backprop: str, first_order: bool) -> None:
    """Rates of every kind, drawn at random so that no two are alike; in first order they are still learned."""
    method = made(MAML, rates=kind, backprop=backprop, first_order=first_order, **COMMON)
    optimizer = method.optimizer
    assert isinstance(optimizer, GradientDescent)
    with torch.no_grad():
        for rate in optimizer.learned:
            rate.copy_(torch.rand_like(rate) - 0.2)  # of either sign
    loss, theta = plain_loss(method, episode(), rate=optimizer.rate, first_order=first_order)
    inputs = [*theta.values(), *optimizer.learned]
    plain = torch.autograd.grad(loss, inputs)
    names = [*(f"network.{name}" for name in theta), *(f"optimizer.learned.{i}" for i in range(len(optimizer.learned)))]
    close(gradient(method, episode()), dict(zip(names, plain)))
    assert len(optimizer.learned) == (0 if kind == "fixed" else len(theta))


@pytest.mark.parametrize("backprop", ["graph", "recompute"])
def test_a_part_alone_is_adapted_as_in_the_plain_loop(backprop: str) -> None:
    """What is not adapted is shared by the tasks and still gets its gradient, through every inner step."""
    inner = ["backbone.norm.weight", "head.bias"]
    method = made(MAML, adapt=inner, backprop=backprop, **COMMON)
    close(of_network(gradient(method, episode())), plain_gradient(method, episode(), inner=inner))


def peak(steps: int, backprop: str, method: Callable[..., GradientBased] = MAML) -> int:
    batch = episode(tasks=2, query=1)
    ready = made(method, inner_lr=LR, inner_steps=steps, backprop=backprop)
    gradient(ready, batch)  # what torch makes at the first call is not a step's
    return peak_bytes(lambda: gradient(ready, batch), torch.device("cpu"))


def test_a_recomputed_step_keeps_its_parameters_and_nothing_else() -> None:
    """But the generator's state, for dropout: each inner step from 4 to 12 adds so much; the graph adds far more."""
    method = made(MAML)
    parameters = 2 * sum(p.numel() * p.element_size() for p in method.network.parameters())  # of two tasks
    recomputed, graph = ((peak(12, way) - peak(4, way)) / 8 for way in ("recompute", "graph"))
    assert recomputed == pytest.approx(parameters + torch.get_rng_state().numel(), rel=0.05)
    assert graph > 6 * parameters


def test_a_gradient_that_is_known_already_is_handed_on() -> None:
    """Its value, its gradient times the cotangent, and nothing for what had none."""
    a, b, c = (torch.tensor(value, dtype=torch.float64, requires_grad=True) for value in ([1.0, 2.0], 3.0, 4.0))
    known = with_gradient(
        torch.tensor(7.0, dtype=torch.float64), [(a, torch.tensor([5.0, 6.0])), (b, None), (c, c * 2)]
    )
    assert known.item() == 7
    found = torch.autograd.grad(known * 10 + a.sum(), [a, b, c], allow_unused=True)
    assert found[1] is None
    assert [part.tolist() for part in (found[0], found[2]) if part is not None] == [[51, 61], 80]


class Attentive(nn.Module):
    """Rows of an image as tokens under one head of fused attention."""

    out_features = 6

    def __init__(self) -> None:
        super().__init__()
        self.embed = nn.Linear(6, 18)

    def forward(self, images: Tensor) -> Tensor:
        query, key, value = self.embed(images).chunk(3, -1)
        return self.attend(query, key, value).mean((1, 2))

    def attend(self, query: Tensor, key: Tensor, value: Tensor) -> Tensor:
        return F.scaled_dot_product_attention(query, key, value)


class Explicit(Attentive):
    """The same by the formula softmax(Q K' / sqrt(d)) V."""

    def attend(self, query: Tensor, key: Tensor, value: Tensor) -> Tensor:
        return (query @ key.mT / 6**0.5).softmax(-1) @ value


class MultiHead(nn.Module):
    """torch's own module, which takes fused attention when nobody asks for the weights."""

    out_features = 6

    def __init__(self) -> None:
        super().__init__()
        self.attention = nn.MultiheadAttention(6, 2, batch_first=True)

    def forward(self, images: Tensor) -> Tensor:
        rows = images.squeeze(1)
        attended, _ = self.attention(rows, rows, rows, need_weights=False)
        return torch.tanh(attended).mean(1)


class MultiHeadExplicit(MultiHead):
    def forward(self, images: Tensor) -> Tensor:
        weight, bias = self.attention.in_proj_weight, self.attention.in_proj_bias
        parts = F.linear(images.squeeze(1), weight, bias).chunk(3, -1)
        query, key, value = (part.unflatten(-1, (2, 3)).transpose(1, 2) for part in parts)
        mixed = ((query @ key.mT / 3**0.5).softmax(-1) @ value).transpose(1, 2).flatten(2)
        return torch.tanh(self.attention.out_proj(mixed)).mean(1)


@pytest.mark.parametrize("backprop", ["graph", "recompute"])
@pytest.mark.parametrize("tasks", [1, TASKS])  # one is run as it is, several by vmap
@pytest.mark.parametrize(("fused", "formula"), [(Attentive, Explicit), (MultiHead, MultiHeadExplicit)])
def test_attention_trains_in_second_order(
    fused: Callable[[], nn.Module], formula: Callable[[], nn.Module], tasks: int, backprop: str
) -> None:
    """The gradient of the plain loop with attention by its formula, and finite predictions."""
    method, plain = made(MAML, fused, backprop=backprop, **COMMON), made(MAML, formula, **COMMON)
    batch = scaled(episode(tasks))
    close(of_network(gradient(method, batch)), plain_gradient(plain, batch), rtol=1e-8)
    torch.testing.assert_close(method.predict(batch), plain.predict(batch))


def scaled(batch: Episode) -> Episode:
    """Large enough for attention to be far from uniform."""
    return batch._replace(support_x=batch.support_x * 2, query_x=batch.query_x * 2)


def test_without_the_plain_formula_attention_has_no_second_derivative() -> None:
    """Why the inner step asks for it: the fused kernel raises when its gradient is differentiated."""
    network = Attentive()
    images = torch.randn(2, 1, 6, 6)
    with sdpa_kernel(SDPBackend.FLASH_ATTENTION):
        first = torch.autograd.grad(network(images).square().sum(), network.embed.weight, create_graph=True)
    with pytest.raises(RuntimeError, match="not implemented"):
        torch.autograd.grad(first[0].square().sum(), network.embed.weight)


def detached(tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    return {name: value.detach() for name, value in tensors.items()}


def test_every_step_is_yielded_and_goes_down() -> None:
    """The parameters after 0, 1, ..., S steps, those of a hand-made loop, and `params` as it was."""
    network, batch = made(MAML).network, episode()
    forward, problem = TaskForward(network), Classification()
    start = per_task({name: value.detach() for name, value in network.named_parameters()}, TASKS)
    before = {name: value.clone() for name, value in start.items()}

    def loss(step: int, params: Any) -> Tensor:
        return problem.loss(forward.support(params, batch.support_x), batch.support_y)

    update = GradientDescent(LR, "fixed", STEPS).step
    found = [dict(params) for params in adapt(loss, start, update, STEPS, differentiable=False)]
    assert len(found) == STEPS + 1
    losses = [loss(0, params).sum().item() for params in found]
    assert losses == sorted(losses, reverse=True)
    plain = copy.deepcopy(network)
    for b in range(TASKS):
        phi = {name: value[b] for name, value in before.items()}
        for step in range(STEPS + 1):
            close({name: value[b].detach() for name, value in found[step].items()}, detached(phi))
            phi = {name: value.detach().requires_grad_() for name, value in phi.items()}
            total = F.cross_entropy(functional_call(plain, phi, (batch.support_x[b],)), batch.support_y[b])
            phi = {name: v - LR * g for (name, v), g in zip(phi.items(), torch.autograd.grad(total, [*phi.values()]))}
    assert all(torch.equal(start[name], value) for name, value in before.items())
