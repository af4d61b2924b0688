"""Whose statistics batch norm uses: each kind against a plain module that is fed and set by hand."""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.func import functional_call

import handful.inner_loop.tasks
from handful.data.store import ImageStore
from handful.errors import HandfulError
from handful.evaluation import evaluate_method
from handful.inner_loop import PerStepNorm, TaskForward
from handful.inner_loop.fast_ops import FastOps
from handful.inner_loop.statistics import BatchNormStatistics, moments
from handful.methods import MAML, GradientBased, MAMLPlusPlus
from handful.recipe import Protocol
from tests.methods.family import LR, TASKS, WAY, Picture, Smooth, Unfoldable, episode, group_norm, made

STEPS = 2


def plus(**options: Any) -> GradientBased:
    """Per-step norms alone; batch norm is what differs between the steps."""
    return made(MAMLPlusPlus, inner_lr=LR, inner_steps=STEPS, multi_step_epochs=0, per_step_rates=False, **options)


def norms_of(method: GradientBased) -> PerStepNorm:
    assert method.norms is not None
    return method.norms


def norm_of(network: nn.Module) -> nn.BatchNorm2d:
    found = next(module for module in network.modules() if isinstance(module, nn.BatchNorm2d))
    assert isinstance(found, nn.BatchNorm2d)
    return found


def buffer(module: nn.Module, name: str) -> Tensor:
    return module.get_buffer(name)


def test_norms_for_every_step_have_a_row_a_step() -> None:
    method = plus()
    norms = norms_of(method)
    scale, shift = norms.affine
    norm = norm_of(method.network)
    for step in range(STEPS):
        assert torch.equal(scale[step], norm.weight)
        assert torch.equal(shift[step], norm.bias)
    assert scale.shape == shift.shape == norms.get_buffer("mean0").shape == (STEPS, 4)
    assert not norms.get_buffer("mean0").any()
    assert norms.get_buffer("var0").eq(1).all()
    assert scale.requires_grad
    assert not norm.weight.requires_grad
    assert not set(norms.names) & set(method.inner_names)


def test_rows_move_towards_the_mean_over_tasks() -> None:
    """row' = 0.9 row + 0.1 mean of the tasks' moments, that of its own step alone."""
    method = plus()
    norms = norms_of(method)
    norms.trace(method.network, episode().support_x[0])
    mean, var = torch.rand(2, TASKS, 4, dtype=torch.float64)
    before = [buffer(norms, name).clone() for name in ("mean0", "var0")]
    norms.observe(1, [(mean, var)])
    for name, then, seen in zip(("mean0", "var0"), before, (mean, var)):
        assert torch.equal(buffer(norms, name)[0], then[0])
        torch.testing.assert_close(buffer(norms, name)[1], 0.9 * then[1] + 0.1 * seen.mean(0))


@pytest.mark.parametrize("backprop", ["graph", "recompute"])
def test_training_shows_a_row_its_own_steps_passes_once_each(backprop: str) -> None:
    """Row 0: the supports of step 1; row 1: those of step 2, then the queries after it; a way back shows nothing."""
    method, batch = plus(backprop=backprop), episode()
    norm, norms = norm_of(method.network), norms_of(method)
    phi = [dict(params) for params in method.adaptation(batch, "batch").steps(STEPS)]
    seen = []
    for params, x in zip(phi, (batch.support_x, batch.support_x, batch.query_x)):
        maps = [
            torch.conv2d(x[b], params["backbone.conv.weight"][b], params["backbone.conv.bias"][b], 2, 1)
            for b in range(TASKS)
        ]
        seen.append([torch.stack(values).mean(0).detach() for values in zip(*map(moments, maps))])
    method(batch).loss.backward()
    for index, (name, start) in enumerate((("mean0", 0.0), ("var0", 1.0))):
        rows = torch.full((STEPS, 4), start, dtype=torch.float64)
        rows[0] = 0.9 * rows[0] + 0.1 * seen[0][index]
        rows[1] = 0.9 * rows[1] + 0.1 * seen[1][index]
        rows[1] = 0.9 * rows[1] + 0.1 * seen[2][index]
        torch.testing.assert_close(buffer(norms, name), rows, rtol=1e-9, atol=1e-12)
    assert norm.num_batches_tracked is not None
    assert int(norm.num_batches_tracked) == 0
    before = buffer(norms, "mean0").clone()
    method.predict(batch)
    assert torch.equal(buffer(norms, "mean0"), before)  # evaluation shows it nothing


