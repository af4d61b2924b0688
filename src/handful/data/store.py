"""ImageStore: a data set decoded once to a uint8 array on disk, memory-mapped ever after.

On disk a store is a folder of three files: `images.npy` (uint8 [n, C, H, W]), `labels.npy` (int64 [n],
sorted) and `store.json` (class names, splits, digest, where it came from).  Opening one reads the last and
maps the others: it takes the same time and memory for a thousand images and for a million.
"""

from __future__ import annotations

import errno
import glob
import hashlib
import json
import mmap
import os
import shutil
import tempfile
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any, Literal, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, ValidationError

from handful.data.dataset import Splits
from handful.errors import HandfulError, unknown
from handful.reading import from_json, read_array

FORMAT: Literal[1] = 1
CPU = torch.device("cpu")
UPLOADED_AT_ONCE = 4096  # images
LOOKED_AT = 1000  # labels when a store is opened, which must not grow with the images
ATTEMPTS = 1000  # to read a store while others replace it, a hundredth of a second apart
ROTATION_SUFFIX = ("", "/rot090", "/rot180", "/rot270")
# How systems say that a name is taken.
IN_THE_WAY = (errno.ENOTEMPTY, errno.EEXIST, errno.ENOTDIR, errno.EACCES)


@dataclass(frozen=True)
class ImageStore(Splits["ClassSplit"]):
    """Images of one data set with their classes and the split of the *classes* into train, val and test.

    images: uint8 [n, C, H, W], memory-mapped; labels: int64 [n] in ascending order, likewise; class_names: one a
    class; splits: split name -> class indices, pairwise disjoint; rotations: 1, or 4 to count every quarter
    turn of a class as a class of its own; digest: SHA-256 of the pixels and labels; info: where the data
    came from, and `note`, if there is something that every result must say.
    """

    images: NDArray[np.uint8]
    labels: NDArray[np.int64]
    class_names: tuple[str, ...]
    splits: Mapping[str, NDArray[np.int64]]
    digest: str
    info: Mapping[str, Any]
    rotations: int = 1
    _resident: dict[torch.device, torch.Tensor | None] = field(
        default_factory=dict, init=False, repr=False, compare=False
    )

    def __getstate__(self) -> dict[str, Any]:
        """What another process is sent: of an array that is mapped its file alone, or it would get a copy of all."""
        state = {**vars(self), "_resident": {}}
        return {key: Mapped.of(value) if is_mapped(value) else value for key, value in state.items()}

    def __setstate__(self, state: dict[str, Any]) -> None:
        vars(self).update({key: value.array() if isinstance(value, Mapped) else value for key, value in state.items()})

    @property
    def name(self) -> str:
        """The reader's name, such as `omniglot`."""
        return str(self.info["name"])

    @property
    def image_shape(self) -> tuple[int, int, int]:
        """(C, H, W)."""
        c, h, w = self.images.shape[1:]
        return c, h, w

    @property
    def input_shape(self) -> tuple[int, ...]:
        """Shape of one x: that of an image."""
        return self.image_shape

    @property
    def problem(self) -> str:
        """Images with classes pose classification."""
        return "classification"

    @property
    def split_hash(self) -> str:
        """Names which classes are in which split."""
        classes = {name: [self.class_names[c] for c in split] for name, split in sorted(self.splits.items())}
        return hashlib.sha256(json.dumps(classes).encode()).hexdigest()[:16]

    def split(self, name: str) -> ClassSplit:
        """The classes of one split, ready to draw episodes from."""
        if name not in self.splits:
            raise unknown("split", name, self.splits)
        return ClassSplit(self, name)

    def pick(self, ids: NDArray[np.int64], device: torch.device) -> torch.Tensor:
        """Images by number, uint8 [len(ids), C, H, W], on a device.

        A device that has room for it gets the whole store, once, and gathers from that.
        """
        if device not in self._resident:
            self._resident[device] = self.copied(device) if has_room(device, self.images.nbytes) else None
        resident = self._resident[device]
        if resident is None:
            return torch.from_numpy(np.ascontiguousarray(self.images[ids])).to(device)
        return resident[torch.from_numpy(ids).to(device)]

    def copied(self, device: torch.device) -> torch.Tensor:
        """All images on a device, uint8 [n, C, H, W], sent in blocks that bound the memory here."""
        images = torch.empty(self.images.shape, dtype=torch.uint8, device=device)
        for start in range(0, len(images), UPLOADED_AT_ONCE):
            block = slice(start, start + UPLOADED_AT_ONCE)
            images[block] = torch.from_numpy(np.array(self.images[block])).to(device)
        return images

    def describe(self) -> dict[str, Any]:
        """The content of a run's `split.json`: which classes are in which split, by name, with a hash."""
        return {
            "name": self.name,
            "problem": self.problem,
            "digest": self.digest,
            "hash": self.split_hash,
            "rotations": self.rotations,
            "classes": {name: [self.class_names[c] for c in classes] for name, classes in self.splits.items()},
        }

    def recipe(self) -> dict[str, Any]:
        """The `data` section of a recipe that opens this store again."""
        built = dict(self.info.get("options", {}))
        built["split_seed"] = built.pop("seed", 0)
        return {"name": self.name, "root": self.info.get("source"), "rotations": self.rotations == 4, **built}


