"""Regression: x is a point [D], y a value [1]; the metric is the mean squared error."""

from __future__ import annotations

from torch import Tensor, nn

from handful.data.augment import Augment
from handful.data.dataset import Split
from handful.data.functions import FunctionSplit
from handful.decoders.linear import linear_head
from handful.episodes import Episode, Examples, FunctionSampler
from handful.errors import HandfulError


class Regression:
    """Fitting the values of a function from a few of its points."""

    name = "regression"
    metric = "mean_squared_error"

    def sampler(
        self, split: Split, way: int, shot: int, query: int, seed: int = 0, augment: Augment = "none"
    ) -> FunctionSampler:
        """Tasks of one function each, from a family of functions."""
        if not isinstance(split, FunctionSplit):
            raise HandfulError(f"Regression needs functions, but the data set {split.data.name!r} holds none.")
        if way != 1:
            raise HandfulError(f"A regression task is one function, so way must be 1, not {way}.")
        if augment != "none":
            raise HandfulError(f"augment varies images, and {split.data.name!r} has none: set it to none.")
        return FunctionSampler(split, shot, query, seed)

    def examples(self, split: Split, seed: int, augment: Augment) -> Examples:
        """There are none: what two functions share is learned from tasks."""
        raise HandfulError(
            f"pretrain classifies images, and the data set {split.data.name!r} holds none; leave it out."
        )

    def outputs(self, way: int) -> int:
        """A head has one unit, the value."""
        return 1

    def network(self, backbone: nn.Module, outputs: int) -> tuple[nn.Module, nn.Module]:
        """The backbone, and a linear head on its features."""
        return backbone, linear_head(backbone, outputs)

    def loss(self, predictions: Tensor, targets: Tensor) -> Tensor:
        """Mean squared error a task: predictions and targets [B, n, ...] -> [B]."""
        return (predictions - targets).square().flatten(1).mean(1)

    def score(self, predictions: Tensor, targets: Tensor) -> Tensor:
        """The same of any number of predictions: [..., B, n, ...] and targets [B, n, ...] -> [..., B]."""
        squares = (predictions - targets).double().square()
        return squares.flatten(squares.dim() - targets.dim() + 1).mean(-1)

    def measures(self, predictions: Tensor, targets: Tensor) -> dict[str, Tensor]:
        """The mean squared error says it all."""
        return {}

    def floors(self, episode: Episode) -> dict[str, dict[str, Tensor]]:
        """What a predictor that learned nothing scores on the same tasks, [B]: `support mean` says the mean y."""
        mean = episode.support_y.mean(1, keepdim=True)
        return {"support mean": {self.metric: self.score(mean.expand_as(episode.query_y), episode.query_y)}}
