"""DropBlock: drop squares of a feature map instead of single values.

Ghiasi, Lin, Le: "DropBlock: A regularization method for convolutional networks", NeurIPS 2018, with the schedule that
MetaOptNet (Lee et al. 2019) and those after it train ResNet-12 with.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn


class DropBlock(nn.Module):
    """maps [n, d, h, w] -> the same, in training with blocks of size x size values set to zero and the rest scaled up.

    A block begins at each of the (h - size + 1)(w - size + 1) positions where it fits, in every channel of every
    image, with the probability gamma = (1 - keep) / size^2 * h w / ((h - size + 1)(w - size + 1)).  keep falls
    linearly from 1 to 1 - rate in the first `calls_to_full_rate` passes; on maps smaller than `size` a block is the
    whole map, or as much as fits.  The mean over the batch is kept.

    calls: passes in training so far; part of the state, so that a resumed training goes on where it was.
    """

    calls: Tensor

    def __init__(self, rate: float, size: int = 5, calls_to_full_rate: int = 40_000) -> None:
        super().__init__()
        self.rate = rate
        self.size = size
        self.calls_to_full_rate = calls_to_full_rate
        self.register_buffer("calls", torch.zeros((), dtype=torch.long))

    def forward(self, maps: Tensor) -> Tensor:
        """[n, d, h, w] -> [n, d, h, w]."""
        if not self.training or self.rate == 0:
            return maps
        self.calls += 1
        height, width = maps.shape[-2:]
        size = min(self.size, height, width)
        # drawn in float32: bfloat16 has too few steps for a small gamma
        starts = torch.rand(*maps.shape[:2], height - size + 1, width - size + 1, device=maps.device)
        begins = (starts < self.gamma(height, width)).to(maps.dtype)
        kept = 1 - F.max_pool2d(F.pad(begins, [size - 1] * 4), size, stride=1)
        return maps * kept * (kept.numel() / kept.sum(dtype=torch.float32).clamp(min=1)).to(maps.dtype)

    def gamma(self, height: int, width: int) -> Tensor:
        """The probability that a block begins at a position of a map, after `calls` passes; a tensor, as they are."""
        size = min(self.size, height, width)
        dropped = self.rate * (self.calls / self.calls_to_full_rate).clamp(max=1)  # 1 - keep
        return dropped / size**2 * (height * width / ((height - size + 1) * (width - size + 1)))
