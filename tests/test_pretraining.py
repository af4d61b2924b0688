"""Pre-training as a stage of its own: its batches, its classifiers, and both stages through the whole loop."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import nn

import handful as hf
from handful.backbones import conv4
from handful.data.store import ImageStore
from handful.episodes import Images, ImageSampler, Passes
from handful.errors import HandfulError
from handful.methods import MAML, Baseline, Pretraining, ProtoNet, SimpleShot
from handful.methods.pretraining import Cosine
from handful.recipe import PretrainRecipe, TrainRecipe, load_recipe
from handful.training import learning_rate, outer_optimizer, train_recipe
from tests.test_training import same, trained, weights, without_time

RECIPE = """
name: two-stages
data: {{name: folder, root: {root}, image_size: 16, channels: 1}}
backbone: {{name: conv4, channels: 8, downsample: stride, pooling: mean}}
method: {{name: protonet}}
pretrain: {{steps: 6, batch: 16, optimizer: sgd, lr: 0.05, momentum: 0.9, weight_decay: 0.0005, schedule: step,
  milestones: [3], validate_every: 3, validation_tasks: 6}}
train: {{way: 3, shot: 1, query: 3, tasks_per_step: 2, steps: 4, validate_every: 2, validation_tasks: 6}}
evaluate: {{tasks: 8}}
"""


@pytest.fixture
def two_stages(tmp_path: Path, pictures: Path) -> Path:
    path = tmp_path / "two.yaml"
    path.write_text(RECIPE.format(root=pictures), encoding="utf-8")
    return path


def test_every_image_once_in_each_pass(store: ImageStore) -> None:
    """In another order each time, whatever the batches; labels are the classes of the split."""
    sampler, split = ImageSampler(store.train, seed=3), store.train
    count = len(split.ids)
    passes = []
    for turn in range(2):
        parts = [sampler.images(turn * count + a, turn * count + b) for a, b in ((0, 50), (50, 51), (51, count))]
        passes.append(Images(*(torch.cat(values) for values in zip(*parts))))
    for images in passes:
        assert torch.equal(images.y.bincount(), torch.full((16,), 12))
        found = {(x.tobytes(), int(y)) for x, y in zip(images.x.numpy(), images.y)}
        everything = split.fetch(split.ids).float() / 255
        assert found == {(x.tobytes(), int(y)) for x, y in zip(everything.numpy(), split.labels)}
    assert not torch.equal(passes[0].y, passes[1].y)
    across = sampler.images(count - 2, count + 2)
    assert torch.equal(across.x, torch.cat([passes[0].x[-2:], passes[1].x[:2]]))
    assert not torch.equal(ImageSampler(store.train, seed=4).images(0, 20).y, passes[0].y[:20])


def test_the_order_of_a_pass_is_drawn_once() -> None:
    """And not by every batch, nor is that of another pass kept."""
    passes = Passes(1000, seed=0, stream=2)
    orders = [passes._order(turn) for turn in (0, 0, 1, 1, 0)]
    assert orders[0] is orders[1]
    assert orders[2] is orders[3]
    assert orders[4] is not orders[0]
    assert np.array_equal(orders[4], orders[0])
    assert np.array_equal(passes.drawn(990, 1010), np.concatenate([orders[0][-10:], orders[2][:10]]))


def test_augmented_images_are_the_same_for_any_batches(store: ImageStore) -> None:
    sampler = ImageSampler(store.train, augment="drawings")
    whole = sampler.images(0, 10).x
    assert torch.equal(whole, torch.cat([sampler.images(0, 3).x, sampler.images(3, 10).x]))
    assert not torch.equal(whole, ImageSampler(store.train).images(0, 10).x)


def test_cosine_classifier() -> None:
    head, x = Cosine(4, 3).double(), torch.randn(5, 4, dtype=torch.float64)
    with torch.no_grad():
        head.length.copy_(torch.tensor([1.0, 2.0, 0.5]))
    for i in range(5):
        for c in range(3):
            expected = 2 * head.length[c] * F.cosine_similarity(x[i], head.weight[c], dim=0)
            assert head(x)[i, c].item() == pytest.approx(expected.item(), rel=1e-6)


@pytest.mark.parametrize("head", ["linear", "cosine"])
def test_classifiers_reach_backbone_and_head(store: ImageStore, head: str) -> None:
    """The loss is the cross-entropy of the backbone's features under the classifier."""
    method = ProtoNet(conv4(channels=4, input_shape=store.input_shape, downsample="stride"))
    learner = Pretraining(method, head, 16).train()
    images = ImageSampler(store.train).images(0, 8)
    outcome = learner(images)
    with torch.no_grad():
        logits = learner.classifier(method.backbone(images.x))
    assert outcome.loss.item() == pytest.approx(F.cross_entropy(logits, images.y).item(), rel=1e-5)
    assert torch.equal(outcome.score, (logits.argmax(1) == images.y).double())
    outcome.loss.backward()
    missing = [name for name, p in learner.named_parameters() if p.requires_grad and p.grad is None]
    assert not missing