@dataclass(frozen=True)
class ClassSplit:
    """The classes of one split.  Image ids run to rotations * n: r * n + i is image i turned r quarters."""

    data: ImageStore
    name: str

    @cached_property
    def _table(self) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """First image id and number of images of each class (rotated copies of all classes come after)."""
        store, classes = self.data, self.data.splits[self.name]
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
        """Number of classes, rotated ones included."""
        return len(self.data.splits[self.name]) * self.data.rotations

    def class_name(self, index: int) -> str:
        """Name of a class of this split, with its rotation."""
        classes = self.data.splits[self.name]
        turn, base = divmod(int(index), len(classes))
        return self.data.class_names[int(classes[base])] + ROTATION_SUFFIX[turn]

    @cached_property
    def _ends(self) -> NDArray[np.int64]:
        """How many images a class and all before it have."""
        return np.cumsum(self.counts)

    @property
    def size(self) -> int:
        """Number of images, rotated ones included."""
        return int(self.counts.sum())

    def at(self, places: NDArray[np.int64]) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """ids[places] and labels[places], without a list of every image."""
        classes = np.searchsorted(self._ends, places, side="right")
        before = self._ends - self.counts
        return places + (self.starts - before)[classes], classes

    @cached_property
    def ids(self) -> NDArray[np.int64]:
        """Every image of the split, class by class."""
        return np.concatenate([np.arange(start, start + count) for start, count in zip(self.starts, self.counts)])

    @cached_property
    def labels(self) -> NDArray[np.int64]:
        """The class, 0 to len(self) - 1, of each of `ids`."""
        return np.repeat(np.arange(len(self)), self.counts)

    def fetch(self, ids: NDArray[np.int64], device: torch.device = CPU) -> torch.Tensor:
        """Images by id, uint8 [*ids.shape, C, H, W], on a device."""
        turn, image = np.divmod(ids.ravel(), len(self.data.labels))
        picked = self.data.pick(image, device)
        for quarter in range(1, self.data.rotations):
            rows = torch.from_numpy(np.flatnonzero(turn == quarter)).to(device)
            picked[rows] = picked[rows].rot90(quarter, (-2, -1))
        return picked.reshape(*ids.shape, *self.data.image_shape)


class Mapped(NamedTuple):
    """An array that is mapped, by its file and what tells that from a later one of the same name."""

    file: Path
    stamp: tuple[int, int] | None

    @classmethod
    def of(cls, array: np.memmap[Any, Any]) -> Mapped:
        """Of an array; see `is_mapped`."""
        file = Path(str(array.filename))
        return cls(file, stamp(file))

    def array(self) -> NDArray[Any]:
        """The array, mapped anew.  Raises HandfulError where the file is another."""
        if self.stamp != stamp(self.file) or self.stamp is None:
            raise HandfulError(f"{self.file} was replaced while it was in use; start again.")
        return np.load(self.file, mmap_mode="r", allow_pickle=False)


def is_mapped(value: Any) -> bool:
    """Whether it is the whole array of a file, memory-mapped."""
    return isinstance(value, np.memmap) and isinstance(value.base, mmap.mmap)


