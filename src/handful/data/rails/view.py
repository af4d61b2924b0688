"""Changes of the camera: how a picture with its lines would look from another one.

A task's frames share one, as the frames of one line do: that is what makes rendered and photographed frames of many
places into tasks.
"""

from __future__ import annotations

import math

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

from handful.data.augment import jitter
from handful.data.rails.frame import Line

PLACE, TONE = 5, 5  # random numbers that a change of the view and of the colours takes
ACROSS, DOWN = 120 / 512, 36 / 288  # of the sides
SCALE, TURN, GAMMA = 0.3, math.radians(3), 0.5


def matrices(uniform: NDArray[np.float64], width: int, height: int) -> NDArray[np.float64]:
    """Random changes of the view, uniform [n, 5] in [0, 1) -> [n, 3, 3]: pixels before -> pixels after.

    Mirrored half of the time, then turned by at most 3 degrees and scaled by 1 / 1.3 to 1.3 around the middle of the
    lower border, then shifted by at most 23 % of the width to either side and 12 % of the height downwards.  So the
    lower border, below which nobody knows how the lines go on, comes into view in a corner at most, by the turn.
    """
    draw = 2 * uniform - 1
    angle, scale = TURN * draw[:, 1], np.exp(math.log(1 + SCALE) * draw[:, 2])
    cos, sin = scale * np.cos(angle), scale * np.sin(angle)
    flip = np.where(uniform[:, 0] < 0.5, -1.0, 1.0)
    middle = np.array([(width - 1) / 2, height - 0.5])
    found = np.zeros((len(uniform), 3, 3))
    found[:, 0, 0], found[:, 0, 1] = cos * flip, -sin
    found[:, 1, 0], found[:, 1, 1] = sin * flip, cos
    shift = np.stack([draw[:, 3] * ACROSS * width, uniform[:, 4] * DOWN * height], 1)
    found[:, :2, 2] = middle - found[:, :2, :2] @ middle + shift
    found[:, 2, 2] = 1
    return found


def moved(images: Tensor, changes: NDArray[np.float64]) -> Tensor:
    """Images [n, C, H, W] as seen after changes of the view [n, 3, 3]; what was outside the picture is black."""
    height, width = images.shape[-2:]
    to_unit = np.array([[2 / width, 0, 1 / width - 1], [0, 2 / height, 1 / height - 1], [0, 0, 1]])
    theta = to_unit @ np.linalg.inv(changes) @ np.linalg.inv(to_unit)
    grid = F.affine_grid(
        torch.from_numpy(theta[:, :2]).to(images.device, images.dtype), list(images.shape), align_corners=False
    )
    return F.grid_sample(images, grid, padding_mode="zeros", align_corners=False)


def moved_line(line: Line, change: NDArray[np.float64]) -> Line:
    """A line [n, 2] after a change of the view [3, 3], bottom to top; it may leave the picture."""
    points: Line = np.concatenate([line, np.ones((len(line), 1))], 1) @ change[:2].T
    return points


def toned(images: Tensor, uniform: NDArray[np.float64]) -> Tensor:
    """Brightness, contrast, saturation and gamma changed, [n, C, H, W] in [0, 1], uniform [n, 5] in [0, 1)."""
    gamma = torch.from_numpy(np.exp(GAMMA * (2 * uniform[:, 4] - 1))).to(images.device, images.dtype)
    return jitter(images.clamp(0, 1) ** gamma.view(-1, 1, 1, 1), uniform[:, :4])
