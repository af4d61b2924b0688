"""Metric methods against their formulas, by loops; embedding once against embedding for every task."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from handful.backbones import conv4, efficientnet_lite0, resnet12, resnet18
from handful.data.store import ClassSplit, ImageStore
from handful.embedding import EmbeddedTasks
from handful.episodes import Episode, EpisodeSampler
from handful.errors import HandfulError
from handful.evaluation import evaluate_method
from handful.methods import (
    FRN,
    R2D2,
    Baseline,
    BaselinePlusPlus,
    GLoFA,
    GLoFAFRN,
    MatchingNet,
    MetaBaseline,
    Metric,
    ProtoNet,
    RelationNet,
    SimpleShot,
)
from handful.methods.baseline import FineTuned
from handful.methods.matching import Attention
from handful.methods.metric import embed
from handful.methods.protonet import Prototypes, squared_distances
from handful.methods.relation import Relation
from handful.methods.simpleshot import SimpleHead
from handful.recipe import Protocol

DOUBLE = torch.float64
WAY, D, Q = 3, 6, 4
UNBALANCED = torch.tensor([[2, 0, 0, 1, 2, 0], [1, 1, 0, 2, 1, 0]])
METHODS: list[Callable[[nn.Module], Metric]] = [
    ProtoNet,
    lambda backbone: ProtoNet(backbone, distance="cosine", scale=5.0),
    MetaBaseline,
    MatchingNet,
    RelationNet,
    SimpleShot,
    Baseline,
    BaselinePlusPlus,
    FRN,
    GLoFA,
    GLoFAFRN,
    lambda backbone: GLoFAFRN(backbone, spatial=True),
    R2D2,
]


def features(*shape: int) -> Tensor:
    return torch.randn(*shape, dtype=DOUBLE, generator=torch.Generator().manual_seed(sum(shape)))


def made(store: ImageStore, method: Callable[[nn.Module], Metric]) -> Metric:
    torch.manual_seed(0)
    return method(conv4(channels=8, input_shape=store.input_shape, downsample="stride"))


def means(support: Tensor, labels: Tensor) -> list[Tensor]:
    return [support[labels == n].mean(0) for n in range(WAY)]


@pytest.mark.parametrize("distance", ["squared", "mean_squared", "cosine"])
def test_prototypes(distance: Any) -> None:
    """The nearest class mean, class by class and query by query; supports need not be balanced."""
    support, query = features(2, 6, D), features(2, Q, D)
    logits = Prototypes(distance, 2.5).double()(support, UNBALANCED, query, WAY)
    for task in range(2):
        for q in range(Q):
            for n, mean in enumerate(means(support[task], UNBALANCED[task])):
                x = query[task, q]
                expected = {
                    "squared": -(x - mean).square().sum(),
                    "mean_squared": -(x - mean).square().mean(),
                    "cosine": x @ mean / (x.norm() * mean.norm()),
                }[distance]
                assert logits[task, q, n].item() == pytest.approx(2.5 * expected.item(), rel=1e-10)


def test_prototypes_are_a_linear_classifier() -> None:
    """softmax(-|q - c|^2) = softmax(2 q.c - |c|^2), and neither a rotation nor a shift of all features matters (P1)."""
    support, query, y = features(1, 3, D), features(1, Q, D), torch.tensor([[0, 1, 2]])
    head = Prototypes()
    probabilities = head(support, y, query, WAY).softmax(-1)
    linear = 2 * query @ support.mT - support.square().sum(-1).unsqueeze(1)
    assert torch.allclose(probabilities, linear.softmax(-1), atol=1e-12)
    rotation = torch.linalg.qr(features(D, D)).Q
    moved = [part @ rotation + features(1, 1, D) for part in (support, query)]
    assert torch.allclose(head(moved[0], y, moved[1], WAY).softmax(-1), probabilities, atol=1e-10)


def test_squared_distances_have_second_derivatives() -> None:
    a, b = features(1, 3, 2).requires_grad_(), features(1, 2, 2).requires_grad_()
    assert torch.autograd.gradgradcheck(squared_distances, (a, b))


def test_matching_adds_the_attention_of_a_class() -> None:
    support, query = features(2, 6, D), features(2, Q, D)
    found = Attention(3.0)(support, UNBALANCED, query, WAY).exp()
    for task in range(2):
        for q in range(Q):
            weights = torch.stack([3 * F.cosine_similarity(query[task, q], s, dim=0) for s in support[task]]).softmax(0)
            expected = torch.stack([weights[UNBALANCED[task] == n].sum() for n in range(WAY)])
            assert torch.allclose(found[task, q], expected, atol=1e-12)
    assert torch.allclose(found.sum(-1), torch.ones(2, Q, dtype=DOUBLE))


def test_matching_gives_an_absent_class_nothing() -> None:
    found = Attention(3.0)(features(1, 2, D), torch.tensor([[0, 2]]), features(1, Q, D), WAY)
    assert (found[..., 1] == -torch.inf).all()


def test_relation_compares_joined_maps() -> None:
    """Each pair by itself: the mean map of the class before the query's, by channels."""
    torch.manual_seed(0)
    head = Relation((2, 3, 4), 5, True).double().eval()
    support, query = features(2, 6, 12, 2), features(2, Q, 12, 2)
    logits = head(support, UNBALANCED, query, WAY)
    for task in range(2):
        for n, mean in enumerate(means(support[task], UNBALANCED[task])):
            for q in range(Q):
                pair = torch.cat([mean.mT.view(2, 3, 4), query[task, q].mT.view(2, 3, 4)])
                assert torch.allclose(logits[task, q, n], head.compare(pair[None])[0, 0], atol=1e-12)
    labels = torch.tensor([[0, 1, 2, 0], [2, 2, 1, 0]])
    wanted = torch.zeros(2, Q, WAY, dtype=DOUBLE).scatter_(2, labels.unsqueeze(-1), 1)
    squared = torch.stack([((logits[t].sigmoid() - wanted[t]) ** 2).mean() for t in range(2)])
    assert torch.allclose(head.loss(logits, labels), squared)
    head.mean_squared = False
    entropies = torch.stack([F.cross_entropy(logits[t], labels[t]) for t in range(2)])
    assert torch.allclose(head.loss(logits, labels), entropies)


