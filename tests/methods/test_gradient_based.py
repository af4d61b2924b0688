"""What all members of the family share: the adapted part, chunks of tasks, predictions, heads, other norms."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn

import handful.inner_loop.tasks
import handful.methods.adaptation
from handful.data.store import ImageStore
from handful.errors import HandfulError
from handful.evaluation import evaluate_method
from handful.inner_loop import NormStats
from handful.methods import MAML, METHODS, MAMLPlusPlus
from handful.methods.gradient_based import select
from handful.recipe import Protocol
from tests.methods.family import (
    FAMILY,
    LR,
    SHOT,
    STEPS,
    TASKS,
    WAY,
    Picture,
    Smooth,
    central_differences,
    close,
    episode,
    gradient,
    group_norm,
    made,
)

NAMES = ["backbone.conv.weight", "backbone.conv.bias", "backbone.conv2.weight", "head.weight", "head.bias"]


@pytest.mark.parametrize(
    ("wanted", "found"),
    [
        ([], NAMES),
        (["head"], NAMES[3:]),
        (["head.bias", "backbone.conv"], [NAMES[0], NAMES[1], NAMES[4]]),  # conv is no beginning of conv2
        (["backbone", "backbone.conv.bias"], NAMES[:3]),
    ],
)
def test_the_adapted_part_is_named_by_whole_parts_of_names(wanted: list[str], found: list[str]) -> None:
    assert select(wanted, NAMES) == found


@pytest.mark.parametrize(
    ("misspelt", "near"), [("haed", "head"), ("bakbone.conv2.weight", NAMES[2]), ("backbone.conv.wieght", NAMES[0])]
)
def test_a_misspelt_part_is_refused_with_the_nearest(misspelt: str, near: str) -> None:
    with pytest.raises(HandfulError, match=rf"no parameter to adapt '{misspelt}'; did you mean '{near}'\?"):
        select([misspelt], NAMES)
    with pytest.raises(HandfulError, match=r"no parameter to adapt 'backbone.norn'; did you mean 'backbone.norm"):
        made(MAML, adapt=["backbone.norn"])


def test_only_the_named_part_moves() -> None:
    method = made(MAML, adapt=["backbone.norm", "head.bias"], inner_lr=LR)
    *_, phi = method.adaptation(episode(), "batch").steps(2)
    assert list(phi) == ["backbone.norm.weight", "backbone.norm.bias", "head.bias"]
    fitted = method.fit(episode().support_x[0], episode().support_y[0], 2)
    for name, value in method.network.named_parameters():
        moved = (fitted.get_parameter(name).double() != value).any()
        assert bool(moved) == (name in phi), name


@pytest.mark.parametrize("grouped", [0, 1000])
@pytest.mark.parametrize("chunk", [1, 3, None])
@pytest.mark.parametrize("name", FAMILY)
def test_one_gradient_however_many_tasks_are_held(name: str, chunk: int | None, grouped: int) -> None:
    """Loss, score, the gradient of all that is learned, and what is kept of a step: the norms' rows, Adam's moments."""
    # Adam blows rounding up where a gradient is zero, as that of a bias before batch norm
    whole, parts = (made(METHODS[name], lambda: Smooth(group_norm) if name == "reptile" else Smooth()) for _ in "ab")
    parts.chunk = chunk
    for _ in range(2):  # the second step goes on from what the first one kept
        expected = gradient(whole, episode())
        with pytest.MonkeyPatch.context() as patch:
            for module in (handful.inner_loop.tasks, handful.methods.adaptation):
                patch.setattr(module, "GROUPED_IMAGES", grouped)
            close(gradient(parts, episode()), expected)
        for key, value in whole.state_dict().items():
            torch.testing.assert_close(parts.state_dict()[key], value, rtol=1e-9, atol=1e-12)
    outcome, other = parts(episode()), whole(episode())
    torch.testing.assert_close(outcome.loss, other.loss, rtol=1e-9, atol=0)
    assert torch.equal(outcome.score, other.score)
    assert outcome.score.shape == (TASKS,)


@pytest.mark.parametrize("norm_stats", ["batch", "support", "support+1"])
@pytest.mark.parametrize("name", FAMILY)
def test_the_last_step_alone_is_the_last_of_every_step(name: str, norm_stats: NormStats) -> None:
    method = made(METHODS[name])
    every = method.predict(episode(), norm_stats=norm_stats)
    last = method.predict(episode(), norm_stats=norm_stats, every_step=False)
    assert every.shape == (method.inner_steps + 1, TASKS, WAY * 3, WAY)
    assert last.shape == (1, TASKS, WAY * 3, WAY)
    torch.testing.assert_close(last[0], every[-1], rtol=1e-12, atol=1e-12)
    assert (every[0] - every[-1]).abs().max() > 1e-4
    assert torch.equal(method.predict(episode(), 0, norm_stats, every_step=False)[0], every[0])


def test_the_last_step_alone_takes_one_query_pass() -> None:
    method = made(MAML)
    body = method.backbone
    assert isinstance(body, Smooth)
    calls = []
    for every_step in (True, False):
        body.calls = 0
        method.predict(episode(), inner_steps=4, every_step=every_step)
        calls.append(body.calls)
    assert calls == [4 + 5, 4 + 1]


def test_a_network_without_batch_norm_is_inductive(store: ImageStore) -> None:
    """Group norm looks at one image: the result says so, and no prediction depends on its mates."""
    method = made(MAML, lambda: Picture(norm=group_norm)).float()
    protocol = Protocol(way=WAY, shot=1, query=4, tasks=10, norm_stats="batch")
    result = evaluate_method(method, store.test, protocol)
    assert (result.norm_stats, result.transductive) == ("none", False)
    assert "inductive" in str(result)
    plain = made(MAML, lambda: Smooth(group_norm))
    batch = episode()
    few = batch._replace(query_x=batch.query_x[:, :2], query_y=batch.query_y[:, :2])
    torch.testing.assert_close(plain.predict(batch)[:, :, :2], plain.predict(few), rtol=1e-10, atol=1e-12)
    everything = [plain.predict(batch, norm_stats=stats) for stats in ("batch", "support", "support+1", "running")]
    assert all(torch.allclose(everything[0], other, rtol=1e-10, atol=1e-12) for other in everything)
    with_norm = evaluate_method(made(MAML, Picture).float(), store.test, protocol)
    assert (with_norm.norm_stats, with_norm.transductive) == ("batch", True)


@pytest.mark.parametrize("name", [name for name in FAMILY if name != "proto-maml"])
def test_a_learned_head_is_for_its_ways_alone(name: str) -> None:
    """The reason is said, and the method that can do it."""
    method = made(METHODS[name])
    method.attach_head(WAY)
    message = r"meta-trained for 3 ways and cannot name 7 classes, since each of its units was learned.*proto-maml"
    with pytest.raises(HandfulError, match=message):
        method.attach_head(7)


@pytest.mark.parametrize("name", FAMILY)
def test_everything_that_is_learned_gets_a_gradient(name: str) -> None:
    """No parameter is left out of the outer loop, and only norms that every step has of its own are frozen."""
    batch_norm = name == "maml++"  # takes the bias before it away, so that neither the bias nor its rate matters
    method = made(METHODS[name], Smooth if batch_norm else lambda: Smooth(group_norm))
    method(episode()).loss.backward()
    idle = {"network.backbone.conv.bias", "optimizer.learned.1"} if batch_norm else {}
    for key, value in method.named_parameters():
        assert value.requires_grad != (batch_norm and key.startswith("network.backbone.norm.")), key
        if value.requires_grad and key not in idle:
            assert value.grad is not None, key
            assert value.grad.abs().max() > 1e-9, key


def test_no_inner_step_is_refused_by_every_method() -> None:
    for name in FAMILY:
        method = METHODS[name]
        with pytest.raises(HandfulError, match=r"inner_steps is 0, but an inner loop needs at least 1"):
            made(method, inner_steps=0)
        assert made(method, inner_steps=1).inner_steps == 1, name


def test_more_steps_lower_the_loss_on_the_support() -> None:
    """Of each method's own inner loop, from the same start."""
    for name in FAMILY:
        method, batch = made(METHODS[name], inner_lr=0.02, inner_steps=STEPS), episode()
        same = batch._replace(query_x=batch.support_x, query_y=batch.support_y)
        losses = [method.problem.loss(logits, same.query_y).mean().item() for logits in method.predict(same)]
        assert losses == sorted(losses, reverse=True), name
        assert losses[-1] < 0.95 * losses[0], name


