"""Feature Map Reconstruction Networks.

Wertheimer, Tang, Hariharan: Few-Shot Classification With Feature Map Reconstruction Networks, CVPR 2021,
arXiv 2012.01506.

An image is the set of the r descriptors (positions) of its feature map, rows of d channels, and a class is the pool of
the m = K r descriptors of its supports, S_n.  The class that reconstructs all of a query's descriptors best wins:

    reconstruction:  Q_n = rho W S_n,   W = argmin |Q - W S_n|^2 + penalty |W|^2
    distance:        dist(x, n) = mean over the r descriptors of |Q_i - Q_n,i|^2
    logits:          -scale * dist
    learned:         penalty = m/d e^alpha + 1e-6,   rho = e^beta,   scale;   alpha = beta = 0 and scale = 1 at first

m/d follows the shots of the task, so one model serves all.  At first the logits of classes hardly differ, and scale has
to grow.  Pre-training puts a learned matrix M_c [r, d] in the place of each training class's supports and leaves alpha
and beta at 0.
"""

from __future__ import annotations

from typing import Literal, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from handful.methods.grouping import by_class
from handful.methods.metric import Head, Metric
from handful.methods.precision import full_precision
from handful.methods.reconstruction import Form, Operators, distances, operators
from handful.registry import METHODS, part

Auxiliary = Literal["official", "mean", "off"]
FLOOR = 1e-6  # of the penalty, which alpha could otherwise take to 0


class Supports(NamedTuple):
    """Maps by class [B, N, K, r, d], of which each class has as many as `counts` [B, N] says.

    gate [B, N, d]: what channels are multiplied with when a query is compared with a class (`GLoFAFRNHead`).
    """

    maps: Tensor
    counts: Tensor
    gate: Tensor | None = None


class FRNHead(Head[Supports | Operators]):
    """Logits of queries from feature maps, for any ways and shots.

    form: how distances are computed (`reconstruction`); divide: divide features by sqrt(d), as is published for
    ResNet-12, but not for Conv-4; auxiliary_loss, auxiliary_weight: what `auxiliary` returns.
    """

    def __init__(
        self,
        *,
        form: Form = "auto",
        divide: bool = True,
        auxiliary_loss: Auxiliary = "official",
        auxiliary_weight: float = 0.03,
    ) -> None:
        super().__init__()
        self.form: Form = form
        self.divide = divide
        self.auxiliary_loss: Auxiliary = auxiliary_loss
        self.auxiliary_weight = auxiliary_weight
        self.alpha = nn.Parameter(torch.zeros(()))
        self.beta = nn.Parameter(torch.zeros(()))
        self.scale = nn.Parameter(torch.ones(()))

    def learn(self, support: Tensor, labels: Tensor, way: int) -> Supports:
        """Maps [B, S, r, d] with labels [B, S], by class."""
        return Supports(*by_class(support, labels, way))

    def settled(self, support: Tensor, labels: Tensor, way: int) -> Operators:
        """Their operators."""
        return self.operators(self.learn(support, labels, way))

    def operators(self, learned: Supports) -> Operators:
        """Of supports by class."""
        return operators(*self.systems(learned))

    def judge(self, query: Tensor, learned: Supports | Operators) -> Tensor:
        """Maps [B, Q, r, d], the supports or their operators -> logits [B, Q, N]."""
        if isinstance(learned, Operators):
            found = learned.distances(query)
        else:
            found = distances(query, *self.systems(learned), form=self.form)
        return -self.scale / self.divisor(query) * found

    def systems(self, learned: Supports) -> tuple[Tensor, Tensor, Tensor, Tensor | None]:
        """The ridge systems of the classes: rows [B, N, K*r, d], penalty [B, N], rho, gate."""
        maps, counts, gate = learned
        positions, d = maps.shape[3:]
        penalty = counts.to(self.alpha.dtype) * positions / d * self.alpha.exp() + FLOOR
        return maps.flatten(2, 3), self.divisor(maps) * penalty, self.beta.exp(), gate

    def divisor(self, maps: Tensor) -> int:
        """Dividing all features [..., d] by sqrt(d) is multiplying the penalty by d and dividing the distances by d."""
        return maps.shape[-1] if self.divide else 1

    def auxiliary(self, support: Tensor, labels: Tensor, way: int) -> Tensor:
        """A loss that turns the descriptors of different classes away from each other, mean over the tasks.

        With S_i the supports of class i, the paper sums |S_i S_j^T|_F^2 over pairs of classes with rows of length 1.
        `official` divides S by its norm over all classes instead, as the published code does: some (N m)^2 times
        less, hardly any loss.  `mean` is the mean squared cosine between descriptors of different classes.
        """
        if self.auxiliary_loss == "off":
            return support.new_zeros(())
        grouped, counts = by_class(support, labels, way)
        rows = grouped.flatten(2, 3)
        if self.auxiliary_loss == "official":
            shares = overlap(rows / torch.linalg.vector_norm(rows, dim=(1, 2, 3), keepdim=True))
        else:
            present = (counts * support.shape[2]).to(rows.dtype)
            cosines = overlap(F.normalize(rows, dim=-1) / present.sqrt()[..., None, None])
            shares = cosines / max(way * (way - 1) / 2, 1)
        return self.auxiliary_weight * shares.mean()

    def class_matrix(self, classes: int, r: int, d: int) -> FRNClassMatrix:
        """The head of pre-training, whose scale is this one's."""
        matrix = FRNClassMatrix(classes, r, d, form=self.form, divide=self.divide)
        matrix.scale = self.scale
        return matrix


