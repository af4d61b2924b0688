"""Clips at one size, decoded or rendered once into the cache folder, and split by clips."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from pydantic import BaseModel, NonNegativeInt

from handful import wording
from handful.data.dataset import Splits
from handful.data.pictures import Pixels
from handful.data.store import CPU, new_folder
from handful.data.video.reading import at_size
from handful.errors import HandfulError, unknown
from handful.files import to_json, write_text
from handful.reading import from_json, read_array

WINDOW = 4  # frames


class Clip(NamedTuple):
    """A clip to be stored: its name, its scene (a fixed camera), and its frames, uint8 [H, W, 3] or [H, W]."""

    name: str
    scene: str
    frames: Callable[[], Iterable[Pixels]]


class Truth(NamedTuple):
    """What is abnormal in the last clips.

    abnormal: uint8 [n], 1 where a frame is; masks: bool [n, h, w] packed along its last two axes together as
    `numpy.packbits` does, [n, ceil(h w / 8)], and their (h, w); None where pixels were not marked.
    """

    abnormal: NDArray[np.uint8]
    masks: NDArray[np.uint8] | None = None
    size: tuple[int, int] = (0, 0)


@dataclass(frozen=True)
class Masks:
    """The abnormal pixels of the frames from `first` on.

    bits: uint8 [n, ceil(h w / 8)], memory-mapped, as `numpy.packbits` makes them; size: (h, w), which need not be that
    of the stored frames.
    """

    bits: NDArray[np.uint8]
    size: tuple[int, int]
    first: int

    def of(self, frames: NDArray[np.int64]) -> NDArray[np.bool_]:
        """Masks by frame number, bool [len(frames), h, w]; IndexError for a frame that has none."""
        rows = np.asarray(frames) - self.first
        if len(rows) and rows.min() < 0:
            raise IndexError(f"frame {int(np.min(frames))} lies before the first mask, that of frame {self.first}")
        flat = np.unpackbits(self.bits[rows], axis=1, count=self.size[0] * self.size[1])
        return flat.reshape(-1, *self.size).astype(bool)


@dataclass(frozen=True)
class VideoClips(Splits["ClipSplit"]):
    """Clips at one size, with their split.

    frames: uint8 [F, C, H, W], memory-mapped, one clip after another; starts: int64 [clips + 1], the first frame of
    each clip and the end of the last; names, scenes: of each clip; splits: split name -> numbers of clips, `normal`
    being the normal clips of the scenes of `test`, from which its support is drawn: they may be in `train` and `val`
    too, and are in `test` never; abnormal: uint8 [F], 1 where a frame of a test clip is, None without labels; masks:
    the abnormal pixels of the test clips; window: frames that one is predicted from.
    """

    name: str
    frames: NDArray[np.uint8]
    starts: NDArray[np.int64]
    names: Sequence[str]
    scenes: Sequence[str]
    splits: Mapping[str, NDArray[np.int64]]
    abnormal: NDArray[np.uint8] | None
    masks: Masks | None
    info: Mapping[str, Any]
    digest: str
    window: int = WINDOW
    options: Mapping[str, Any] = field(default_factory=dict)
    problem: str = "video_anomaly"

    def __post_init__(self) -> None:
        """Raises HandfulError: a clip shorter than a window and the frame after it."""
        for name, frames in zip(self.names, np.diff(self.starts).tolist()):
            if frames <= self.window:
                raise too_short(name, frames, self.window)

    @property
    def input_shape(self) -> tuple[int, ...]:
        """Shape of one x: a window, its frames one after another as channels."""
        channels, height, width = self.frames.shape[1:]
        return self.window * channels, height, width

    @property
    def split_hash(self) -> str:
        """Names which frames are in which split."""
        return hashlib.sha256(json.dumps(self.listed(), sort_keys=True).encode()).hexdigest()[:16]

    def listed(self) -> dict[str, list[str]]:
        """The clips of each split with their lengths, `01 (120 frames)`."""
        lengths = np.diff(self.starts).tolist()
        named = [f"{name} ({wording.count(count, 'frame')})" for name, count in zip(self.names, lengths)]
        return {split: [named[i] for i in ids] for split, ids in self.splits.items()}

    def split(self, name: str) -> ClipSplit:
        """The clips of one split."""
        if name not in self.splits:
            raise unknown("split", name, self.splits)
        return ClipSplit(self, name)

    def clip_of(self, frames: NDArray[np.int64]) -> NDArray[np.int64]:
        """The clips that frames are of."""
        return np.searchsorted(self.starts, frames, "right") - 1

    def describe(self) -> dict[str, Any]:
        """The content of a run's `split.json`."""
        return {
            "name": self.name,
            "problem": self.problem,
            "digest": self.digest,
            "hash": self.split_hash,
            "clips": self.listed(),
        }

    def recipe(self) -> dict[str, Any]:
        """The `data` section of a recipe that opens it again."""
        return {"name": self.name, **self.options}


