"""The backbone that comes with Handful: Conv-4 with weights of our own recipe, for photographs where no others are."""

from __future__ import annotations

from pathlib import Path

import torch.nn.functional as F
from torch import Tensor

from handful.backbones.conv4 import Conv4
from handful.backbones.images import colour, image_shape
from handful.backbones.weights import load_weights
from handful.registry import BACKBONES, part

WEIGHTS = Path(__file__).with_name("small.safetensors")
SIDE = 84


@part(BACKBONES, "small")
class Small(Conv4):
    """A Conv-4 that comes with Handful: images [n, C, H, W] -> features [n, 1600]; 0.1 million parameters, frozen.

    Its weights are those of the recipe `miniimagenet-simpleshot-conv4`, 0.5 MB.  Images are resized to 84x84, bilinear
    and antialiased; grey images are repeated to three channels.

    maps: [n, C, H, W] -> [n, 64, 5, 5].
    """

    frozen = True
    seen = "64 classes of mini-ImageNet"

    def __init__(self, input_shape: tuple[int, ...] = (3, SIDE, SIDE)) -> None:
        shape = image_shape("The backbone small", input_shape, channels=(1, 3))
        super().__init__()
        self.input_shape = shape
        load_weights(self, "small", WEIGHTS)
        self.requires_grad_(False).eval()

    def train(self, mode: bool = True) -> Small:
        """As for any module, but that frozen weights stay in eval mode."""
        return super().train(False)

    def maps(self, images: Tensor) -> Tensor:
        """[n, C, H, W] in [0, 1] -> [n, 64, 5, 5]."""
        images = colour(images)
        if images.shape[-2:] != (SIDE, SIDE):
            images = F.interpolate(images, (SIDE, SIDE), mode="bilinear", align_corners=False, antialias=True)
        return super().maps(images)
