"""ResNet-12: four residual blocks of three 3x3 convolutions, each halving the map.

The network of MetaOptNet (Lee et al. 2019), FEAT (Ye et al. 2020), GLoFA (Lu et al. 2021) and FRN (Wertheimer et al.
2021); with other widths, of Meta-Baseline (Chen et al. 2021).
"""

from __future__ import annotations

from typing import Annotated

import torch.nn.functional as F
from pydantic import Field
from torch import Tensor, nn

from handful.backbones.dropblock import DropBlock
from handful.backbones.images import Pooling, image_shape, pool, pooled_length
from handful.errors import HandfulError
from handful.registry import BACKBONES, part

SLOPE = 0.1  # of the leaky ReLUs
Width = Annotated[int, Field(ge=1)]


@part(BACKBONES, "resnet12")
class ResNet12(nn.Module):
    """ResNet-12: images [n, C, H, W] -> features [n, out_features]; 12.4 million parameters.

    widths: channels of the four blocks; Meta-Baseline's are 64, 128, 256, 512.  dropout: the rate, 0.1 in GLoFA and
    FEAT: plain dropout after the first two blocks, DropBlock after the last two.  pooling: `mean` averages the last
    map over its positions (ProtoNet, GLoFA, Meta-Baseline), `flatten` keeps them.  Initialised as published:
    convolutions Kaiming-normal by fan-out with gain sqrt(2) (though the slope is 0.1), batch norm one and zero.

    maps: [n, 3, 84, 84] -> [n, 640, 5, 5].
    """

    def __init__(
        self,
        widths: tuple[Width, Width, Width, Width] = (64, 160, 320, 640),
        dropout: Annotated[float, Field(ge=0, lt=1)] = 0.0,
        input_shape: tuple[int, ...] = (3, 84, 84),
        pooling: Pooling = "mean",
    ) -> None:
        super().__init__()
        channels, height, width = image_shape("ResNet-12", input_shape)
        if min(height, width) < 16:
            raise HandfulError(
                "ResNet-12 halves its input four times by pooling, so images need at least 16x16 pixels, "
                f"not {height}x{width}; use conv4 with downsample='stride'."
            )
        drops = (nn.Dropout(dropout), nn.Dropout(dropout), DropBlock(dropout), DropBlock(dropout))
        inputs = (channels, *widths[:-1])
        self.blocks = nn.Sequential(*(Block(*block) for block in zip(inputs, widths, drops)))
        self.pooling: Pooling = pooling
        self.input_shape = input_shape
        self.map_shape = (widths[-1], height // 16, width // 16)
        self.out_features = pooled_length(self.map_shape, pooling)
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")

    def maps(self, images: Tensor) -> Tensor:
        """[n, C, H, W] in [0, 1] -> [n, *map_shape]."""
        maps: Tensor = self.blocks(images)
        return maps

    def forward(self, images: Tensor) -> Tensor:
        """[n, C, H, W] in [0, 1] -> [n, out_features]."""
        return pool(self.maps(images), self.pooling)


class Block(nn.Module):
    """[n, in, H, W] -> [n, out, H/2, W/2]: three convolutions beside a 1x1 one, pooled, and some of it dropped."""

    def __init__(self, in_channels: int, out_channels: int, drop: nn.Module) -> None:
        super().__init__()
        layers: list[nn.Module] = []
        for index in range(3):
            layers += [
                nn.Conv2d(out_channels if index else in_channels, out_channels, 3, padding=1, bias=False),
                nn.BatchNorm2d(out_channels),
                nn.LeakyReLU(SLOPE),
            ]
        self.convolutions = nn.Sequential(*layers[:-1])
        self.shortcut = nn.Sequential(nn.Conv2d(in_channels, out_channels, 1, bias=False), nn.BatchNorm2d(out_channels))
        self.drop = drop

    def forward(self, x: Tensor) -> Tensor:
        """[n, in, H, W] -> [n, out, H/2, W/2]."""
        summed = self.convolutions(x) + self.shortcut(x)
        dropped: Tensor = self.drop(F.max_pool2d(F.leaky_relu(summed, SLOPE), 2))
        return dropped
