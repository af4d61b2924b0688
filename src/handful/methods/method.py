"""What training, evaluation and fit ask of a method."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor, nn

from handful.data.dataset import Split
from handful.episodes import Episode
from handful.inner_loop import NormStats
from handful.problems import Classification, Problem


class Outcome(NamedTuple):
    """What meta-training needs of a batch of tasks: the loss to descend (a scalar) and the score of each task [B]."""

    loss: Tensor
    score: Tensor


class Method(nn.Module, ABC):
    """Turns a support set into a predictor.  `network` holds the backbone, and a head where the method has one."""

    network: nn.Module
    norm_stats: NormStats
    inner_steps: int
    inductive: NormStats = "support"  # whose statistics judge each query by itself, as a fitted model does
    divisible = True  # whether a step's tasks may be taken in parts: no batch norm sees all of them together
    episodic = True  # whether anything is learned from episodes
    mixed = True  # whether episodes may be learned from in mixed precision

    def __init__(self) -> None:
        super().__init__()
        self.problem: Problem = Classification()  # the data's problem, once it is known
        self.outer_step = 0  # how far meta-training is
        self.backprops: tuple[str, ...] = ("graph",)  # ways back through the inner loop, the fastest first
        self.backprop = "graph"  # the one that is taken
        self.passing: list[str] = []  # how several tasks are passed: what is not known to fail, the fastest first
        self.chunk: int | None = None  # tasks whose graph is held at a time, all if None

    def side_by_side(self, episode: Episode) -> int:
        """How many tasks of a batch are held in memory together."""
        return min(self.chunk or len(episode.support_x), len(episode.support_x))

    @abstractmethod
    def attach_head(self, outputs: int) -> None:
        """Prepare for tasks of this many outputs; refuse a number that the trained head cannot give."""

    @abstractmethod
    def forward(self, episode: Episode) -> Outcome:
        """Meta-training: the query loss of a batch of tasks, with its graph."""

    @abstractmethod
    def predict(
        self,
        episode: Episode,
        inner_steps: int | None = None,
        norm_stats: NormStats | None = None,
        every_step: bool = True,
    ) -> Tensor:
        """Query predictions after 0, 1, ..., S inner steps, [S+1, B, N*Q, ...]; no graph, nothing changed.

        every_step: if not, those after the last step alone, [1, B, N*Q, ...].
        """

    @abstractmethod
    def fit(self, support_x: Tensor, support_y: Tensor, inner_steps: int | None = None) -> nn.Module:
        """An ordinary network in eval mode, for one support set: inputs [n, ...], targets [n, ...]."""

    @abstractmethod
    def unfitted(self, shots: Sequence[int]) -> nn.Module:
        """The network that `fit` returns for this many images of each class, to load a saved one's weights into."""

    def kept(self) -> list[Tensor]:
        """Buffers that every task of a step moves, and that end it at the mean over its tasks."""
        return []

    def prepare(self, split: Split) -> None:
        """Learn from the training split what takes no training, after pre-training and before episodes."""

    def learned_rates(self) -> dict[str, Tensor]:
        """Parameter name -> its learned inner step size: one number, one a step [S], or one an entry."""
        return {}

    @property
    def backbone(self) -> nn.Module:
        """The backbone."""
        return self.network.get_submodule("backbone")

    @property
    def device(self) -> torch.device:
        """Where the weights are."""
        return next(self.parameters()).device
