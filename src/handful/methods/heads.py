"""Heads of the gradient-based family, and what heads are made from."""

from __future__ import annotations

import torch
from torch import Tensor, nn

HEAD = ("head.weight", "head.bias")


class OpenHead(nn.Module):
    """A linear layer whose weights every task brings along."""

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("weight", torch.empty(0), persistent=False)
        self.register_buffer("bias", torch.empty(0), persistent=False)

    def forward(self, features: Tensor) -> Tensor:
        """[n, D] -> [n, N]."""
        return nn.functional.linear(features, self.get_buffer("weight"), self.get_buffer("bias"))


def class_means(features: Tensor, classes: Tensor, way: int = -1) -> Tensor:
    """Mean feature of each class: [B, n, D], [B, n] -> [B, N, D]; supports need not be balanced."""
    member = nn.functional.one_hot(classes, way).to(features.dtype)
    return member.mT @ features / member.sum(1).unsqueeze(-1)
