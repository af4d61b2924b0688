"""Tasks of rail lines: a few annotated frames that share a camera and what is asked for, and others to answer."""

from __future__ import annotations

import hashlib
from collections import defaultdict
from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from handful import wording
from handful.data.rails.rows import rows_of
from handful.data.rails.store import RailFrames, RailSplit
from handful.data.rails.targets import Pair, targets_of
from handful.data.rails.view import PLACE, TONE, matrices, moved, moved_line, toned
from handful.data.store import CPU
from handful.episodes import Episode, Images, check_counts, draw_without_replacement, uniform
from handful.errors import HandfulError

BASE_X, BASE_THERE = 2, 3  # channels of a target: the mean line of the support, and how often it is there
Kind = tuple[bool, str]  # whether the frames are rendered, and what is asked of them


@dataclass(frozen=True)
class FrameTasks:
    """Draws K-shot Q-query tasks: K + Q frames of one kind, and which pair of lines is asked of all of them.

    split.data.targets: `ego`, the rails of the train's own track in the pictures as they are; `varied`, any pair that
    enough of the frames have, seen by a camera of the task's own.  Photographs and rendered scenes are not mixed
    in a task, and get half of the tasks each where there are both.  varied: a camera and colours for each frame.
    """

    split: RailSplit
    shot: int
    query: int
    seed: int = 0
    varied: bool = False

    def __post_init__(self) -> None:
        check_counts(self.shot, self.query)
        if not self.kinds:
            most = max((len(ids) for ids in self._having.values()), default=0)
            raise HandfulError(
                f"The {self.split.name} split of {self.split.data.name!r} has "
                f"{wording.count(most, 'frame')} with the lines that are asked for, but {self.shot}-shot tasks with "
                f"{self.query} queries need {self.shot + self.query}; lower shot or query, or annotate more."
            )

    @property
    def _moved(self) -> bool:
        """Whether a task has a camera of its own."""
        return self.varied or self.split.data.targets == "varied"

    @cached_property
    def _having(self) -> dict[Kind, NDArray[np.int64]]:
        """The frames of each kind."""
        data = self.split.data
        found: dict[Kind, list[int]] = defaultdict(list)
        for number in self.split.ids.tolist():
            for name in targets_of(data.lines[number]):
                if name == "ego" or data.targets == "varied":
                    found[number >= data.rendered, name].append(number)
        return {kind: np.array(ids) for kind, ids in sorted(found.items())}

    @cached_property
    def kinds(self) -> list[tuple[Kind, float]]:
        """The kinds that tasks are drawn from, each with its share of them."""
        enough = [kind for kind, ids in self._having.items() if len(ids) >= self.shot + self.query]
        sources = {rendered for rendered, _ in enough}
        return [(kind, 1 / len(sources) / sum(other[0] == kind[0] for other in enough)) for kind in enough]

    def episodes(self, start: int, stop: int, epoch: int = 0, device: torch.device = CPU) -> Episode:
        """Tasks number start to stop of an epoch, as tensors: images [B, n, 3, H, W], rows [B, n, 2, R, 4]."""
        tasks = [self._task(number, epoch, device) for number in range(start, stop)]
        x, y = (torch.stack(parts) for parts in zip(*tasks))
        y = beside(y, y[:, : self.shot])
        return Episode(x[:, : self.shot], y[:, : self.shot], x[:, self.shot :], y[:, self.shot :])

    def drawn(self, number: int, epoch: int = 0) -> tuple[Kind, NDArray[np.int64], NDArray[np.float64]]:
        """Task `number`: its kind, its frames, support first, and the random numbers of its camera."""
        count = self.shot + self.query
        numbers = uniform(self.seed, epoch, 0, number, number + 1, 1 + PLACE + count)[0]
        shares = np.cumsum([share for _, share in self.kinds])
        kind = self.kinds[min(int(np.searchsorted(shares, numbers[0], "right")), len(shares) - 1)][0]
        ids = self._having[kind]
        frames = draw_without_replacement(numbers[None, 1 + PLACE :], np.array([len(ids)]))[0]
        return kind, ids[frames], numbers[1 : 1 + PLACE]

    def _task(self, number: int, epoch: int, device: torch.device) -> tuple[Tensor, Tensor]:
        (_, name), frames, camera = self.drawn(number, epoch)
        data = self.split.data
        pairs = [targets_of(data.lines[frame])[name] for frame in frames]
        images = self.split.fetch(frames, device).float().div_(255)
        changes = None
        if self._moved:
            changes = np.repeat(matrices(camera[None], *size_of(data)), len(frames), 0)
        if self.varied:
            numbers = uniform(self.seed, epoch, 1, number, number + 1, len(frames) * TONE)
            images = toned(images, numbers.reshape(-1, TONE))
        return seen(images, pairs, changes)

    def task_hash(self, tasks: int, epoch: int = 0) -> str:
        """Names the first `tasks` tasks and their pixels: two results with one hash were measured on the same tasks."""
        digest = hashlib.sha256(f"{self.split.data.digest}{' moved' if self._moved else ''}".encode())
        for number in range(tasks):
            kind, frames, camera = self.drawn(number, epoch)
            digest.update(repr((kind, frames.tolist(), camera.tolist(), self.shot)).encode())
        return digest.hexdigest()[:16]


