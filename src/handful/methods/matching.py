"""Matching Networks: a query takes the classes of the support images that it is like.

Vinyals, Blundell, Lillicrap, Kavukcuoglu, Wierstra: Matching Networks for One Shot Learning, NIPS 2016, arXiv
1606.04080.

    a(q, i) = softmax_i( t cos(f(q), f(x_i)) ),      p(n | q) = sum of a(q, i) over the support images i of class n

over features that know nothing of the rest of the support (without the paper's full-context embedding).
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from handful.methods.metric import Head, Metric
from handful.registry import METHODS, part


class Attention(Head[tuple[Tensor, Tensor]]):
    """Softmax over all support images; a class that has more of them is the likelier for it, as in the paper."""

    def __init__(self, scale: float) -> None:
        super().__init__()
        self.scale = scale

    def learn(self, support: Tensor, labels: Tensor, way: int) -> tuple[Tensor, Tensor]:
        """[B, S, d], [B, S] -> their directions [B, S, d], and which are of other classes [B, 1, N, S]."""
        return F.normalize(support, dim=-1), F.one_hot(labels, way).mT.unsqueeze(1) == 0

    def judge(self, query: Tensor, learned: tuple[Tensor, Tensor]) -> Tensor:
        """[B, Q, d], the supports -> log-probabilities [B, Q, N]."""
        support, others = learned
        likeness = self.scale * F.normalize(query, dim=-1) @ support.mT
        of_class = likeness.log_softmax(-1).unsqueeze(2).masked_fill(others, -torch.inf)
        return of_class.logsumexp(-1)


@part(METHODS, "matching")
def MatchingNet(backbone: nn.Module, *, scale: float = 10.0) -> Metric:
    """Matching network; scale: factor on the cosines (the paper has none, so that no class can be surer than e^2)."""
    return Metric(backbone, Attention(scale))
