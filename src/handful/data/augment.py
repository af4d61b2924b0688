"""Augmentation of training images."""

from __future__ import annotations

import math

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray

AFFINE_DRAWS = 6  # uniform numbers that one image takes
TURN, SCALE, SHEAR, SHIFT = math.radians(10), 0.1, 0.1, 2 / 28


def affine(images: torch.Tensor, uniform: NDArray[np.float64]) -> torch.Tensor:
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
    grid = F.affine_grid(torch.stack(rows, 1), list(images.shape), align_corners=False)
    return F.grid_sample(images, grid, padding_mode="border", align_corners=False)
