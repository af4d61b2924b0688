"""Classification: x is an image [C, H, W], y a class index; the metric is accuracy."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from handful.data.augment import Augment
from handful.data.dataset import Split
from handful.data.store import ClassSplit
from handful.decoders.linear import linear_head
from handful.episodes import Episode, EpisodeSampler, ImageSampler
from handful.errors import HandfulError


class Classification:
    """N-way classification of images."""

    name = "classification"
    metric = "accuracy"

    def sampler(
        self, split: Split, way: int, shot: int, query: int, seed: int = 0, augment: Augment = "none"
    ) -> EpisodeSampler:
        """N-way tasks of the images of a split."""
        return EpisodeSampler(classes_of(split), way, shot, query, seed, augment)

    def examples(self, split: Split, seed: int, augment: Augment) -> ImageSampler:
        """Images of the training classes."""
        return ImageSampler(classes_of(split), seed, augment)

    def outputs(self, way: int) -> int:
        """A head for N classes has N units."""
        return way

    def network(self, backbone: nn.Module, outputs: int) -> tuple[nn.Module, nn.Module]:
        """The backbone, and a linear head on its features."""
        return backbone, linear_head(backbone, outputs)

    def loss(self, predictions: Tensor, targets: Tensor) -> Tensor:
        """Mean cross-entropy a task: logits [B, n, N], classes [B, n] -> [B]."""
        losses = F.cross_entropy(predictions.flatten(0, 1), targets.flatten(), reduction="none")
        return losses.view(targets.shape).mean(1)

    def score(self, predictions: Tensor, targets: Tensor) -> Tensor:
        """Accuracy a task: logits [..., B, n, N], classes [B, n] -> [..., B]."""
        return (predictions.argmax(-1) == targets).double().mean(-1)

    def measures(self, predictions: Tensor, targets: Tensor) -> dict[str, Tensor]:
        """The accuracy says it all."""
        return {}

    def floors(self, episode: Episode) -> dict[str, dict[str, Tensor]]:
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
            "chance": {self.metric: torch.full((len(query),), 1 / way, dtype=torch.float64)},
            "pixel class mean": {self.metric: self.score(scores, episode.query_y)},
        }


def classes_of(split: Split) -> ClassSplit:
    """A split of images with classes; HandfulError for another."""
    if not isinstance(split, ClassSplit):
        raise HandfulError(
            f"Classification needs images with classes, but the data set {split.data.name!r} holds none."
        )
    return split
