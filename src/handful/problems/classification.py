"""Classification: x is an image [C, H, W], y a class index; the metric is accuracy."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from handful.data.augment import Augment
from handful.data.dataset import Split
from handful.data.store import ClassSplit
from handful.episodes import Episode, EpisodeSampler
from handful.errors import HandfulError


class Classification:
    """N-way classification of images."""

    name = "classification"
    metric = "accuracy"

    def sampler(
        self, split: Split, way: int, shot: int, query: int, seed: int = 0, augment: Augment = "none"
    ) -> EpisodeSampler:
        """N-way tasks of the images of a split."""
        if not isinstance(split, ClassSplit):
            raise HandfulError(
                f"Classification needs images with classes, but the data set {split.data.name!r} holds none."
            )
        return EpisodeSampler(split, way, shot, query, seed, augment)

    def outputs(self, way: int) -> int:
        """A head for N classes has N units."""
        return way

    def loss(self, predictions: Tensor, targets: Tensor) -> Tensor:
        """Mean cross-entropy a task: logits [B, n, N], classes [B, n] -> [B]."""
        losses = F.cross_entropy(predictions.flatten(0, 1), targets.flatten(), reduction="none")
        return losses.view(targets.shape).mean(1)

    def score(self, predictions: Tensor, targets: Tensor) -> Tensor:
        """Accuracy a task: logits [..., B, n, N], classes [B, n] -> [..., B]."""
        return (predictions.argmax(-1) == targets).double().mean(-1)

    def floors(self, episode: Episode) -> dict[str, Tensor]:
        """What predictors that learned nothing score on the same tasks, [B] each.

        `chance` guesses; `pixel class mean` names the class whose mean support image is nearest in pixels.
        """
        way = int(episode.support_y.max()) + 1
        support, query = episode.support_x.flatten(2), episode.query_x.flatten(2)
        member = F.one_hot(episode.support_y, way).to(support.dtype)
        means = member.mT @ support / member.sum(1).unsqueeze(-1)  # [B, N, D]
        # |q - m|^2 without the term that all classes share
        scores = 2 * query @ means.mT - means.square().sum(-1).unsqueeze(1)
        return {
            "chance": torch.full((len(query),), 1 / way, dtype=torch.float64),
            "pixel class mean": self.score(scores, episode.query_y),
        }
