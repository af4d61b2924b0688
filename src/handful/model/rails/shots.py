"""What `predict` looks at, one shot after another: pictures, folders of them, and the frames of videos (by PyAV)."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from handful.data.folders import SUFFIXES, list_images, other_files
from handful.data.pictures import Pixels
from handful.data.video.reading import VIDEOS, decoded, picture
from handful.errors import HandfulError

SEEN = {*SUFFIXES, *VIDEOS}
NOTHING: Pixels = np.zeros((0, 0, 3), np.uint8)


class Source(NamedTuple):
    """A picture or a video: its file, and its name below the folder that was asked for."""

    file: Path
    name: Path

    @property
    def is_video(self) -> bool:
        """By its suffix."""
        return self.file.suffix.lower() in VIDEOS


class Shot(NamedTuple):
    """One picture, or one frame of a video.

    pixels: uint8 [H, W, 3], nothing if there is an error; frame: its number in a video, from 0; time: seconds from
    the start of it, where the video says; both None of a picture; error: why it, or the rest of a video, is not seen.
    """

    source: Source
    pixels: Pixels
    frame: int | None = None
    time: float | None = None
    error: str | None = None


def sources(path: Path) -> list[Source]:
    """The file itself, or the pictures and videos in a folder and below it, by name."""
    if path.is_file():
        return [Source(path, Path(path.name))]
    if not path.is_dir():
        raise HandfulError(f"There is no picture, video or folder {path}.")
    found = [Source(file, file.relative_to(path)) for file in list_images(path, SEEN)]
    if not found:
        raise HandfulError(" ".join([f"The folder {path} holds no pictures and no videos.", *other_files(path, SEEN)]))
    return found


def shots(seen: Sequence[Source], skip_bad: bool = False) -> Iterator[Shot]:
    """Pictures, and the frames of videos, decoded one by one.

    Raises HandfulError for what cannot be read, when all before it has been given; skip_bad: it goes on with a shot
    that holds the error.
    """
    for source in seen:
        try:
            if source.is_video:
                for frame in decoded(source.file):
                    yield Shot(source, *frame)
            else:
                yield Shot(source, picture(source.file))
        except HandfulError as error:
            if not skip_bad:
                raise
            yield Shot(source, NOTHING, error=str(error))


def resized(pixels: Pixels, width: int, height: int) -> NDArray[np.uint8]:
    """A picture as the network takes it, uint8 [3, height, width]; its sides are stretched as they must."""
    if pixels.shape[:2] != (height, width):
        pixels = np.asarray(Image.fromarray(pixels).resize((width, height), Image.Resampling.BILINEAR))
    return np.ascontiguousarray(pixels.transpose(2, 0, 1))
