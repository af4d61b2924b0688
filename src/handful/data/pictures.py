"""Pictures of a source: listed first, decoded only when asked for."""

from __future__ import annotations

import io
import math
import os
import struct
import zipfile
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageOps, UnidentifiedImageError

from handful.data.store import Contents
from handful.errors import HandfulError

FORMATS = ("AVIF", "BMP", "GIF", "JPEG", "PNG", "PPM", "TIFF", "WEBP")  # none whose decoder starts another program
AT_ONCE = 256  # pictures decoded ahead
LARGEST_MEMBER = 256 * 2**20  # bytes of a file in an archive, unpacked

Pixels = NDArray[np.uint8]


class View(NamedTuple):
    """A part of a picture: a share of each of its sides, its place from 0 (left, top) to 1, mirrored or not."""

    share: float = 1.0
    x: float = 0.5
    y: float = 0.5
    mirrored: bool = False


WHOLE = View()


class Picture(NamedTuple):
    """One picture of a source.

    name: where a person finds it; split: `train`, `val`, `test`, or "" where none is laid down; label: its
    class; content(): what its file holds, or its pixels [H, W, C] if it has no file of its own, or an opened image.
    """

    name: str
    split: str
    label: str
    content: Callable[[], bytes | Pixels | Image.Image]


@dataclass(frozen=True)
class Survey:
    """Everything that a source holds.

    kind: what it is; problems: a sentence for everything that is wrong with it, as far as that shows without
    decoding a picture; empty: classes without a picture, of which `problems` tells too; mend: the way out
    for a picture that cannot be decoded; notes: sentences for what is no problem and good to know.
    """

    kind: str
    pictures: list[Picture]
    problems: list[str] = field(default_factory=list)
    empty: list[str] = field(default_factory=list)
    mend: str = "mend it or remove it"
    notes: list[str] = field(default_factory=list)


def contents(survey: Survey, image_size: int, classes: int | None = None, **info: Any) -> Contents:
    """What a store is made of: the pictures in colour, uint8 [3, image_size, image_size], fitted as `decode` says.

    The classes of each split are sorted by name; `classes`: only the first so many of each split, of which
    info["note"] then tells.  Raises HandfulError for the first problem of the survey.
    """
    if survey.problems:
        raise HandfulError(survey.problems[0])
    check_size(image_size)
    if classes is not None and classes < 1:
        raise HandfulError(f"classes must be at least 1, not {classes}; leave it out to read all of them.")
    found: dict[str, dict[str, list[Picture]]] = {part: defaultdict(list) for part in ("train", "val", "test")}
    for picture in survey.pictures:
        found[picture.split][picture.label].append(picture)
    kept = [(part, label, own[label]) for part, own in found.items() for label in sorted(own)[:classes]]
    splits = {part: [index for index, (own, _, _) in enumerate(kept) if own == part] for part in found}
    if len(kept) < sum(map(len, found.values())):
        sizes = ", ".join(f"{len(splits[part])} of {len(own)} {part}" for part, own in found.items())
        cut = f"Not all classes were read ({sizes}), so no figure on them is one of the whole data set."
        info["note"] = f"{info['note']} {cut}" if "note" in info else cut
    shape = (3, image_size, image_size)
    return Contents(
        images=decoded([picture for _, _, own in kept for picture in own], shape, survey.mend),
        labels=[index for index, (_, _, own) in enumerate(kept) for _ in own],
        image_shape=shape,
        class_names=[label for _, label, _ in kept],
        splits=splits,
        info=info,
    )


def decoded(pictures: Sequence[Picture], shape: tuple[int, int, int], mend: str) -> Iterator[Pixels]:
    """The pictures in order, uint8 [C, H, W], decoded in threads: Pillow frees the interpreter meanwhile."""
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        for first in range(0, len(pictures), AT_ONCE):
            yield from pool.map(lambda picture: decode(picture, shape, mend), pictures[first : first + AT_ONCE])


def decode(picture: Picture, image_shape: tuple[int, int, int], mend: str) -> Pixels:
    """A picture upright, resized to fill `image_shape` (C, H, W), its overhang cropped, as uint8 [C, H, W].

    C is 1 (grey) or 3 (RGB); what is transparent becomes white.  Raises HandfulError naming a picture that
    cannot be decoded, one of more than 179 million pixels among them (Pillow's guard against decompression
    bombs).
    """
    pixels: Pixels = decode_views(picture, image_shape, mend, [WHOLE])[0]
    return pixels


def decode_views(
    picture: Picture, image_shape: tuple[int, int, int], mend: str, views: Sequence[View]
) -> NDArray[np.uint8]:
    """Views of a picture, each as `decode` gives the whole of it, uint8 [V, C, H, W]; it is decoded once."""
    channels, height, width = image_shape
    size = (width, height)
    seen = np.empty((len(views), channels, height, width), np.uint8)
    try:
        with opened(picture.content()) as image:
            whole = upright(image, size, views).convert("L" if channels == 1 else "RGB")
            for place, view in zip(seen, views):
                fitted = whole.resize(size, Image.Resampling.BICUBIC, box_of(view, whole.size, size))
                pixels = np.asarray(ImageOps.mirror(fitted) if view.mirrored else fitted)
                place[:] = pixels.reshape(height, width, channels).transpose(2, 0, 1)
    except Exception as error:  # Pillow's decoders and zipfile raise nearly anything for damaged bytes
        raise unreadable(picture, error, mend) from error
    return seen