@pytest.mark.parametrize("fast", [False, True])
@pytest.mark.parametrize("given", [False, True])
def test_moments_are_seen_on_the_way(fast: bool, given: bool) -> None:
    """Observing changes no output and no gradient, be it that a batch is normalised by its own or by given moments."""
    torch.manual_seed(0)
    norm, x = nn.BatchNorm2d(3).double(), torch.randn(4, 3, 2, 2, dtype=torch.float64, requires_grad=True)
    handed = [(torch.randn(3, dtype=torch.float64), torch.rand(3, dtype=torch.float64) + 0.5)]
    outcomes = []
    for watch in (False, True):
        statistics = BatchNormStatistics()
        statistics.observed = [] if watch else None
        if given:
            statistics.give(handed)
        with FastOps() if fast else torch.enable_grad(), statistics:
            y = norm(x)
        (gradient,) = torch.autograd.grad(y.pow(3).sum(), x, create_graph=True)
        (second,) = torch.autograd.grad(gradient.pow(2).sum(), x)
        outcomes.append((y, gradient, second))
    for plain, watched in zip(*outcomes):
        assert torch.allclose(plain, watched, rtol=1e-12)
    assert statistics.observed is not None
    for seen, expected in zip(statistics.observed[0], moments(x), strict=True):
        assert torch.allclose(seen, expected, rtol=1e-12)


def test_norms_for_every_step_need_batch_norm() -> None:
    with pytest.raises(HandfulError, match=r"this network has none; set method.per_step_norm=false"):
        plus(backbone=lambda: Smooth(group_norm))


