"""MAML on windows of frames: the plain loop, finite differences, and what may be adapted by which name."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor
from torch.func import functional_call

from handful.backbones import unet
from handful.episodes import Episode
from handful.inner_loop import GradientDescent, TaskForward, adapt, per_task
from handful.methods import MAML, GradientBased
from handful.methods.adaptation import Adaptation
from handful.problems import VideoAnomaly
from tests.methods.family import central_differences, close, gradient

STEPS, RATE, SIDE = 2, 0.05, 8
DECODERS: dict[str, dict[str, Any]] = {
    "prototypes": {"prototypes": 3, "hidden": [4], "separateness": 0.5},
    "plain": {},
    "published": {"prototypes": 3, "residual": False, "separateness": 0.5},
}
ADAPTED = {"head": ["head"], "readout": ["head.readout"], "unit": ["head.unit"], "everything": []}


def made(decoder: str = "prototypes", adapted: str = "head", norm: Any = "none", **options: Any) -> GradientBased:
    """In float64 from one seed, with the zeros of the residual disturbed."""
    torch.manual_seed(0)
    backbone = unet(widths=(4, 5), norm=norm, input_shape=(4, SIDE, SIDE))
    method = MAML(backbone, **{"inner_lr": RATE, "inner_steps": STEPS, "adapt": ADAPTED[adapted], **options})
    method.problem = VideoAnomaly({"name": "next_frame", "edges": 0.1, **DECODERS[decoder]})
    method.attach_head(1)
    with torch.no_grad():
        for value in method.network.parameters():
            value.add_(0.3 * torch.randn_like(value))
    return method.double().train()


def tasks(count: int = 2, shot: int = 2, query: int = 3) -> Episode:
    """Windows of patterns that drift, at a speed of each task's own."""
    generator = torch.Generator().manual_seed(1)
    place = torch.arange(SIDE, dtype=torch.float64)
    phase, speed, tilt = (torch.rand(count, shot + query, 1, 1, 1, generator=generator).double() for _ in range(3))
    time = torch.arange(5, dtype=torch.float64)[:, None, None]
    waves = 0.5 + 0.4 * torch.sin(6 * phase + 2 * speed[:, :1] * time + place + 2 * tilt * place[:, None])
    support, queries = waves.split([shot, query], 1)
    return Episode(support[:, :, :4], support[:, :, 4:], queries[:, :, :4], queries[:, :, 4:])


@pytest.mark.parametrize(
    ("decoder", "adapted"),
    [(decoder, adapted) for decoder in DECODERS for adapted in ADAPTED if (decoder, adapted) != ("plain", "unit")],
)
def test_the_gradient_is_that_of_the_plain_loop(decoder: str, adapted: str) -> None:
    """Two inner steps by hand, task by task, differentiated to the end."""
    method, episode = made(decoder, adapted), tasks()
    network, problem = method.network, method.problem
    theta = dict(network.named_parameters())
    total = torch.zeros((), dtype=torch.float64)
    for support_x, support_y, query_x, query_y in zip(*episode):
        phi: dict[str, Tensor] = dict(theta)
        for _ in range(STEPS):
            loss = problem.loss(functional_call(network, phi, (support_x,))[None], support_y[None]).sum()
            slopes = torch.autograd.grad(loss, [phi[name] for name in method.inner_names], create_graph=True)
            phi = {**phi, **{name: phi[name] - RATE * slope for name, slope in zip(method.inner_names, slopes)}}
        total = total + problem.loss(functional_call(network, phi, (query_x,))[None], query_y[None]).sum() / 2
    expected = dict(zip(theta, torch.autograd.grad(total, list(theta.values()))))
    assert method(episode).loss.item() == pytest.approx(total.item(), rel=1e-9)
    close({name.removeprefix("network."): value for name, value in gradient(method, episode).items()}, expected)


