"""EfficientNet-Lite0: a small ImageNet network whose features are enough for a handful of photographs.

Tan and Le: "EfficientNet", ICML 2019; the Lite variant (Google, 2020) has no squeeze-and-excitation, and ReLU6 for
swish.  The module's names are those of its published PyTorch weights.
"""

from __future__ import annotations

import math
from pathlib import Path
from typing import Annotated, Literal, NamedTuple

import torch
import torch.nn.functional as F
from pydantic import Field
from torch import Tensor, nn

from handful.backbones.frozen_batch_norm import FrozenBatchNorm
from handful.backbones.images import colour, halved, image_shape
from handful.backbones.weights import lite0_weights, load_weights
from handful.registry import BACKBONES, part

EPS = 1e-3  # of the batch norms
STEM, HEAD = 32, 1280


class Stage(NamedTuple):
    """Blocks of one kind; the first of them has the stride."""

    kernel: int
    stride: int
    expansion: int
    channels: int
    blocks: int


STAGES = (
    Stage(3, 1, 1, 16, 1),
    Stage(3, 2, 6, 24, 2),
    Stage(5, 2, 6, 40, 2),
    Stage(3, 2, 6, 80, 3),
    Stage(5, 1, 6, 112, 3),
    Stage(5, 2, 6, 192, 4),
    Stage(3, 1, 6, 320, 1),
)
PYRAMID = (4, 10, 15)  # the last blocks at strides 8, 16 and 32


