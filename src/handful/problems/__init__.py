"""Problems: what x and y are, how tasks are drawn, the loss, the metric, and the floors."""

from __future__ import annotations

from typing import Protocol

from torch import Tensor

from handful.data.augment import Augment
from handful.data.dataset import Data, Split
from handful.episodes import Episode, Sampler
from handful.errors import HandfulError
from handful.problems.classification import Classification
from handful.problems.regression import Regression

__all__ = ["PROBLEMS", "Classification", "Problem", "Regression", "problem_of"]


class Problem(Protocol):
    """What a method needs to know of a problem."""

    name: str
    metric: str

    def sampler(
        self, split: Split, way: int, shot: int, query: int, seed: int = 0, augment: Augment = "none"
    ) -> Sampler:
        """Draws the tasks of a split; raises HandfulError for data of another problem, or with too little in it."""

    def outputs(self, way: int) -> int:
        """Number of outputs that a model of an N-way task needs."""

    def loss(self, predictions: Tensor, targets: Tensor) -> Tensor:
        """Loss of each task: predictions [B, n, ...], targets [B, n, ...] -> [B]."""

    def score(self, predictions: Tensor, targets: Tensor) -> Tensor:
        """The metric of each task: predictions [..., B, n, ...], targets [B, n, ...] -> [..., B]."""

    def floors(self, episode: Episode) -> dict[str, Tensor]:
        """Scores [B] of predictors that learned nothing, by name."""


PROBLEMS: dict[str, type[Problem]] = {"classification": Classification, "regression": Regression}


def problem_of(data: Data) -> Problem:
    """The problem that a data set poses.  Raises HandfulError for one that nothing is trained on yet."""
    if data.problem not in PROBLEMS:
        raise HandfulError(f"{data.name!r} is data of {data.problem}, which no method learns yet; choose other data.")
    return PROBLEMS[data.problem]()