@pytest.mark.parametrize("adapted", ["head", "readout", "everything"])
def test_second_order_is_the_finite_difference(adapted: str) -> None:
    method, episode = made(adapted=adapted, rates="per_tensor"), tasks()
    found = gradient(method, episode)
    learned = {name: value for name, value in method.named_parameters() if value.requires_grad}
    torch.manual_seed(2)
    direction = [torch.randn_like(value) for value in learned.values()]
    slope = sum(float((found[name] * d).sum()) for name, d in zip(learned, direction))
    measured = central_differences(lambda: method(episode).loss, list(learned.values()), direction, h=1e-7)
    assert slope == pytest.approx(measured, rel=1e-4)
    constant = made(adapted=adapted, rates="per_tensor", first_order=True)
    first_order = gradient(constant, episode)
    assert any(float((first_order[name] - found[name]).abs().max()) > 1e-4 for name in found)


@pytest.mark.parametrize("way", ["vmap", "loop"])
@pytest.mark.parametrize("adapted", ["head", "everything"])
def test_tasks_side_by_side_are_tasks_one_by_one(way: str, adapted: str) -> None:
    method, episode = made(adapted=adapted), tasks()
    runner = TaskForward(method.network, passing=[way])
    start = {name: value for name, value in method.network.named_parameters() if name in method.inner_names}
    update = GradientDescent(RATE, "fixed", STEPS).start(per_task(start, 2))

    def support_loss(step: int, params: Any) -> Tensor:
        return method.problem.loss(runner.support(params, episode.support_x), episode.support_y)

    *_, params = adapt(support_loss, per_task(start, 2), update, STEPS, differentiable=True)
    found = runner.query(params, episode.query_x, episode.support_x)
    torch.testing.assert_close(found, method.predict(episode)[-1], rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("adapted", ["head", "readout"])
def test_the_body_is_passed_once_with_the_same_gradients(adapted: str, monkeypatch: pytest.MonkeyPatch) -> None:
    episode = tasks()
    quick, plain = made(adapted=adapted), made(adapted=adapted)
    predicted, found = quick.predict(episode), gradient(quick, episode)
    monkeypatch.setattr(Adaptation, "_pass_the_body_once", lambda self, norm_stats: None)
    torch.testing.assert_close(predicted, plain.predict(episode), rtol=1e-9, atol=1e-12)
    close(found, gradient(plain, episode))
    assert max(float(value.abs().max()) for name, value in found.items() if "backbone" in name) > 1e-4


def test_what_is_adapted_goes_by_the_names_of_the_parts() -> None:
    assert made(adapted="unit").inner_names == ["head.unit.positions.weight"]
    readout = ["head.readout.0.weight", "head.readout.0.bias", "head.readout.2.weight", "head.readout.2.bias"]
    assert made(adapted="readout").inner_names == readout
    assert sorted(made(adapted="head").inner_names) == sorted(["head.unit.positions.weight", *readout])
    assert {name.split(".")[0] for name in made(adapted="everything").inner_names} == {"backbone", "head"}


@pytest.mark.parametrize("adapted", list(ADAPTED))
def test_adaptation_lowers_the_loss_of_its_support(adapted: str) -> None:
    method, episode = made(adapted=adapted, inner_lr=1e-3), tasks(1)
    same = Episode(episode.support_x, episode.support_y, episode.support_x, episode.support_y)
    losses = [method.problem.loss(found, episode.support_y).item() for found in method.predict(same)]
    assert losses[0] > losses[1] > losses[2]


@pytest.mark.parametrize(("norm", "norm_stats"), [("none", "batch"), ("batch", "support"), ("batch", "running")])
@pytest.mark.parametrize("adapted", ["head", "everything"])
def test_a_fitted_network_answers_as_the_adapted_one(adapted: str, norm: str, norm_stats: Any) -> None:
    method, episode = made(adapted=adapted, norm=norm, norm_stats=norm_stats), tasks(1)
    if norm_stats == "running":
        method.network(tasks(3).query_x.flatten(0, 1))  # as pre-training would
    fitted = method.fit(episode.support_x[0], episode.support_y[0])
    assert not fitted.training
    expected = method.predict(episode)[-1, 0]
    torch.testing.assert_close(fitted(episode.query_x[0]), expected, rtol=1e-9, atol=1e-12)
    torch.testing.assert_close(fitted(episode.query_x[0, :1]), expected[:1], rtol=1e-9, atol=1e-12)  # without its mates
