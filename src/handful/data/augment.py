"""Augmentation of training images, in batches, on whatever device they are.

The random numbers are handed in, and what they mean for an image is worked out on the CPU: a task is varied alike in
every process and on every device, but for the rounding of the interpolation.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from itertools import permutations
from typing import Literal, NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray

from handful.errors import HandfulError, unknown

Augment = Literal["none", "drawings", "photos", "cameras", "clips"]

TURN, SCALE, SHEAR, SHIFT = math.radians(10), 0.1, 0.1, 2 / 28
SMALLEST, LONGEST, JITTER = 0.08, 4 / 3, 0.4
GREY = (0.299, 0.587, 0.114)  # what red, green and blue weigh in brightness (ITU-R BT.601)
ORDERS = np.array(list(permutations(range(3))))


def drawings(images: torch.Tensor, uniform: NDArray[np.float64]) -> torch.Tensor:
    """Turn, scale, shear and shift each image a little, as another hand would have drawn it.

    images float [m, C, H, W]; uniform [m, 6] in [0, 1).  At most 10 degrees, 10 % in size and shear, and a fourteenth
    of the side (2 of 28 pixels); what comes in at the border repeats it.
    """
    draw = torch.from_numpy(2 * uniform - 1).to(images.dtype)
    angle, shear = draw[:, 0] * TURN, draw[:, 1] * SHEAR
    wide, high = 1 + draw[:, 2] * SCALE, 1 + draw[:, 3] * SCALE
    cos, sin = angle.cos(), angle.sin()
    rows = [
        torch.stack([wide * cos, wide * (shear * cos - sin), 2 * SHIFT * draw[:, 4]], 1),
        torch.stack([high * sin, high * (shear * sin + cos), 2 * SHIFT * draw[:, 5]], 1),
    ]
    return resampled(images, torch.stack(rows, 1))


def photos(images: torch.Tensor, uniform: NDArray[np.float64]) -> torch.Tensor:
    """Crop, mirror and colour each image as classifiers of photographs are trained (He et al. 2016, FRN, GLoFA).

    images float [m, C, H, W] in [0, 1]; uniform [m, 9] in [0, 1): five for `crop`, four for `jitter`.
    """
    return jitter(crop(images, uniform[:, :5]), uniform[:, 5:])


def crop(images: torch.Tensor, uniform: NDArray[np.float64]) -> torch.Tensor:
    """A random part of each image, enlarged to the size of the whole, and mirrored half of the time.

    images [m, C, H, W]; uniform [m, 5]: area (8 to 100 % of the image), ratio of the sides (the image's own, changed
    by 3/4 to 4/3), place across, place down, mirrored.  Szegedy et al. (2015) draw anew where the sides do not fit
    into the image; here the ratio is drawn from those that fit, which leaves no crop to chance.
    """
    area = SMALLEST + (1 - SMALLEST) * uniform[:, 0]
    bend = (2 * uniform[:, 1] - 1) * np.minimum(math.log(LONGEST), -np.log(area))  # log of width over height
    wide, high = np.sqrt(area) * np.exp(bend / 2), np.sqrt(area) * np.exp(-bend / 2)  # shares of the sides
    theta = np.zeros((len(images), 2, 3))  # from [-1, 1] in the result to [-1, 1] in the image
    theta[:, 0, 0] = np.where(uniform[:, 4] < 0.5, -wide, wide)
    theta[:, 1, 1] = high
    theta[:, 0, 2] = (1 - wide) * (2 * uniform[:, 2] - 1)
    theta[:, 1, 2] = (1 - high) * (2 * uniform[:, 3] - 1)
    return resampled(images, torch.from_numpy(theta))


def jitter(images: torch.Tensor, uniform: NDArray[np.float64]) -> torch.Tensor:
    """Change brightness, contrast and saturation of each image by factors of 0.6 to 1.4, in an order of its own.

    images [m, 1 or 3, H, W] in [0, 1]; uniform [m, 4]: the three factors, and which of the six orders.  Each change is
    f * image + (1 - f) * other, cut to [0, 1]: the other is black, the mean grey of the image, or its grey version.
    """
    orders = ORDERS[(uniform[:, 3] * len(ORDERS)).astype(np.int64)]
    factors = np.take_along_axis(1 + JITTER * (2 * uniform[:, :3] - 1), orders, 1)
    factor = torch.from_numpy(factors).to(images.device, images.dtype).view(-1, 3, 1, 1, 1)
    kind = torch.from_numpy(orders).to(images.device).view(-1, 3, 1, 1, 1)
    weights = images.new_tensor(GREY if images.shape[1] == 3 else [1.0]).view(1, -1, 1, 1)
    for place in range(3):
        grey = (images * weights).sum(1, keepdim=True)
        other = (kind[:, place] == 1) * grey.mean((2, 3), keepdim=True) + (kind[:, place] == 2) * grey
        images = torch.lerp(other, images, factor[:, place]).clamp(0, 1)
    return images


def resampled(images: torch.Tensor, theta: torch.Tensor) -> torch.Tensor:
    """Images [m, C, H, W] read where the affine maps theta [m, 2, 3] point; outside, the border is repeated."""
    grid = F.affine_grid(theta.to(images.device, images.dtype), list(images.shape), align_corners=False)
    return F.grid_sample(images, grid, padding_mode="border", align_corners=False)


class Augmentation(NamedTuple):
    """A way to vary images: function(images, uniform [m, draws])."""

    draws: int
    function: Callable[[torch.Tensor, NDArray[np.float64]], torch.Tensor]


OTHERS = {"cameras": "frames of rail lines", "clips": "windows of videos"}  # their tasks vary them themselves
AUGMENTATIONS = {"drawings": Augmentation(6, drawings), "photos": Augmentation(9, photos)}


def check_augment(augment: str) -> None:
    """Refuse what does not vary images with classes."""
    if augment in OTHERS:
        raise HandfulError(
            f"augment varies images with classes as drawings or as photos, and not by {augment}, which is for "
            f"{OTHERS[augment]}: set it to one of these, or to none."
        )
    if augment not in ("none", *AUGMENTATIONS):
        raise unknown("augmentation", augment, ["none", *AUGMENTATIONS])