@pytest.mark.parametrize("transform", ["un", "l2n", "cl2n"])
def test_simpleshot(transform: Any) -> None:
    """By its formula; one shot of unit length is the cosine (P2), and UN names what ProtoNet names (P3)."""
    head = SimpleHead(transform, D).double()
    centre = features(D) if transform == "cl2n" else torch.zeros(D, dtype=DOUBLE)
    if transform == "cl2n":
        head.centre.copy_(centre)

    def moved(x: Tensor) -> Tensor:
        return x if transform == "un" else (x - centre) / (x - centre).norm()

    support, query = features(2, 6, D), features(2, Q, D)
    logits = head(support, UNBALANCED, query, WAY)
    for task in range(2):
        turned = torch.stack([moved(x) for x in support[task]])
        for n, mean in enumerate(means(turned, UNBALANCED[task])):
            for q in range(Q):
                expected = -(moved(query[task, q]) - mean).square().sum()
                assert logits[task, q, n].item() == pytest.approx(expected.item(), rel=1e-9)
    once = torch.tensor([[0, 1, 2]])
    single = head(support[:1, :3], once, query[:1], WAY)
    if transform == "l2n":
        cosine = Prototypes("cosine")(support[:1, :3].float(), once, query[:1].float(), WAY)
        assert torch.allclose(single, 2 * cosine.double() - 2, atol=1e-5)
    if transform == "un":
        assert torch.equal(logits.argmax(-1), Prototypes().double()(support, UNBALANCED, query, WAY).argmax(-1))


