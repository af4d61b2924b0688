"""GLoFA's masks on FRN: each class weighs the channels in which it reconstructs.

FRN (`frn`) compares sets of d-channel descriptors; a gate g_n [d] from GLoFA's set functions (`glofa`) multiplies the
channels of S_n and of the queries that are compared with class n, which makes the reconstruction a weighted one:

    W = argmin |(Q - W S_n) diag(g_n)|^2 + penalty |W|^2

    supports:  x = mean of a support's r descriptors [d], for the set functions alone
    gate:      g_n = (1 + m_global) ⊙ (1 + a_task m_task) ⊙ (1 + a_class m_n),   scaled to sum of squares d
    logits:    those of FRN with S_n ⊙ g_n and Q ⊙ g_n

m_global [d] is a parameter that all tasks share.  Without the scaling a class with large masks would be far from
everything: a constant c in a gate is a distance times c^2 at a penalty divided by c^2.  Masks that are constant, or
weightless (a = 0), leave FRN.  The gates are folded into FRN's operators, so that queries are never copied for a class.

`spatial` is the other reading, a mask for every position: gates [r, d] from the supports' descriptors at that position
alone.  It ties what is where in a support to what is where in a query, which FRN leaves free.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from handful.methods.frn import Auxiliary, FRNClassMatrix, FRNHead, Supports
from handful.methods.glofa import Activation, Aggregation, Gates
from handful.methods.metric import Head, Metric
from handful.methods.reconstruction import Form, Operators
from handful.registry import METHODS, part


class GLoFAFRNHead(Head[tuple[Supports | Operators, Tensor]]):
    """Logits of queries from feature maps, by FRN under GLoFA's gates.

    gates: those of d channels, best with means and softplus, so that they do not depend on shots and none starts dead;
    spatial: a gate for each position, with the queries copied for each class.
    """

    def __init__(self, frn: FRNHead, gates: Gates, d: int, *, spatial: bool = False) -> None:
        super().__init__()
        self.frn = frn
        self.gates = gates
        self.spatial = spatial
        self.global_mask = nn.Parameter(torch.zeros(d))

    def learn(self, support: Tensor, labels: Tensor, way: int) -> tuple[Supports, Tensor]:
        """Maps [B, S, r, d] with labels [B, S], by class under their gates, and the gates [B, N, 1 or r, d]."""
        positions = support.shape[2] if self.spatial else 1
        read = support if self.spatial else support.mean(2, keepdim=True)
        at_each = self.gates(read.transpose(1, 2).flatten(0, 1), labels.repeat_interleave(positions, 0), way)
        gate = self.scaled(at_each.unflatten(0, (-1, positions)).transpose(1, 2))
        supports = self.frn.learn(support, labels, way)
        if not self.spatial:
            return supports._replace(gate=gate.squeeze(2)), gate
        # Each class of a task becomes a task of one class, with its own queries.
        gated = (supports.maps * gate.unsqueeze(2)).flatten(0, 1).unsqueeze(1)
        return Supports(gated, supports.counts.view(-1, 1)), gate

    def settled(self, support: Tensor, labels: Tensor, way: int) -> tuple[Operators, Tensor]:
        """The operators of the supports, and the gates."""
        supports, gate = self.learn(support, labels, way)
        return self.frn.operators(supports), gate

    def judge(self, query: Tensor, learned: tuple[Supports | Operators, Tensor]) -> Tensor:
        """Maps [B, Q, r, d], supports or operators and gates -> logits [B, Q, N]."""
        supports, gate = learned
        if not self.spatial:
            return self.frn.judge(query, supports)
        queries = (query.unsqueeze(1) * gate.unsqueeze(2)).flatten(0, 1)
        return self.frn.judge(queries, supports).view(*gate.shape[:2], -1).mT

    def scaled(self, gate: Tensor) -> Tensor:
        """With the global mask, and mean square 1 over positions and channels: [B, N, r, d]."""
        gate = gate * (1 + self.global_mask)
        return gate / gate.square().mean((2, 3), keepdim=True).sqrt()

    def class_matrix(self, classes: int, r: int, d: int) -> FRNClassMatrix:
        """Pre-training is that of FRN, without gates."""
        return self.frn.class_matrix(classes, r, d)

    def auxiliary(self, support: Tensor, labels: Tensor, way: int) -> Tensor:
        """That of FRN, of the supports without gates."""
        return self.frn.auxiliary(support, labels, way)


@part(METHODS, "glofa-frn")
def GLoFAFRN(
    backbone: nn.Module,
    *,
    form: Form = "auto",
    divide: bool = True,
    auxiliary: Auxiliary = "official",
    auxiliary_weight: float = 0.03,
    delta: float = 1.0,
    aggregation: Aggregation = "mean",
    activation: Activation = "softplus",
    spatial: bool = False,
) -> Metric:
    """FRN under GLoFA's gates; options as those of `FRNHead`, `Gates` and `GLoFAFRNHead`."""
    channels = getattr(backbone, "map_shape", (1,))[0]
    frn = FRNHead(form=form, divide=divide, auxiliary_loss=auxiliary, auxiliary_weight=auxiliary_weight)
    gates = Gates(channels, delta=delta, aggregation=aggregation, activation=activation)
    return Metric(backbone, GLoFAFRNHead(frn, gates, channels, spatial=spatial), maps=True)