@part(BACKBONES, "efficientnet_lite0")
class EfficientNetLite0(nn.Module):
    """EfficientNet-Lite0: images [n, C, H, W] -> features [n, 1280]; 3.4 million parameters, ImageNet weights, frozen.

    weights: `imagenet`, those of the extra [photos]; `none`, random; or a .safetensors or .pth file with the
    published keys.  frozen: no parameter is learned, and the module stays in eval mode.  Weights that were learned
    elsewhere keep their batch-norm statistics, frozen or not (`FrozenBatchNorm`).  resolution: images are resized
    until their shorter side has this many pixels, bilinear and antialiased; None leaves them as they are.  Grey images
    are repeated to three channels.  pooling: the `mean` of the last map, as published, or `centre`, where positions
    count the less the farther they are from the middle (`centre_weights`): what a photograph is of mostly stands there.
    seen: what the weights were trained on, None for random ones.

    maps: [n, C, 84, 84] -> [n, 320, 7, 7] at 224 pixels, stride 32; `forward` goes on to 1280 channels and pools them.
    """

    pyramid_channels = (40, 112, 320)
    places: Tensor | None

    def __init__(
        self,
        weights: str = "imagenet",
        frozen: bool = True,
        resolution: Annotated[int, Field(ge=1)] | None = 224,
        pooling: Literal["mean", "centre"] = "mean",
        input_shape: tuple[int, ...] = (3, 224, 224),
    ) -> None:
        super().__init__()
        _, height, width = image_shape("EfficientNet-Lite0", input_shape, channels=(1, 3))
        if resolution is not None:
            scale = resolution / min(height, width)
            height, width = round(height * scale), round(width * scale)
        self.size = None if resolution is None else (height, width)
        norm = FrozenBatchNorm if frozen or weights != "none" else nn.BatchNorm2d
        self._conv_stem = SameConv2d(3, STEM, 3, stride=2)
        self._bn0 = norm(STEM, eps=EPS)
        self._blocks = nn.ModuleList()
        channels = STEM
        for stage in STAGES:
            for index in range(stage.blocks):
                stride = 1 if index else stage.stride
                block = Block(channels, stage.channels, stage.kernel, stride, stage.expansion, norm)
                self._blocks.append(block)
                channels = stage.channels
        self._conv_head = SameConv2d(channels, HEAD, 1)
        self._bn1 = norm(HEAD, eps=EPS)
        self.frozen = frozen
        self.input_shape = input_shape
        self.map_shape = (channels, halved(height, 5), halved(width, 5))
        self.out_features = HEAD
        weights_of_places = centre_weights(*self.map_shape[1:]) if pooling == "centre" else None
        self.register_buffer("places", weights_of_places, persistent=False)
        self.seen: str | None = None
        if weights == "imagenet":
            self.seen = "ImageNet-1k (1,000 classes)"
            load_weights(self, "efficientnet_lite0", lite0_weights())
        elif weights != "none":
            self.seen = f"whatever {Path(weights).name} was trained on"
            load_weights(self, "efficientnet_lite0", Path(weights), ignored=("_fc.",))
        if frozen:
            self.requires_grad_(False).eval()

    def train(self, mode: bool = True) -> EfficientNetLite0:
        """As for any module, but that frozen weights stay in eval mode."""
        return super().train(mode and not self.frozen)

    def prepare(self, images: Tensor) -> Tensor:
        """[n, C, H, W] in [0, 1] -> [n, 3, H', W'] as the weights expect them: resized, and (255 x - 127) / 128."""
        images = colour(images).to(self._conv_stem.weight.dtype)  # mixed precision hands them in rounded
        if self.size is not None and images.shape[-2:] != self.size:
            images = F.interpolate(images, self.size, mode="bilinear", align_corners=False, antialias=True)
        return (images * 255 - 127) / 128

    def pyramid(self, images: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """[n, C, H, W] in [0, 1] -> maps at strides 8, 16, 32: [n, 40, ...], [n, 112, ...], [n, 320, ...]."""
        x = F.relu6(self._bn0(self._conv_stem(self.prepare(images))))
        found = []
        for index, block in enumerate(self._blocks):
            x = block(x)
            if index in PYRAMID:
                found.append(x)
        eighth, sixteenth, last = found
        return eighth, sixteenth, last

    def maps(self, images: Tensor) -> Tensor:
        """[n, C, H, W] in [0, 1] -> [n, *map_shape]."""
        return self.pyramid(images)[-1]

    def forward(self, images: Tensor) -> Tensor:
        """[n, C, H, W] in [0, 1] -> [n, 1280]."""
        last = F.relu6(self._bn1(self._conv_head(self.maps(images))))
        return last.mean((2, 3)) if self.places is None else (last * self.places).sum((2, 3))


def centre_weights(height: int, width: int) -> Tensor:
    """Weights [height, width] of the positions of a map, a Gaussian around its middle that adds up to 1.

    Its standard deviation is 2/7 of each side: two positions of the 7x7 that there are at 224 pixels.
    """
    rows, columns = (torch.linspace(-1, 1, 2 * side + 1)[1::2] * 7 / 4 for side in (height, width))
    weights = torch.exp(-(rows[:, None].square() + columns[None].square()) / 2)
    return weights / weights.sum()


class Block(nn.Module):
    """[n, in, H, W] -> [n, out, H/stride, W/stride]: widen, filter each channel by itself, narrow (MobileNetV2)."""

    def __init__(
        self, in_channels: int, channels: int, kernel: int, stride: int, expansion: int, norm: type[nn.Module]
    ) -> None:
        super().__init__()
        wide = in_channels * expansion
        self.widens = expansion > 1
        self.adds = stride == 1 and in_channels == channels
        if self.widens:
            self._expand_conv = SameConv2d(in_channels, wide, 1)
            self._bn0 = norm(wide, eps=EPS)
        self._depthwise_conv = SameConv2d(wide, wide, kernel, stride, groups=wide)
        self._bn1 = norm(wide, eps=EPS)
        self._project_conv = SameConv2d(wide, channels, 1)
        self._bn2 = norm(channels, eps=EPS)

    def forward(self, x: Tensor) -> Tensor:
        """[n, in, H, W] -> [n, out, H/stride, W/stride]."""
        y = F.relu6(self._bn0(self._expand_conv(x))) if self.widens else x
        y = F.relu6(self._bn1(self._depthwise_conv(y)))
        y = self._bn2(self._project_conv(y))
        return y + x if self.adds else y


class SameConv2d(nn.Conv2d):
    """A convolution without bias, padded as TensorFlow does it: an odd row or column goes to the end.

    The output has ceil(side / stride) positions, and the padding that this takes depends on the side: at stride 2 a
    3x3 kernel pads an even side by 0 and 1, an odd one by 1 and 1.  Initialised as published: normal, with variance
    2 / (kernel^2 out / groups).
    """

    def __init__(self, in_channels: int, channels: int, kernel: int, stride: int = 1, groups: int = 1) -> None:
        super().__init__(in_channels, channels, kernel, stride, groups=groups, bias=False)
        nn.init.normal_(self.weight, std=math.sqrt(2 * groups / (kernel**2 * channels)))

    def forward(self, x: Tensor) -> Tensor:
        """[n, in, H, W] -> [n, out, ceil(H / stride), ceil(W / stride)]."""
        kernel, stride = self.kernel_size[0], self.stride[0]
        sides = map(int, x.shape[-2:])  # numbers: an exporter that traces would write down how to find them
        rows, columns = (max((-(-side // stride) - 1) * stride + kernel - side, 0) for side in sides)
        if rows % 2 or columns % 2:
            x = F.pad(x, (columns // 2, columns - columns // 2, rows // 2, rows - rows // 2))
            rows = columns = 0
        return F.conv2d(x, self.weight, None, self.stride, (rows // 2, columns // 2), groups=self.groups)
