from __future__ import annotations

from typing import Any

import pytest
import torch

from handful.backbones import conv4
from handful.errors import HandfulError


@pytest.mark.parametrize(
    ("options", "features", "parameters"),
    [
        ({"channels": 64}, 1600, 113_088),
        ({"channels": 32}, 800, 28_896),
        ({"channels": 48}, 1200, 64_080),
        ({"channels": 64, "input_shape": (1, 28, 28)}, 64, 111_936),
        ({"channels": 64, "input_shape": (1, 28, 28), "downsample": "stride"}, 256, 111_936),
        (
            {"channels": 64, "input_shape": (1, 28, 28), "downsample": "stride", "pooling": "mean"},
            64,
            111_936,
        ),
    ],
)
def test_sizes(options: dict[str, Any], features: int, parameters: int) -> None:
    """The sizes that the papers' networks have."""
    backbone = conv4(**options)
    assert backbone.out_features == features
    assert sum(p.numel() for p in backbone.parameters()) == parameters
    assert backbone(torch.rand(2, *backbone.input_shape)).shape == (2, features)


def test_images_too_small_to_pool() -> None:
    with pytest.raises(HandfulError, match=r"at least 16x16 pixels, not 12x12; use downsample='stride'"):
        conv4(input_shape=(1, 12, 12))


def test_initialisation_is_mamls() -> None:
    backbone = conv4(channels=64)
    second: Any = backbone.blocks[4]
    bound = (6 / (64 * 9 + 64 * 9)) ** 0.5
    assert second.weight.abs().max() <= bound
    assert second.weight.abs().max() > 0.95 * bound
    assert (second.bias == 0).all()


def test_group_norm_looks_at_one_image_alone() -> None:
    backbone = conv4(channels=12, input_shape=(1, 16, 16), norm="group").train()
    images = torch.rand(4, 1, 16, 16)
    torch.testing.assert_close(backbone(images)[:1], backbone(images[:1]))
    groups = [module.num_groups for module in backbone.modules() if isinstance(module, torch.nn.GroupNorm)]
    assert groups == [2, 2, 2, 2]  # 8 does not divide 12, and 4 would leave three channels a group


@pytest.mark.parametrize("channels", [3, 4, 8, 12, 64])
def test_group_norm_tells_images_apart_on_a_last_map_of_one_position(channels: int) -> None:
    """A group of one channel would be one value there, and normalised it is zero for every image."""
    backbone = conv4(channels=channels, input_shape=(1, 16, 16), downsample="stride", norm="group")
    assert backbone.map_shape == (channels, 1, 1)
    assert backbone(torch.rand(8, 1, 16, 16)).std(0).max() > 0.01


def test_group_norm_of_one_channel() -> None:
    with pytest.raises(HandfulError, match=r"norm='group' .* channels=1; use 2 or more"):
        conv4(channels=1, norm="group")
