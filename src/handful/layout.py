"""In which order images lie in memory."""

from __future__ import annotations

import torch
from torch import Tensor


def channels_last(value: Tensor) -> Tensor:
    """Images and kernels [n, C, H, W] with the channels of a pixel side by side; other tensors as they are."""
    return value.contiguous(memory_format=torch.channels_last) if value.dim() == 4 else value
