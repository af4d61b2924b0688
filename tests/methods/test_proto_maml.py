"""Proto-MAML: a head from class means, for any number of ways, with its gradient."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

import handful as hf
from handful.backbones import conv4
from handful.data.store import ImageStore
from handful.episodes import Episode
from handful.evaluation import evaluate_method
from handful.methods import GradientBased, ProtoMAML
from handful.model import Model
from handful.recipe import Protocol
from tests.methods.family import LR, STEPS, TASKS, WAY, Smooth, central_differences, episode, gradient, group_norm, made


def test_the_first_head_is_a_prototype_classifier() -> None:
    """Softmax of its logits is that of minus the squared distance to the class means, p_c; 4 ways and 2 supports."""
    method, batch = made(ProtoMAML, lambda: Smooth(group_norm)), episode(way=4)
    logits = method.predict(batch, inner_steps=0)[0]
    for b in range(TASKS):
        support, query = method.backbone(batch.support_x[b]), method.backbone(batch.query_x[b])
        means = torch.stack([support[batch.support_y[b] == c].mean(0) for c in range(4)])
        distances = (query[:, None] - means[None]).square().sum(-1)
        torch.testing.assert_close(logits[b].softmax(-1), (-distances).softmax(-1))
        assert distances.std() > 0.1


def test_supports_of_unequal_number() -> None:
    method, batch = made(ProtoMAML, lambda: Smooth(group_norm)), episode()
    rows = [0, 1, 2, 5]  # two of the first class, one of each other
    odd = batch._replace(support_x=batch.support_x[:, rows], support_y=batch.support_y[:, rows])
    phi = method.adaptation(odd, "batch").initial()
    features = method.backbone(odd.support_x[2])
    means = torch.stack([features[:2].mean(0), features[2], features[3]])
    torch.testing.assert_close(phi["head.weight"][2], 2 * means)
    torch.testing.assert_close(phi["head.bias"][2], -means.square().sum(1))


@pytest.mark.parametrize("backprop", ["graph", "recompute"])
def test_the_outer_gradient_flows_through_the_prototypes(backprop: str) -> None:
    """Against finite differences; without the prototypes' part it is another one."""
    method, batch = made(ProtoMAML, inner_lr=0.05, inner_steps=STEPS, backprop=backprop), episode()
    names = [name for name, p in method.named_parameters() if p.requires_grad]
    tensors = [method.get_parameter(name) for name in names]
    found = gradient(method, batch)
    generator = torch.Generator().manual_seed(6)
    for _ in range(3):
        direction = [torch.randn(t.shape, dtype=torch.float64, generator=generator) for t in tensors]
        numeric = central_differences(lambda: method(batch).loss, tensors, direction)
        along = sum(float((found[name] * d).sum()) for name, d in zip(names, direction))
        assert along == pytest.approx(numeric, rel=1e-6)
    with pytest.MonkeyPatch.context() as patch:
        original = type(method.adaptation(batch, "batch"))._prototype_head
        patch.setattr(
            "handful.methods.adaptation.Adaptation._prototype_head",
            lambda self: {name: value.detach().requires_grad_() for name, value in original(self).items()},
        )
        held = gradient(method, batch)
    gap = (held["network.backbone.conv.weight"] - found["network.backbone.conv.weight"]).abs().max()
    assert gap > 1e-3


def test_the_head_and_the_body_move_in_the_inner_loop() -> None:
    method = made(ProtoMAML, lambda: Smooth(group_norm), inner_lr=LR)
    states = list(method.adaptation(episode(), "batch").steps(2))
    assert {"head.weight", "head.bias", "backbone.conv.weight"} <= set(states[0])
    assert all((states[2][name] != value).any() for name, value in states[0].items())
    assert "head.weight" not in dict(method.network.named_parameters())


def test_other_numbers_of_ways_are_scored(store: ImageStore) -> None:
    torch.manual_seed(0)
    method = ProtoMAML(conv4(channels=8, input_shape=store.input_shape, downsample="stride"), rates="per_tensor")
    method.attach_head(3)
    for way in (2, 5):
        result = evaluate_method(method, store.test, Protocol(way=way, shot=2, query=3, tasks=10))
        assert result.floors["chance"]["mean"] == pytest.approx(1 / way)
        assert result.mean > 1.5 / way
    assert set(method.learned_rates()) == {*method.inner_names}


def test_a_run_of_five_ways_fits_seven_classes_and_its_model_is_opened_again(pictures: Path, tmp_path: Path) -> None:
    data = hf.data.folder(pictures, image_size=16, channels=1, fractions=(0.4, 0.3, 0.3))
    torch.manual_seed(0)
    method = ProtoMAML(conv4(channels=8, input_shape=data.input_shape, downsample="stride"), inner_steps=2)
    settings: dict[str, Any] = {"shot": 1, "query": 2, "steps": 3, "tasks_per_step": 2, "validation_tasks": 4}
    run = hf.train(method, data, way=5, out=tmp_path / "run", evaluate={"tasks": 4}, quiet=True, **settings)
    classes = {f"class{i:02}": [pictures / f"class{i:02}" / f"{n}.png" for n in range(3)] for i in range(7)}
    model = hf.fit(classes, run=run)
    assert model.card.classes == list(classes)
    answers = model.predict([pictures / f"class{i:02}" / "6.png" for i in range(7)])
    assert sum(answer.label == name for answer, name in zip(answers, classes)) >= 5  # the patterns are easy
    assert all(len(answer.probabilities) == 7 for answer in answers)
    opened = Model.load(model.save(tmp_path / "model"))
    again = opened.predict([pictures / f"class{i:02}" / "6.png" for i in range(7)])
    assert again == answers
    assert hf.fit({name: classes[name] for name in list(classes)[:2]}, run=run).card.classes == ["class00", "class01"]


def test_a_fitted_network_is_the_inductive_prediction() -> None:
    method, batch = made(ProtoMAML, inner_lr=0.1, inner_steps=STEPS), episode(way=5)
    expected = method.predict(batch, norm_stats="support")[-1]
    for b in range(2):
        network = method.fit(batch.support_x[b], batch.support_y[b]).double()
        torch.testing.assert_close(network(batch.query_x[b]), expected[b])
    assert WAY == 3  # what the method was prepared for


def test_its_training_goes_down() -> None:
    method, batch = made(ProtoMAML, inner_lr=0.02, inner_steps=2), episode()
    adam = torch.optim.Adam(method.parameters(), lr=0.02)
    losses = [step(method, batch, adam) for _ in range(12)]
    assert losses[-1] < losses[0] / 2


def step(method: GradientBased, batch: Episode, adam: torch.optim.Adam) -> float:
    adam.zero_grad()
    loss: Tensor = method(batch).loss
    loss.backward()
    adam.step()
    return loss.item()
