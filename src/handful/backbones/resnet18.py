"""ResNet-18 for images of ImageNet's size (He, Zhang, Ren, Sun: "Deep residual learning", CVPR 2016).

Its keys are those that published ImageNet weights have (conv1, bn1, layer1.0.conv1, ..., layer4.1.bn2), so that they
load from a file; the classifier `fc` is no part of the features.
"""

from __future__ import annotations

from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from handful.backbones.images import colour, halved, image_shape
from handful.backbones.norms import Norm, norm_layer
from handful.backbones.weights import load_weights
from handful.errors import HandfulError
from handful.registry import BACKBONES, part

WIDTHS = (64, 128, 256, 512)
MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)  # of ImageNet's pixels in [0, 1], red, green and blue


@part(BACKBONES, "resnet18")
class ResNet18(nn.Module):
    """ResNet-18: images [n, C, H, W] -> features [n, 512]; 11.2 million parameters, ImageNet weights from a file.

    weights: a .safetensors or .pth file; without one the network starts as published, Kaiming-normal by fan-out.
    With one, images are normalised by ImageNet's mean and deviation first.  Grey images are repeated to three channels.
    norm: `batch`, as published, or `group` norm, which looks at one image alone and is for a start without weights.
    seen: what the weights were trained on.

    maps: [n, 3, 224, 224] -> [n, 512, 7, 7], at stride 32.
    """

    pyramid_channels = WIDTHS[1:]

    def __init__(
        self, weights: str | None = None, norm: Norm = "batch", input_shape: tuple[int, ...] = (3, 224, 224)
    ) -> None:
        super().__init__()
        if weights is not None and norm != "batch":
            raise HandfulError("Weights of ResNet-18 are of a network with batch norm: leave out norm, or weights.")
        _, height, width = image_shape("ResNet-18", input_shape, channels=(1, 3))
        self.conv1 = nn.Conv2d(3, WIDTHS[0], 7, stride=2, padding=3, bias=False)
        self.bn1 = norm_layer(norm, WIDTHS[0])
        self.layer1 = stage(norm, WIDTHS[0], WIDTHS[0], stride=1)
        self.layer2 = stage(norm, WIDTHS[0], WIDTHS[1], stride=2)
        self.layer3 = stage(norm, WIDTHS[1], WIDTHS[2], stride=2)
        self.layer4 = stage(norm, WIDTHS[2], WIDTHS[3], stride=2)
        self.register_buffer("mean", torch.tensor(MEAN).view(3, 1, 1), persistent=False)
        self.register_buffer("std", torch.tensor(STD).view(3, 1, 1), persistent=False)
        self.normalise = weights is not None
        self.input_shape = input_shape
        self.map_shape = (WIDTHS[-1], halved(height, 5), halved(width, 5))
        self.out_features = WIDTHS[-1]
        self.seen = weights and f"whatever {Path(weights).name} was trained on"
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")
        if weights is not None:
            load_weights(self, "resnet18", Path(weights), ignored=("fc.",))

    def pyramid(self, images: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """[n, C, H, W] in [0, 1] -> maps at strides 8, 16, 32: [n, 128, H/8, W/8], [n, 256, ...], [n, 512, ...]."""
        x = colour(images)
        if self.normalise:
            x = (x - self.get_buffer("mean")) / self.get_buffer("std")
        x = F.max_pool2d(F.relu(self.bn1(self.conv1(x))), 3, stride=2, padding=1)
        eighth = self.layer2(self.layer1(x))
        sixteenth = self.layer3(eighth)
        return eighth, sixteenth, self.layer4(sixteenth)

    def maps(self, images: Tensor) -> Tensor:
        """[n, C, H, W] in [0, 1] -> [n, *map_shape]."""
        return self.pyramid(images)[-1]

    def forward(self, images: Tensor) -> Tensor:
        """[n, C, H, W] in [0, 1] -> [n, 512]."""
        return self.maps(images).mean((2, 3))


def stage(norm: Norm, in_channels: int, channels: int, stride: int) -> nn.Sequential:
    """Two blocks, of which the first may halve the map."""
    return nn.Sequential(BasicBlock(norm, in_channels, channels, stride), BasicBlock(norm, channels, channels, 1))


class BasicBlock(nn.Module):
    """[n, in, H, W] -> [n, out, H/stride, W/stride]: two 3x3 convolutions, added to the input or its projection."""

    def __init__(self, norm: Norm, in_channels: int, channels: int, stride: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(in_channels, channels, 3, stride=stride, padding=1, bias=False)
        self.bn1 = norm_layer(norm, channels)
        self.conv2 = nn.Conv2d(channels, channels, 3, padding=1, bias=False)
        self.bn2 = norm_layer(norm, channels)
        self.downsample = nn.Sequential()
        if stride != 1 or in_channels != channels:
            projection = nn.Conv2d(in_channels, channels, 1, stride=stride, bias=False)
            self.downsample = nn.Sequential(projection, norm_layer(norm, channels))

    def forward(self, x: Tensor) -> Tensor:
        """[n, in, H, W] -> [n, out, H/stride, W/stride]."""
        residual = self.bn2(self.conv2(F.relu(self.bn1(self.conv1(x)))))
        return F.relu(residual + self.downsample(x))
