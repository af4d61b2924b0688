"""U-Net: a map as fine as the image, from maps at ever coarser strides (Ronneberger, Fischer, Brox, MICCAI 2015).

For windows of frames, whose channels are the frames one after another, as in the predictors of next frames (Liu et al.,
CVPR 2018; MPN, Lv et al., CVPR 2021).
"""

from __future__ import annotations

from itertools import pairwise
from typing import Annotated, Literal

import torch
import torch.nn.functional as F
from pydantic import Field
from torch import Tensor, nn

from handful.backbones.images import image_shape
from handful.errors import HandfulError
from handful.layout import laid_out
from handful.registry import BACKBONES, part

Norm = Literal["batch", "none"]
Upsampling = Literal["bilinear", "transposed"]
Width = Annotated[int, Field(ge=1)]


@part(BACKBONES, "unet")
class UNet(nn.Module):
    """U-Net: windows of frames [n, T*C, H, W] -> features [n, out_features], the mean of its map over positions.

    widths: channels of each level, each half as fine as the one before.  A level is two 3x3 convolutions, each with
    batch norm (norm: `batch`) and a ReLU.  On the way back, the coarser map is enlarged and stands beside that of its
    level (upsampling): `bilinear`, by interpolation, with two convolutions at every level, the finest too; `transposed`
    is MPN's form, by 3x3 transposed convolutions, with two more convolutions at the coarsest level and none at the
    finest, whose two maps, side by side, are the result.  channels: of a frame, 1 or 3.  MPN's own network has widths
    64, 128, 256, 512, norm `none`, upsampling `transposed`, channels 3: 13.2 million parameters.

    maps: [n, 4, 128, 128] -> [n, 12, 128, 128].  frame: (C, H, W).  Raises HandfulError for sides that cannot be halved
    as often as there are levels below the finest, and for channels that are not a number of whole frames.
    """

    def __init__(
        self,
        widths: Annotated[tuple[Width, ...], Field(min_length=2)] = (12, 24, 48, 48),
        norm: Norm = "batch",
        upsampling: Upsampling = "bilinear",
        channels: Literal[1, 3] = 1,
        input_shape: tuple[int, ...] = (4, 128, 128),
    ) -> None:
        super().__init__()
        in_channels, height, width = image_shape("The U-Net", input_shape)
        factor = 2 ** (len(widths) - 1)
        if height % factor or width % factor:
            least = max(1, round(min(height, width) / factor)) * factor
            raise HandfulError(
                f"A U-Net of {len(widths)} levels halves its input {len(widths) - 1} times, so the sides of a frame "
                f"must be multiples of {factor}, not {height}x{width}; use data.image_size={least} or fewer widths."
            )
        if in_channels % channels:
            raise HandfulError(
                f"A window of {in_channels} channels is no number of whole frames of {channels}; set backbone.channels "
                "to those of a frame."
            )
        down = [level(before, after, norm) for before, after in pairwise((in_channels, *widths))]
        up = [Up(coarse, fine, norm, upsampling) for fine, coarse in pairwise(widths)]
        bottom, features = nn.Sequential(), widths[0]
        if upsampling == "transposed":
            del down[-1][-1]  # as published: a ReLU follows every convolution of the way down but the last
            bottom = level(widths[-1], widths[-1], norm)
            up[0].block, features = nn.Sequential(), 2 * widths[0]
        self.down, self.bottom, self.up = nn.ModuleList(down), bottom, nn.ModuleList(up[::-1])  # finest to finest
        self.input_shape = input_shape
        self.frame = (channels, height, width)
        self.map_shape = (features, height, width)
        self.out_features = features

    def maps(self, images: Tensor) -> Tensor:
        """[n, T*C, H, W] in [0, 1] -> [n, *map_shape]."""
        x = 2 * laid_out(images) - 1
        skips: list[Tensor] = []
        for down in self.down:
            x = down(F.max_pool2d(x, 2) if skips else x)
            skips.append(x)
        x = self.bottom(skips.pop())
        for up in self.up:
            x = up(x, skips.pop())
        return x

    def forward(self, images: Tensor) -> Tensor:
        """[n, T*C, H, W] in [0, 1] -> [n, out_features]."""
        return self.maps(images).mean((2, 3))


def level(in_channels: int, channels: int, norm: Norm) -> nn.Sequential:
    """[n, in, H, W] -> [n, out, H, W]: two 3x3 convolutions, each with its norm and a ReLU."""
    layers: list[nn.Module] = []
    for before in (in_channels, channels):
        layers.append(nn.Conv2d(before, channels, 3, padding=1, bias=norm == "none"))
        if norm == "batch":
            layers.append(nn.BatchNorm2d(channels))
        layers.append(nn.ReLU())
    return nn.Sequential(*layers)


class Up(nn.Module):
    """[n, coarse, H, W] and [n, fine, 2H, 2W] -> [n, fine, 2H, 2W]: enlarged, beside the other, and convolved."""

    def __init__(self, coarse: int, fine: int, norm: Norm, upsampling: Upsampling) -> None:
        super().__init__()
        self.enlarge: nn.Module = nn.Upsample(scale_factor=2, mode="bilinear", align_corners=False)
        if upsampling == "transposed":
            learned = nn.ConvTranspose2d(coarse, fine, 3, stride=2, padding=1, output_padding=1)
            self.enlarge = nn.Sequential(learned, nn.ReLU())
            coarse = fine
        self.block = level(fine + coarse, fine, norm)

    def forward(self, x: Tensor, skip: Tensor) -> Tensor:
        """[n, fine, 2H, 2W]."""
        found: Tensor = self.block(torch.cat([skip, self.enlarge(x)], 1))
        return found
