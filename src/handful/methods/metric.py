"""Metric methods: embed every image once; a head compares the features of the queries with those of the support.

A head works on the features of B tasks: [.., d], or [.., r, d] where it compares feature maps (the r positions of a map
are rows).  Supports may be unbalanced and in any order.  It may have a loss of its own, `loss(logits, query_y) -> [B]`,
and add another, `auxiliary(support, labels, way) -> scalar`; `centre` [d] is a buffer that is set to the mean feature
of the training classes.

Batch norm is used as in ordinary training: statistics of the step's images while training, the running ones after
that, so these methods are inductive.  In mixed precision the backbone alone computes in bfloat16.
"""

from __future__ import annotations

import copy
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Sequence
from typing import Any, Generic, TypeVar

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from handful.data.dataset import Split
from handful.data.store import ClassSplit
from handful.decoders.linear import features_of
from handful.embedders import Embed, Output, embedder
from handful.episodes import Episode
from handful.errors import HandfulError
from handful.inner_loop import NormStats, evaluating
from handful.layout import laid_out
from handful.methods.method import Method, Outcome
from handful.methods.precision import full_precision
from handful.problems import Classification

IMAGES = 1024  # taken from a split at a time

Learned = TypeVar("Learned")


class Head(nn.Module, ABC, Generic[Learned]):
    """Learns the classes of a task from its supports, and judges queries by what it learned."""

    @abstractmethod
    def learn(self, support: Tensor, labels: Tensor, way: int) -> Learned:
        """What supports [B, S, ...] with labels [B, S] say of the N classes."""

    @abstractmethod
    def judge(self, query: Tensor, learned: Learned) -> Tensor:
        """Queries [B, Q, ...] -> logits [B, Q, N]."""

    def settled(self, support: Tensor, labels: Tensor, way: int) -> Learned:
        """The same, with all worked out that no query changes: for a model that learns once and judges often."""
        return self.learn(support, labels, way)

    def forward(self, support: Tensor, labels: Tensor, query: Tensor, way: int) -> Tensor:
        """Both: supports [B, S, ...] with labels [B, S], queries [B, Q, ...] -> logits [B, Q, N]."""
        return self.judge(query, self.learn(support, labels, way))


