"""Normal footage: clips in files and folders, decoded once, and cut into runs of windows that share a half."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from itertools import pairwise
from pathlib import Path
from typing import TypeAlias

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from handful import wording
from handful.data.folders import SUFFIXES, other_files
from handful.data.pictures import Pixels
from handful.data.video.layout import clips_in
from handful.data.video.reading import VIDEOS, frames, is_camera, pictures_in, rate
from handful.data.video.store import Clip, stored, too_short
from handful.errors import HandfulError
from handful.model.stages import blank
from handful.wording import printable

Numbers: TypeAlias = NDArray[np.int64]

SEEN = {*SUFFIXES, *VIDEOS}


def clips_at(path: Path) -> list[Path]:
    """The clips at a place: a video, a folder of frames, a camera, or the videos and folders of frames in a folder.

    Raises HandfulError where there are none.
    """
    if path.suffix.lower() in SUFFIXES and path.is_file():
        raise HandfulError(
            f"{printable(path)} is a picture; what watches a camera takes videos, and folders of frames."
        )
    if path.is_file() or (path.exists() and is_camera(path)):
        return [path]
    if not path.is_dir():
        raise HandfulError(f"There is no video and no folder {printable(path)}.")
    found = clips_in(path) or ([path] if pictures_in(path) else [])
    if not found:
        said = [f"The folder {printable(path)} holds no videos and no frames.", *other_files(path, SEEN)]
        raise HandfulError(" ".join(said))
    return found


def known_rate(clip: Path) -> float | None:
    """Frames a second of a clip, where it says."""
    return None if clip.is_dir() or is_camera(clip) else rate(clip)


class Footage:
    """Clips of normal footage as a network takes them.

    frames: uint8 [F, C, H, W], memory-mapped, one clip after another; ends: of each clip; faults: what is wrong with
    clips, and whether they were used; blank [F]: which frames are of one colour; sizes: width and height of the clips,
    each once, the first's first; rate: frames a second of the first.
    """

    def __init__(
        self, folder: Path, clips: Sequence[Path], size: int, channels: int, window: int, skip_bad: bool
    ) -> None:
        """Decode clips into a folder; skip_bad: as far as they can be read, without those shorter than a window."""
        self.window, self.faults = window, list[str]()
        broken: dict[Path, HandfulError] = {}
        self.sizes: dict[tuple[int, int], None] = {}

        def read(clip: Path) -> Iterator[Pixels]:
            try:
                for frame in frames(clip, grey=channels == 1):
                    height, width = frame.pixels.shape[:2]
                    self.sizes.setdefault((width, height))
                    yield frame.pixels
            except HandfulError as error:
                if not skip_bad:
                    raise
                broken[clip] = error

        given = [Clip(printable(clip), "", lambda clip=clip: read(clip)) for clip in clips]  # type: ignore[misc]
        found = stored(folder, given, size, channels, lambda lengths: refuse_none(lengths, broken))
        self.frames, self.ends = found.frames, found.starts[1:]
        self.lengths = np.diff(found.starts).tolist()
        for clip, count in zip(clips, self.lengths):
            if count <= window:
                fault = broken.get(clip) or too_short(printable(clip), count, window)
                if not skip_bad:
                    raise fault
                self.faults.append(f"Left out: {fault}")
            elif clip in broken:
                self.faults.append(f"Used as far as it goes: {broken[clip]}")
        self.rate = next((known_rate(clip) for clip, count in zip(clips, self.lengths) if count), None)
        self.blank = np.array([blank(frame) for frame in self.frames], bool)

    def runs(self, start: int, stop: int) -> list[Numbers]:
        """The first frames of the windows that lie, with the frame after each, in frames start to stop.

        A run is of one clip, and of successive frames none of which is of one colour.
        """
        found = []
        borders = [0, *self.ends.tolist()]
        for begin, end in pairwise(borders):
            inside = np.arange(max(begin, start), min(end, stop))
            shown = inside[~self.blank[inside]]
            for run in np.split(shown, np.flatnonzero(np.diff(shown) > 1) + 1):
                if len(run) > self.window:
                    found.append(run[: -self.window])
        return found

    def fetch(self, firsts: Numbers) -> tuple[Tensor, Tensor]:
        """Windows by their first frames, uint8 [n, T*C, H, W], and the frame after each [n, C, H, W]."""
        numbers = firsts[:, None] + np.arange(self.window + 1)
        of = torch.from_numpy(self.frames[numbers])
        return of[:, :-1].flatten(1, 2), of[:, -1]

    def notes(self) -> list[str]:
        """What a person should know of it."""
        told = list(self.faults)
        if len(self.sizes) > 1:
            listed = ", ".join(f"{width}x{height}" for width, height in self.sizes)
            told.append(f"The clips have several sizes ({listed}): are they of one camera?")
        if dark := int(self.blank.sum()):
            told.append(
                f"{wording.count(dark, 'frame')} of one colour passed over; such a frame is an alarm, as it shows "
                "nothing."
            )
        return told


def refuse_none(lengths: Sequence[int], broken: Mapping[Path, HandfulError]) -> None:
    """Raises HandfulError where nothing was read; lengths: of the clips; broken: why not."""
    if not sum(lengths):
        raise HandfulError(f"No frame of the normal footage can be read: {next(iter(broken.values()))}")
