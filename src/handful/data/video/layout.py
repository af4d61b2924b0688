"""Clips on disk in the layout of the field: `training/` and `testing/`, labels and masks beside them.

    ped2/training/videos/01.mp4 ...       or training/frames/01/001.jpg ..., or without videos/ and frames/
    ped2/testing/videos/01.mp4 ...        may be absent, as may all that follows
    ped2/frame_labels_ped2.npy            or labels.npy: a number a test frame, 1 = abnormal, clips one after another
    ped2/testing/labels/01.npy ...        instead, a file a clip; also called test_frame_mask/
    ped2/pixel_masks_ped2.npz             `bits`, the masks [frames, h, w] packed bit by bit, and `shape`, (h, w)

A folder without `training/` is a folder of training clips.  Clips named like 01_0014 are of scene 01 (ShanghaiTech);
otherwise all are of one scene.
"""

from __future__ import annotations

import hashlib
import os
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from handful import wording
from handful.data.video.reading import VIDEOS, in_order, pictures_in
from handful.data.video.store import Truth
from handful.errors import HandfulError, first_line
from handful.reading import read_array
from handful.wording import printable

TRAINING, TESTING = "training", "testing"
PLACES = ("videos", "frames", ".")  # of the clips of a part; that with the most of them counts, the first of equals
WHOLE, BY_CLIP = ("frame_labels*.npy", "labels.npy"), ("labels", "test_frame_mask")
MASKS = "pixel_masks*.npz"
SIDE_BYTES, HEADER_BYTES = 8, 10_000  # of a number, and of what numpy writes before an array
MOST_PIXELS = 2**28  # of a mask
FORM = "they are numbers, 1 where a frame is abnormal and else 0"


@dataclass(frozen=True)
class Layout:
    """The clips of a folder: videos or folders of frames, in natural order, and the files of what is abnormal.

    labels: one file for all test clips, or one for each; none without labels.
    """

    folder: Path
    training: list[Path]
    testing: list[Path]
    labels: list[Path]
    masks: Path | None

    @property
    def clips(self) -> list[Path]:
        """All clips, those of the tests last."""
        return [*self.training, *self.testing]

    @property
    def parts(self) -> dict[str, list[Path]]:
        """The clips of `training` and `testing`; of "" where they lie in the folder itself."""
        return {"": self.training} if self.bare else {TRAINING: self.training, TESTING: self.testing}

    @property
    def bare(self) -> bool:
        """Whether the clips lie in the folder itself, as training clips."""
        return bool(self.training) and self.training[0].parent == self.folder

    @property
    def names(self) -> list[str]:
        """The name of each clip, `training/01`; without `training/` just that of its file."""
        return ["/".join(filter(None, [part, name_of(clip)])) for part, own in self.parts.items() for clip in own]

    @property
    def scenes(self) -> list[str]:
        """The scene of each clip."""
        named = [re.fullmatch(r"(\d+)_\d+", name_of(clip)) for clip in self.clips]
        return [found[1] if found else "" for found in named] if all(named) else [self.folder.name] * len(named)

    def fingerprint(self) -> str:
        """Changes when one of the files does: names, sizes and times."""
        digest = hashlib.sha256()
        for path in [*self.clips, *self.labels, *filter(None, [self.masks])]:
            for file in pictures_in(path) if path.is_dir() else [path]:
                found = file.stat()
                name = file.relative_to(self.folder).as_posix()
                digest.update(f"{name} {found.st_size} {found.st_mtime_ns}\n".encode())
        return digest.hexdigest()

    def truth(self, lengths: Sequence[int]) -> Truth | None:
        """What is abnormal in the test clips; lengths: frames of every clip.

        Raises HandfulError: labels or masks that are no such thing, or are not as many as the frames.
        """
        lengths = lengths[len(self.training) :]
        if not self.labels:
            return None
        if len(self.labels) == 1:
            abnormal = checked(self.labels[0], sum(lengths), wording.count(len(lengths), "test clip"))
        else:
            each = zip(self.labels, lengths, self.testing)
            abnormal = np.concatenate([checked(file, count, f"clip {name_of(clip)}") for file, count, clip in each])
        return Truth(abnormal) if self.masks is None else Truth(abnormal, *packed_masks(self.masks, len(abnormal)))


def layout_of(folder: Path) -> Layout | None:
    """The clips of a folder; None if it holds none.

    Raises HandfulError: several files of labels or masks, not one file of labels for each test clip.
    """
    if not os.path.isdir(folder):
        return None
    parts = (folder / TRAINING).is_dir() or (folder / TESTING).is_dir()
    training, testing = (clips_of(folder / part) for part in (TRAINING, TESTING)) if parts else (videos_in(folder), [])
    if not training and not testing:
        return None
    where = [folder, folder / TESTING]
    whole = [file for place in where for pattern in WHOLE for file in sorted(place.glob(pattern))]
    single = [in_order((folder / TESTING / name).glob("*.npy")) for name in BY_CLIP]
    masks = [file for place in where for file in sorted(place.glob(MASKS))]
    found = [whole, *single]
    labels = next(filter(None, found), []) if testing else []
    for several in ([file for files in found for file in files[:1]], whole, masks):
        if len(several) > 1 and testing:
            raise HandfulError(f"{several[0]} and {several[1].name} both say what is abnormal; keep one of them.")
    if not whole and labels and [file.stem for file in labels] != [name_of(clip) for clip in testing]:
        odd = sorted({file.stem for file in labels} ^ {name_of(clip) for clip in testing})
        raise HandfulError(
            f"{labels[0].parent} has {wording.count(len(labels), 'file')} of labels for "
            f"{wording.count(len(testing), 'test clip')}, {odd[0]} without its fellow; name each as its clip."
        )
    return Layout(folder, training, testing, labels, masks[0] if masks and testing else None)


