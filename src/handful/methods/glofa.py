"""GLoFA: feature masks of the task (global) and of each class (local), mixed by how much the task wants of either.

Lu, Ye, Zhan: Tailoring Embedding Function to Heterogeneous Few-Shot Tasks by Global and Local Feature Adaptors,
AAAI 2021.

Three set functions F(A) = rho(sum over x in A of [psi(x); x]) read the pooled features x [d] of the supports:

    masks:      m_task = delta/6 relu6(F_task(all)),   m_n = delta/6 relu6(F_class(class n)),   in [0, delta]
    balance:    (a_task, a_class) = relu(F_balance(all))
    gate:       g_n = (1 + a_task m_task) ⊙ (1 + a_class m_n)
    prototype:  p_n = normalize(mean of the x of class n ⊙ g_n)
    logits:     <q ⊙ g_n, p_n> / temperature

Each class is compared in its own masked space, and <q ⊙ g_n, p_n> = <q, g_n ⊙ p_n>: with the gates folded into the
prototypes it is one matrix product.  The queries are not normalised, so a class with large masks has large logits.

Two traps.  The published sums make masks depend on the number of ways and shots: test as trained, or take means.
And relu can be dead: at first about a third of all a are 0 on every task, and such a mask gets no gradient, ever;
softplus has none of this, and starts at a = 0.1.
"""

from __future__ import annotations

import math
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from handful.decoders.linear import features_of
from handful.methods.grouping import membership
from handful.methods.metric import Head, Metric
from handful.registry import METHODS, part

Aggregation = Literal["sum", "mean"]
Activation = Literal["relu", "softplus"]
FIRST_BALANCE = 0.1  # of softplus


class SetFunction(nn.Module):
    """A function of sets of features [d] that does not see their order -> [outputs]."""

    def __init__(self, d: int, outputs: int) -> None:
        super().__init__()
        self.psi = nn.Sequential(nn.Linear(d, 2 * d), nn.ReLU(), nn.Linear(2 * d, 2 * d), nn.ReLU())
        self.rho = nn.Sequential(nn.Linear(3 * d, 2 * d), nn.ReLU(), nn.Linear(2 * d, outputs))

    def forward(self, x: Tensor, weights: Tensor) -> Tensor:
        """x [B, S, d], and what each of A sets takes of it, weights [B, A, S] -> [B, A, outputs]."""
        return self.rho(torch.cat([weights @ self.psi(x), weights @ x], -1))


class Gates(nn.Module):
    """What each class multiplies the channels with, 1 + masks, made from the supports.

    delta: the most that a mask can be; aggregation: of set functions; activation: of the balance.
    """

    def __init__(
        self, d: int, *, delta: float = 1.0, aggregation: Aggregation = "sum", activation: Activation = "relu"
    ) -> None:
        super().__init__()
        self.delta = delta
        self.aggregation: Aggregation = aggregation
        self.activation: Activation = activation
        self.of_task, self.of_class, self.of_balance = SetFunction(d, d), SetFunction(d, d), SetFunction(d, 2)
        if activation == "softplus":
            last = self.of_balance.rho[-1]
            nn.init.zeros_(last.weight)  # type: ignore[arg-type]
            nn.init.constant_(last.bias, math.log(math.expm1(FIRST_BALANCE)))  # type: ignore[arg-type]

    def forward(self, x: Tensor, labels: Tensor, way: int) -> Tensor:
        """Pooled supports x [B, S, d] with labels [B, S] -> gates [B, N, d]."""
        of_task, of_class, (a_task, a_class) = self.masks(x, labels, way)
        return (1 + a_task * of_task) * (1 + a_class * of_class)

    def masks(self, x: Tensor, labels: Tensor, way: int) -> tuple[Tensor, Tensor, tuple[Tensor, Tensor]]:
        """The masks of the task [B, 1, d] and of its classes [B, N, d], and their balance, [B, 1, 1] each."""
        of_class = membership(labels, way).mT.to(x.dtype)
        of_all = torch.ones_like(of_class[:, :1])
        if self.aggregation == "mean":
            of_class, of_all = (weights / weights.sum(-1, keepdim=True) for weights in (of_class, of_all))
        balance = F.relu if self.activation == "relu" else F.softplus
        a_task, a_class = balance(self.of_balance(x, of_all)).split(1, dim=-1)
        task, classes = self.of_task(x, of_all), self.of_class(x, of_class)
        return self.delta / 6 * F.relu6(task), self.delta / 6 * F.relu6(classes), (a_task, a_class)


class GLoFAHead(Head[tuple[Tensor, Tensor]]):
    """Logits of queries from pooled features, by prototypes in the masked space of each class.

    normalize_query: divide by |q ⊙ g_n|, so that logits are cosines.
    """

    def __init__(self, gates: Gates, *, temperature: float = 1.0, normalize_query: bool = False) -> None:
        super().__init__()
        self.gates = gates
        self.temperature = temperature
        self.normalize_query = normalize_query

    def learn(self, support: Tensor, labels: Tensor, way: int) -> tuple[Tensor, Tensor]:
        """Supports [B, S, d] with labels [B, S] -> prototypes and gates, [B, N, d] each."""
        prototypes = membership(labels, way).mT.to(support.dtype) @ support  # sums, for their length is lost anyway
        return prototypes, self.gates(support, labels, way)

    def judge(self, query: Tensor, learned: tuple[Tensor, Tensor]) -> Tensor:
        """Queries [B, Q, d], prototypes and gates -> logits [B, Q, N]."""
        return scores(query, *learned, self.normalize_query) / self.temperature


def scores(query: Tensor, prototypes: Tensor, gate: Tensor, normalize_query: bool = False) -> Tensor:
    """<q ⊙ g_n, normalize(p_n ⊙ g_n)>: query [..., Q, d], prototypes, gate [..., N, d] -> [..., Q, N]."""
    found = query @ (gate * F.normalize(prototypes * gate, dim=-1)).mT
    if normalize_query:
        found = found / (query.square() @ gate.square().mT).sqrt().clamp_min(1e-12)
    return found


@part(METHODS, "glofa")
def GLoFA(
    backbone: nn.Module,
    *,
    delta: float = 1.0,
    aggregation: Aggregation = "sum",
    activation: Activation = "relu",
    temperature: float = 1.0,
    normalize_query: bool = False,
) -> Metric:
    """GLoFA over pooled features; options as those of `Gates` and `GLoFAHead`, the defaults as published."""
    gates = Gates(features_of(backbone), delta=delta, aggregation=aggregation, activation=activation)
    return Metric(backbone, GLoFAHead(gates, temperature=temperature, normalize_query=normalize_query))
