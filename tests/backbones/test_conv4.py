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
    assert groups == [4, 4, 4, 4]  # 8 does not divide 12