def without_normal(found: Layout) -> str | None:
    """The sentence for a scene that is tested, and of which nothing says what is normal; None if there is none."""
    first = len(found.training)
    odd = sorted({*found.scenes[first:]} - {*found.scenes[:first]})
    if not odd:
        return None
    named = f"scene {odd[0]}" if found.training else "a scene"
    return (
        f"{found.folder} has test clips of {named} and no training clip of it, so nothing says what is normal there; "
        f"add one to {TRAINING}/, or leave them out."
    )


def passed_over(found: Layout) -> list[str]:
    """A sentence for each place that holds clips too, but fewer than the one that counts."""
    return [
        f"Passed over: {wording.count(len(clips), 'clip')} in {part}/{place}, since "
        f"{own[0].parent.relative_to(found.folder).as_posix()} has {len(own):,}."
        for part, own in found.parts.items()
        for place in PLACES
        if part and (clips := clips_in(found.folder / part / place)) and clips != own
    ]


def name_of(clip: Path) -> str:
    """The name of a clip: that of its folder, or of its file without the suffix."""
    return printable(clip.name if clip.is_dir() else clip.stem)


def clips_of(part: Path) -> list[Path]:
    """The clips of `training/` or `testing/`."""
    return max((clips_in(part / place) for place in PLACES), key=len)


def clips_in(folder: Path) -> list[Path]:
    """The videos and the folders of frames in a folder."""
    return [*videos_in(folder), *frame_folders(folder)] if folder.is_dir() else []


def videos_in(folder: Path) -> list[Path]:
    """The videos of a folder, in natural order."""
    return in_order(path for path in entries(folder) if path.suffix.lower() in VIDEOS and path.is_file())


def frame_folders(folder: Path) -> list[Path]:
    """The folders of frames in a folder, in natural order."""
    return in_order(path for path in entries(folder) if path.is_dir() and pictures_in(path))


def entries(folder: Path) -> Iterable[Path]:
    """What lies in a folder, without hidden files."""
    return (path for path in folder.iterdir() if path.name[0] != ".")


def checked(file: Path, frames: int, clips: str) -> NDArray[np.uint8]:
    """The labels of a file, uint8 [frames], whatever their shape and type."""
    try:
        labels = read_array(file).ravel()
        wrong = labels[(labels != 0) & (labels != 1)]
    except (OSError, ValueError, TypeError) as error:  # TypeError: of a type whose values are no numbers
        raise HandfulError(f"{printable(file)} holds no labels ({error}); {FORM}.") from error
    if len(wrong):
        raise HandfulError(f"{printable(file)} has the label {wrong[0]}; {FORM}.")
    if len(labels) != frames:
        raise HandfulError(
            f"{printable(file)} has {wording.count(len(labels), 'label')}, but {clips} "
            f"{'have' if clips.endswith('clips') else 'has'} {wording.count(frames, 'frame')}; give a label for each."
        )
    return labels.astype(np.uint8)


def member(content: Any, name: str, size: int) -> NDArray[Any]:
    """An array of an opened .npz file; ValueError for one that unpacks to more than so many bytes, and its header."""
    if content.zip.getinfo(f"{name}.npy").file_size > size + HEADER_BYTES:
        raise ValueError(f"{name} is larger than {size:,} bytes")
    found = content[name]
    if not isinstance(found, np.ndarray):  # its bytes, if it is none
        raise ValueError(f"{name} is no array")
    return found


def packed_masks(file: Path, frames: int) -> tuple[NDArray[np.uint8], tuple[int, int]]:
    """The masks of a file, packed, uint8 [frames, ceil(h w / 8)], and their (h, w)."""
    try:
        with np.load(file) as content:
            if absent := {"bits", "shape"} - {*content.files}:
                raise ValueError(f"it has no {min(absent)}")
            height, width = map(int, member(content, "shape", 2 * SIDE_BYTES))
            if not 0 <= height * width <= MOST_PIXELS:
                raise ValueError(f"they are of {width}x{height} pixels")
            expected = frames, -(-height * width // 8)
            bits = member(content, "bits", expected[0] * expected[1])
    except Exception as error:  # of damaged bytes numpy raises nearly anything
        raise HandfulError(
            f"{printable(file)} holds no masks ({first_line(error)}); they are `bits`, of numpy.packbits, "
            "and `shape`, (h, w)."
        ) from error
    if bits.shape != expected or bits.dtype != np.uint8:
        raise HandfulError(
            f"{printable(file)} has masks {list(bits.shape)} of {bits.dtype}, but {wording.count(frames, 'test frame')}"
            f" of {width}x{height} pixels are {list(expected)} of uint8; pack each frame's mask by itself."
        )
    return bits, (height, width)