@dataclass(frozen=True)
class ClipSplit:
    """The clips of one split."""

    data: VideoClips
    name: str

    @property
    def clips(self) -> NDArray[np.int64]:
        """Numbers of its clips."""
        return self.data.splits[self.name]

    @property
    def windows(self) -> NDArray[np.int64]:
        """The first frame of each window, in order, int64 [n]: all frames but a clip's first ones are predicted."""
        return np.concatenate([firsts for _, firsts in self.by_clip()])

    def by_clip(self) -> list[tuple[int, NDArray[np.int64]]]:
        """The number of each clip, and the first frame of each of its windows."""
        starts, window = self.data.starts, self.data.window
        return [(clip, np.arange(starts[clip], starts[clip + 1] - window)) for clip in self.clips.tolist()]

    @property
    def labelled(self) -> bool:
        """Whether it is known which of its frames are abnormal."""
        return self.data.abnormal is not None and self.name == "test"

    def target(self, starts: NDArray[np.int64]) -> NDArray[np.int64]:
        """The frame that is predicted from each window."""
        return starts + self.data.window

    def fetch(self, starts: NDArray[np.int64], device: torch.device = CPU) -> torch.Tensor:
        """Windows by their first frame, each with the frame after it, uint8 [len(starts), window + 1, C, H, W]."""
        numbers = np.asarray(starts)[:, None] + np.arange(self.data.window + 1)
        return torch.from_numpy(self.data.frames[numbers]).to(device)


def too_short(name: str, frames: int, window: int) -> HandfulError:
    """The error for a clip from which nothing can be predicted."""
    return HandfulError(
        f"The clip {name} has {wording.count(frames, 'frame')}, but a window of {window} and the frame after it are "
        f"{window + 1}; leave it out, or give a longer one."
    )


class Stored(NamedTuple):
    """What a cache folder holds: the fields of `VideoClips` of the same names."""

    frames: NDArray[np.uint8]
    starts: NDArray[np.int64]
    names: list[str]
    scenes: list[str]
    abnormal: NDArray[np.uint8] | None
    masks: Masks | None
    digest: str


def stored(
    folder: Path,
    clips: Sequence[Clip],
    size: int,
    channels: int,
    truth: Callable[[list[int]], Truth | None],
    rebuild: bool = False,
) -> Stored:
    """Clips at one size from the cache, else decoded or rendered, and put there; a frame is held at a time.

    What is kept and damaged is made anew.

    size, channels: of a stored frame, uint8 [channels, size, size]; truth(frames of each clip): what is abnormal in the
    last of them, asked when all are written; rebuild: in any case.
    """
    if not rebuild:
        with suppress(OSError, ValueError):
            return kept(folder, clips, size, channels)
    with new_folder(folder) as work:
        write(work, clips, size, channels, truth)
    return kept(folder, clips, size, channels)


class ClipsFile(BaseModel):
    """The content of `clips.json`; masks: how many, their height and width."""

    names: list[str]
    scenes: list[str]
    lengths: list[NonNegativeInt]
    masks: tuple[NonNegativeInt, NonNegativeInt, NonNegativeInt] | None = None
    digest: str


def kept(folder: Path, clips: Sequence[Clip], size: int, channels: int) -> Stored:
    """Clips that lie in the cache.  Raises OSError or ValueError where they do not, or are damaged."""
    record = ClipsFile.model_validate(from_json((folder / "clips.json").read_text(encoding="utf-8")))
    if (record.names, record.scenes) != ([clip.name for clip in clips], [clip.scene for clip in clips]):
        raise ValueError("they are other clips")
    if len(record.lengths) != len(clips):
        raise ValueError(f"{len(record.lengths)} lengths are told of {len(clips)} clips")
    count = sum(record.lengths)
    if (folder / "frames.bin").stat().st_size != count * channels * size * size:
        raise ValueError(f"its frames are not {count}")
    frames = np.memmap(folder / "frames.bin", np.uint8, "r", shape=(count, channels, size, size))
    abnormal = read_array(folder / "abnormal.npy") if (folder / "abnormal.npy").is_file() else None
    if abnormal is not None and (abnormal.shape != (count,) or abnormal.dtype != np.uint8 or abnormal.max() > 1):
        raise ValueError("its labels are not 0 or 1 for each frame")
    masks = None
    if (folder / "masks.npy").is_file():
        bits, (masked, height, width) = read_array(folder / "masks.npy", mapped=True), record.masks or (0, 0, 0)
        if bits.dtype != np.uint8 or bits.shape != (masked, -(-height * width // 8)) or masked > count:
            raise ValueError("its masks are not those of its frames")
        masks = Masks(bits, (height, width), count - masked)
    starts = np.cumsum([0, *record.lengths])
    return Stored(frames, starts, record.names, record.scenes, abnormal, masks, record.digest)


def write(
    work: Path, clips: Sequence[Clip], size: int, channels: int, truth: Callable[[list[int]], Truth | None]
) -> None:
    """Fill a cache folder."""
    digest, lengths = hashlib.sha256(), []
    with (work / "frames.bin").open("wb") as file:
        for clip in clips:
            count = 0
            for pixels in clip.frames():
                content = at_size(pixels, size, channels).tobytes()
                digest.update(content)
                file.write(content)
                count += 1
            lengths.append(count)
    record: dict[str, Any] = {
        "names": [clip.name for clip in clips],
        "scenes": [clip.scene for clip in clips],
        "lengths": lengths,
    }
    if known := truth(lengths):
        abnormal = np.zeros(sum(lengths), np.uint8)
        abnormal[len(abnormal) - len(known.abnormal) :] = known.abnormal
        np.save(work / "abnormal.npy", abnormal)
        digest.update(abnormal.tobytes())
        if known.masks is not None:
            np.save(work / "masks.npy", known.masks)
            digest.update(known.masks.tobytes())
            record["masks"] = [len(known.masks), *known.size]
    record["digest"] = digest.hexdigest()
    write_text(work / "clips.json", to_json(record))
