"""MAML on rail lines: the maps are computed once a task, with the same predictions and gradients, and pre-training."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.func import functional_call

from handful.episodes import Episode
from handful.errors import HandfulError
from handful.methods import MAML, GradientBased, Supervised, pretraining
from handful.methods.adaptation import Adaptation
from handful.problems import RailLines
from handful.problems.rail_lines import FrameSampler
from tests.methods.family import close, gradient
from tests.rails import Tiny, frames

STEPS = 2
DECODERS: dict[str, dict[str, Any]] = {
    "distributions": {"name": "row_distributions", "channels": 8},
    "regression": {"name": "row_regression", "rows": 12, "channels": 2, "hidden": 6},
}


def made(decoder: str, **options: Any) -> GradientBased:
    """In float64 from one seed, with a residual decoder's zeros disturbed."""
    torch.manual_seed(0)
    method = MAML(
        Tiny(), **{"inner_lr": 0.05, "inner_steps": STEPS, "adapt": ["head"], "rates": "per_tensor", **options}
    )
    method.problem = RailLines(DECODERS[decoder])
    method.attach_head(2)
    method.double().train()
    for value in method.network.get_submodule("head").parameters():
        torch.nn.init.normal_(value, std=0.3)
    return method


def tasks(count: int = 3) -> Episode:
    episode = RailLines().sampler(frames().train, 1, 2, 1).episodes(0, count)
    return Episode(*(part.double() for part in episode))


def calls(method: GradientBased) -> int:
    backbone: Any = method.backbone
    return int(backbone.backbone.calls)


@pytest.mark.parametrize("decoder", list(DECODERS))
def test_the_body_is_passed_once_with_the_same_gradients(decoder: str, monkeypatch: pytest.MonkeyPatch) -> None:
    episode = tasks()
    quick, plain = made(decoder), made(decoder)
    before = calls(quick)
    predicted, found = quick.predict(episode), gradient(quick, episode)
    passed = calls(quick) - before
    monkeypatch.setattr(Adaptation, "_pass_the_body_once", lambda self, norm_stats: None)
    before = calls(plain)
    torch.testing.assert_close(predicted, plain.predict(episode), rtol=1e-9, atol=1e-12)
    close(found, gradient(plain, episode))
    assert calls(plain) - before > passed
    body = [value for name, value in found.items() if name.startswith("network.backbone.")]
    assert max(float(value.abs().max()) for value in body) > 1e-4  # the outer loop moves the body


def test_the_gradient_is_that_of_the_plain_loop() -> None:
    """Two inner steps of the decoder by hand, task by task, differentiated to the end."""
    method, episode = made("distributions", rates="fixed"), tasks()
    network, problem = method.network, method.problem
    theta = dict(network.named_parameters())
    inner = [name for name in theta if name.startswith("head.")]
    total = torch.zeros((), dtype=torch.float64)
    for support_x, support_y, query_x, query_y in zip(*episode):
        phi: dict[str, Tensor] = dict(theta)
        for _ in range(STEPS):
            loss = problem.loss(functional_call(network, phi, (support_x,))[None], support_y[None]).sum()
            slopes = torch.autograd.grad(loss, [phi[name] for name in inner], create_graph=True)
            phi = {**phi, **{name: phi[name] - 0.05 * slope for name, slope in zip(inner, slopes)}}
        total = total + problem.loss(functional_call(network, phi, (query_x,))[None], query_y[None]).sum() / 3
    expected = dict(zip(theta, torch.autograd.grad(total, list(theta.values()))))
    assert method(episode).loss.item() == pytest.approx(total.item(), rel=1e-9)
    close({name.removeprefix("network."): value for name, value in gradient(method, episode).items()}, expected)


def test_everything_can_be_adapted_and_parts_by_their_names() -> None:
    whole, episode = made("distributions", adapt=[]), tasks(1)
    assert {name.split(".")[0] for name in whole.inner_names} == {"backbone", "head"}
    assert whole.predict(episode).shape == (STEPS + 1, 1, 1, 2, 8, 17)
    assert not torch.equal(whole.predict(episode)[-1], made("distributions").predict(episode)[-1])
    part = made("distributions", adapt=["head.columns"])
    assert part.inner_names == ["head.columns.weight", "head.columns.bias"]
    with pytest.raises(
        HandfulError, match=r"There is no parameter to adapt 'head.column'; did you mean 'head.columns'"
    ):
        made("distributions", adapt=["head.column"])


