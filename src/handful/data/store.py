"""ImageStore: a data set decoded once to a uint8 array on disk, memory-mapped ever after.

On disk a store is a folder of three files: `images.npy` (uint8 [n, C, H, W]), `labels.npy` (int64 [n], sorted)
and `store.json` (class names, splits, digest, where it came from).  Opening one reads the last two and maps the
first: it takes the same time for a thousand images and for a million.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import tempfile
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from handful.errors import HandfulError, unknown

FORMAT = 1
ROTATION_SUFFIX = ("", "/rot090", "/rot180", "/rot270")


@dataclass(frozen=True)
class ImageStore:
    """Images of one data set with their classes and the split of the *classes* into train, val and test.

    images: uint8 [n, C, H, W], memory-mapped; labels: int64 [n] in ascending order; class_names: one a class;
    splits: split name -> class indices, pairwise disjoint; rotations: 1, or 4 to count every quarter turn of a
    class as a class of its own; digest: SHA-256 of the pixels and labels; info: where the data came from.
    """

    images: NDArray[np.uint8]
    labels: NDArray[np.int64]
    class_names: tuple[str, ...]
    splits: Mapping[str, NDArray[np.int64]]
    digest: str
    info: Mapping[str, Any]
    rotations: int = 1

    @property
    def name(self) -> str:
        """The reader's name, such as `omniglot`."""
        return str(self.info["name"])

    @property
    def image_shape(self) -> tuple[int, int, int]:
        """(C, H, W)."""
        c, h, w = self.images.shape[1:]
        return c, h, w

    def split(self, name: str) -> ClassSplit:
        """The classes of one split, ready to draw episodes from."""
        if name not in self.splits:
            raise unknown("split", name, self.splits)
        return ClassSplit(self, name)

    @property
    def train(self) -> ClassSplit:
        """The training classes."""
        return self.split("train")

    @property
    def val(self) -> ClassSplit:
        """The validation classes, which select the best step."""
        return self.split("val")

    @property
    def test(self) -> ClassSplit:
        """The test classes, which nothing but a final evaluation may see."""
        return self.split("test")


@dataclass(frozen=True)
class ClassSplit:
    """The classes of one split.  Image ids run to `rotations * n`: id `r * n + i` is image i turned r quarters."""

    store: ImageStore
    name: str

    @cached_property
    def _table(self) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """First image id and number of images of each class (rotated copies of all classes come after)."""
        store, classes = self.store, self.store.splits[self.name]
        starts = np.searchsorted(store.labels, classes, side="left")
        counts = np.searchsorted(store.labels, classes, side="right") - starts
        turns = np.arange(store.rotations)[:, None] * len(store.labels)
        return (turns + starts).ravel(), np.tile(counts, store.rotations)

    @property
    def starts(self) -> NDArray[np.int64]:
        """First image id of each class; a class's images are consecutive."""
        return self._table[0]

    @property
    def counts(self) -> NDArray[np.int64]:
        """Number of images of each class."""
        return self._table[1]

    def __len__(self) -> int:
        return len(self.store.splits[self.name]) * self.store.rotations

    def class_name(self, index: int) -> str:
        """Name of a class of this split, with its rotation."""
        classes = self.store.splits[self.name]
        turn, base = divmod(int(index), len(classes))
        return self.store.class_names[classes[base]] + ROTATION_SUFFIX[turn]

    def fetch(self, ids: NDArray[np.int64]) -> torch.Tensor:
        """Images by id, uint8 [*ids.shape, C, H, W]."""
        turn, image = np.divmod(ids.ravel(), len(self.store.labels))
        picked = torch.from_numpy(np.ascontiguousarray(self.store.images[image]))
        for quarter in range(1, self.store.rotations):
            rows = torch.from_numpy(np.flatnonzero(turn == quarter))
            picked[rows] = picked[rows].rot90(quarter, (-2, -1))
        return picked.reshape(*ids.shape, *self.store.image_shape)


