"""R2-D2: a linear head that solves ridge regression on the support set; and the same for features as they are.

Bertinetto, Henriques, Torr, Vedaldi: Meta-Learning with Differentiable Closed-Form Solvers, ICLR 2019,
arXiv 1805.08136.

X [n, e+1] are the supports' features with a column of ones, Y [n, N] their classes, one-hot:

    weights:  W = argmin |X W - Y|^2 / n + penalty |W|^2
                = X^T (X X^T + n penalty I_n)^-1 Y = (X^T X + n penalty I_{e+1})^-1 X^T Y
    logits:   scale [q; 1] W + offset

The first form of W costs n^3 and the second e^3; the smaller is taken.  The bias is penalised like the weights.  The
published code divides X and Y by sqrt(n), which is the mean in the first line.

R2-D2 learns a backbone for this head.  `ridge` is for one that stays as it is: each feature vector is divided by its
length, so that one penalty suits all backbones, and classes count alike.
"""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from handful.errors import HandfulError
from handful.methods.grouping import membership
from handful.methods.linear_algebra import ridge_factor
from handful.methods.metric import Head, Metric
from handful.methods.precision import full_precision
from handful.registry import METHODS, part


class RidgeHead(Head[Tensor]):
    """Logits of queries by ridge regression on the supports, for any ways and shots.

    penalty: 50 in the published code; learn_penalty: go on from it, as the paper has it; scale: what the learned scale
    starts from, published as 1e-4 for mini-ImageNet and 10 for Omniglot and CIFAR; unit_length: divide each feature
    vector by its length; balanced: let each class count as much as any other, however many supports it has.  Raises
    HandfulError for a penalty that is not above 0.
    """

    def __init__(
        self,
        *,
        penalty: float = 50.0,
        learn_penalty: bool = False,
        scale: float = 1.0,
        unit_length: bool = False,
        balanced: bool = False,
    ) -> None:
        super().__init__()
        if penalty <= 0:
            raise HandfulError(f"The ridge penalty is {penalty}, but it has to be above 0; the published one is 50.")
        self.unit_length, self.balanced = unit_length, balanced
        self.log_penalty = nn.Parameter(torch.tensor(math.log(penalty)), requires_grad=learn_penalty)
        self.scale = nn.Parameter(torch.tensor(float(scale)))
        self.offset = nn.Parameter(torch.zeros(()))

    def learn(self, support: Tensor, labels: Tensor, way: int) -> Tensor:
        """Supports [B, S, ...] with labels [B, S] -> W [B, e+1, N]; maps are flattened."""
        x, y = self.rows(support), membership(labels, way).to(self.scale.dtype)
        if self.balanced:  # the square of a support counts n / (N n_class) times
            weights = (y / y.sum(1, keepdim=True)).sum(2, keepdim=True) * labels.shape[1] / way
            x, y = weights.sqrt() * x, weights.sqrt() * y
        return ridge_weights(x, y, self.log_penalty.exp())

    def judge(self, query: Tensor, weights: Tensor) -> Tensor:
        """Queries [B, Q, ...], W -> logits [B, Q, N]."""
        return self.scale * (self.rows(query).to(weights.dtype) @ weights) + self.offset

    def rows(self, features: Tensor) -> Tensor:
        """[B, n, ...] -> [B, n, e + 1], with ones at the end."""
        flat = features.flatten(2)
        return F.pad(F.normalize(flat, dim=-1) if self.unit_length else flat, (0, 1), value=1.0)


@part(METHODS, "r2d2")
def R2D2(backbone: nn.Module, *, penalty: float = 50.0, learn_penalty: bool = False, scale: float = 1.0) -> Metric:
    """R2-D2 over any backbone; options as those of `RidgeHead`."""
    return Metric(backbone, RidgeHead(penalty=penalty, learn_penalty=learn_penalty, scale=scale))


@part(METHODS, "ridge")
def Ridge(backbone: nn.Module, *, penalty: float = 1e-3, scale: float = 10.0) -> Metric:
    """Ridge regression on unit-length features, for a backbone that stays as it is (`train.steps: 0`)."""
    return Metric(backbone, RidgeHead(penalty=penalty, scale=scale, unit_length=True, balanced=True))


@full_precision
def ridge_weights(x: Tensor, y: Tensor, penalty: Tensor) -> Tensor:
    """argmin |x W - y|^2 / n + penalty |W|^2: x [B, n, e], y [B, n, N], penalty a number -> [B, e, N].

    Raises HandfulError if the penalty is lost in rounding.
    """
    n, e = x.shape[1:]
    if n <= e:
        return x.mT @ torch.cholesky_solve(y, ridge_factor(x @ x.mT, n * penalty))
    return torch.cholesky_solve(x.mT @ y, ridge_factor(x.mT @ x, n * penalty))
