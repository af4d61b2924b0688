"""What predicts the next frame: an adapted network, or the linear extrapolation alone."""

from __future__ import annotations

from collections import OrderedDict
from typing import Any

from torch import Tensor, nn

from handful.backbones import BACKBONES
from handful.model.video.card import VideoCard
from handful.problems import VideoAnomaly
from handful.problems.video_anomaly import extrapolated
from handful.registry import build

LINEAR = "linear extrapolation"


class Extrapolation(nn.Module):
    """In the place of a network: windows [n, T*C, H, W] -> frames [n, C, H, W], 2 f(t-1) - f(t-2)."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.channels = channels

    def forward(self, windows: Tensor) -> Tensor:
        """[n, T*C, H, W] -> [n, C, H, W]."""
        return extrapolated(windows, self.channels)


class Watching(nn.Module):
    """A fitted network that gives the next frame alone: windows [n, T*C, H, W] -> frames [n, C, H, W].

    frozen, spec, input_shape: for `embedder`, which runs it by onnxruntime where that is installed.
    """

    frozen = True

    def __init__(self, network: nn.Module, card: VideoCard) -> None:
        super().__init__()
        self.body, self.head = network.get_submodule("backbone"), network.get_submodule("head")
        self.input_shape = (card.window * card.channels, card.size, card.size)
        self.spec = {"name": "watcher", "backbone": card.backbone, "decoder": card.decoder}

    def forward(self, windows: Tensor) -> Tensor:
        """[n, T*C, H, W] in [0, 1] -> [n, C, H, W]."""
        head: Any = self.head
        found: Tensor = head.frame_of(self.body(windows))
        return found


def unfitted(card: VideoCard) -> nn.Module:
    """The network of a card, whose weights are to be filled in; of a card without one, what needs none."""
    if card.backbone is None:
        return Extrapolation(card.channels)
    shape = (card.window * card.channels, card.size, card.size)
    backbone: nn.Module = build("backbone", BACKBONES, card.backbone, input_shape=shape)
    body, head = VideoAnomaly(card.decoder).network(backbone, 1)
    return nn.Sequential(OrderedDict(backbone=body, head=head))
