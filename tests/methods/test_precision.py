"""In mixed precision the backbone alone computes in bfloat16: heads and losses do what they do in float32."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from lightning_fabric import Fabric
from torch import Tensor, nn

from handful.backbones import conv4, efficientnet_lite0, resnet12, resnet18
from handful.data.store import ImageStore
from handful.episodes import Episode, EpisodeSampler, Images, ImageSampler
from handful.methods import FRN, GLoFA, GLoFAFRN, MatchingNet, MetaBaseline, Metric, Pretraining, ProtoNet
from handful.methods.precision import full_precision
from tests.methods.test_metric import METHODS

WAY, D, H, W = 3, 8, 2, 2
CLOSE = 0.15  # how far a gradient in bf16-mixed may be from float32's, as a part of its length


def test_half_precision_is_raised_and_autocast_left() -> None:
    @full_precision
    def product(x: Tensor, y: Tensor | None, name: str) -> Tensor:
        assert name == "as it is"
        return x @ (x if y is None else y).mT

    x = torch.randn(3, 4)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert (x @ x.mT).dtype == torch.bfloat16
        found = product(x, None, "as it is")
    assert torch.equal(found, x @ x.mT)
    half = x.bfloat16()
    torch.testing.assert_close(product(half, y=half, name="as it is"), half.float() @ half.float().mT)
    assert product(x=x.double(), y=None, name="as it is").dtype == torch.float64


class Given(nn.Module):
    """Images [n, 8, 2, 2] that are their own feature maps, in half precision as a backbone gives them, or raised."""

    out_features, map_shape = D, (D, H, W)

    def __init__(self) -> None:
        super().__init__()
        self.raised = False
        self.scale = nn.Parameter(torch.ones(()))

    def maps(self, images: Tensor) -> Tensor:
        half = (images * self.scale).bfloat16()
        return half.float() if self.raised else half

    def forward(self, images: Tensor) -> Tensor:
        return self.maps(images).flatten(2)[..., 0]


def outcome(learner: Any, batch: Any, half: bool) -> list[Tensor]:
    """The loss, and the gradient of every parameter that has one, with features in half precision or raised before."""
    backbone = learner.backbone if isinstance(learner, Metric) else learner.method.backbone
    backbone.raised = not half
    torch.manual_seed(0)
    with torch.autocast("cpu", dtype=torch.bfloat16, enabled=half):
        loss = learner(batch).loss
    learned = [p for p in learner.parameters() if p.requires_grad]
    return [loss.detach(), *(g for g in torch.autograd.grad(loss, learned, allow_unused=True) if g is not None)]


def same(found: list[Tensor], expected: list[Tensor]) -> bool:
    """To the last bit, but for the way of a gradient through the features' rounding."""
    assert len(found) == len(expected) > 1
    assert all(torch.allclose(a, b, rtol=0.02, atol=0.02 * float(b.abs().max())) for a, b in zip(found, expected))
    return all(a.dtype == b.dtype for a, b in zip(found, expected)) and torch.equal(found[0], expected[0])


@pytest.mark.parametrize("method", METHODS)
def test_heads_of_half_precision_features(method: Callable[[nn.Module], Metric]) -> None:
    torch.manual_seed(1)
    learner = method(Given()).train()
    y = torch.arange(WAY).repeat(2, 1)
    episode = Episode(5 + torch.rand(2, WAY, D, H, W), y, 5 + torch.rand(2, WAY, D, H, W), y)
    assert same(outcome(learner, episode, half=True), outcome(learner, episode, half=False))


@pytest.mark.parametrize("head", ["linear", "cosine", "frn"])
def test_classifiers_of_half_precision_features(head: str) -> None:
    torch.manual_seed(1)
    learner = Pretraining(FRN(Given()), head, 5).train()
    images = Images(5 + torch.rand(10, D, H, W), torch.arange(10) % 5)
    assert same(outcome(learner, images, half=True), outcome(learner, images, half=False))


def gradient(learner: nn.Module, batch: Any, precision: Any) -> Tensor:
    """Of all parameters, as Fabric has it."""
    learner.zero_grad()
    fabric = Fabric(accelerator="cpu", devices=1, precision=precision)
    module = fabric.setup(learner)
    torch.manual_seed(0)
    loss = module(batch).loss
    fabric.backward(loss)
    assert loss.dtype == torch.float32
    assert all(p.dtype == torch.float32 for p in learner.parameters())
    return torch.cat([p.grad.flatten() for p in learner.parameters() if p.grad is not None])


@pytest.mark.parametrize("method", [ProtoNet, MetaBaseline, MatchingNet, FRN, GLoFA, GLoFAFRN])
def test_the_gradient_in_mixed_precision(store: ImageStore, method: Callable[[nn.Module], Metric]) -> None:
    """Near float32's, and not the same: the backbone does run in bfloat16."""
    torch.manual_seed(0)
    learner = method(conv4(channels=16, input_shape=store.input_shape)).train()
    episode = EpisodeSampler(store.train, 5, 2, 3).episodes(0, 4)
    exact, mixed = (gradient(learner, episode, precision) for precision in ("32-true", "bf16-mixed"))
    assert 0 < float((mixed - exact).norm() / exact.norm()) < CLOSE


@pytest.mark.parametrize("head", ["linear", "cosine", "frn"])
def test_the_gradient_of_pretraining_in_mixed_precision(store: ImageStore, head: str) -> None:
    torch.manual_seed(0)
    learner = Pretraining(FRN(conv4(channels=16, input_shape=store.input_shape)), head, 16).train()
    images = ImageSampler(store.train).images(0, 64)
    exact, mixed = (gradient(learner, images, precision) for precision in ("32-true", "bf16-mixed"))
    assert 0 < float((mixed - exact).norm() / exact.norm()) < CLOSE


@pytest.mark.parametrize(
    "backbone",
    [
        lambda: resnet12(widths=(4, 4, 8, 8), dropout=0.1, input_shape=(1, 16, 16)),
        lambda: resnet18(input_shape=(1, 32, 32)),
        lambda: efficientnet_lite0(weights="none", frozen=False, resolution=40, input_shape=(1, 32, 32)),
    ],
)
def test_every_backbone_runs_in_mixed_precision(backbone: Callable[[], nn.Module]) -> None:
    torch.manual_seed(0)
    learner = ProtoNet(backbone()).train()
    shape: Any = learner.backbone.input_shape
    y = torch.arange(WAY).repeat_interleave(4)[None]
    episode = Episode(torch.rand(1, 4 * WAY, *shape), y, torch.rand(1, 4 * WAY, *shape), y)
    found = gradient(learner, episode, "bf16-mixed")
    assert found.isfinite().all()
    assert found.abs().max() > 0