def test_both_stages_and_where_they_leave_things(two_stages: Path, tmp_path: Path) -> None:
    """The second stage starts from the first one's best weights, and both are resumed to the last bit."""
    whole = trained(two_stages, tmp_path / "whole")
    stage = tmp_path / "whole" / "pretrain"
    rows = without_time(stage)
    assert [int(row["step"]) for row in rows] == [1, 2, 3, 4, 5, 6]
    assert [float(row["lr"]) for row in rows] == pytest.approx([0.05, 0.05, 0.005, 0.005, 0.005, 0.005])
    assert [bool(row["val_mean"]) for row in rows] == [False, False, True] * 2
    trained(two_stages, tmp_path / "broken", max_minutes=0)  # stops in the first stage
    assert len(without_time(tmp_path / "broken" / "pretrain")) == 1
    resumed = trained(two_stages, tmp_path / "broken")
    assert without_time(tmp_path / "broken") == without_time(tmp_path / "whole")
    assert same(weights(resumed), weights(whole))
    start = trained(two_stages, tmp_path / "first", "train.steps=0")
    best = hf.Run(stage, whole.recipe, whole.method, whole.data)
    assert same(weights(start, "best"), weights(best, "best"))
    fresh = trained(two_stages, tmp_path / "broken", "pretrain.steps=2", fresh=True)
    assert len(without_time(tmp_path / "broken" / "pretrain")) == 2
    assert fresh.recipe.pretrain is not None


def test_a_classifier_that_shares_a_weight_with_the_method_resumes_too(two_stages: Path, tmp_path: Path) -> None:
    """FRN's scale is a parameter of both, which a weight file cannot say: it is written twice."""
    changes = ("method={name: frn, divide: false}", "backbone.pooling=flatten", "pretrain.head=frn")
    whole = trained(two_stages, tmp_path / "whole", *changes)
    trained(two_stages, tmp_path / "broken", *changes, max_minutes=0)
    assert len(without_time(tmp_path / "broken" / "pretrain")) == 1
    assert same(weights(trained(two_stages, tmp_path / "broken", *changes)), weights(whole))


def test_episodes_that_hurt_leave_what_pretraining_did(two_stages: Path, tmp_path: Path) -> None:
    """The start of the second stage is validated as its step 0, once, and kept if no later step does better."""
    harmful = ("train.lr=5", "train.min_lr=5", "train.optimizer=sgd", "train.clip=1", "pretrain.steps=60")
    run = trained(two_stages, tmp_path / "run", *harmful, "pretrain.milestones=[]")
    rows = without_time(tmp_path / "run")
    assert [row["step"] for row in rows].count("0") == 1
    assert (rows[0]["loss"], rows[0]["score"]) == ("", "")
    assert float(rows[0]["val_mean"]) > max(float(row["val_mean"]) for row in rows[1:] if row["val_mean"])
    best = hf.Run(tmp_path / "run" / "pretrain", run.recipe, run.method, run.data)
    assert same(weights(run, "best"), weights(best, "best"))
    assert not same(weights(run, "last"), weights(best, "best"))
    assert "best validation accuracy" in (tmp_path / "run" / "report.html").read_text(encoding="utf-8")


def test_pretraining_alone_has_no_second_stage(two_stages: Path, tmp_path: Path) -> None:
    trained(two_stages, tmp_path / "run", "train.steps=0")
    assert without_time(tmp_path / "run") == []
    assert "Trained for" not in (tmp_path / "run" / "report.html").read_text(encoding="utf-8")


def test_another_pretraining_is_another_run(two_stages: Path, tmp_path: Path) -> None:
    trained(two_stages, tmp_path / "run")
    with pytest.raises(HandfulError, match=r"another recipe \(pretrain.lr is 0.05 there and 0.1 now\)"):
        trained(two_stages, tmp_path / "run", "pretrain.lr=0.1")


def test_pretraining_learns(two_stages: Path, tmp_path: Path) -> None:
    """Its training accuracy rises well above chance."""
    trained(two_stages, tmp_path / "run", "pretrain.steps=60", "pretrain.milestones=[]", "train.steps=0")
    rows = without_time(tmp_path / "run" / "pretrain")
    assert float(rows[0]["score"]) < 0.3
    assert float(rows[-1]["score"]) > 0.6