class FRNClassMatrix(nn.Module):
    """The head of pre-training: a learned matrix of r descriptors for each training class, N(0, 1) at first.

    Its scale goes on in the `FRNHead` of episodic training; the matrices are thrown away.  divide: as there, of the
    features, but not of the matrices.
    """

    def __init__(self, classes: int, r: int, d: int, *, form: Form = "auto", divide: bool = True) -> None:
        super().__init__()
        self.form: Form = form
        self.divide = divide
        self.matrices = nn.Parameter(torch.randn(classes, r, d))
        self.scale = nn.Parameter(torch.ones(()))

    def forward(self, features: Tensor) -> Tensor:
        """Maps [n, r, d] -> logits [n, classes]."""
        classes, r, d = self.matrices.shape
        penalty = self.matrices.new_full((1, classes), r / d + FLOOR)
        one = self.matrices.new_ones(())
        found = distances(features.unsqueeze(0), self.matrices.unsqueeze(0), penalty, one, form=self.form)
        return -self.scale / (d if self.divide else 1) * found.squeeze(0)


@part(METHODS, "frn")
def FRN(
    backbone: nn.Module,
    *,
    form: Form = "auto",
    divide: bool = True,
    auxiliary: Auxiliary = "official",
    auxiliary_weight: float = 0.03,
) -> Metric:
    """FRN over a backbone with feature maps; options as those of `FRNHead`."""
    head = FRNHead(form=form, divide=divide, auxiliary_loss=auxiliary, auxiliary_weight=auxiliary_weight)
    return Metric(backbone, head, maps=True)


@full_precision
def overlap(rows: Tensor) -> Tensor:
    """Sum of |S_i S_j^T|_F^2 over pairs i < j of the classes of a task: S [B, N, m, d] -> [B]."""
    return (_gram_squares(rows.flatten(1, 2)) - _gram_squares(rows).sum(1)) / 2


def _gram_squares(rows: Tensor) -> Tensor:
    """|S S^T|_F^2 = |S^T S|_F^2, by the smaller of the two: S [..., m, d] -> [...]."""
    gram = rows.mT @ rows if rows.shape[-2] > rows.shape[-1] else rows @ rows.mT
    return gram.square().sum((-2, -1))