@pytest.mark.parametrize("scale", [None, 2.0])
def test_fine_tuning_side_by_side_is_fine_tuning_one_by_one(scale: float | None) -> None:
    """torch's own SGD on each task alone: momentum, dampening, decay, the mini-batches in the same order."""
    support, query = features(2, 6, D), features(2, Q, D)
    head = FineTuned(7, scale)
    logits = head(support, UNBALANCED, query, WAY)
    for task in range(2):
        generator = torch.Generator().manual_seed(0)
        start = torch.empty(WAY, D).uniform_(-(D**-0.5), D**-0.5, generator=generator).double()
        weight = nn.Parameter(start.clone())
        other = nn.Parameter(torch.zeros(WAY, dtype=DOUBLE) if scale is None else start.norm(dim=1))

        def of(x: Tensor, weight: Tensor = weight, other: Tensor = other) -> Tensor:
            if scale is None:
                return F.linear(x, weight, other)
            unit = x / x.norm(dim=1, keepdim=True)
            return scale * F.linear(unit, other.unsqueeze(1) * weight / weight.norm(dim=1, keepdim=True))

        sgd = torch.optim.SGD([weight, other], lr=0.01, momentum=0.9, dampening=0.9, weight_decay=0.001)
        for _ in range(7):
            for rows in torch.randperm(6, generator=generator).split(4):
                sgd.zero_grad()
                F.cross_entropy(of(support[task, rows]), UNBALANCED[task, rows]).backward()
                sgd.step()
        assert torch.allclose(logits[task], of(query[task]), atol=1e-10)


def test_cosine_scores_are_bounded_and_lengths_do_not_matter() -> None:
    """|score| <= s g_n, and scaling the queries changes nothing (P4)."""
    head = FineTuned(3, 2.0)
    support, query = features(1, 6, D), features(1, Q, D)
    layer = head.learn(support, UNBALANCED[:1], WAY)
    assert (head.judge(query, layer).abs() <= 2.0 * layer[1].mT + 1e-12).all()
    assert torch.allclose(head.judge(10 * query, layer), head.judge(query, layer))


@pytest.mark.parametrize("method", METHODS)
def test_each_image_is_judged_by_itself(store: ImageStore, method: Callable[[nn.Module], Metric]) -> None:
    """A fitted model, one query alone, all queries and tasks side by side: the same logits."""
    ready = made(store, method)
    ready.prepare(store.train)
    episode = EpisodeSampler(store.test, 3, 2, 2).episodes(0, 2)
    before = {name: value.clone() for name, value in ready.state_dict().items()}
    logits = ready.predict(episode)
    assert logits.shape == (1, 2, 6, 3)
    assert not logits.requires_grad
    assert all(torch.equal(value, before[name]) for name, value in ready.state_dict().items())
    model = ready.fit(episode.support_x[1], episode.support_y[1])
    assert torch.allclose(model(episode.query_x[1]), logits[0, 1], atol=1e-5)
    assert torch.allclose(model(episode.query_x[1, :1]), logits[0, 1, :1], atol=1e-5)
    again = ready.unfitted([2, 2, 2])
    again.load_state_dict(model.state_dict())
    assert torch.equal(again(episode.query_x[1]), model(episode.query_x[1]))


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("rotations", [1, 4])
def test_embedding_once_is_embedding_for_every_task(
    store: ImageStore, method: Callable[[nn.Module], Metric], rotations: int
) -> None:
    """The same score on every task, in parts that memory holds too."""
    from dataclasses import replace

    ready = made(store, method)
    split = replace(store, rotations=rotations).test
    protocol = Protocol(way=3, shot=2, query=3, tasks=25)
    once, every = (evaluate_method(ready, split, protocol, embed_once=once) for once in (True, False))
    assert once.per_task == every.per_task
    assert (once.floors, once.task_hash) == (every.floors, every.task_hash)
    assert once.norm_stats == "running"
    assert not once.transductive


