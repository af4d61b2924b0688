"""What `predict` looks at, one shot after another: pictures, folders of pictures, and the frames of videos."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import av
import numpy as np
from numpy.typing import NDArray
from PIL import Image

from handful.data.folders import list_images
from handful.data.pictures import Picture, Pixels, opened, plain, unreadable
from handful.errors import HandfulError, first_line
from handful.wording import printable

VIDEOS = (".mp4", ".avi", ".mov", ".mkv", ".m4v", ".webm", ".mpg", ".mpeg", ".ts")


class Shot(NamedTuple):
    """One picture, or one frame of a video.

    input: the file as it was given; pixels: uint8 [H, W, 3]; frame: its number in a video, from 0; time: seconds from
    the start of it; both None of a picture.
    """

    input: str
    pixels: Pixels
    frame: int | None = None
    time: float | None = None


def shots(source: Path) -> Iterator[Shot]:
    """The frames of a video, or one picture.

    Raises HandfulError: a file that cannot be read; a video that breaks off yields what is before, and then raises.
    """
    if source.suffix.lower() in VIDEOS:
        yield from video(source)
    else:
        yield Shot(printable(source), picture(source))


def sources(path: Path) -> list[Path]:
    """The file itself, or the pictures and videos in a folder and below it, by name."""
    if path.is_file():
        return [path]
    if not path.is_dir():
        raise HandfulError(f"There is no picture, video or folder {path}.")
    videos = [file for file in path.rglob("*") if file.suffix.lower() in VIDEOS and file.is_file()]
    found = sorted({*list_images(path), *videos})
    if not found:
        raise HandfulError(f"The folder {path} holds no pictures and no videos.")
    return found


def picture(path: Path) -> Pixels:
    """A picture upright, uint8 [H, W, 3]."""
    source = Picture(printable(path), "", "", path.read_bytes)
    try:
        with opened(source.content()) as image:
            return np.asarray(plain(image).convert("RGB"))
    except Exception as error:  # Pillow's decoders raise nearly anything for damaged bytes
        raise unreadable(source, error, "mend it or leave it out") from error


def video(path: Path) -> Iterator[Shot]:
    """The frames of a video, decoded one by one."""
    name, number = printable(path), 0
    try:
        with av.open(str(path)) as container:
            if not container.streams.video:
                raise HandfulError(f"{name} holds no pictures, only other streams; give a video.")
            stream = container.streams.video[0]
            stream.thread_type = "AUTO"
            for number, frame in enumerate(container.decode(stream)):
                yield Shot(name, frame.to_ndarray(format="rgb24"), number, None if frame.time is None else frame.time)
    except av.FFmpegError as error:
        where = f"breaks off after frame {number}" if number else "cannot be read as a video"
        raise HandfulError(f"{name} {where} ({first_line(error)}); mend it, or cut it off there.") from error


def rate(path: Path) -> float:
    """Frames a second of a video."""
    with av.open(str(path)) as container:
        found: Any = container.streams.video[0].average_rate
    return float(found or 25)


def resized(pixels: Pixels, width: int, height: int) -> NDArray[np.uint8]:
    """A picture as the network takes it, uint8 [3, height, width]."""
    if pixels.shape[:2] != (height, width):
        pixels = np.asarray(Image.fromarray(pixels).resize((width, height), Image.Resampling.BILINEAR))
    return np.ascontiguousarray(pixels.transpose(2, 0, 1))


def together(shown: Iterator[Shot], size: int) -> Iterator[Sequence[Shot]]:
    """So many at a time; what came before an error is not lost."""
    batch: list[Shot] = []
    try:
        for shot in shown:
            batch.append(shot)
            if len(batch) == size:
                yield batch
                batch = []
    except HandfulError:
        if batch:
            yield batch
        raise
    if batch:
        yield batch
