"""What every backbone for images keeps to."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from handful.backbones import BACKBONES, conv4, efficientnet_lite0, resnet12, resnet18, unet
from handful.errors import HandfulError
from handful.recipe import parse

LITE = {"weights": "none", "resolution": None}
CASES: list[tuple[Any, dict[str, Any]]] = [
    (conv4, {"channels": 8, "input_shape": (3, 33, 20)}),
    (conv4, {"channels": 8, "input_shape": (1, 28, 28), "downsample": "stride", "pooling": "mean"}),
    (resnet12, {"widths": (4, 6, 8, 10), "input_shape": (3, 33, 20)}),
    (resnet12, {"widths": (4, 6, 8, 10), "input_shape": (1, 32, 32), "pooling": "flatten", "dropout": 0.1}),
    (resnet18, {"input_shape": (3, 33, 65)}),
    (resnet18, {"input_shape": (1, 32, 32)}),
    (efficientnet_lite0, {**LITE, "input_shape": (3, 33, 65)}),
    (efficientnet_lite0, {**LITE, "input_shape": (1, 28, 28), "frozen": False}),
    (efficientnet_lite0, {"weights": "none", "resolution": 40, "input_shape": (3, 28, 56)}),
    (unet, {"widths": (4, 6, 8), "input_shape": (4, 32, 20)}),
    (unet, {"widths": (4, 6, 8), "input_shape": (12, 32, 20), "channels": 3, "upsampling": "transposed"}),
]


@pytest.mark.parametrize(("maker", "options"), CASES)
def test_shapes_are_as_said(maker: Any, options: dict[str, Any]) -> None:
    backbone = maker(**options).eval()
    images = torch.rand(2, *backbone.input_shape)
    maps, features = backbone.maps(images), backbone(images)
    assert backbone.input_shape == options["input_shape"]
    assert maps.shape == (2, *backbone.map_shape)
    assert features.shape == (2, backbone.out_features)
    assert getattr(backbone, "seen", None) is None
    if maker is not efficientnet_lite0:  # whose head goes on to more channels
        pooled = maps.mean((2, 3)) if features.shape[1] == maps.shape[1] else maps.flatten(1)
        torch.testing.assert_close(features, pooled)


@pytest.mark.parametrize(("maker", "options"), [case for case in CASES if hasattr(case[0], "pyramid")])
def test_a_pyramid_ends_in_the_last_maps(maker: Any, options: dict[str, Any]) -> None:
    backbone = maker(**options).eval()
    images = torch.rand(2, *backbone.input_shape)
    height, width = (40, 80) if options.get("resolution") else backbone.input_shape[1:]
    pyramid = backbone.pyramid(images)
    for maps, channels, stride in zip(pyramid, backbone.pyramid_channels, (8, 16, 32), strict=True):
        assert maps.shape == (2, channels, -(-height // stride), -(-width // stride))
    torch.testing.assert_close(pyramid[-1], backbone.maps(images))


@pytest.mark.parametrize("maker", [conv4, resnet12, resnet18, efficientnet_lite0, unet])
def test_points_are_no_images(maker: Any) -> None:
    with pytest.raises(HandfulError, match=r"takes images \[channels, height, width\], not inputs \[1\]; use .* mlp"):
        maker(input_shape=(1,))


@pytest.mark.parametrize("maker", [resnet18, efficientnet_lite0])
def test_grey_is_repeated_and_other_channels_are_refused(maker: Any) -> None:
    with pytest.raises(HandfulError, match=r"takes images of 1 or 3 channels, not 4; use the backbone conv4"):
        maker(input_shape=(4, 32, 32))
    options = LITE if maker is efficientnet_lite0 else {}
    backbone = maker(input_shape=(1, 32, 32), **options).eval()
    grey = torch.rand(2, 1, 32, 32)
    torch.testing.assert_close(backbone(grey), backbone(grey.repeat(1, 3, 1, 1)))


BASE = """
name: a
data: {name: glyphs}
backbone: {name: conv4}
method: {name: maml}
train: {steps: 5}
"""


@pytest.mark.parametrize("name", list(BACKBONES))
def test_a_recipe_names_it_with_all_its_options(name: str) -> None:
    needed = ", model: resnet10t" if name == "timm" else ""
    recipe = parse(BASE, "a.yaml", [f"backbone={{name: {name}{needed}}}"]).resolved()
    again = parse(recipe.to_yaml(), "again").resolved()
    assert again.backbone.spec() == recipe.backbone.spec()


@pytest.mark.parametrize(
    ("backbone", "message"),
    [
        ("{name: resnet12, widths: [64, 128]}", r"backbone.widths is .* but backbone 'resnet12' wants"),
        ("{name: resnet12, dropout: 1}", r"backbone.dropout is 1 in the recipe, .* wants: .*less than 1"),
        (
            "{name: resnet18, weight: a.pth}",
            r"There is no option of backbone 'resnet18' 'weight'; did you mean 'weights'",
        ),
        ("{name: timm}", "backbone 'timm' needs 'model'; give it"),
        ("{name: efficientnet_lite0, resolution: 0}", r"backbone.resolution is 0 in the recipe, .* wants: "),
        (
            "{name: efficientnet_lite, frozen: true}",
            r"no backbone 'efficientnet_lite'; did you mean 'efficientnet_lite0'",
        ),
    ],
)
def test_a_recipe_that_asks_for_something_else_is_refused(backbone: str, message: str) -> None:
    with pytest.raises(HandfulError, match=message):
        parse(BASE, "a.yaml", [f"backbone={backbone}"]).resolved()


def test_each_has_a_line_in_the_list() -> None:
    for name, maker in BACKBONES.items():
        first = (maker.__doc__ or "").splitlines()[0]
        assert "-> features" in first, name
        assert len(first) < 120, name