def test_features_that_do_not_fit_are_embedded_in_parts(store: ImageStore, monkeypatch: pytest.MonkeyPatch) -> None:
    ready = made(store, ProtoNet)
    sampler = EpisodeSampler(store.test, 3, 1, 2)
    episode = sampler.episodes(0, 12)
    expected = ready.predict(episode)
    monkeypatch.setattr("handful.embedding.free_memory", lambda device: 2 * 4 * 8 * 20)  # twenty images' features
    tasks = EmbeddedTasks(ready, sampler, 12, chunk=2)
    held, found = [], []
    for start in range(0, 12, 2):
        part = Episode(*(tensor[start : start + 2] for tensor in episode))
        found.append(tasks.predict(part, start, start + 2))
        held.append(len(tasks.ids))
    assert torch.allclose(torch.cat(found, 1), expected, atol=1e-5)
    assert max(held) <= 20
    assert tasks.stop == 12


def test_processes_of_one_machine_share_its_memory(store: ImageStore, monkeypatch: pytest.MonkeyPatch) -> None:
    ready = made(store, ProtoNet)
    sampler = EpisodeSampler(store.test, 3, 1, 2)
    monkeypatch.setattr("handful.embedding.free_memory", lambda device: 2 * 4 * 8 * 40)  # forty images' features
    held = []
    for processes in (1, 2):
        monkeypatch.setattr("handful.memory.beside", lambda processes=processes: processes)
        tasks = EmbeddedTasks(ready, sampler, 12, chunk=2)
        tasks.predict(sampler.episodes(0, 2), 0, 2)
        held.append(len(tasks.ids))
    assert held[1] <= 20 < held[0] <= 40


def test_training_learns_and_keeps_running_statistics(store: ImageStore) -> None:
    """The gradient reaches backbone and head; batch norm counts the batch; a head's own loss and addition are used."""
    ready = made(store, RelationNet).train()
    episode = EpisodeSampler(store.train, 3, 1, 2).episodes(0, 2)
    outcome = ready(episode)
    outcome.loss.backward()
    assert all(p.grad is not None for p in ready.parameters())
    assert outcome.score.shape == (2,)
    assert ready.network.get_buffer("backbone.blocks.1.num_batches_tracked") == 1
    logits = ready.compare(torch.rand(2, 3, 1, 8), episode.support_y, torch.rand(2, 6, 1, 8))
    assert logits.shape == (2, 6, 3)
    plain = made(store, ProtoNet).train()
    without = plain(episode).loss
    plain.head.auxiliary = lambda support, labels, way: torch.tensor(float(way))
    assert plain(episode).loss.item() == pytest.approx(without.item() + 3)


