"""Tasks of video anomalies: a few windows of the normal footage of a scene, and others of it to predict."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from functools import cached_property
from typing import Literal, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from handful.data.store import CPU
from handful.data.video.store import ClipSplit, VideoClips
from handful.episodes import Episode, Images, Passes, check_counts, draw_without_replacement, uniform
from handful.errors import HandfulError

Support = Literal["normal", "clip_start"]
Numbers = NDArray[np.int64]


class Drawn(NamedTuple):
    """A task: its scene, and the first frames of its windows, support [K] and queries [Q]."""

    scene: str
    support: Numbers
    query: Numbers


@dataclass(frozen=True)
class ClipTasks:
    """Draws K-shot Q-query tasks: K windows of one scene to learn from, and Q to be predicted.

    Support and query share no frame: windows are taken from a grid over the clips, one frame more than a window apart
    and begun anywhere.  Those of `test` have their support from the normal clips of the scene, and never from the clips
    that are tested.  varied: all windows of a task mirrored, or none.
    """

    split: ClipSplit
    shot: int
    query: int
    seed: int = 0
    varied: bool = False

    def __post_init__(self) -> None:
        check_counts(self.shot, self.query)
        for scene in self.scenes:
            need = self.shot if self._apart else self.shot + self.query
            if (found := min(len(part) for part in self._grids(self._learned, scene))) < need:
                raise HandfulError(
                    f"The scene {scene!r} of {self.split.data.name!r} has {found} windows that share no frame, but "
                    f"{self.shot}-shot tasks{'' if self._apart else f' with {self.query} queries'} need {need}; lower "
                    "shot or query, or give more footage."
                )

    @property
    def _apart(self) -> bool:
        """Whether the support is from other clips than the queries."""
        return self.split.name == "test"

    @property
    def _learned(self) -> ClipSplit:
        """Where the support is from."""
        return self.split.data.split("normal") if self._apart else self.split

    @cached_property
    def scenes(self) -> list[str]:
        """The scenes of the split."""
        return sorted({self.split.data.scenes[clip] for clip in self.split.clips})

    def _grids(self, split: ClipSplit, scene: str) -> list[Numbers]:
        """For each place to begin at, the first frames of the windows of a scene that share no frame."""
        data = split.data
        firsts = np.concatenate(
            [windows for clip, windows in split.by_clip() if data.scenes[clip] == scene] or [np.zeros(0, np.int64)]
        )
        clip = np.searchsorted(data.starts, firsts, "right") - 1
        place = (firsts - data.starts[clip]) % (data.window + 1)
        return [firsts[place == phase] for phase in range(data.window + 1)]

    @cached_property
    def _tables(self) -> dict[str, tuple[list[Numbers], Numbers]]:
        """Of each scene the grids that a support is from, and every window that may be asked for."""
        return {
            scene: (self._grids(self._learned, scene), np.concatenate(self._grids(self.split, scene)))
            for scene in self.scenes
        }

    def drawn(self, number: int, epoch: int = 0) -> Drawn:
        """Task `number`, of one of the scenes."""
        chosen = uniform(self.seed, epoch, 0, number, number + 1, 1)[0, 0]
        return self.drawn_of(self.scenes[int(chosen * len(self.scenes))], number, epoch)

    def drawn_of(self, scene: str, number: int, epoch: int = 0) -> Drawn:
        """The windows of task `number`, were it of this scene."""
        count = self.shot if self._apart else self.shot + self.query
        numbers = uniform(self.seed, epoch, 1, number, number + 1, 1 + count)
        learned, asked = (
            self._tables[scene][0][int(numbers[0, 0] * (self.split.data.window + 1))],
            self._tables[scene][1],
        )
        taken = learned[draw_without_replacement(numbers[:, 1:], np.array([len(learned)]))[0]]
        if not self._apart:
            return Drawn(scene, taken[: self.shot], taken[self.shot :])
        others = uniform(self.seed, epoch, 3, number, number + 1, self.query)[0]  # the support is the same for any Q
        return Drawn(scene, taken, asked[(others * len(asked)).astype(np.int64)])  # with replacement: there may be few

    def episodes(self, start: int, stop: int, epoch: int = 0, device: torch.device = CPU) -> Episode:
        """Tasks number start to stop of an epoch: windows [B, n, T*C, H, W], next frames [B, n, C, H, W]."""
        parts = []
        for number in range(start, stop):
            _, support, query = self.drawn(number, epoch)
            frames = floats(self.split, np.concatenate([support, query]), device)
            if self.varied:
                turned = uniform(self.seed, epoch, 2, number, number + 1, 1)
                frames = mirrored(frames, np.repeat(turned, len(frames), 0))
            x, y = windows_of(frames)
            parts.append((x[: self.shot], y[: self.shot], x[self.shot :], y[self.shot :]))
        return Episode(*(torch.stack(part) for part in zip(*parts)))

    def task_hash(self, tasks: int, epoch: int = 0) -> str:
        """Names the first `tasks` tasks and their pixels: two results with one hash were measured on the same tasks."""
        digest = hashlib.sha256(self.split.data.digest.encode())
        for number in range(tasks):
            scene, support, query = self.drawn(number, epoch)
            digest.update(repr((scene, support.tolist(), query.tolist())).encode())
        return digest.hexdigest()[:16]


@dataclass(frozen=True)
class WindowSampler:
    """Draws windows of a split for ordinary training: every one once in each pass, in an order of its own.

    varied: each mirrored, or not.
    """

    split: ClipSplit
    seed: int = 0
    varied: bool = False

    @property
    def judged_by(self) -> VideoClips:
        """The clips that they are of."""
        return self.split.data

    def images(self, start: int, stop: int, device: torch.device = CPU) -> Images:
        """Windows number start to stop of the endless sequence of passes: x [n, T*C, H, W], y [n, C, H, W]."""
        frames = floats(self.split, self.split.windows[self._passes.drawn(start, stop)], device)
        if self.varied:
            frames = mirrored(frames, uniform(self.seed, 0, 5, start, stop, 1))
        return Images(*windows_of(frames))

    @cached_property
    def _passes(self) -> Passes:
        return Passes(len(self.split.windows), self.seed, stream=4)


def floats(split: ClipSplit, firsts: Numbers, device: torch.device) -> Tensor:
    """Windows by their first frames, with the frame after each: [n, T + 1, C, H, W] in [0, 1]."""
    return split.fetch(firsts, device).float().div_(255)


def mirrored(frames: Tensor, numbers: NDArray[np.float64]) -> Tensor:
    """Windows [n, T + 1, C, H, W], each mirrored where its number [n, 1] is below a half.

    Time is not turned round: that footage runs forwards is part of what is normal.
    """
    turned = torch.from_numpy(numbers < 0.5).to(frames.device)
    return torch.where(turned.view(-1, 1, 1, 1, 1), frames.flip(-1), frames)


def windows_of(frames: Tensor) -> tuple[Tensor, Tensor]:
    """Windows [n, T + 1, C, H, W] as what is seen [n, T*C, H, W], and the frame to be predicted [n, C, H, W]."""
    return frames[:, :-1].flatten(1, 2), frames[:, -1]
