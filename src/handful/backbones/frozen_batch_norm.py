"""Batch norm that keeps the statistics it came with."""

from __future__ import annotations

import torch
from torch import Tensor, nn


class FrozenBatchNorm(nn.Module):
    """maps [n, d, h, w] -> (maps - mean) / sqrt(var + eps) * weight + bias, with a fixed mean and variance [d].

    Pretrained features are only what they are under the statistics they were trained with, and a handful of images
    cannot replace those.  So this is no `nn.BatchNorm2d`: nothing that looks for batch norms to train, to adapt or to
    re-estimate finds it, and a prediction never depends on batch mates.  Its keys are those of one.
    """

    running_mean: Tensor
    running_var: Tensor

    def __init__(self, channels: int, eps: float) -> None:
        super().__init__()
        self.eps = eps
        self.weight = nn.Parameter(torch.ones(channels))
        self.bias = nn.Parameter(torch.zeros(channels))
        self.register_buffer("running_mean", torch.zeros(channels))
        self.register_buffer("running_var", torch.ones(channels))

    def forward(self, maps: Tensor) -> Tensor:
        """[n, d, h, w] -> [n, d, h, w]."""
        # not F.batch_norm, whose statistics the inner loop exchanges
        statistics = (self.running_mean, self.running_var)
        return torch.batch_norm(
            maps, self.weight, self.bias, *statistics, False, 0.0, self.eps, torch.backends.cudnn.enabled
        )