def upright(image: Image.Image, size: tuple[int, int], views: Sequence[View]) -> Image.Image:
    """An opened picture as `plain` gives it, decoded for views of this size (width, height).

    A much larger JPEG is decoded at a half to an eighth of its size, well above what is asked.
    """
    image.draft("RGB", (math.ceil(2 * max(size) / min(view.share for view in views)),) * 2)
    return plain(image)


def box_of(view: View, found: tuple[int, int], wanted: tuple[int, int]) -> tuple[float, float, float, float]:
    """Left, top, right and bottom of a view, in a picture of the size `found`, for an image of the shape of `wanted`.

    Sizes are (width, height).  Of the picture, the largest rectangle of that shape counts, in its middle.
    """
    scale = min(found[0] / wanted[0], found[1] / wanted[1])
    sides = [side * scale for side in wanted]
    left, top = (
        (full - side) / 2 + (1 - view.share) * side * place for full, side, place in zip(found, sides, (view.x, view.y))
    )
    right, bottom = left + view.share * sides[0], top + view.share * sides[1]
    return max(left, 0.0), max(top, 0.0), min(right, found[0]), min(bottom, found[1])  # rounding may lead outside


class Unreadable(HandfulError):
    """A picture cannot be decoded."""


def unreadable(picture: Picture, error: Exception, mend: str) -> Unreadable:
    """The error for a picture that cannot be decoded."""
    why = str(error) or type(error).__name__
    if isinstance(error, UnidentifiedImageError):  # Pillow's own words name an object in memory
        why = "of no known format, or cut off at its start"
    return Unreadable(f"{picture.name} is no readable picture ({why}); {mend}.")


def opened(content: bytes | Pixels | Image.Image) -> Image.Image:
    """A picture from the bytes of its file, from its pixels [H, W, C], or a copy of an opened one."""
    if isinstance(content, bytes):
        return Image.open(io.BytesIO(content), formats=FORMATS)
    if isinstance(content, Image.Image):
        return content.copy()
    return Image.fromarray(content[..., 0] if content.shape[-1] == 1 else content)


def plain(image: Image.Image) -> Image.Image:
    """A picture turned as its EXIF orientation says, of eight bits, and with nothing transparent."""
    return on_white(eight_bit(ImageOps.exif_transpose(image)))


def eight_bit(image: Image.Image) -> Image.Image:
    """A 16-bit grey picture by its upper byte (Pillow would clip it); others as they are.

    Raises ValueError for floats and whole numbers whose white nobody knows.
    """
    if image.mode == "F":
        raise ValueError("its pixels are floats; save it in 8 bits")
    if not image.mode.startswith("I"):
        return image
    values = np.asarray(image).astype(np.int64)
    if values.min() < 0 or values.max() > 0xFFFF:
        raise ValueError(f"its pixels go from {values.min()} to {values.max()}; save it in 8 bits")
    if image.mode != "I" or values.max() > 0xFF:  # 32 bits a pixel may hold 8
        values >>= 8
    return Image.fromarray(values.astype(np.uint8))


def on_white(image: Image.Image) -> Image.Image:
    """A picture with transparency laid on white paper; others as they are."""
    if "transparency" not in image.info and image.mode not in ("RGBA", "LA", "PA", "RGBa", "La"):
        return image
    layer = image.convert("RGBA")
    return Image.alpha_composite(Image.new("RGBA", layer.size, "white"), layer)


def opened_archive(path: Path, way_out: str) -> zipfile.ZipFile:
    """A zip archive; HandfulError with the `way_out`: it is missing, or no whole archive."""
    try:
        return zipfile.ZipFile(path)
    except FileNotFoundError as error:
        raise HandfulError(f"{path} is missing; {way_out}.") from error
    except (zipfile.BadZipFile, OSError, ValueError, NotImplementedError, struct.error) as error:  # of damaged headers
        raise HandfulError(f"{path} is no whole zip archive ({error}); {way_out}.") from error


def archive_members(path: Path, way_out: str) -> dict[str, Callable[[], bytes]]:
    """Name -> content of each file of a zip archive, which stays open as long as one of them is kept.

    Raises HandfulError with the `way_out`: it is missing, or no whole archive.
    """
    archive = opened_archive(path, way_out)
    for member in archive.infolist():
        if member.file_size > LARGEST_MEMBER:  # a member gives no more than it declares
            raise HandfulError(
                f"{member.filename} in {path} unpacks to {member.file_size / 2**20:,.0f} MiB, more than a picture has "
                f"({LARGEST_MEMBER / 2**20:.0f}); {way_out}."
            )
    return {name: partial(archive.read, name) for name in archive.namelist() if not name.endswith("/")}


def miscounts(
    pictures: Sequence[Picture], classes: Mapping[str, int], images: int | None, where: Path, way_out: str
) -> list[str]:
    """A sentence for each split that has another number of classes, and each class of another number of images."""
    counts: dict[str, dict[str, int]] = {part: defaultdict(int) for part in classes}
    for picture in pictures:
        counts[picture.split][picture.label] += 1
    problems = [
        f"The {part} split of {where} has {len(own)} classes, {classes[part]} expected; {way_out}."
        for part, own in counts.items()
        if len(own) != classes[part]
    ]
    return problems + [
        f"The class {label!r} of {where} has {count} pictures, {images} expected; {way_out}."
        for own in counts.values()
        for label, count in own.items()
        if images not in (None, count)
    ]


def check_size(image_size: int) -> None:
    """Refuse pictures without pixels."""
    if image_size < 1:
        raise HandfulError(f"image_size must be at least 1 pixel, not {image_size}.")