def write_store(
    folder: Path,
    *,
    images: Iterable[NDArray[np.uint8]],
    labels: Sequence[int],
    image_shape: tuple[int, int, int],
    class_names: Sequence[str],
    splits: Mapping[str, Sequence[int]],
    info: Mapping[str, Any],
) -> ImageStore:
    """Write a store and open it.

    `images` yields uint8 [C, H, W] one by one, in the order of `labels`, which must ascend; nothing is held in
    memory.  The folder appears under its name only when complete, and replaces an older store only then.
    """
    label_array = np.asarray(labels, dtype=np.int64)
    if len(label_array) == 0:
        raise HandfulError(f"The data set {info['name']!r} holds no image.")
    if (np.diff(label_array) < 0).any():
        raise ValueError("labels must ascend, so that a class's images are consecutive")
    check_splits(splits, class_names)
    folder.parent.mkdir(parents=True, exist_ok=True)
    work = Path(tempfile.mkdtemp(prefix=f".{folder.name}-", dir=folder.parent))
    try:
        shape = (len(label_array), *image_shape)
        array = np.lib.format.open_memmap(work / "images.npy", mode="w+", dtype=np.uint8, shape=shape)  # type: ignore[no-untyped-call]
        digest = hashlib.sha256(label_array.tobytes())
        written = 0
        for image in images:
            array[written] = image
            digest.update(np.ascontiguousarray(image).tobytes())
            written += 1
        if written != len(label_array):
            raise ValueError(f"{written} images for {len(label_array)} labels")
        array.flush()
        del array
        np.save(work / "labels.npy", label_array)
        record = {
            "format": FORMAT,
            "digest": digest.hexdigest(),
            "class_names": list(class_names),
            "splits": {name: [int(c) for c in classes] for name, classes in splits.items()},
            "info": dict(info),
        }
        (work / "store.json").write_text(json.dumps(record, ensure_ascii=False), encoding="utf-8")
        replace_folder(work, folder)
    except BaseException:
        shutil.rmtree(work, ignore_errors=True)
        raise
    return open_store(folder)


def replace_folder(work: Path, folder: Path) -> None:
    """Put the finished folder `work` in the place of `folder`, which is removed only after it was moved aside."""
    os.chmod(work, 0o755)
    if not folder.exists():
        work.rename(folder)
        return
    aside = Path(tempfile.mkdtemp(prefix=f".{folder.name}-old-", dir=folder.parent))
    folder.rename(aside / folder.name)
    work.rename(folder)
    shutil.rmtree(aside)


def open_store(folder: Path, rotations: int = 1) -> ImageStore:
    """Open a store; no image is decoded or read."""
    try:
        record = json.loads((folder / "store.json").read_text(encoding="utf-8"))
        images = np.load(folder / "images.npy", mmap_mode="r", allow_pickle=False)
        labels = np.load(folder / "labels.npy", allow_pickle=False)
    except FileNotFoundError as error:
        raise HandfulError(
            f"{folder} is not a store: {Path(error.filename).name} is missing; build it with `handful data build`."
        ) from error
    except (ValueError, EOFError, OSError) as error:
        raise HandfulError(f"The store {folder} is damaged ({error}); build it anew with `handful data build`.") from error
    if record.get("format") != FORMAT or len(labels) != len(images):
        raise HandfulError(f"The store {folder} is damaged or of another version; build it anew with `handful data build`.")
    check_splits(record["splits"], record["class_names"])
    return ImageStore(
        images=images,
        labels=labels,
        class_names=tuple(record["class_names"]),
        splits={name: np.asarray(classes, dtype=np.int64) for name, classes in record["splits"].items()},
        digest=record["digest"],
        info=record["info"],
        rotations=rotations,
    )


def check_splits(splits: Mapping[str, Sequence[int]], class_names: Sequence[str]) -> None:
    """Refuse splits that share a class: accuracy on classes seen in training is no few-shot accuracy."""
    owner: dict[int, str] = {}
    for name, classes in splits.items():
        for index in classes:
            if index in owner:
                raise HandfulError(
                    f"Class {class_names[index]!r} is in the splits {owner[index]!r} and {name!r}; a class belongs to one."
                )
            owner[int(index)] = name