class Metric(Method):
    """A backbone and a head that compares its features.

    maps: whether the head takes feature maps instead of feature vectors.
    """

    inductive: NormStats = "running"
    divisible = False  # batch norm sees all tasks of a step together

    def __init__(self, backbone: nn.Module, head: Head[Any], *, maps: bool = False) -> None:
        super().__init__()
        if maps and not hasattr(backbone, "maps"):
            raise HandfulError(
                f"This method compares feature maps, and the backbone {type(backbone).__name__} has none; it needs "
                "`maps(images)` and `map_shape`, as conv4 and resnet12 have."
            )
        self.network = nn.Sequential()
        self.network.add_module("backbone", backbone)
        self.network.add_module("head", head)
        self.maps = maps
        self.norm_stats: NormStats = "running"
        self.inner_steps = 0
        self.episodic = getattr(head, "episodic", True)

    @property
    def head(self) -> Any:
        """The head."""
        return self.network.get_submodule("head")

    def attach_head(self, outputs: int) -> None:
        """Nothing to prepare: the support says how many classes there are."""
        if not isinstance(self.problem, Classification):
            raise HandfulError(
                f"A method that compares features names classes, but the problem is {self.problem.name}; use maml."
            )

    def forward(self, episode: Episode) -> Outcome:
        """The query loss of a batch of tasks."""
        support, query = self._features(episode)
        return self.outcome(support, episode.support_y, query, episode.query_y)

    @full_precision
    def outcome(self, support: Tensor, support_y: Tensor, query: Tensor, query_y: Tensor) -> Outcome:
        """The same from features, [B, S, ...] and [B, Q, ...], and labels, [B, S] and [B, Q]."""
        logits = self.compare(support, support_y, query)
        loss = self.head.loss if hasattr(self.head, "loss") else self.problem.loss
        total = loss(logits, query_y).mean()
        if hasattr(self.head, "auxiliary"):
            total = total + self.head.auxiliary(support, support_y, logits.shape[-1])
        with torch.no_grad():
            return Outcome(total, self.problem.score(logits, query_y))

    def predict(
        self,
        episode: Episode,
        inner_steps: int | None = None,
        norm_stats: NormStats | None = None,
        every_step: bool = True,
    ) -> Tensor:
        """Logits of the queries, [1, B, N*Q, N]: there are no inner steps to look at."""
        if inner_steps:
            raise HandfulError(f"inner_steps is {inner_steps}, but this method takes no gradient steps; leave it out.")
        if norm_stats not in (None, "running"):
            raise HandfulError(f"norm_stats is {norm_stats!r}, but this method uses running statistics; leave it out.")
        with evaluating(self.network), torch.no_grad():
            support, query = self._features(episode)
            return self.compare(support, episode.support_y, query)[None]

    def compare(self, support: Tensor, labels: Tensor, query: Tensor) -> Tensor:
        """Features of B tasks, [B, S, ...] and [B, Q, ...], and labels [B, S] -> logits [B, Q, N]."""
        logits: Tensor = self.head(support, labels, query, int(labels.max()) + 1)
        return logits

    def embed(self, images: Tensor) -> Tensor:
        """Images [n, C, H, W] in [0, 1] -> features [n, d], or [n, r, d] if the head takes maps."""
        return embed(self.backbone, images, self.maps)

    def embedder(self) -> Callable[[Tensor], Tensor]:
        """Images [n, C, H, W], uint8 or in [0, 1] -> features as `embed` gives them, without a graph, and quicker."""
        return embedding(self.backbone, self.maps)

    def embedded(self, split: ClassSplit, ids: NDArray[np.int64]) -> Iterator[Tensor]:
        """Features of images by id, in order, some at a time."""
        run = self.embedder()
        for part in np.array_split(ids, -(-len(ids) // IMAGES)):
            yield run(split.fetch(part, self.device))

    def prepare(self, split: Split) -> None:
        """Set a head's `centre` to the mean feature of all images of the training classes."""
        if not (hasattr(self.head, "centre") and isinstance(split, ClassSplit)):
            return
        total = torch.zeros_like(self.head.centre, dtype=torch.float64)
        for features in self.embedded(split, split.ids):
            total += features.sum(0)
        self.head.centre.copy_(total / len(split.ids))

    def fit(self, support_x: Tensor, support_y: Tensor, inner_steps: int | None = None) -> nn.Module:
        """A network that holds the features of one support set: images [n, C, H, W], classes [n]."""
        return self.fitted(self.embedder()(support_x), support_y)

    def fitted(self, features: Tensor, labels: Tensor) -> Fitted:
        """The same from features [n, ...]."""
        network = self.unfitted(torch.bincount(labels).tolist())
        network.support.copy_(features)
        network.labels.copy_(labels)
        return network.requires_grad_(False)

    def unfitted(self, shots: Sequence[int]) -> Fitted:
        """The network that `fit` returns for so many images of each class, with no features in it."""
        backbone, head = copy.deepcopy(self.backbone).cpu(), copy.deepcopy(self.head).cpu()
        return Fitted(backbone, head, self.maps, sum(shots), len(shots)).eval()

    @property
    def feature_shape(self) -> tuple[int, ...]:
        """Of one image: (d,), or (r, d)."""
        return feature_shape(self.backbone, self.maps)

    def _features(self, episode: Episode) -> tuple[Tensor, Tensor]:
        """Of the support and of the queries, [B, S, ...] and [B, Q, ...], in one pass."""
        images = torch.cat([episode.support_x, episode.query_x], 1)
        features = self.embed(images.flatten(0, 1)).unflatten(0, images.shape[:2])
        support = episode.support_x.shape[1]
        return features[:, :support], features[:, support:]


class Fitted(nn.Module):
    """images [n, C, H, W] -> logits [n, N], by the features of a support set that is part of it."""

    support: Tensor
    labels: Tensor

    def __init__(self, backbone: nn.Module, head: Head[Any], maps: bool, images: int, way: int) -> None:
        super().__init__()
        self.backbone, self.head, self.maps, self.way = backbone, head, maps, way
        self.register_buffer("support", torch.zeros(images, *feature_shape(backbone, maps)))
        self.register_buffer("labels", torch.zeros(images, dtype=torch.long))

    def forward(self, images: Tensor) -> Tensor:
        """Each image is judged by itself."""
        return self.head.judge(embed(self.backbone, images, self.maps)[None], self.learn())[0]

    def learn(self) -> Any:
        """What the head learns from the support set."""
        return self.head.settled(self.support[None], self.labels[None], self.way)


def embed(backbone: Any, images: Tensor, maps: bool) -> Tensor:
    """Images [n, C, H, W] -> features [n, d], or the positions of the feature map as rows, [n, r, d]."""
    images = laid_out(images)  # the layers follow: each lays its output out as its input is
    features: Tensor = rows(backbone.maps(images)) if maps else backbone(images)
    return features


def embedding(
    backbone: nn.Module, maps: bool, by: Callable[[nn.Module, Output], Embed] = embedder
) -> Callable[[Tensor], Tensor]:
    """A function that embeds as `embed` does, images of uint8 too, without a graph, and quicker.

    by: makes it, of the backbone and what is wanted of it.
    """
    run = by(backbone, "maps" if maps else "features")
    return (lambda images: rows(run(images))) if maps else run


def rows(maps: Tensor) -> Tensor:
    """The positions of feature maps as rows: [n, d, h, w] -> [n, h*w, d]."""
    return maps.flatten(2).mT.contiguous()


def feature_shape(backbone: Any, maps: bool) -> tuple[int, ...]:
    """(d,), or (r, d) of a feature map."""
    if not maps:
        return (features_of(backbone),)
    channels, height, width = backbone.map_shape
    return height * width, channels
