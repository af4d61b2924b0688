"""Pictures as clients send them: only bytes that were sent are decoded, and not before their header was read."""

from __future__ import annotations

import base64
import binascii
import io
import warnings
from collections.abc import Sequence
from pathlib import Path, PurePosixPath

from PIL import Image, UnidentifiedImageError

from handful.data.pictures import Picture
from handful.errors import HandfulError
from handful.serve.limits import Limits, Refused

FORMATS = ("AVIF", "BMP", "GIF", "JPEG", "PNG", "PPM", "TIFF", "WEBP")  # none whose decoder starts another program
LONGEST_NAME = 100
PNG = "data:image/png;base64,"


def sent_picture(name: str | None, content: bytes, most_pixels: int) -> Picture:
    """A picture that a client sent under a name, of which the last part is kept, to be said back.

    Raises Refused: 400 for no bytes, 413 for more than `most_pixels`, 415 for what is no picture.
    """
    name = base_name(name)
    if not content:
        raise Refused(400, f"{name} is empty; send a picture.")
    width, height = size_of(name, content)
    if width * height > most_pixels:
        raise Refused(
            413,
            f"{name} has {width}x{height} pixels, and this server takes {most_pixels:,} at most; send a smaller one.",
        )
    return Picture(name, "", "", lambda: content)


def base_name(name: str | None) -> str:
    """The last part of a client's path, of printable characters; `picture` if nothing is left."""
    last = PurePosixPath((name or "").replace("\\", "/")).name
    return "".join(filter(str.isprintable, last))[-LONGEST_NAME:].strip(".") or "picture"


def size_of(name: str, content: bytes) -> tuple[int, int]:
    """Width and height, from the header of a picture's file."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", Image.DecompressionBombWarning)  # the limit is asked right after
            with Image.open(io.BytesIO(content), formats=FORMATS) as image:
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

    Cards without pictures are passed over.  Raises HandfulError: no pictures, too many, or two classes of one name.
    """
    found: dict[str, list[Picture]] = {}
    for number, (name, drawings, files) in enumerate(cards, 1):
        if given := dropped_and_drawn([path for path, _ in files or []], drawings, limits):
            name = (name or "").strip() or f"class {number}"
            if name in found:
                raise HandfulError(f"Two classes are called {name!r}; give each a name of its own.")
            found[name] = given
    count = sum(map(len, found.values()))
    if not count:
        raise HandfulError("There is nothing to learn from yet; draw or drop at least one picture.")
    if count > limits.pictures:
        raise HandfulError(
            f"These are {count} pictures, and {limits.pictures} are learned from at most; take some out."
        )
    return found


def dropped_and_drawn(paths: Sequence[str], drawings: Sequence[str] | None, limits: Limits) -> list[Picture]:
    """Pictures of the page: files that its client has sent, and drawings as data URLs."""
    given = [(path, Path(path).read_bytes()) for path in paths]
    given += [(f"drawing {number}", drawn(data)) for number, data in enumerate(drawings or [], 1)]
    return [sent_picture(name, content, limits.pixels) for name, content in given]


def drawn(data: str) -> bytes:
    """The PNG file of a drawing."""
    try:
        return base64.b64decode(data.removeprefix(PNG), validate=True)
    except (binascii.Error, ValueError, AttributeError, TypeError) as error:
        raise Refused(400, "A drawing is no data URL of a PNG picture; draw it again.") from error
