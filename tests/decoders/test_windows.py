"""Windows: the backbone's map with the extrapolation behind it, and the backbones that have no such map."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from handful.backbones import conv4, unet
from handful.decoders import Windows
from handful.errors import HandfulError


@pytest.mark.parametrize("channels", [1, 3])
def test_the_extrapolation_stands_behind_the_map(channels: Any) -> None:
    backbone = unet(widths=(5, 6), channels=channels, input_shape=(4 * channels, 8, 16)).eval()
    windows = Windows(backbone).eval()
    assert (windows.features, windows.frame, windows.out_features) == (5, (channels, 8, 16), 5 + channels)
    assert windows.input_shape == (4 * channels, 8, 16)
    frames = torch.rand(2, 4, channels, 8, 16)
    found = windows(frames.flatten(1, 2))
    assert torch.equal(found[:, :5], backbone.maps(frames.flatten(1, 2)))
    assert torch.equal(found[:, 5:], 2 * frames[:, 3] - frames[:, 2])


def test_they_speak_for_their_backbone() -> None:
    backbone = unet(widths=(5, 6), input_shape=(4, 8, 16))
    backbone.seen = "one street"  # type: ignore[assignment]
    windows = Windows(backbone)
    assert windows.seen == "one street"
    assert vars(windows)["spec"] == {**vars(backbone)["spec"], "name": "unet"}


def test_a_backbone_without_such_a_map() -> None:
    with pytest.raises(HandfulError, match=r"Conv4 gives no map that is as fine as a frame, .*; use unet\."):
        Windows(conv4(channels=4, input_shape=(4, 16, 16)))


def test_a_window_of_one_frame() -> None:
    with pytest.raises(HandfulError, match=r"A window of 1 frame has no movement to draw on; use data\.window=4, or 2"):
        Windows(unet(channels=3, input_shape=(3, 16, 16)))
