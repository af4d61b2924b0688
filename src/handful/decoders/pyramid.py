"""The maps of a backbone at strides 8, 16 and 32, as one row of numbers for each image."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from handful.errors import HandfulError
from handful.inner_loop import evaluating
from handful.layout import laid_out

Shape = tuple[int, int, int]


class Pyramid(nn.Module):
    """images [n, C, H, W] -> [n, out_features]: the maps of a backbone's `pyramid`, flattened, one after another.

    As one row they pass through an inner loop that moves the decoder alone, which then computes them once a task.
    shapes: (channels, height, width) of each map.  Raises HandfulError for a backbone that gives no such maps.
    """

    def __init__(self, backbone: nn.Module) -> None:
        super().__init__()
        if not hasattr(backbone, "pyramid"):
            raise HandfulError(
                f"{type(backbone).__name__} gives no maps at strides 8, 16 and 32, which a decoder of rail lines "
                "needs; use efficientnet_lite0 or resnet18."
            )
        self.backbone = backbone
        network: Any = backbone
        self.input_shape: tuple[int, ...] = tuple(network.input_shape)
        self.seen = getattr(backbone, "seen", None)
        if hasattr(backbone, "spec"):
            self.spec = backbone.spec
        where = next(backbone.parameters()).device
        with torch.no_grad(), evaluating(backbone):
            maps = self._maps(torch.zeros((1, *self.input_shape), device=where))
        self.shapes: list[Shape] = [(found.shape[1], found.shape[2], found.shape[3]) for found in maps]
        self.out_features = sum(found[0].numel() for found in maps)

    def forward(self, images: Tensor) -> Tensor:
        """[n, C, H, W] in [0, 1] -> [n, out_features]."""
        return torch.cat([found.flatten(1) for found in self._maps(images)], 1)

    def _maps(self, images: Tensor) -> Sequence[Tensor]:
        backbone: Any = self.backbone
        found: Sequence[Tensor] = backbone.pyramid(laid_out(images))
        return found


def unpacked(features: Tensor, shapes: Sequence[Shape]) -> list[Tensor]:
    """Rows of `Pyramid` [n, out_features] -> its maps [n, *shape]."""
    sizes = [channels * height * width for channels, height, width in shapes]
    return [part.reshape(-1, *shape) for part, shape in zip(features.split(sizes, 1), shapes)]
