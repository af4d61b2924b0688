"""What the backbones for images share: their shape, grey in three channels, and what is made of the last map."""

from __future__ import annotations

import math
from typing import Literal

import torch
from torch import Tensor

from handful.errors import HandfulError

Pooling = Literal["mean", "flatten"]
Shape = tuple[int, int, int]


def image_shape(backbone: str, input_shape: tuple[int, ...], channels: tuple[int, ...] = ()) -> Shape:
    """The input shape as channels, height, width; raises HandfulError for inputs that are no such images.

    channels: the numbers of them that the backbone takes, any if empty.
    """
    if len(input_shape) != 3:
        raise HandfulError(
            f"{backbone} takes images [channels, height, width], not inputs {list(input_shape)}; use the backbone mlp."
        )
    if channels and input_shape[0] not in channels:
        known = " or ".join(map(str, channels))
        raise HandfulError(
            f"{backbone} takes images of {known} channels, not {input_shape[0]}; use the backbone conv4."
        )
    return input_shape


def colour(images: Tensor) -> Tensor:
    """[n, 1 or 3, H, W] -> [n, 3, H, W]: grey is repeated."""
    return images.expand(-1, 3, -1, -1)


def pool(maps: Tensor, pooling: Pooling) -> Tensor:
    """Maps [n, d, h, w] -> their mean over positions [n, d], or all of them [n, d*h*w]."""
    return maps.mean((2, 3)) if pooling == "mean" else torch.flatten(maps, 1)


def pooled_length(map_shape: Shape, pooling: Pooling) -> int:
    """Length of what `pool` gives for a map [d, h, w]."""
    return map_shape[0] if pooling == "mean" else math.prod(map_shape)


def halved(size: int, times: int) -> int:
    """A side of an image after layers of stride 2 that pad: rounded up each time."""
    return -(-size // 2**times)
