"""A multi-layer perceptron: for points instead of images.

With two hidden layers of 40 it is, under a head of one unit, the 1-40-40-1 network of MAML's sinusoids (Finn et al.
2017, section 5.1), but for its initial weights: PyTorch's own for linear layers, where the paper draws from N(0, 0.01).
"""

from __future__ import annotations

import math
from itertools import pairwise
from typing import Annotated

import torch
from pydantic import Field
from torch import Tensor, nn

from handful.registry import BACKBONES, part


@part(BACKBONES, "mlp")
class MLP(nn.Module):
    """Multi-layer perceptron: inputs [n, ...] -> features [n, out_features]: linear layers, each with a ReLU after it.

    hidden: the width of each layer; none at all hands the inputs on, and the model is its linear head.
    """

    def __init__(
        self, hidden: tuple[Annotated[int, Field(ge=1)], ...] = (40, 40), input_shape: tuple[int, ...] = (1,)
    ) -> None:
        super().__init__()
        widths = (math.prod(input_shape), *hidden)
        self.layers = nn.ModuleList(nn.Linear(before, after) for before, after in pairwise(widths))
        self.input_shape = input_shape
        self.out_features = widths[-1]

    def forward(self, x: Tensor) -> Tensor:
        """[n, ...] -> [n, out_features]."""
        x = torch.flatten(x, 1)
        for layer in self.layers:
            x = torch.relu(layer(x))
        return x