def test_a_method_without_any_training(store: ImageStore, tmp_path: Path) -> None:
    """No stage at all: the backbone as it is; its weights are kept, and evaluated."""
    method = ProtoNet(conv4(channels=4, input_shape=store.input_shape, downsample="stride"))
    before = {name: value.clone() for name, value in method.state_dict().items()}
    run = hf.train(
        method, store, way=3, shot=1, query=3, steps=0, evaluate={"tasks": 8}, out=tmp_path / "run", quiet=True
    )
    assert same(weights(run, "best"), before)
    assert same(weights(run, "last"), before)
    assert 0 <= hf.evaluate(run).mean <= 1


def test_nothing_to_learn_is_refused(store: ImageStore, tmp_path: Path) -> None:
    method = ProtoNet(conv4(channels=4, input_shape=store.input_shape, downsample="stride").requires_grad_(False))
    with pytest.raises(
        HandfulError, match="nothing to learn: the backbone conv4 is frozen, and protonet has no weights"
    ):
        hf.train(method, store, way=3, shot=1, query=3, steps=1, out=tmp_path / "run", quiet=True)


def test_simpleshot_learns_its_centre_from_the_training_classes(store: ImageStore, tmp_path: Path) -> None:
    method = SimpleShot(conv4(channels=4, input_shape=store.input_shape, downsample="stride"))
    run = hf.train(
        method,
        store,
        way=3,
        shot=1,
        query=3,
        steps=0,
        pretrain={"steps": 2, "batch": 8, "validate_every": 2, "validation_tasks": 4},
        evaluate={"tasks": 8},
        out=tmp_path / "run",
        quiet=True,
    )
    kept = weights(run, "best")["network.head.centre"]
    with torch.no_grad():
        images = torch.from_numpy(np.asarray(store.images[store.labels < 16])).float() / 255
        expected = run.method.backbone.eval()(images).mean(0)
    assert torch.allclose(kept, expected, atol=1e-5)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ("pretrain.head=frn", "pretrain.head is 'frn', which pre-trains frn and glofa-frn; use linear or cosine"),
        ("method.name=baseline", "method baseline learns nothing from episodes: set train.steps to 0"),
        ("pretrain.batch=1", "pretrain.batch is 1"),
        ("pretrain.stpes=1", "did you mean 'pretrain.steps'"),
    ],
)
def test_mistakes(two_stages: Path, tmp_path: Path, change: str, message: str) -> None:
    with pytest.raises(HandfulError, match=message):
        train_recipe(load_recipe(str(two_stages), [change]), tmp_path / "run", quiet=True)


def test_functions_have_no_classes_to_pretrain_on(tmp_path: Path) -> None:
    method = MAML(hf.backbones.mlp())
    with pytest.raises(HandfulError, match="pretrain classifies images, and the data set 'lines' holds none"):
        hf.train(
            method, hf.data.load("lines"), way=1, shot=5, query=5, steps=1, pretrain={"steps": 1}, out=tmp_path / "r"
        )


def test_rates_of_backbone_and_rest(store: ImageStore) -> None:
    method = Baseline(conv4(channels=4, input_shape=store.input_shape, downsample="stride"))
    learner = Pretraining(method, "linear", 16)
    settings = PretrainRecipe(steps=4, lr=0.1, head_lr=0.3, schedule="linear")
    optimizer = outer_optimizer(learner, method.backbone, settings)
    rates = {id(p): group["lr"] for group in optimizer.param_groups for p in group["params"]}
    assert all(rates[id(p)] == 0.1 for p in method.backbone.parameters())
    assert all(rates[id(p)] == 0.3 for p in learner.classifier.parameters())
    schedule = learning_rate(optimizer, settings)
    optimizer.step()
    schedule.step()
    assert [group["lr"] for group in optimizer.param_groups] == pytest.approx([0.075, 0.225])


def test_momentum_and_decay_are_handed_on() -> None:
    """Against the written-out rule of Nesterov's momentum with decay."""
    layer = nn.Linear(2, 1, bias=False)
    settings = TrainRecipe(steps=3, lr=0.1, optimizer="sgd", momentum=0.9, weight_decay=0.01, schedule="constant")
    optimizer, value, velocity = outer_optimizer(layer, layer, settings), layer.weight.detach().clone(), None
    for step in range(3):
        optimizer.zero_grad()
        (layer.weight.square().sum() * (step + 1)).backward()
        optimizer.step()
        gradient = 2 * (step + 1) * value + 0.01 * value
        velocity = gradient if velocity is None else 0.9 * velocity + gradient
        value = value - 0.1 * (gradient + 0.9 * velocity)
        assert torch.allclose(layer.weight.detach(), value, atol=1e-6)