def test_norms_of_every_step_are_no_part_of_what_is_adapted() -> None:
    method = made(MAMLPlusPlus)
    assert [name for name in method.inner_names if "norm" in name] == []


def seen(method: Any) -> Any:
    """As if its backbone had been pre-trained."""
    norm = method.backbone.norm
    norm.running_mean.normal_()
    norm.running_var.uniform_(0.5, 1.5)
    norm.num_batches_tracked.fill_(1)
    return method


@pytest.mark.parametrize("name", FAMILY)
def test_a_fitted_network_is_the_inductive_prediction_of_its_run(name: str) -> None:
    """Under running statistics those of training, in adaptation and prediction; else those of the support set."""
    for norm_stats in ("running", "batch"):
        method = seen(made(METHODS[name], norm_stats=norm_stats, inner_lr=0.05))
        batch, running = episode(), norm_stats == "running"
        assert method.inductive == ("running" if running else "support")
        expected = method.predict(batch, norm_stats=method.inductive)[-1, 1]
        fitted = method.fit(batch.support_x[1], batch.support_y[1]).double()
        torch.testing.assert_close(torch.cat([fitted(image[None]) for image in batch.query_x[1]]), expected)
        kept = fitted.get_buffer("backbone.norm.running_mean")
        assert torch.equal(kept, method.backbone.get_buffer("norm.running_mean")) == running


