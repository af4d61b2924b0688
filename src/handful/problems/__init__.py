"""Problems: what x and y are, how tasks are drawn, the loss, the metric, and the floors."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Protocol

from torch import Tensor, nn

from handful.data.augment import Augment
from handful.data.dataset import Data, Split
from handful.episodes import Episode, Examples, Sampler
from handful.errors import HandfulError
from handful.problems.classification import Classification
from handful.problems.rail_lines import RailLines
from handful.problems.regression import Regression
from handful.problems.video_anomaly import VideoAnomaly

__all__ = ["PROBLEMS", "Classification", "Problem", "RailLines", "Regression", "VideoAnomaly", "problem_of"]


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

    def examples(self, split: Split, seed: int, augment: Augment) -> Examples:
        """Draws inputs for ordinary training; raises HandfulError where there is none."""

    def network(self, backbone: nn.Module, outputs: int) -> tuple[nn.Module, nn.Module]:
        """What a gradient-based method adapts, one after the other: the body, and the head on its features."""

    def loss(self, predictions: Tensor, targets: Tensor) -> Tensor:
        """Loss of each task: predictions [B, n, ...], targets [B, n, ...] -> [B]."""

    def score(self, predictions: Tensor, targets: Tensor) -> Tensor:
        """The metric of each task: predictions [..., B, n, ...], targets [B, n, ...] -> [..., B]."""

    def measures(self, predictions: Tensor, targets: Tensor) -> dict[str, Tensor]:
        """Further figures of each task beside the metric, by name: predictions [B, n, ...] -> [B]."""

    def floors(self, episode: Episode) -> dict[str, dict[str, Tensor]]:
        """What predictors that learned nothing score, by name: the metric and further figures, [B] each."""


PROBLEMS: dict[str, type[Problem]] = {
    "classification": Classification,
    "regression": Regression,
    "rail_lines": RailLines,
    "video_anomaly": VideoAnomaly,
}
DECODED: dict[str, type[RailLines] | type[VideoAnomaly]] = {"rail_lines": RailLines, "video_anomaly": VideoAnomaly}


def problem_of(data: Data, decoder: Mapping[str, Any] | None = None) -> Problem:
    """The problem that a data set poses; decoder: of one whose answer is more than a class or a number,
    by its name and options.

    Raises HandfulError for one that nothing is trained on yet, and for a decoder where there is none.
    """
    if data.problem not in PROBLEMS:
        raise HandfulError(f"{data.name!r} is data of {data.problem}, which no method learns yet; choose other data.")
    if data.problem in DECODED:
        return DECODED[data.problem](decoder)
    if decoder is not None:
        raise HandfulError(
            f"A decoder is for rail lines and video anomalies, and {data.name!r} is data of {data.problem}; leave it "
            "out."
        )
    return PROBLEMS[data.problem]()