@pytest.mark.parametrize("grouped", [0, 1000])
@pytest.mark.parametrize("backbone", [Smooth, Unfoldable])
def test_per_step_statistics_are_the_rows_of_the_step(
    backbone: Callable[[], nn.Module], grouped: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Predictions after s steps are those of a plain network in eval mode with row s - 1 as its batch norm."""
    monkeypatch.setattr(handful.inner_loop.tasks, "GROUPED_IMAGES", grouped)
    method, batch = plus(backbone=backbone), episode()
    norms = norms_of(method)
    with torch.no_grad():
        for value in (*norms.affine, buffer(norms, "mean0"), buffer(norms, "var0")):
            value.copy_(torch.rand_like(value) + 0.5)
    ours = method.predict(batch, norm_stats="per_step")
    steps = list(method.adaptation(batch, "batch").steps(STEPS))
    plain = copy.deepcopy(method.network).eval()
    norm = norm_of(plain)
    for step, params in enumerate(steps):
        row = max(step - 1, 0)
        with torch.no_grad():
            for target, value in zip(
                (norm.weight, norm.bias, buffer(norm, "running_mean"), buffer(norm, "running_var")),
                (*norms.affine, buffer(norms, "mean0"), buffer(norms, "var0")),
            ):
                target.copy_(value[row])
        for b in range(TASKS):
            alone = [
                functional_call(plain, {n: v[b] for n, v in params.items()}, (image[None],))
                for image in batch.query_x[b]
            ]
            torch.testing.assert_close(ours[step, b], torch.cat(alone), rtol=1e-9, atol=1e-12)


def test_per_step_statistics_that_nobody_kept_are_refused(store: ImageStore) -> None:
    """Also by evaluation, in a sentence that says what to do."""

    method = made(MAML, Picture).float()
    protocol = Protocol(way=WAY, shot=1, query=2, tasks=2, norm_stats="per_step")
    message = r"norm_stats is 'per_step', but this run kept no statistics for every step; train maml\+\+ with"
    with pytest.raises(HandfulError, match=message):
        evaluate_method(method, store.test, protocol)
    kept = made(MAMLPlusPlus, Picture, inner_steps=STEPS).float()
    result = evaluate_method(kept, store.test, protocol)
    assert (result.norm_stats, result.transductive) == ("per_step", False)


@pytest.mark.parametrize("queries", [3, 12])  # below and above what is passed side by side
@pytest.mark.parametrize("backbone", [Smooth, Unfoldable])
def test_support_plus_one_is_each_query_in_one_batch_with_the_support(
    backbone: Callable[[], nn.Module], queries: int
) -> None:
    """The plain loop: support and one query through the module in training mode, and the query's row is read."""
    batch = episode(query=queries)
    network = made(MAML, backbone).network
    generator = torch.Generator().manual_seed(4)
    params = {
        name: value.detach() + 0.3 * torch.randn(TASKS, *value.shape, dtype=torch.float64, generator=generator)
        for name, value in network.named_parameters()
    }
    forward = TaskForward(network, "support+1")
    ours = forward.query(params, batch.query_x, batch.support_x)
    assert forward.passing[0] == ("folded" if backbone is Smooth else "vmap")
    plain = copy.deepcopy(network).train()
    for b in range(TASKS):
        own = {name: value[b] for name, value in params.items()}
        for row, image in zip(ours[b], batch.query_x[b], strict=True):
            together = torch.cat([batch.support_x[b], image[None]])
            torch.testing.assert_close(row, functional_call(plain, own, (together,))[-1], rtol=1e-9, atol=1e-12)


def test_support_plus_one_counts_the_query_and_support_does_not() -> None:
    """They differ, and come together the larger the support is."""
    method, gaps = made(MAML), []
    for shot in (1, 40):
        batch = episode(shot=shot)
        beside, frozen = (method.predict(batch, 0, stats) for stats in ("support+1", "support"))
        gaps.append(float((beside - frozen).abs().max()))
    assert gaps[0] > 1e-2
    assert gaps[1] < gaps[0] / 5


@pytest.mark.parametrize("limit", [1, 20, 1000])
def test_no_more_images_are_held_beside_a_support_set_than_the_limit(
    limit: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """However many queries; a part of one query is the least."""
    seen: list[int] = []
    run = TaskForward._run

    def counting(self: TaskForward, params: Any, x: Tensor, **options: Any) -> Tensor:
        seen.append(x.shape[0] * x.shape[1])
        return run(self, params, x, **options)

    monkeypatch.setattr(TaskForward, "_run", counting)
    method, batch = made(MAML), episode(shot=2, query=4)
    whole = method.predict(batch, 0, "support+1")
    seen.clear()
    monkeypatch.setattr(handful.inner_loop.tasks, "BESIDE_IMAGES", limit)
    torch.testing.assert_close(method.predict(batch, 0, "support+1"), whole, rtol=1e-9, atol=1e-12)
    assert max(seen) == {1: 7, 20: 14, 1000: 84}[limit]
    assert sum(seen) == TASKS * 84


class Norms(nn.Module):
    """Batch norms that are called as a test wants."""

    out_features = 36

    def __init__(self, call: Callable[..., Tensor], **norms: nn.Module) -> None:
        super().__init__()
        self.conv = nn.Conv2d(1, 4, 3, stride=2, padding=1)
        self.call = call
        for name, norm in norms.items():
            self.add_module(name, norm)

    def forward(self, images: Tensor) -> Tensor:
        return torch.flatten(self.call(self, self.conv(images)), 1)


def backwards(net: Any, x: Tensor) -> Tensor:
    found: Tensor = net.first(torch.tanh(net.second(x)))
    return found


def one_without_weights(net: Any, x: Tensor) -> Tensor:
    return backwards(net, torch.tanh(net.bare(x)))


def twice(net: Any, x: Tensor) -> Tensor:
    found: Tensor = net.first(torch.tanh(net.first(x)))
    return found


@pytest.mark.parametrize("call", [backwards, one_without_weights])
def test_rows_follow_the_order_of_the_calls(call: Callable[..., Tensor]) -> None:
    """Not that of the making; norms without scale and shift have rows of statistics alone."""

    def backbone() -> nn.Module:
        bare = {"bare": nn.BatchNorm2d(4, affine=False)} if call is one_without_weights else {}
        return Norms(call, first=nn.BatchNorm2d(4), **bare, second=nn.BatchNorm2d(4))

    method, batch = plus(backbone=backbone), episode()
    method(batch).loss.backward()
    norms = norms_of(method)
    assert norms.order == ([1, 0] if call is backwards else [1, 2, 0])
    assert len(norms.affine) == 4
    plain = copy.deepcopy(method.network).eval()
    for index, name in enumerate(name for name, m in plain.named_modules() if isinstance(m, nn.BatchNorm2d)):
        norm = plain.get_submodule(name)
        for own, row in (("running_mean", f"mean{index}"), ("running_var", f"var{index}")):
            norm.get_buffer(own).copy_(buffer(norms, row)[0])
    torch.testing.assert_close(
        method.predict(batch, 0, "per_step")[0, 1], plain(batch.query_x[1]), rtol=1e-9, atol=1e-12
    )


def test_norms_that_are_called_twice_have_no_row_to_tell_them_apart() -> None:
    method = plus(backbone=lambda: Norms(twice, first=nn.BatchNorm2d(4)))
    with pytest.raises(HandfulError, match=r"'first' is called 2 times in one pass; make one batch norm for each call"):
        method(episode())


def test_norms_that_are_called_now_and_then_are_refused() -> None:
    def dropped(net: Any, x: Tensor) -> Tensor:
        return backwards(net, x) if not net.training else net.first(x)

    method = plus(backbone=lambda: Norms(dropped, first=nn.BatchNorm2d(4), second=nn.BatchNorm2d(4)))
    with pytest.raises(HandfulError, match="called 2 in one and 1 in another; leave it out"):
        method(episode())
