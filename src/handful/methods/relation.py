"""Relation Network: how alike two feature maps are is itself learned.

Sung, Yang, Zhang, Xiang, Torr, Hospedales: Learning to Compare: Relation Network for Few-Shot Learning, CVPR 2018,
arXiv 1711.06025.

    r(q, n) = g( [ mean_k F(x_nk), F(q) ] )      F: feature maps, joined by channels; g: two convolutions, two layers

The paper sums the maps of a class; the mean is the same at one shot, and carries from one number of shots to another.
"""

from __future__ import annotations

from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from handful.methods.heads import class_means
from handful.methods.metric import Head, Metric
from handful.registry import METHODS, part


class Relation(Head[Tensor]):
    """g: maps of a class and of a query, joined -> one number."""

    def __init__(self, map_shape: tuple[int, int, int], hidden: int, mean_squared: bool) -> None:
        super().__init__()
        channels, self.height, self.width = map_shape
        self.compare = nn.Sequential(
            *_block(2 * channels, hidden),
            *_block(hidden, hidden),
            nn.AdaptiveAvgPool2d(1),
            nn.Flatten(),
            nn.Linear(hidden, 8),
            nn.ReLU(),
            nn.Linear(8, 1),
        )
        self.mean_squared = mean_squared

    def learn(self, support: Tensor, labels: Tensor, way: int) -> Tensor:
        """Maps [B, S, r, d], [B, S] -> mean maps [B, N, r, d]."""
        return class_means(support.flatten(2), labels, way).unflatten(2, support.shape[2:])

    def judge(self, query: Tensor, means: Tensor) -> Tensor:
        """Maps [B, Q, r, d], mean maps -> [B, Q, N]."""
        (tasks, queries), way = query.shape[:2], means.shape[1]
        pairs = torch.cat(
            [
                means.unsqueeze(1).expand(-1, queries, -1, -1, -1),
                query.unsqueeze(2).expand(-1, -1, way, -1, -1),
            ],
            -1,
        )
        scores: Tensor = self.compare(pairs.flatten(0, 2).mT.unflatten(2, (self.height, self.width)))
        return scores.view(tasks, queries, way)

    def loss(self, logits: Tensor, labels: Tensor) -> Tensor:
        """[B]: mean squared error of sigmoid(r) from 1 for the right class and 0 for others, or cross-entropy."""
        if not self.mean_squared:
            return F.cross_entropy(logits.mT, labels, reduction="none").mean(1)
        return (logits.sigmoid() - F.one_hot(labels, logits.shape[-1])).square().mean((1, 2))


def _block(inputs: int, outputs: int) -> list[nn.Module]:
    return [nn.Conv2d(inputs, outputs, 3, padding=1), nn.BatchNorm2d(outputs), nn.ReLU()]


@part(METHODS, "relation")
def RelationNet(
    backbone: nn.Module, *, hidden: int = 64, loss: Literal["mean_squared", "cross_entropy"] = "mean_squared"
) -> Metric:
    """Relation network; hidden: channels of g; loss: the paper's, or `cross_entropy` of the relations as logits."""
    head = Relation(getattr(backbone, "map_shape", (1, 1, 1)), hidden, loss == "mean_squared")
    return Metric(backbone, head, maps=True)
