"""Episodes (tasks): what makes up task number i, and the tensors of a batch of tasks.

Task i of an epoch is a function of (seed, epoch, i) and of nothing else: Philox is a counter-based generator, so each
task owns a block of its counter, and any process can draw any task without drawing the ones before it.  The tasks are
therefore the same for every number of workers, ranks and chunks.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from functools import cached_property
from typing import NamedTuple, Protocol

import numpy as np
import torch
from numpy.typing import NDArray

from handful.data.augment import AUGMENTATIONS, Augment, check_augment
from handful.data.dataset import Data
from handful.data.functions import PARAMETERS, FunctionSplit
from handful.data.store import CPU, ClassSplit
from handful.errors import HandfulError

PHILOX_BLOCK = 4  # numbers that one tick of the Philox counter yields


class Episode(NamedTuple):
    """A batch of B tasks, class-major: of the support rows of a task, i belongs to class i // shot.

    support_x [B, N*K, ...], support_y [B, N*K, ...], query_x [B, N*Q, ...], query_y [B, N*Q, ...].  Images are float
    in [0, 1].  Rows are flat, since supports need not be balanced; the class of a row is in `support_y`.
    """

    support_x: torch.Tensor
    support_y: torch.Tensor
    query_x: torch.Tensor
    query_y: torch.Tensor

    def to(self, device: torch.device) -> Episode:
        """The same tasks on another device."""
        return Episode(*(tensor.to(device, non_blocking=True) for tensor in self))

    def tasks(self, start: int, stop: int) -> Episode:
        """Tasks start to stop of the batch."""
        return Episode(*(tensor[start:stop] for tensor in self))


class Images(NamedTuple):
    """A batch of labelled images: x [n, C, H, W] float in [0, 1], y [n] the class in the split, or their rows."""

    x: torch.Tensor
    y: torch.Tensor


class Sampler(Protocol):
    """Draws the tasks of one split: the same ones in every process."""

    def episodes(self, start: int, stop: int, epoch: int = 0, device: torch.device = CPU) -> Episode:
        """Tasks number start to stop of an epoch, as tensors on a device: the same ones on each."""

    def task_hash(self, tasks: int, epoch: int = 0) -> str:
        """Names the first `tasks` tasks: two results with one hash were measured on the same tasks."""


class Examples(Protocol):
    """Draws inputs of one split for ordinary training, each with its answer."""

    @property
    def judged_by(self) -> Data:
        """The data whose validation tasks judge what these inputs teach."""

    def images(self, start: int, stop: int, device: torch.device = CPU) -> Images:
        """Inputs number start to stop of an endless sequence, as tensors on a device."""


class EpisodeIndices(NamedTuple):
    """Which images make up T tasks: classes [T, N] of the split, support ids [T, N, K], query ids [T, N, Q]."""

    classes: NDArray[np.int64]
    support: NDArray[np.int64]
    query: NDArray[np.int64]


@dataclass(frozen=True)
class EpisodeSampler:
    """Draws N-way K-shot Q-query tasks from a split of images: indices first, then pixels.

    Classes and images are drawn uniformly and without replacement.  The order of the classes is random too, so a task
    also permutes which output unit stands for which class (Finn et al. 2017: a head with one unit a class must not
    learn which unit means what).
    """

    split: ClassSplit
    way: int
    shot: int
    query: int
    seed: int = 0
    augment: Augment = "none"
    """How every image is varied (`handful.data.augment`): for training tasks."""

    def __post_init__(self) -> None:
        split, need = self.split, self.shot + self.query
        if min(self.way, self.shot, self.query) < 1:
            raise HandfulError(f"way, shot and query must be at least 1, not {self.way}, {self.shot}, {self.query}.")
        check_augment(self.augment)
        if self.way == 1:
            raise HandfulError("A 1-way task has nothing to tell apart; use way=2 or more.")
        if self.way > len(split):
            raise HandfulError(
                f"{self.way}-way tasks need {self.way} classes, but the {split.name} split of {split.data.name!r} has "
                f"{len(split)}; use way={len(split)} or less."
            )
        if (split.counts < need).any():
            index = int(np.argmax(split.counts < need))
            raise HandfulError(
                f"Class {split.class_name(index)!r} has {split.counts[index]} images, but {self.shot}-shot tasks with "
                f"{self.query} query images a class need {need}; lower shot or query, or remove the class."
            )

    def indices(self, start: int, stop: int, epoch: int = 0) -> EpisodeIndices:
        """Tasks number start to stop of an epoch, as indices."""
        way, drawn = self.way, self.shot + self.query
        numbers = self._uniform(start, stop, epoch, way + way * drawn, stream=0)
        classes = draw_without_replacement(numbers[:, :way], np.full(stop - start, len(self.split)))
        pick = numbers[:, way : way + way * drawn].reshape(-1, drawn)
        images = draw_without_replacement(pick, self.split.counts[classes.ravel()]).reshape(-1, way, drawn)
        images += self.split.starts[classes][..., None]
        return EpisodeIndices(classes, images[..., : self.shot], images[..., self.shot :])

    def episodes(self, start: int, stop: int, epoch: int = 0, device: torch.device = CPU) -> Episode:
        """Tasks number start to stop of an epoch, as tensors, gathered and varied on a device."""
        drawn = self.indices(start, stop, epoch)
        tasks = stop - start
        ids = (drawn.support.reshape(tasks, -1), drawn.query.reshape(tasks, -1))
        x = [self.split.fetch(part, device).float().div_(255) for part in ids]
        if self.augment != "none":
            images, varied = torch.cat(x, 1), AUGMENTATIONS[self.augment]
            numbers = self._uniform(start, stop, epoch, images.shape[1] * varied.draws, stream=1)
            images = varied.function(images.flatten(0, 1), numbers.reshape(-1, varied.draws)).view_as(images)
            x = list(images.split([part.shape[1] for part in x], 1))
        labels = torch.arange(self.way, device=device)
        y = [labels.repeat_interleave(count).expand(tasks, -1) for count in (self.shot, self.query)]
        return Episode(x[0], y[0], x[1], y[1])

    def _uniform(self, start: int, stop: int, epoch: int, count: int, stream: int) -> NDArray[np.float64]:
        return uniform(self.seed, epoch, stream, start, stop, count)

    def task_hash(self, tasks: int, epoch: int = 0) -> str:
        """Names the first `tasks` tasks and their pixels: two results with one hash were measured on the same tasks."""
        drawn = self.indices(0, tasks, epoch)
        digest = hashlib.sha256(self.split.data.digest.encode())
        for array in drawn:
            digest.update(np.ascontiguousarray(array).tobytes())
        return digest.hexdigest()[:16]


@dataclass(frozen=True)
class ImageSampler:
    """Draws labelled images of a split for ordinary training: every image once in each pass, in an order of its own."""

    split: ClassSplit
    seed: int = 0
    augment: Augment = "none"

    def __post_init__(self) -> None:
        check_augment(self.augment)

    @property
    def judged_by(self) -> Data:
        """The data that they are of."""
        return self.split.data

    def images(self, start: int, stop: int, device: torch.device = CPU) -> Images:
        """Images number start to stop of the endless sequence of passes, gathered and varied on a device."""
        ids, classes = self.split.at(self._passes.drawn(start, stop))
        x = self.split.fetch(ids, device).float().div_(255)
        if self.augment != "none":
            varied = AUGMENTATIONS[self.augment]
            x = varied.function(x, uniform(self.seed, 0, 3, start, stop, varied.draws))
        return Images(x, torch.from_numpy(classes).to(device))

    @cached_property
    def _passes(self) -> Passes:
        return Passes(self.split.size, self.seed, stream=2)


class Passes:
    """Passes without end over things number 0 to `count`, each thing once in each pass, in an order of its own.

    The order of a pass is kept until that of another is asked for: of a million things it takes longer to draw than
    many a step.
    """

    def __init__(self, count: int, seed: int, stream: int) -> None:
        self.count, self.seed, self.stream = count, seed, stream
        self._kept: tuple[int, NDArray[np.int64]] | None = None

    def drawn(self, start: int, stop: int) -> NDArray[np.int64]:
        """The things at the places start to stop of the sequence."""
        turns, places = np.divmod(np.arange(start, stop), self.count)
        return np.concatenate([self._order(turn)[places[turns == turn]] for turn in np.unique(turns).tolist()])

    def _order(self, turn: int) -> NDArray[np.int64]:
        if self._kept is None or self._kept[0] != turn:
            key, counter = np.array([self.seed, turn], np.uint64), np.array([0, 0, 0, self.stream], np.uint64)
            self._kept = turn, np.random.Generator(np.random.Philox(key=key, counter=counter)).permutation(self.count)
        return self._kept[1]


@dataclass(frozen=True)
class FunctionSampler:
    """Draws K-shot Q-query regression tasks: a function of the split, and K + Q points of it.

    A task draws its function once; support and query are samples of the same one.
    """

    split: FunctionSplit
    shot: int
    query: int
    seed: int = 0

    def __post_init__(self) -> None:
        check_counts(self.shot, self.query)

    def parameters(self, start: int, stop: int, epoch: int = 0) -> NDArray[np.float64]:
        """Which functions tasks number start to stop of an epoch are, [T, 2]."""
        return self.split.data.parameters(self._uniform(start, stop, epoch)[0])

    def episodes(self, start: int, stop: int, epoch: int = 0, device: torch.device = CPU) -> Episode:
        """Tasks number start to stop of an epoch, as float32 tensors [T, K or Q, 1]."""
        family, (drawn, *places) = self.split.data, self._uniform(start, stop, epoch)
        function = family.parameters(drawn)
        x = [family.points(place) for place in places]
        y = [family.value(function, points) for points in x]
        values = (torch.from_numpy(part).float().unsqueeze(-1) for part in (x[0], y[0], x[1], y[1]))
        return Episode(*values).to(device)

    def _uniform(self, start: int, stop: int, epoch: int) -> list[NDArray[np.float64]]:
        counts = (PARAMETERS, self.shot, self.query)
        return [
            uniform(self.seed, epoch, stream, start, stop, count) for stream, count in zip(self.split.streams, counts)
        ]

    def task_hash(self, tasks: int, epoch: int = 0) -> str:
        """Names the first `tasks` tasks, by the random numbers that they are made of."""
        digest = hashlib.sha256(self.split.data.digest.encode())
        for array in self._uniform(0, tasks, epoch):
            digest.update(np.ascontiguousarray(array).tobytes())
        return digest.hexdigest()[:16]


def check_counts(shot: int, query: int) -> None:
    """Refuse tasks without a support or a query."""
    if min(shot, query) < 1:
        raise HandfulError(f"shot and query must be at least 1, not {shot}, {query}.")


def uniform(seed: int, epoch: int, stream: int, start: int, stop: int, count: int) -> NDArray[np.float64]:
    """`count` uniform numbers in [0, 1) of each of the tasks start to stop, [stop - start, count].

    They depend on seed, epoch, stream and the task's number only, and streams do not overlap.
    """
    ticks = -(-count // PHILOX_BLOCK)  # counter ticks that one task owns, rounded up
    counter = np.array([start * ticks, 0, 0, stream], np.uint64)
    philox = np.random.Philox(key=np.array([seed, epoch], np.uint64), counter=counter)
    return np.random.Generator(philox).random((stop - start, ticks * PHILOX_BLOCK))[:, :count]


def draw_without_replacement(uniform: NDArray[np.float64], sizes: NDArray[np.int64]) -> NDArray[np.int64]:
    """Per row an ordered uniform sample of m distinct numbers below sizes[row], from m uniform numbers in [0, 1).

    uniform [rows, m], sizes [rows], m <= sizes -> int64 [rows, m].  Draw i picks the r-th smallest of the numbers not
    yet taken, r = floor(u * (size - i)); walking the taken ones in ascending order turns r into that number.  The cost
    is m^2 operations on columns, whatever the sizes are.
    """
    rows, m = uniform.shape
    drawn = np.empty((rows, m), dtype=np.int64)
    taken = np.empty((m, rows), dtype=np.int64)  # taken[:i], ascending down the columns
    for i in range(m):
        value = (uniform[:, i] * (sizes - i)).astype(np.int64)
        for j in range(i):
            value += value >= taken[j]
        drawn[:, i] = value
        for j in range(i):  # insert, keeping the columns in order
            low = np.minimum(taken[j], value)
            np.maximum(taken[j], value, out=value)
            taken[j] = low
        taken[i] = value
    return drawn
