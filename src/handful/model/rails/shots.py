"""What `predict` looks at, one shot after another: pictures, folders of them, and the frames of videos (by PyAV)."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import NamedTuple, TypeVar

import av
import numpy as np
from numpy.typing import NDArray
from PIL import Image

from handful import wording
from handful.data.folders import SUFFIXES, list_images, other_files
from handful.data.pictures import Picture, Pixels, opened, plain, unreadable
from handful.errors import HandfulError, first_line
from handful.wording import printable

VIDEOS = {".mp4", ".avi", ".mov", ".mkv", ".m4v", ".webm", ".mpg", ".mpeg", ".ts"}
SEEN = {*SUFFIXES, *VIDEOS}
MEND = "mend it or leave it out"
WHOLE = 0.9  # of the frames that a video says it has; some are only for its player to jump over
NOTHING: Pixels = np.zeros((0, 0, 3), np.uint8)

Item = TypeVar("Item")


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
                yield from video(source)
            else:
                yield Shot(source, picture(source.file))
        except HandfulError as error:
            if not skip_bad:
                raise
            yield Shot(source, NOTHING, error=str(error))


def picture(path: Path) -> Pixels:
    """A picture upright, uint8 [H, W, 3]."""
    source = Picture(printable(path), "", "", path.read_bytes)
    try:
        with opened(source.content()) as image:
            return np.asarray(plain(image).convert("RGB"))
    except Exception as error:  # Pillow's decoders raise nearly anything for damaged bytes
        raise unreadable(source, error, MEND) from error


def video(source: Source) -> Iterator[Shot]:
    """The frames of a video."""
    name, done, promised = printable(source.file), 0, 0
    try:
        with av.open(str(source.file)) as container:
            if not container.streams.video:
                raise HandfulError(f"{name} holds no pictures, only other streams; give a video.")
            stream = container.streams.video[0]
            stream.thread_type = "AUTO"
            promised = stream.frames  # 0 where it does not say
            for frame in container.decode(stream):
                pixels: Pixels = frame.to_ndarray(format="rgb24").astype(np.uint8, copy=False)
                yield Shot(source, pixels, done, frame.time)
                done += 1
    except av.FFmpegError as error:
        why = error.strerror or first_line(error)
        if not done:
            raise HandfulError(f"{name} cannot be read as a video ({why}); {MEND}.") from error
        raise broken_off(name, done, why) from error
    if not done:
        raise HandfulError(f"{name} is a video without a frame; leave it out.")
    if done < WHOLE * promised:
        raise broken_off(name, done, f"it says that it has {promised}")


def broken_off(name: str, done: int, why: str) -> HandfulError:
    """The error for a video that ends before its end."""
    return HandfulError(
        f"{name} breaks off after {wording.count(done, 'frame')} ({why}); mend it, or cut it off there."
    )


def rate(path: Path) -> float:
    """Frames a second of a video."""
    with av.open(str(path)) as container:
        return float(container.streams.video[0].average_rate or 25)


def resized(pixels: Pixels, width: int, height: int) -> NDArray[np.uint8]:
    """A picture as the network takes it, uint8 [3, height, width]; its sides are stretched as they must."""
    if pixels.shape[:2] != (height, width):
        pixels = np.asarray(Image.fromarray(pixels).resize((width, height), Image.Resampling.BILINEAR))
    return np.ascontiguousarray(pixels.transpose(2, 0, 1))


def together(shown: Iterator[Shot], size: int) -> Iterator[list[Shot]]:
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


def meanwhile(items: Iterator[Item]) -> Iterator[Item]:
    """The items, the next of which a thread makes while the last one is used: no more than two are held."""
    with ThreadPoolExecutor(1) as thread:
        following = thread.submit(next, items, None)
        while (item := following.result()) is not None:
            following = thread.submit(next, items, None)
            yield item
