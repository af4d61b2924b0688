"""Logistic regression on a task's support: the linear head that Tian et al. found hard to beat on good features.

Tian, Wang, Krishnan, Tenenbaum, Isola: Rethinking Few-Shot Image Classification: a Good Embedding Is All You Need?,
ECCV 2020, arXiv 2003.11539.

    W, b = argmin  mean over classes of the mean cross-entropy of their supports  +  |W|^2 / (2 C n)

on features of unit length, solved by scikit-learn (L-BFGS) to its end; n supports, C the strength of the published
code (1).  Nothing is learned through it, so it is for a backbone that stays as it is.
"""

from __future__ import annotations

import warnings

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from handful.errors import HandfulError
from handful.methods.metric import Head, Metric
from handful.registry import METHODS, part

STEPS = 1000


class LogisticHead(Head[Tensor]):
    """Logits of queries by logistic regression on the supports; classes count alike.

    strength: C, of the data against the weights' length.  Raises HandfulError where it is not above 0.
    """

    episodic = False

    def __init__(self, strength: float) -> None:
        super().__init__()
        if strength <= 0:
            raise HandfulError(f"The strength of logistic regression is {strength}, but it has to be above 0; try 1.")
        self.strength = strength

    def learn(self, support: Tensor, labels: Tensor, way: int) -> Tensor:
        """Supports [B, S, ...] with labels [B, S] -> W and b, [B, N, e + 1]; maps are flattened."""
        rows = self.rows(support.detach())
        return torch.stack([self.solved(x, y, way) for x, y in zip(rows, labels)]).to(support)

    def solved(self, x: Tensor, y: Tensor, way: int) -> Tensor:
        """Of one task: [S, e], [S] -> [N, e + 1]."""
        from sklearn.exceptions import ConvergenceWarning  # here: it takes a second to import
        from sklearn.linear_model import LogisticRegression

        if way == 1:  # there is nothing to tell apart
            return x.new_zeros(1, x.shape[1] + 1)
        strength = self.strength * (2 if way == 2 else 1)  # of two classes it solves for W_1 - W_0 alone
        solver = LogisticRegression(C=strength, class_weight="balanced", max_iter=STEPS)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", ConvergenceWarning)  # what it has after so many steps will do
            solver.fit(x.double().cpu().numpy(), y.cpu().numpy())
        found = torch.cat([torch.from_numpy(solver.coef_), torch.from_numpy(solver.intercept_)[:, None]], 1)
        return found if way > 2 else torch.cat([-found, found]) / 2

    def judge(self, query: Tensor, weights: Tensor) -> Tensor:
        """Queries [B, Q, ...], W and b -> logits [B, Q, N]."""
        return F.pad(self.rows(query), (0, 1), value=1.0).to(weights.dtype) @ weights.mT

    def rows(self, features: Tensor) -> Tensor:
        """[B, n, ...] -> [B, n, e], of unit length."""
        return F.normalize(features.flatten(2), dim=-1)


@part(METHODS, "logistic")
def Logistic(backbone: nn.Module, *, strength: float = 1.0) -> Metric:
    """Logistic regression; for a backbone that stays as it is or is pre-trained (`pretrain`, `train.steps: 0`)."""
    return Metric(backbone, LogisticHead(strength))
