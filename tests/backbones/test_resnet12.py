from __future__ import annotations

from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from handful.backbones import resnet12
from handful.backbones.dropblock import DropBlock
from handful.errors import HandfulError

SMALL: dict[str, Any] = {"widths": (4, 6, 8, 10), "input_shape": (3, 32, 32)}


@pytest.mark.parametrize(
    ("options", "features", "parameters"),
    [
        ({}, 640, 12_424_320),
        ({"pooling": "flatten"}, 16_000, 12_424_320),
        ({"dropout": 0.1}, 640, 12_424_320),
        ({"widths": (64, 128, 256, 512)}, 512, 7_996_800),
    ],
)
def test_sizes(options: dict[str, Any], features: int, parameters: int) -> None:
    """The sizes of FRN's, GLoFA's and Meta-Baseline's networks."""
    backbone = resnet12(**options)
    assert backbone.out_features == features
    assert backbone.map_shape == (options.get("widths", (640,))[-1], 5, 5)
    assert sum(p.numel() for p in backbone.parameters()) == parameters


def test_it_is_the_network_written_out() -> None:
    torch.manual_seed(0)
    backbone: Any = resnet12(**SMALL).double().train()
    images = torch.rand(3, 3, 32, 32, dtype=torch.float64)

    def normed(x: Tensor) -> Tensor:
        mean, var = x.mean((0, 2, 3), keepdim=True), x.var((0, 2, 3), correction=0, keepdim=True)
        return (x - mean) / (var + 1e-5).sqrt()

    x = images
    for block in backbone.blocks:
        y = x
        for index in range(3):
            y = normed(F.conv2d(y, block.convolutions[3 * index].weight, padding=1))
            y = torch.where(y > 0, y, 0.1 * y) if index < 2 else y
        y = y + normed(F.conv2d(x, block.shortcut[0].weight))
        x = F.max_pool2d(torch.where(y > 0, y, 0.1 * y), 2)
    torch.testing.assert_close(backbone.maps(images), x)


def test_initialisation() -> None:
    """Gain sqrt(2) by fan-out, the 1x1 convolutions too."""
    torch.manual_seed(0)
    last: Any = resnet12().blocks[3]
    assert last.convolutions[3].weight.std().item() == pytest.approx((2 / (640 * 9)) ** 0.5, rel=0.01)
    assert last.shortcut[0].weight.std().item() == pytest.approx((2 / 640) ** 0.5, rel=0.01)


def test_what_is_dropped_and_where() -> None:
    blocks: Any = resnet12(dropout=0.1, **SMALL).blocks
    kinds = [type(block.drop) for block in blocks]
    assert kinds == [torch.nn.Dropout, torch.nn.Dropout, DropBlock, DropBlock]
    assert [block.drop.p for block in blocks[:2]] == [0.1, 0.1]
    assert [(block.drop.rate, block.drop.size) for block in blocks[2:]] == [(0.1, 5), (0.1, 5)]


def test_weights_fit_whatever_the_dropout() -> None:
    resnet12(**SMALL).load_state_dict(resnet12(dropout=0.1, **SMALL).state_dict())


def test_images_too_small_to_pool() -> None:
    with pytest.raises(HandfulError, match=r"ResNet-12 .* at least 16x16 pixels, not 15x40; use conv4"):
        resnet12(input_shape=(3, 15, 40))
