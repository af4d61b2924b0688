"""Annotated frames at one size, decoded or rendered once into the cache folder, and split by places."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from pydantic import BaseModel, FiniteFloat, TypeAdapter

from handful.data.dataset import Splits
from handful.data.rails.frame import Frame, Line
from handful.data.store import CPU, new_folder
from handful.errors import unknown
from handful.files import to_json, write_text
from handful.reading import from_json, read_array

WIDTH, HEIGHT = 512, 288
Targets = Literal["ego", "varied"]
FOLDS = 3


@dataclass(frozen=True)
class RailFrames(Splits["RailSplit"]):
    """Frames at one size, with their split by places.

    pixels: uint8 [n, 3, H, W] parts, memory-mapped, numbered through; lines: of each frame, name -> points in these
    pixels; splits: split name -> numbers of frames, those of `test` in no other; rendered: the numbers from here on are
    rendered scenes; targets: `ego`, a task asks for the rails of the train's own track, or `varied`
    (`handful.data.rails.targets`).
    """

    name: str
    pixels: Sequence[NDArray[np.uint8]]
    lines: Sequence[Mapping[str, Line]]
    names: Sequence[str]
    splits: Mapping[str, NDArray[np.int64]]
    rendered: int
    targets: Targets
    info: Mapping[str, Any]
    digest: str
    options: Mapping[str, Any] = field(default_factory=dict)
    problem: str = "rail_lines"

    @property
    def input_shape(self) -> tuple[int, ...]:
        """Shape of one x."""
        return self.pixels[0].shape[1:]

    @property
    def split_hash(self) -> str:
        """Names which frames are in which split."""
        listed = {name: [self.names[i] for i in ids] for name, ids in sorted(self.splits.items())}
        return hashlib.sha256(json.dumps(listed).encode()).hexdigest()[:16]

    def split(self, name: str) -> RailSplit:
        """The frames of one split."""
        if name not in self.splits:
            raise unknown("split", name, self.splits)
        return RailSplit(self, name)

    def describe(self) -> dict[str, Any]:
        """The content of a run's `split.json`."""
        return {
            "name": self.name,
            "problem": self.problem,
            "digest": self.digest,
            "hash": self.split_hash,
            "frames": {name: [self.names[i] for i in ids] for name, ids in self.splits.items()},
        }

    def recipe(self) -> dict[str, Any]:
        """The `data` section of a recipe that opens it again."""
        return {"name": self.name, **self.options}


@dataclass(frozen=True)
class RailSplit:
    """The frames of one split."""

    data: RailFrames
    name: str

    @property
    def ids(self) -> NDArray[np.int64]:
        """Numbers of its frames."""
        return self.data.splits[self.name]

    def fetch(self, ids: NDArray[np.int64], device: torch.device = CPU) -> torch.Tensor:
        """Pictures by number, uint8 [len(ids), 3, H, W]."""
        parts = self.data.pixels
        starts = np.cumsum([0, *(len(part) for part in parts)])
        found = np.searchsorted(starts, ids, "right") - 1
        return torch.from_numpy(np.stack([parts[p][i - starts[p]] for p, i in zip(found, ids)])).to(device)


def stored(
    folder: Path, count: int, frame: Callable[[int], Frame]
) -> tuple[NDArray[np.uint8], list[dict[str, Line]], list[str]]:
    """The pictures of frames at one size, uint8 [count, 3, H, W], their lines in these pixels, and their names.

    folder: in the cache; what lies there is taken, else, or if it is damaged, made of frame(0), ..., which are then
    decoded or rendered.
    """
    with suppress(OSError, ValueError):
        return kept(folder, count)
    with new_folder(folder) as work, ThreadPoolExecutor() as pool:
        listed = []
        # Plain writes and no memory map: a full disk is then an error that can be told, not a bus error.
        with open(work / "pixels.npy", "wb") as file:
            header = {"descr": "|u1", "fortran_order": False, "shape": (count, 3, HEIGHT, WIDTH)}
            np.lib.format.write_array_header_1_0(file, header)
            for picture, lines, name in pool.map(lambda i: at_one_size(frame(i)), range(count)):
                file.write(picture.tobytes())
                listed.append({"name": name, "lines": {key: line.tolist() for key, line in lines.items()}})
        write_text(work / "frames.json", to_json(listed))
    return kept(folder, count)


class StoredFrame(BaseModel):
    """What `frames.json` says of a frame."""

    name: str
    lines: dict[str, list[tuple[FiniteFloat, FiniteFloat]]]


def kept(folder: Path, count: int) -> tuple[NDArray[np.uint8], list[dict[str, Line]], list[str]]:
    """Frames that lie in the cache.  Raises OSError or ValueError where they do not, or are damaged."""
    listed = TypeAdapter(list[StoredFrame]).validate_python(
        from_json((folder / "frames.json").read_text(encoding="utf-8"))
    )
    pixels = read_array(folder / "pixels.npy", mapped=True)
    if len(listed) != count or pixels.shape != (count, 3, HEIGHT, WIDTH) or pixels.dtype != np.uint8:
        raise ValueError(f"they are not {count} frames")
    drawn = [{key: np.array(line).reshape(-1, 2) for key, line in record.lines.items()} for record in listed]
    return pixels, drawn, [record.name for record in listed]


def at_one_size(frame: Frame) -> tuple[NDArray[np.uint8], dict[str, Line], str]:
    """A frame's picture, uint8 [3, H, W], its lines in that picture's pixels, and its name."""
    image = Image.fromarray(frame.pixels()).resize((WIDTH, HEIGHT), Image.Resampling.BILINEAR)
    scale = np.array([WIDTH / frame.width, HEIGHT / frame.height])
    lines = {name: (line + 0.5) * scale - 0.5 for name, line in frame.lines.items()}
    return np.asarray(image).transpose(2, 0, 1), lines, Path(frame.picture.name).name


def folded(count: int, fold: int) -> dict[str, NDArray[np.int64]]:
    """Numbers below `count` to train and to test on: each is tested in one of the three folds."""
    order = np.random.default_rng(0).permutation(count)
    test = np.sort(order[fold::FOLDS])
    return {"train": np.setdiff1d(order, test), "test": test}