def has_room(device: torch.device, size: int) -> bool:
    """Whether so many bytes take up at most half of what is free in a device's own memory; a CPU has none."""
    if device.type == "cuda":
        return 2 * size <= torch.cuda.mem_get_info(device)[0]
    return device.type != "cpu"


class Contents(NamedTuple):
    """What a reader found: the arguments of `write_store`.

    images: uint8 [C, H, W] one by one, in the order of labels, decoded only when asked for; labels: a class
    index an image, ascending; image_shape: (C, H, W); class_names: one a class; splits: name -> class
    indices; info: JSON.
    """

    images: Iterable[NDArray[np.uint8]]
    labels: Sequence[int]
    image_shape: tuple[int, int, int]
    class_names: Sequence[str]
    splits: Mapping[str, Sequence[int]]
    info: Mapping[str, Any]


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

    `images` yields uint8 [C, H, W] one by one, in the order of `labels`, which must ascend; nothing is held
    in memory.  The folder appears under its name only when complete, and replaces an older store only then.
    """
    label_array = np.asarray(labels, dtype=np.int64)
    if len(label_array) == 0:
        raise HandfulError(f"The data set {info['name']!r} holds no image.")
    if (np.diff(label_array) < 0).any():
        raise ValueError("labels must ascend, so that a class's images are consecutive")
    check_splits(splits, class_names)
    with new_folder(folder, "set HANDFUL_CACHE to another folder") as work:
        digest = hashlib.sha256(label_array.tobytes())
        written = 0
        # Plain writes and no memory map: a full disk is then an error that can be told, not a bus error.
        with open(work / "images.npy", "wb") as file:
            header = {"descr": "|u1", "fortran_order": False, "shape": (len(label_array), *image_shape)}
            np.lib.format.write_array_header_1_0(file, header)
            for image in images:
                if image.shape != image_shape or image.dtype != np.uint8:
                    raise ValueError(f"image {written} is {image.dtype} {image.shape}, not uint8 {image_shape}")
                pixels = image.tobytes()
                file.write(pixels)
                digest.update(pixels)
                written += 1
        if written != len(label_array):
            raise ValueError(f"{written} images for {len(label_array)} labels")
        np.save(work / "labels.npy", label_array)
        record = {
            "format": FORMAT,
            "digest": digest.hexdigest(),
            "class_names": list(class_names),
            "splits": {name: [int(c) for c in classes] for name, classes in splits.items()},
            "info": dict(info),
        }
        (work / "store.json").write_text(json.dumps(record, ensure_ascii=False), encoding="utf-8")
    return open_store(folder)


@contextmanager
def new_folder(folder: Path, way_out: str = "name another folder") -> Iterator[Path]:
    """A folder beside `folder` to write into, which takes its name when the block ends without an error."""
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        work = Path(tempfile.mkdtemp(prefix=f".{folder.name}-", dir=folder.parent))
        try:
            yield work
            replace_folder(work, folder)
        except BaseException:
            shutil.rmtree(work, ignore_errors=True)
            raise
    except OSError as error:
        place = next(parent for parent in folder.absolute().parents if os.path.exists(parent))
        raise HandfulError(
            f"{folder} cannot be written in {place} ({error.strerror or error}); {way_out}, or free some space there."
        ) from error


def replace_folder(work: Path, folder: Path) -> None:
    """Put the finished folder `work` in the place of `folder`, which is moved aside and removed afterwards.

    Other processes may be doing the same with folders of their own: whoever is last stays, and nobody fails.
    """
    os.chmod(work, 0o755)
    with ExitStack() as asides:
        for _ in range(100):
            try:
                work.rename(folder)
                return
            except OSError as error:
                if error.errno not in IN_THE_WAY:
                    raise
            aside = Path(tempfile.mkdtemp(prefix=f".{folder.name}-old-", dir=folder.parent))
            asides.callback(shutil.rmtree, aside, ignore_errors=True)
            with suppress(FileNotFoundError):  # another process moved it first
                folder.rename(aside / folder.name)
    raise OSError(f"{folder} was replaced by others 100 times")


def open_store(folder: Path, rotations: int = 1) -> ImageStore:
    """Open a store; no image is decoded or read.

    rotations: 1, or 4 to count each quarter turn of a class as a class of its own.
    """
    if rotations not in (1, 4):
        raise HandfulError(f"rotations must be 1 or 4, not {rotations}.")
    try:
        record, images, labels = read_files(folder)
    except FileNotFoundError as error:
        raise HandfulError(
            f"{folder} is not a store: {Path(error.filename).name} is missing; build it with `handful data build`."
        ) from error
    except ValidationError as error:
        raise HandfulError(
            f"The store {folder} is damaged or of another version; build it anew with `handful data build`."
        ) from error
    except (ValueError, OSError) as error:
        raise HandfulError(
            f"The store {folder} is damaged ({error}); build it anew with `handful data build`."
        ) from error
    if fault := misfit(record, images, labels):
        raise HandfulError(f"The store {folder} is damaged ({fault}); build it anew with `handful data build`.")
    if rotations == 4 and images.shape[-1] != images.shape[-2]:
        raise HandfulError(
            f"rotations=4 needs square images, and those of {folder} are {images.shape[1:]}; use rotations=1."
        )
    check_splits(record.splits, record.class_names)
    return ImageStore(
        images=images,
        labels=labels,
        class_names=tuple(record.class_names),
        splits={name: np.asarray(classes, dtype=np.int64) for name, classes in record.splits.items()},
        digest=record.digest,
        info=record.info.model_dump(exclude_unset=True),
        rotations=rotations,
    )


class Info(BaseModel):
    """Where a store came from, with whatever else its reader says."""

    model_config = ConfigDict(extra="allow")
    name: str
    options: dict[str, Any] = {}


class StoreFile(BaseModel):
    """The content of `store.json`."""

    format: Literal[1]
    digest: str
    class_names: list[str]
    splits: dict[str, list[int]]
    info: Info


def misfit(record: StoreFile, images: NDArray[Any], labels: NDArray[Any]) -> str:
    """What in the three files of a store does not fit together; nothing if they do."""
    known = range(len(record.class_names))
    if images.ndim != 4 or images.dtype != np.uint8 or not images.size:
        return f"images.npy holds {images.dtype} {list(images.shape)}, not uint8 [n, C, H, W]"
    if labels.shape != images.shape[:1] or labels.dtype != np.int64:
        return f"labels.npy holds {labels.dtype} {list(labels.shape)} for {len(images)} images"
    some = labels[:: max(1, len(labels) // LOOKED_AT)]
    if labels[0] not in known or labels[-1] not in known or (np.diff(some) < 0).any():
        return f"its labels are not those of {len(known)} classes in ascending order"
    if not all(index in known for classes in record.splits.values() for index in classes):
        return f"a split has a class beyond the {len(known)}"
    return ""


def read_files(folder: Path) -> tuple[StoreFile, NDArray[Any], NDArray[Any]]:
    """The three files of one store, also while other processes put new stores in the place of it."""

    def read() -> tuple[StoreFile, NDArray[Any], NDArray[Any]]:
        record = StoreFile.model_validate(from_json((folder / "store.json").read_text(encoding="utf-8")))
        images, labels = (read_array(folder / f"{name}.npy", mapped=True) for name in ("images", "labels"))
        return record, images, labels

    for attempt in range(ATTEMPTS):
        before = stamp(folder)
        with suppress(FileNotFoundError):
            files = read()
            if before == stamp(folder):  # or else they may be of two stores
                return files
        if attempt > 5 and not any(folder.parent.glob(f".{glob.escape(folder.name)}-old-*")):
            break  # nobody is replacing it, and nobody was a moment ago
        time.sleep(0.01)
    return read()


def stamp(path: Path) -> tuple[int, int] | None:
    """What tells a folder or a file from another of the same name."""
    try:
        found = path.stat()
    except FileNotFoundError:
        return None
    return found.st_ino, found.st_mtime_ns


def check_splits(splits: Mapping[str, Sequence[int]], class_names: Sequence[str]) -> None:
    """Refuse splits that share a class: accuracy on classes seen in training is no few-shot accuracy."""
    owner: dict[int, str] = {}
    for name, classes in splits.items():
        for index in classes:
            if index in owner:
                raise HandfulError(
                    f"Class {class_names[index]!r} is in the splits {owner[index]!r} and {name!r}; "
                    "a class belongs to one."
                )
            owner[int(index)] = name