@pytest.mark.parametrize("name", ["maml", "proto-maml"])
def test_a_norm_without_buffers_is_given_some_by_fit(name: str) -> None:
    """Else each prediction would be normalised by whatever is predicted with it; they are part of a saved model."""
    method, batch = (
        made(METHODS[name], lambda: Smooth(lambda n: nn.BatchNorm2d(n, track_running_stats=False))),
        episode(),
    )
    expected = method.predict(batch, norm_stats="support")[-1, 1]
    fitted = method.fit(batch.support_x[1], batch.support_y[1]).double()
    opened = method.unfitted([SHOT] * WAY).double()
    opened.load_state_dict(fitted.state_dict())
    for network in (fitted, opened.eval()):
        alone = torch.cat([network(image[None]) for image in batch.query_x[1]])
        torch.testing.assert_close(alone, expected)


def test_a_norm_that_is_called_twice_cannot_be_fitted() -> None:
    class Twice(Smooth):
        def forward(self, images: Tensor) -> Tensor:
            return super().forward(torch.tanh(self.norm(self.conv(images)))[:, :1].repeat(1, 1, 2, 2))

    method, batch = made(MAML, Twice), episode()
    with pytest.raises(HandfulError, match=r"batch norm 'backbone.norm' is called twice in one pass.*; make one"):
        method.fit(batch.support_x[0], batch.support_y[0])


def test_a_backbone_that_does_not_say_how_many_features_it_gives() -> None:
    with pytest.raises(HandfulError, match=r"backbone Identity does not say how many features it gives; set .*`out_fe"):
        MAML(nn.Identity()).attach_head(WAY)


@pytest.mark.parametrize("name", FAMILY)
def test_only_what_keeps_graphs_can_recompute_them(name: str) -> None:
    """In first order for good there is no graph of an inner step to keep."""
    both = ("graph",) if name == "reptile" else ("graph", "recompute")
    assert made(METHODS[name]).backprops == both
    if name in ("maml", "anil", "proto-maml"):
        for backprop in ("auto", "recompute"):
            assert made(METHODS[name], first_order=True, backprop=backprop).backprops == ("graph",)
        assert made(METHODS[name], backprop="recompute").backprops == ("recompute",)


@pytest.mark.parametrize("backprop", ["graph", "recompute"])
@pytest.mark.parametrize("norm_stats", ["support", "support+1"])
@pytest.mark.parametrize("name", ["maml", "anil", "proto-maml"])
def test_inductive_training_has_the_gradient_of_finite_differences(
    name: str, norm_stats: NormStats, backprop: str
) -> None:
    """Through the statistics of the support set too, which depend on the adapted parameters."""
    options: dict[str, Any] = {"inner_lr": 0.1, "inner_steps": 2, "rates": "per_tensor", "backprop": backprop}
    method, batch = made(METHODS[name], norm_stats=norm_stats, **options), episode(tasks=2)
    found = gradient(method, batch)
    tensors = [method.get_parameter(name) for name in found]
    generator = torch.Generator().manual_seed(7)
    for _ in range(2):
        direction = [torch.randn(t.shape, dtype=torch.float64, generator=generator) for t in tensors]
        numeric = central_differences(lambda: method(batch).loss, tensors, direction)
        along = sum(float((g * d).sum()) for g, d in zip(found.values(), direction))
        assert along == pytest.approx(numeric, rel=1e-6)
