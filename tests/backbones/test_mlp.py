from __future__ import annotations

import pytest
import torch

from handful.backbones import conv4, mlp
from handful.errors import HandfulError


def test_it_is_the_paper_s_network() -> None:
    backbone = mlp()
    assert [tuple(p.shape) for p in backbone.parameters()] == [(40, 1), (40,), (40, 40), (40,)]
    assert (backbone.out_features, backbone.input_shape) == (40, (1,))
    x = torch.randn(5, 1)
    first, second = backbone.layers
    torch.testing.assert_close(backbone(x), second(first(x).relu()).relu())


def test_pictures_are_flattened() -> None:
    assert mlp(hidden=(8,), input_shape=(1, 4, 4))(torch.rand(3, 1, 4, 4)).shape == (3, 8)


def test_without_layers_the_model_is_its_head() -> None:
    backbone = mlp(hidden=(), input_shape=(2,))
    x = torch.randn(5, 2)
    assert backbone.out_features == 2
    assert torch.equal(backbone(x), x)


def test_conv4_takes_images_only() -> None:
    with pytest.raises(
        HandfulError, match=r"images \[channels, height, width\], not inputs \[1\]; use the backbone mlp"
    ):
        conv4(input_shape=(1,))
