"""ANIL: the features are computed once, and only the head is adapted (that it is MAML with rate zero: M5)."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from handful.inner_loop import GROUPED_IMAGES, NormStats
from handful.methods import ANIL, MAML
from tests.methods.family import LR, STEPS, TASKS, Smooth, close, episode, gradient, group_norm, made, of_network


def test_the_body_is_passed_once_for_the_support_and_once_for_the_queries() -> None:
    """However many steps; MAML passes it anew in every step, and for the queries."""
    calls = {}
    for method in (ANIL, MAML):
        ready = made(method, inner_lr=LR, inner_steps=STEPS)
        body = ready.backbone
        assert isinstance(body, Smooth)
        ready(episode()).loss.backward()
        trained, body.calls = body.calls, 0
        ready.predict(episode(), inner_steps=7)
        calls[method] = (trained, body.calls)
    assert calls[ANIL] == (2, 2)
    assert calls[MAML] == (STEPS + 1, 7 + 8)


def test_only_the_head_is_adapted() -> None:
    method = made(ANIL, inner_lr=LR)
    *_, phi = method.adaptation(episode(), "batch").steps(STEPS)
    head = dict(method.network.named_parameters())
    assert set(phi) == {"head.weight", "head.bias"}
    assert all((value != head[name]).any() for name, value in phi.items())
    fitted = method.fit(episode().support_x[0], episode().support_y[0])
    assert torch.equal(fitted.get_parameter("backbone.conv.weight").double(), head["backbone.conv.weight"])


@pytest.mark.parametrize("norm_stats", ["support", "support+1", "per_step"])
def test_inductive_statistics_are_those_of_the_one_pass(norm_stats: NormStats) -> None:
    """As if MAML adapted the head alone by name: ANIL is that, and so are the features of its queries."""
    if norm_stats == "per_step":
        with pytest.raises(Exception, match="kept no statistics for every step"):
            made(ANIL).predict(episode(), norm_stats=norm_stats)
        return
    options: dict[str, Any] = {"inner_lr": LR, "inner_steps": STEPS}
    anil, maml = made(ANIL, **options), made(MAML, rates="per_tensor", **options)
    with torch.no_grad():
        for name, rate in zip(maml.inner_names, maml.optimizer.parameters()):
            rate.mul_(name.startswith("head."))
    ours, other = (method.predict(episode(), norm_stats=norm_stats) for method in (anil, maml))
    torch.testing.assert_close(ours, other, rtol=1e-9, atol=1e-12)


def test_first_order_still_moves_the_body_through_the_query() -> None:
    """Against the gradient of the query loss with the adapted heads held fixed."""
    method, batch = made(ANIL, lambda: Smooth(group_norm), inner_lr=LR, first_order=True), episode()
    *_, phi = method.adaptation(batch, "batch").steps(method.inner_steps)
    body = dict(method.backbone.named_parameters())
    losses = []
    for b in range(TASKS):
        features = method.backbone(batch.query_x[b])
        logits = features @ phi["head.weight"][b].detach().T + phi["head.bias"][b].detach()
        losses.append(torch.nn.functional.cross_entropy(logits, batch.query_y[b]))
    expected = torch.autograd.grad(torch.stack(losses).mean(), list(body.values()))
    close(of_network(gradient(method, batch)), {f"backbone.{n}": g for n, g in zip(body, expected)})


def test_prediction_keeps_no_graph_of_the_body_and_passes_many_queries_task_by_task() -> None:
    """In training the graph of all tasks is needed on the way back, and they are passed at once."""
    seen = []

    class Watched(Smooth):
        def forward(self, images: torch.Tensor) -> torch.Tensor:
            seen.append(torch.is_grad_enabled())
            return super().forward(images)

    method, batch = made(ANIL, Watched, inner_lr=LR), episode(query=9)
    assert batch.query_x.shape[1] > GROUPED_IMAGES
    method.predict(batch)
    assert seen == [False] * (1 + TASKS)
    seen.clear()
    method(batch)
    assert seen == [True] * 2
    assert not method.adaptation(batch, "batch").query_x.requires_grad
