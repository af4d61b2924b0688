"""Pictures as clients send them: only bytes that were sent are decoded, and not before their header was read."""

from __future__ import annotations

import base64
import binascii
import io
import os
import stat
import time
from collections.abc import Iterator, Sequence
from contextlib import suppress
from pathlib import Path, PurePosixPath
from typing import NamedTuple

from PIL import Image, UnidentifiedImageError

from handful.data.pictures import FORMATS, Picture
from handful.errors import HandfulError
from handful.serve.limits import Limits, Refused

LONGEST_NAME = 100
PNG = "data:image/png;base64,"
SHARED = 20  # times the pixels that a picture may have: of all pictures that a fit decodes
AGE = 3600  # seconds that a picture may lie on the page


class Sent(NamedTuple):
    """A picture as a client sent it, and how many pixels its header tells of."""

    picture: Picture
    pixels: int


def sent_picture(name: str | None, content: bytes | Path, most_pixels: int) -> Sent:
    """A picture that a client sent under a name, of which the last part is kept, to be said back.

    content: of its file, or where that lies, which is read when the picture is asked for.  Raises Refused: 400 for no
    bytes, 413 for more than `most_pixels`, 415 for what is no picture.
    """
    name = base_name(name)
    if isinstance(content, Path) and not content.is_file():
        raise Refused(
            404, f"{name} is here no longer: pictures lie on the page for {AGE // 60} minutes; drop it again."
        )
    if not (content.stat().st_size if isinstance(content, Path) else content):
        raise Refused(400, f"{name} is empty; send a picture.")
    width, height = size_of(name, content)
    if width * height > most_pixels:
        raise Refused(
            413,
            f"{name} has {width}x{height} pixels, and this server takes {most_pixels:,} at most; send a smaller one.",
        )
    read = content.read_bytes if isinstance(content, Path) else lambda: content
    return Sent(Picture(name, "", "", read), width * height)


def base_name(name: str | None) -> str:
    """The last part of a client's path, of printable characters; `picture` if nothing is left."""
    last = PurePosixPath((name or "").replace("\\", "/")).name
    return "".join(filter(str.isprintable, last))[-LONGEST_NAME:].strip(".") or "picture"


def size_of(name: str, content: bytes | Path) -> tuple[int, int]:
    """Width and height, from the header of a picture's file."""
    try:
        with Image.open(content if isinstance(content, Path) else io.BytesIO(content), formats=FORMATS) as image:
            return image.size
    except Image.DecompressionBombError as error:
        raise Refused(413, f"{name} has far too many pixels; send a smaller one.") from error
    except Exception as error:  # Pillow's readers raise nearly anything for damaged bytes
        why = "of no known format, or cut off at its start"
        if not isinstance(error, UnidentifiedImageError):
            why = str(error) or type(error).__name__
        raise Refused(415, f"{name} is no readable picture ({why}); send one of {', '.join(FORMATS)}.") from error


def support(
    cards: Sequence[tuple[str | None, Sequence[str] | None, Sequence[tuple[str, str | None]] | None]], limits: Limits
) -> dict[str, list[Picture]]:
    """Class name -> pictures, of the page's cards: a name, drawings as data URLs, and (path, caption) of files.

    Cards without pictures are passed over; nothing is read before all are counted.  Raises HandfulError: no pictures,
    too many or too large, or two classes of one name.
    """
    count = sum(len(drawings or []) + len(files or []) for _, drawings, files in cards)
    if not count:
        raise HandfulError("There is nothing to learn from yet; draw or drop at least one picture.")
    if count > limits.pictures:
        raise HandfulError(
            f"These are {count} pictures, and {limits.pictures} are learned from at most; take some out."
        )
    found: dict[str, list[Picture]] = {}
    pixels = 0
    for number, (name, drawings, files) in enumerate(cards, 1):
        if given := dropped_and_drawn([path for path, _ in files or []], drawings, limits):
            name = (name or "").strip() or f"class {number}"
            if name in found:
                raise HandfulError(f"Two classes are called {name!r}; give each a name of its own.")
            found[name] = [picture for picture, _ in given]
            pixels += sum(sent.pixels for sent in given)
    if pixels > SHARED * limits.pixels:
        raise HandfulError(
            f"The pictures have {pixels:,} pixels together, and {SHARED * limits.pixels:,} are learned from at most; "
            "take some out, or drop smaller ones."
        )
    return found


def dropped_and_drawn(paths: Sequence[str], drawings: Sequence[str] | None, limits: Limits) -> list[Sent]:
    """Pictures of the page: files that its client has sent, and drawings as data URLs."""
    given: list[tuple[str, bytes | Path]] = [(path, Path(path)) for path in paths]
    given += [(f"drawing {number}", drawn(data)) for number, data in enumerate(drawings or [], 1)]
    return [sent_picture(name, content, limits.pixels) for name, content in given]


def drawn(data: str) -> bytes:
    """The PNG file of a drawing."""
    try:
        return base64.b64decode(data.removeprefix(PNG), validate=True)
    except (binascii.Error, ValueError, AttributeError, TypeError) as error:
        raise Refused(400, "A drawing is no data URL of a PNG picture; draw it again.") from error


def lying(folder: Path) -> Iterator[tuple[str, os.stat_result]]:
    """Files and folders below a folder, the deepest first; what is deleted meanwhile is passed over."""
    for place, folders, files in os.walk(folder, topdown=False):
        for name in (*files, *folders):
            with suppress(FileNotFoundError):
                yield (path := os.path.join(place, name)), os.lstat(path)


def sweep(folder: Path, age: float) -> None:
    """Delete all files below a folder, and empty folders, that have not been written to for `age` seconds.

    Gradio deletes only such as were sent whole.
    """
    for path, found in lying(folder):
        if time.time() - found.st_mtime > age:
            with suppress(OSError):  # a folder that is not empty
                os.rmdir(path) if stat.S_ISDIR(found.st_mode) else os.unlink(path)