@dataclass(frozen=True)
class FrameSampler:
    """Draws frames of a split for ordinary training, each with a camera and colours of its own if `varied`."""

    split: RailSplit
    seed: int = 0
    varied: bool = False

    def __post_init__(self) -> None:
        if not self._sources:
            raise HandfulError(
                f"No frame of the {self.split.name} split of {self.split.data.name!r} has a line `left` or `right`, "
                "the rails of the train's own track, which pretrain learns; annotate some."
            )

    @cached_property
    def _sources(self) -> list[NDArray[np.int64]]:
        """The photographs and the rendered scenes that have what is asked for: in thick fog no rail may be seen."""
        data = self.split.data
        ids = np.array([i for i in self.split.ids.tolist() if "ego" in targets_of(data.lines[i])], np.int64)
        first = data.rendered
        return [part for part in (ids[ids < first], ids[ids >= first]) if len(part)]

    @property
    def judged_by(self) -> RailFrames:
        """The same frames, asked for the rails of the train's own track."""
        return replace(self.split.data, targets="ego")

    def images(self, start: int, stop: int, device: torch.device = CPU) -> Images:
        """Frames number start to stop of an endless sequence: x [n, 3, H, W], y [n, 2, R, 4], without a support.

        Photographs and rendered scenes take turns at random, where there are both.
        """
        data, sources = self.split.data, self._sources
        numbers = uniform(self.seed, 0, 2, start, stop, 2 + PLACE + TONE)
        chosen = [sources[int(row[0] * len(sources))] for row in numbers]
        frames = np.array([ids[int(row[1] * len(ids))] for ids, row in zip(chosen, numbers)])
        images = self.split.fetch(frames, device).float().div_(255)
        pairs = [targets_of(data.lines[frame])["ego"] for frame in frames]
        changes = None
        if self.varied:
            changes = matrices(numbers[:, 2 : 2 + PLACE], *size_of(data))
            images = toned(images, numbers[:, 2 + PLACE :])
        x, y = seen(images, pairs, changes)
        return Images(x, torch.cat([y, torch.zeros_like(y)], -1))


def size_of(data: RailFrames) -> tuple[int, int]:
    """Width and height of the pictures."""
    _, height, width = data.input_shape
    return width, height


def seen(images: Tensor, pairs: list[Pair], changes: NDArray[np.float64] | None) -> tuple[Tensor, Tensor]:
    """Images [n, 3, H, W] and their pairs of lines as rows [n, 2, R, 2], after changes of the view [n, 3, 3]."""
    height, width = images.shape[-2:]
    if changes is not None:
        images = moved(images, changes)
        pairs = [after(pair, change) for pair, change in zip(pairs, changes)]
    rows = np.stack([[rows_of(line, width, height) for line in pair] for pair in pairs])
    return images, torch.from_numpy(rows).to(images.device)


def beside(targets: Tensor, support: Tensor) -> Tensor:
    """Targets [B, n, L, R, 2] with the mean line of the support [B, K, L, R, 2] beside each: [B, n, L, R, 4].

    The mean place is that of the frames whose line is in the row; where none has it, of all.
    """
    x, there = support.unbind(-1)
    weights = there + 1e-6
    mean = torch.stack([(x * weights).sum(1) / weights.sum(1), there.mean(1)], -1)
    return torch.cat([targets, mean.unsqueeze(1).expand_as(targets)], -1)


def after(pair: Pair, change: NDArray[np.float64]) -> Pair:
    """A pair of lines after a change of the view: in a mirror the left one is the right one."""
    left, right = (None if line is None else moved_line(line, change) for line in pair)
    return (right, left) if np.linalg.det(change[:2, :2]) < 0 else (left, right)
