"""In which order images lie in memory."""

from __future__ import annotations

import torch
from torch import Tensor

# An image of more values is convolved faster with its channels last; at 28x28 the conversion costs more than it brings.
# bench/data_path.py measures it.
LARGE_VALUES = 4_000


def channels_last(value: Tensor) -> Tensor:
    """Images and kernels [n, C, H, W] with the channels of a pixel side by side; other tensors as they are."""
    return value.contiguous(memory_format=torch.channels_last) if value.dim() == 4 else value


def laid_out(x: Tensor) -> Tensor:
    """Inputs [n, ...] as a network takes them fastest: large images channels-last, and on a GPU (unmeasured) all."""
    return channels_last(x) if x.device.type == "cuda" or x[0].numel() > LARGE_VALUES else x
