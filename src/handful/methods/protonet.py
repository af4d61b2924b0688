"""Prototypical Networks, and Meta-Baseline, which is the same with cosines.

Snell, Swersky, Zemel: Prototypical Networks for Few-shot Learning, NIPS 2017, arXiv 1703.05175.
Chen, Liu, Xu, Darrell, Wang: Meta-Baseline, ICCV 2021, arXiv 2003.04390.

A class is the mean of its support features, its prototype; the nearest one wins:

    c_n = mean_k f(x_nk),      logits(q, n) = -|f(q) - c_n|^2      (squared: Bregman, hence a linear classifier)
                               logits(q, n) = t cos(f(q), c_n)     (Meta-Baseline; t is learned, from 10)
"""

from __future__ import annotations

from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from handful.methods.heads import class_means
from handful.methods.metric import Head, Metric
from handful.registry import METHODS, part

Distance = Literal["squared", "mean_squared", "cosine"]


class Prototypes(Head[Tensor]):
    """Nearest class mean.

    distance: `squared` Euclidean, its mean over the d features (`mean_squared`, as in FRN's ProtoNet), or `cosine`
    similarity; scale: factor on the logits; learn_scale: whether it is learned.
    """

    def __init__(self, distance: Distance = "squared", scale: float = 1.0, learn_scale: bool = False) -> None:
        super().__init__()
        self.distance = distance
        self.scale = nn.Parameter(torch.tensor(float(scale)), requires_grad=learn_scale)

    def learn(self, support: Tensor, labels: Tensor, way: int) -> Tensor:
        """[B, S, d], [B, S] -> c [B, N, d]."""
        return class_means(support, labels, way)

    def judge(self, query: Tensor, means: Tensor) -> Tensor:
        """[B, Q, d], c -> [B, Q, N]."""
        if self.distance == "cosine":
            return self.scale * F.normalize(query, dim=-1) @ F.normalize(means, dim=-1).mT
        distances = squared_distances(query, means)
        return -self.scale * (distances / query.shape[-1] if self.distance == "mean_squared" else distances)


def squared_distances(a: Tensor, b: Tensor) -> Tensor:
    """|a_i - b_j|^2: [B, n, d], [B, m, d] -> [B, n, m].

    Written out: torch.cdist has no second derivative, and a distance's root none at zero.
    """
    return (a.square().sum(-1).unsqueeze(-1) - 2 * a @ b.mT + b.square().sum(-1).unsqueeze(-2)).clamp_min(0)


@part(METHODS, "protonet")
def ProtoNet(
    backbone: nn.Module, *, distance: Distance = "squared", scale: float = 1.0, learn_scale: bool = False
) -> Metric:
    """Prototypical network; distance, scale and learn_scale as in `Prototypes`."""
    return Metric(backbone, Prototypes(distance, scale, learn_scale))


@part(METHODS, "meta-baseline")
def MetaBaseline(backbone: nn.Module, *, scale: float = 10.0, learn_scale: bool = True) -> Metric:
    """Meta-Baseline: cosine prototypes with a learned scale, over a backbone that was pre-trained as a classifier.

    Without the second stage (`train.steps: 0`) it is the paper's Classifier-Baseline.
    """
    return Metric(backbone, Prototypes("cosine", scale, learn_scale))
