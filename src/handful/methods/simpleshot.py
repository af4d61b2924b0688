"""SimpleShot: nearest class mean on the features of an ordinary classifier, centred and made unit length.

Wang, Chao, Weinberger, van der Maaten: SimpleShot, 2019, arXiv 1911.04623.

    UN: x,    L2N: x/|x|,    CL2N: (x - m)/|x - m|,   m the mean feature of the training classes

then the squared Euclidean distance to the mean of each class's transformed shots.  That mean is not made unit length
again, so with several shots this is not the cosine.
"""

from __future__ import annotations

from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from handful.decoders.linear import features_of
from handful.methods.heads import class_means
from handful.methods.metric import Head, Metric
from handful.methods.protonet import squared_distances
from handful.registry import METHODS, part

Transform = Literal["un", "l2n", "cl2n"]


class SimpleHead(Head[Tensor]):
    """Nearest mean of transformed features."""

    centre: Tensor

    def __init__(self, transform: Transform, features: int) -> None:
        super().__init__()
        self.transform = transform
        if transform == "cl2n":
            self.register_buffer("centre", torch.zeros(features))

    def learn(self, support: Tensor, labels: Tensor, way: int) -> Tensor:
        """[B, S, d], [B, S] -> means of the transformed shots [B, N, d]."""
        return class_means(self.transformed(support), labels, way)

    def judge(self, query: Tensor, means: Tensor) -> Tensor:
        """[B, Q, d], means -> [B, Q, N]."""
        return -squared_distances(self.transformed(query), means)

    def transformed(self, features: Tensor) -> Tensor:
        """[..., d] -> [..., d]."""
        if self.transform == "cl2n":
            features = features - self.centre
        return features if self.transform == "un" else F.normalize(features, dim=-1)


@part(METHODS, "simpleshot")
def SimpleShot(backbone: nn.Module, *, transform: Transform = "cl2n") -> Metric:
    """SimpleShot: `un`, `l2n` or `cl2n`; for a pre-trained backbone (`pretrain`, `train.steps: 0`)."""
    return Metric(backbone, SimpleHead(transform, features_of(backbone)))