@pytest.mark.parametrize("maps", [False, True])
@pytest.mark.parametrize(
    "backbone",
    [
        lambda: conv4(channels=4, input_shape=(3, 16, 16)),
        lambda: resnet12(widths=(4, 4, 8, 8), input_shape=(3, 32, 32), pooling="flatten"),
        lambda: resnet18(input_shape=(3, 64, 64)),
        lambda: efficientnet_lite0(weights="none", frozen=False, resolution=None, input_shape=(3, 64, 64)),
    ],
)
def test_channels_last_is_another_layout_of_the_same(
    backbone: Callable[[], Any], maps: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where images are laid out so, here whatever their size: the same features and gradients."""
    torch.manual_seed(0)
    network = backbone().double().train()
    images = torch.rand(8, *network.input_shape, dtype=DOUBLE)
    laid_out: list[bool] = []

    def note(module: nn.Module, inputs: tuple[Tensor, ...]) -> None:
        laid_out.append(inputs[0].is_contiguous(memory_format=torch.channels_last))

    for module in network.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.register_forward_pre_hook(note)

    def passed() -> list[Tensor]:
        found = embed(network, images, maps)
        weights = [p for p in network.parameters() if p.requires_grad]
        gradients = torch.autograd.grad(found.square().mean(), weights, allow_unused=True)
        return [found, *(gradient for gradient in gradients if gradient is not None)]

    monkeypatch.setattr("handful.layout.LARGE_VALUES", 2**30)
    expected = passed()
    monkeypatch.setattr("handful.layout.LARGE_VALUES", 0)
    torch.testing.assert_close(passed(), expected, rtol=1e-8, atol=1e-10)
    layers = len(laid_out) // 2
    assert layers >= 4
    assert laid_out == [False] * layers + [True] * layers


def test_points_have_no_layout(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("handful.layout.LARGE_VALUES", 0)
    points = torch.rand(3, 2)
    assert torch.equal(embed(nn.Identity(), points, False), points)


def test_images_are_taken_from_the_store_on_the_device(store: ImageStore, monkeypatch: pytest.MonkeyPatch) -> None:
    """With a stand-in for a GPU, which holds no values."""
    devices: list[torch.device] = []
    original = ClassSplit.fetch

    def fetch(self: ClassSplit, ids: Any, device: torch.device) -> Tensor:
        devices.append(device)
        return original(self, ids, device)

    monkeypatch.setattr(ClassSplit, "fetch", fetch)
    ready = made(store, ProtoNet).to("meta")
    (found,) = ready.embedded(store.test, store.test.ids)
    assert found.shape == (84, 8)
    assert devices == [torch.device("meta")]


def test_centre_is_the_mean_feature_of_the_training_classes(store: ImageStore) -> None:
    ready = made(store, SimpleShot)
    ready.prepare(store.train)
    images = torch.from_numpy(store.images[store.labels < 16]).float() / 255
    with torch.no_grad():
        expected = ready.backbone.eval()(images).mean(0)
    assert torch.allclose(ready.head.centre, expected, atol=1e-6)


def test_a_result_says_what_the_weights_have_seen(store: ImageStore) -> None:
    """And whether the data is part of it; weights that were made here have seen nothing."""
    from dataclasses import replace

    protocol, ready = Protocol(way=3, shot=1, query=2, tasks=2), made(store, ProtoNet)
    assert evaluate_method(ready, store.test, protocol).note is None
    ready.backbone.seen = "ImageNet-1k (1,000 classes)"  # type: ignore[assignment]
    plain = evaluate_method(ready, store.test, protocol)
    assert plain.note == "The backbone's weights come from ImageNet-1k (1,000 classes)."
    part = replace(store, info={**store.info, "part_of": "ImageNet", "note": "A flaw."})
    assert evaluate_method(ready, part.test, protocol).note == (
        "A flaw. The backbone's weights come from ImageNet-1k (1,000 classes), of which patterns is a part: these "
        "classes are not new to it."
    )
    assert "are not new to it" in str(evaluate_method(ready, part.test, protocol))


def test_what_a_metric_method_does_not_take(store: ImageStore) -> None:
    ready = made(store, ProtoNet)
    episode = EpisodeSampler(store.test, 3, 1, 2).episodes(0, 1)
    with pytest.raises(HandfulError, match="inner_steps is 3, but this method takes no gradient steps"):
        ready.predict(episode, inner_steps=3)
    with pytest.raises(HandfulError, match="norm_stats is 'batch', but this method uses running statistics"):
        ready.predict(episode, norm_stats="batch")
    for protocol in ({"inner_steps": 3}, {"norm_stats": "batch"}):
        with pytest.raises(HandfulError, match="but this method"):
            evaluate_method(ready, store.test, Protocol(way=3, shot=1, query=2, tasks=2, **protocol))
    flat = nn.Sequential(nn.Flatten(), nn.Linear(256, 4))
    flat.out_features = 4  # type: ignore[assignment]
    with pytest.raises(HandfulError, match="compares feature maps, and the backbone Sequential has none"):
        RelationNet(flat)


def test_whole_way(store: ImageStore, tmp_path: Path) -> None:
    """Train, evaluate and compare with a gradient-based run, from Python."""
    import handful as hf

    run = hf.train(
        made(store, ProtoNet),
        store,
        way=3,
        shot=1,
        query=3,
        tasks_per_step=4,
        steps=6,
        validate_every=3,
        validation_tasks=4,
        evaluate={"tasks": 8},
        out=tmp_path / "run",
        quiet=True,
    )
    assert hf.evaluate(run, inductive=True).per_task == hf.evaluate(run).per_task
    assert (tmp_path / "run" / "report.html").exists()
