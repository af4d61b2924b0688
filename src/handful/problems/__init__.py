"""Problems: what x and y are, the loss, the metric, and the floors."""

from __future__ import annotations

from typing import Protocol

from torch import Tensor

from handful.episodes import Episode
from handful.problems.classification import Classification

__all__ = ["Classification", "Problem"]


class Problem(Protocol):
    """What a method needs to know of a problem."""

    name: str
    metric: str

    def outputs(self, way: int) -> int:
        """Number of outputs that a model of an N-way task needs."""

    def loss(self, predictions: Tensor, targets: Tensor) -> Tensor:
        """Loss of each task: predictions [B, n, ...], targets [B, n, ...] -> [B]."""

    def score(self, predictions: Tensor, targets: Tensor) -> Tensor:
        """The metric of each task: predictions [..., B, n, ...], targets [B, n, ...] -> [..., B]."""

    def floors(self, episode: Episode) -> dict[str, Tensor]:
        """Scores [B] of predictors that learned nothing, by name."""
