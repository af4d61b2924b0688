"""The U-Net: the published form to the parameter, each form against its layers written out, and what it refuses."""

from __future__ import annotations

from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from handful.backbones import unet
from handful.decoders import next_frame
from handful.errors import HandfulError

PUBLISHED: dict[str, Any] = {"widths": (64, 128, 256, 512), "norm": "none", "upsampling": "transposed", "channels": 3}


def parameters(*modules: nn.Module) -> int:
    return sum(value.numel() for module in modules for value in module.parameters())


def test_the_published_form_has_exactly_the_published_parameters() -> None:
    network = unet(**PUBLISHED, input_shape=(12, 256, 256))
    head = next_frame(
        prototypes=10, residual=False, hidden=(64, 64), features=network.out_features, frame=(3, 256, 256)
    )
    assert network.map_shape == (128, 256, 256)
    assert parameters(network.down) == 4_690_560
    assert parameters(network.bottom, network.up) == 8_480_960
    assert head.unit is not None
    assert (parameters(head.unit), parameters(head.readout)) == (1_280, 112_451)
    assert parameters(network, head) == 13_285_251


def test_the_small_form() -> None:
    network = unet()
    assert network.map_shape == (12, 128, 128)
    assert network.frame == (1, 128, 128)
    assert parameters(network) == 171_072
    head = next_frame(prototypes=10, features=network.out_features, frame=network.frame)
    assert parameters(network, head) == 171_301


def convolved(x: Tensor, layers: nn.Module, last: bool = True) -> Tensor:
    """Two convolutions, each with what follows it, in training mode."""
    convolutions = [layer for layer in layers.modules() if isinstance(layer, nn.Conv2d)]
    norms = [layer for layer in layers.modules() if isinstance(layer, nn.BatchNorm2d)]
    for number, layer in enumerate(convolutions):
        x = F.conv2d(x, layer.weight, layer.bias, padding=1)
        if norms:
            mean, variance = x.mean((0, 2, 3), keepdim=True), x.var((0, 2, 3), unbiased=False, keepdim=True)
            x = (x - mean) / (variance + 1e-5).sqrt()
        if number == 0 or last:
            x = x.clamp(min=0)
    return x


def test_the_small_form_is_its_layers() -> None:
    torch.manual_seed(0)
    network: Any = unet(widths=(3, 4, 5), input_shape=(4, 8, 12)).double().train()
    windows = torch.rand(2, 4, 8, 12, dtype=torch.float64)
    fine = convolved(2 * windows - 1, network.down[0])
    middle = convolved(F.max_pool2d(fine, 2), network.down[1])
    coarse = convolved(F.max_pool2d(middle, 2), network.down[2])
    for skip, up in zip((middle, fine), network.up, strict=True):
        larger = F.interpolate(coarse, size=skip.shape[-2:], mode="bilinear", align_corners=False)
        coarse = convolved(torch.cat([skip, larger], 1), up)
    torch.testing.assert_close(network.maps(windows), coarse)
    torch.testing.assert_close(network(windows), coarse.mean((2, 3)))


def test_the_published_form_is_its_layers() -> None:
    torch.manual_seed(0)
    network: Any = unet(**{**PUBLISHED, "widths": (3, 4, 5)}, input_shape=(12, 8, 12)).double().train()
    windows = torch.rand(2, 12, 8, 12, dtype=torch.float64)
    fine = convolved(2 * windows - 1, network.down[0])
    middle = convolved(F.max_pool2d(fine, 2), network.down[1])
    coarse = convolved(F.max_pool2d(middle, 2), network.down[2], last=False)
    assert coarse.min() < 0  # no ReLU after the last convolution of the way down
    coarse = convolved(coarse, network.bottom)
    coarse = convolved(torch.cat([middle, network.up[0].enlarge[0](coarse).relu()], 1), network.up[0].block)
    expected = torch.cat([fine, network.up[1].enlarge[0](coarse).relu()], 1)
    assert network.out_features == 6
    torch.testing.assert_close(network.maps(windows), expected)


@pytest.mark.parametrize("norm", ["batch", "none"])
def test_its_map_moves_with_the_picture(norm: Any) -> None:
    torch.manual_seed(0)
    network = unet(widths=(4, 4), norm=norm, input_shape=(4, 16, 64)).double().eval()
    windows = torch.zeros(1, 4, 16, 64, dtype=torch.float64)
    windows[..., 4:12, 12:20] = torch.rand(8, 8, dtype=torch.float64)
    moved = torch.roll(windows, 2, -1)
    inside, further = slice(16, 46), slice(18, 48)  # what the borders reach is 15 columns
    found, shifted = network.maps(windows)[..., inside], network.maps(moved)[..., further]
    torch.testing.assert_close(found, shifted)


@pytest.mark.parametrize(
    ("widths", "size", "message"),
    [
        ((4, 4, 4, 4), (20, 20), r"multiples of 8, not 20x20; use data\.image_size=16 or fewer widths"),
        ((4, 4, 4, 4), (64, 54), r"multiples of 8, not 64x54; use data\.image_size=56 or fewer widths"),
        ((4, 4, 4, 4), (2, 2), r"multiples of 8, not 2x2; use data\.image_size=8 or fewer widths"),
    ],
)
def test_sides_that_cannot_be_halved_so_often(widths: tuple[int, ...], size: tuple[int, int], message: str) -> None:
    with pytest.raises(HandfulError, match=message):
        unet(widths=widths, input_shape=(4, *size))


def test_channels_that_are_no_whole_frames() -> None:
    with pytest.raises(
        HandfulError, match=r"A window of 4 channels is no number of whole frames of 3; set backbone\.c"
    ):
        unet(channels=3)