def test_adaptation_lowers_the_loss_of_its_support() -> None:
    method, episode = made("distributions"), tasks(1)
    same = Episode(episode.support_x, episode.support_y, episode.support_x, episode.support_y)
    losses = [method.problem.loss(found, episode.support_y).item() for found in method.predict(same)]
    assert losses[0] > losses[1] > losses[2]


def test_a_fitted_network_answers_as_the_adapted_one_and_is_a_copy() -> None:
    method, episode = made("distributions"), tasks(1)
    weights = {name: value.clone() for name, value in method.network.state_dict().items()}
    fitted = method.fit(episode.support_x[0], episode.support_y[0])
    assert not fitted.training
    torch.testing.assert_close(fitted(episode.query_x[0]), method.predict(episode)[-1, 0], rtol=1e-9, atol=1e-12)
    assert not torch.equal(fitted.state_dict()["head.columns.weight"], weights["head.columns.weight"])
    for name, value in method.network.state_dict().items():
        assert torch.equal(value, weights[name])


@pytest.mark.parametrize("tracked", [True, False])
def test_a_fitted_network_keeps_the_statistics_of_its_support(tracked: bool) -> None:
    torch.manual_seed(0)
    backbone = Tiny()
    backbone.first = nn.Sequential(backbone.first, nn.BatchNorm2d(4, track_running_stats=tracked))  # type: ignore[assignment]
    method, episode = MAML(backbone, inner_lr=0.05, inner_steps=STEPS, adapt=["head"]), tasks(1)
    method.problem = RailLines(DECODERS["distributions"])
    method.attach_head(2)
    method.double()
    fitted = method.fit(episode.support_x[0], episode.support_y[0])
    expected = method.predict(episode, norm_stats="support")[-1, 0]
    torch.testing.assert_close(fitted(episode.query_x[0]), expected, rtol=1e-9, atol=1e-12)
    assert not torch.allclose(expected, method.predict(episode, norm_stats="batch")[-1, 0])
    assert method.unfitted([0, 0]).state_dict().keys() == fitted.state_dict().keys()


def test_a_head_is_attached_once() -> None:
    method = made("distributions")
    head = method.network.get_submodule("head")
    method.attach_head(2)
    assert method.network.get_submodule("head") is head
    assert method.ways == 2


def test_supervised_training_is_the_loss_of_frames_as_tasks_of_their_own() -> None:
    method, data = made("distributions"), frames()
    learner = pretraining(method, "linear", data.train)
    assert isinstance(learner, Supervised)
    images = FrameSampler(data.train, seed=1).images(0, 4)
    images = images._replace(x=images.x.double(), y=images.y.double())
    outcome = learner(images)
    predictions = method.network(images.x)
    each = [method.problem.loss(predictions[i][None, None], images.y[i][None, None]) for i in range(4)]
    torch.testing.assert_close(outcome.loss, torch.cat(each).mean())
    scores = [method.problem.score(predictions[i][None, None], images.y[i][None, None]) for i in range(4)]
    torch.testing.assert_close(outcome.score, torch.cat(scores))
    outcome.loss.backward()
    learned = [value for name, value in method.network.named_parameters() if not name.endswith("lateral.0.bias")]
    assert all(value.grad is not None and value.grad.abs().max() > 0 for value in learned)


def test_supervised_training_learns() -> None:
    method, data = made("distributions").float(), frames()
    learner = pretraining(method, "linear", data.train)
    sampler, optimizer = FrameSampler(data.train), torch.optim.Adam(learner.parameters(), 1e-2)
    losses = []
    for step in range(30):
        loss = learner(sampler.images(4 * step, 4 * step + 4)).loss
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert sum(losses[-5:]) < 0.6 * sum(losses[:5])


@pytest.mark.parametrize("head", ["cosine", "frn"])
def test_pre_training_of_frames_has_the_problems_own_head(head: str) -> None:
    with pytest.raises(
        HandfulError, match=r"pretrain.head is for classification, and the problem is rail_lines; leave"
    ):
        pretraining(made("distributions"), head, frames().train)


def test_a_task_that_diverges_in_training_is_no_error_of_the_score() -> None:
    outcome = made("distributions", inner_lr=1e200, rates="fixed")(tasks(2))  # the training loop tells of it
    assert not outcome.loss.isfinite()
    assert not outcome.score.isfinite().all()
