"""Episodes (tasks): which images make up task number i, and the tensors of a batch of tasks.

A sampler yields indices only.  Task i of an epoch is a function of (seed, epoch, i) and of nothing else: Philox is a
counter-based generator, so each task owns a block of its counter, and any process can draw any task without drawing
the ones before it.  The tasks are therefore the same for every number of workers, ranks and chunks.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray

from handful.data.augment import AFFINE_DRAWS, affine
from handful.data.store import ClassSplit
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


class EpisodeIndices(NamedTuple):
    """Which images make up T tasks: classes [T, N] of the split, support ids [T, N, K], query ids [T, N, Q]."""

    classes: NDArray[np.int64]
    support: NDArray[np.int64]
    query: NDArray[np.int64]


@dataclass(frozen=True)
class EpisodeSampler:
    """Draws N-way K-shot Q-query tasks from a split, classes and images uniform and without replacement.

    The order of the classes is random too, so a task also permutes which output unit stands for which class
    (Finn et al. 2017: a head with one unit a class must not learn which unit means what).
    """

    split: ClassSplit
    way: int
    shot: int
    query: int
    seed: int = 0
    augment: bool = False
    """Vary every image a little (`handful.data.augment.affine`): for training tasks."""

    def __post_init__(self) -> None:
        split, need = self.split, self.shot + self.query
        if min(self.way, self.shot, self.query) < 1:
            raise HandfulError(f"way, shot and query must be at least 1, not {self.way}, {self.shot}, {self.query}.")
        if self.way > len(split):
            raise HandfulError(
                f"{self.way}-way tasks need {self.way} classes, but the {split.name} split of {split.store.name!r} has "
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
        uniform = self._uniform(start, stop, epoch, way + way * drawn, stream=0)
        classes = draw_without_replacement(uniform[:, :way], np.full(stop - start, len(self.split)))
        pick = uniform[:, way : way + way * drawn].reshape(-1, drawn)
        images = draw_without_replacement(pick, self.split.counts[classes.ravel()]).reshape(-1, way, drawn)
        images += self.split.starts[classes][..., None]
        return EpisodeIndices(classes, images[..., : self.shot], images[..., self.shot :])

    def episodes(self, start: int, stop: int, epoch: int = 0) -> Episode:
        """Tasks number start to stop of an epoch, as tensors."""
        drawn = self.indices(start, stop, epoch)
        tasks = stop - start
        x = [self.split.fetch(ids.reshape(tasks, -1)).float().div_(255) for ids in (drawn.support, drawn.query)]
        if self.augment:
            images = torch.cat(x, 1)
            uniform = self._uniform(start, stop, epoch, images.shape[1] * AFFINE_DRAWS, stream=1)
            varied = affine(images.flatten(0, 1), uniform.reshape(-1, AFFINE_DRAWS)).view_as(images)
            x = list(varied.split([part.shape[1] for part in x], 1))
        y = [torch.arange(self.way).repeat_interleave(count).expand(tasks, -1) for count in (self.shot, self.query)]
        return Episode(x[0], y[0], x[1], y[1])

    def _uniform(self, start: int, stop: int, epoch: int, count: int, stream: int) -> NDArray[np.float64]:
        """`count` uniform numbers of each task, [stop - start, count]; streams do not overlap."""
        ticks = -(-count // PHILOX_BLOCK)  # counter ticks that one task owns, rounded up
        counter = np.array([start * ticks, 0, 0, stream], np.uint64)
        philox = np.random.Philox(key=np.array([self.seed, epoch], np.uint64), counter=counter)
        return np.random.Generator(philox).random((stop - start, ticks * PHILOX_BLOCK))[:, :count]

    def task_hash(self, tasks: int, epoch: int = 0) -> str:
        """Names the first `tasks` tasks and their pixels: two results with one hash were measured on the same tasks."""
        drawn = self.indices(0, tasks, epoch)
        digest = hashlib.sha256(self.split.store.digest.encode())
        for array in drawn:
            digest.update(np.ascontiguousarray(array).tobytes())
        return digest.hexdigest()[:16]


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
