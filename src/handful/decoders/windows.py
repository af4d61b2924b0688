"""What a decoder of next frames stands on: a map as fine as a frame, and the frame that steady movement would bring."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from handful.errors import HandfulError


class Windows(nn.Module):
    """windows of frames [n, T*C, H, W] -> [n, F + C, H, W]: the backbone's map, and 2 f(t-1) - f(t-2) behind it.

    The last two frames, drawn on in a straight line, are right wherever the brightness of a pixel changes steadily;
    what is learned is to be better.  features: F, of the map; frame: (C, H, W).  Raises HandfulError for a backbone
    whose map is not as fine as a frame, and for windows of one frame.
    """

    def __init__(self, backbone: nn.Module) -> None:
        super().__init__()
        if not hasattr(backbone, "frame"):
            raise HandfulError(
                f"{type(backbone).__name__} gives no map that is as fine as a frame, which predicting the next one "
                "needs; use unet."
            )
        self.backbone = backbone
        network: Any = backbone
        self.frame: tuple[int, int, int] = tuple(network.frame)
        self.features = int(network.map_shape[0])
        self.input_shape: tuple[int, ...] = tuple(network.input_shape)
        if self.input_shape[0] < 2 * self.frame[0]:
            raise HandfulError(
                f"A window of {self.input_shape[0] // self.frame[0]} frame has no movement to draw on; use "
                "data.window=4, or 2 at the least."
            )
        self.out_features = self.features + self.frame[0]
        self.seen = getattr(backbone, "seen", None)
        if hasattr(backbone, "spec"):
            self.spec = backbone.spec

    def forward(self, windows: Tensor) -> Tensor:
        """[n, T*C, H, W] in [0, 1] -> [n, F + C, H, W]."""
        backbone: Any = self.backbone
        colours = self.frame[0]
        last, before = windows[:, -colours:], windows[:, -2 * colours : -colours]
        return torch.cat([backbone.maps(windows), 2 * last - before], 1)
