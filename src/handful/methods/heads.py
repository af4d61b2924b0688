"""Heads of the gradient-based family, and what heads are made from."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from handful.errors import HandfulError

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


def linear_head(backbone: nn.Module, outputs: int) -> nn.Linear:
    """Xavier-uniform weights, zero biases."""
    head = nn.Linear(features_of(backbone), outputs)
    nn.init.xavier_uniform_(head.weight)
    nn.init.zeros_(head.bias)
    return head


def features_of(backbone: nn.Module) -> int:
    """Number of features that a backbone gives."""
    features: Any = getattr(backbone, "out_features", None)
    if features is None:
        raise HandfulError(
            f"The backbone {type(backbone).__name__} does not say how many features it gives; set its attribute "
            "`out_features`."
        )
    return int(features)


def class_means(features: Tensor, classes: Tensor, way: int = -1) -> Tensor:
    """Mean feature of each class: [B, n, D], [B, n] -> [B, N, D]; supports need not be balanced."""
    member = nn.functional.one_hot(classes, way).to(features.dtype)
    return member.mT @ features / member.sum(1).unsqueeze(-1)
