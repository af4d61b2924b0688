"""The frames of a clip, one by one: of a video file (by PyAV), of a folder of pictures, or of a camera."""

from __future__ import annotations

import re
import stat
import threading
from collections.abc import Generator, Iterable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import av
import numpy as np
from numpy.typing import NDArray
from PIL import Image

from handful import wording
from handful.data.folders import SUFFIXES
from handful.data.pictures import Picture, Pixels, opened, plain, unreadable
from handful.errors import HandfulError, first_line
from handful.wording import printable

VIDEOS = {".mp4", ".avi", ".mov", ".mkv", ".m4v", ".webm", ".mpg", ".mpeg", ".ts"}
MEND = "mend it or leave it out"
WHOLE = 0.9  # of the frames that a video says it has; some are only for its player to jump over
RATE = 25.0  # frames a second where a clip does not say
AT_ONCE = {"fpsprobesize": "0"}  # show the first frame at once, not when twenty have told how fast they come
GLANCE = 0.1  # seconds between two looks at a file that grows


class Frame(NamedTuple):
    """One frame of a clip.

    pixels: uint8 [H, W, 3], or [H, W] if grey; number: from 0; time: seconds from the first frame, None where the clip
    does not say, as a folder of pictures does not.
    """

    pixels: Pixels
    number: int
    time: float | None


def frames(source: Path, *, grey: bool = False, follow: bool = False) -> Iterator[Frame]:
    """The frames of a clip in order, all of one size: a video file, or a folder of pictures, `9.png` before `10.png`.

    grey: one channel instead of three; follow: read on as the file grows, or from a camera such as /dev/video0, until
    the iterator is closed.

    Raises HandfulError, when all frames before have been given: no video, a truncated one, no frame, a picture that
    cannot be read, a frame of another size, what cannot be followed.
    """
    if follow:
        return Following(source, grey)
    return of_one_size(stills(source, grey) if source.is_dir() else decoded(source, grey), source)


def rate(source: Path) -> float:
    """Frames a second of a clip; 25 where it does not say, as a folder of pictures does not."""
    if source.is_dir():
        return RATE
    with opened_video(source, str(source)) as container:
        return float(container.streams.video[0].average_rate or RATE)


def at_size(pixels: Pixels, size: int, channels: int) -> Pixels:
    """A frame, uint8 [H, W, 3] or [H, W], as a network takes it: uint8 [channels, size, size], its sides stretched."""
    image = Image.fromarray(pixels)
    if image.size != (size, size):
        smaller = min(image.size) > size  # by area: the mean of 2 x 2 pixels at half the size
        image = image.resize((size, size), Image.Resampling.BOX if smaller else Image.Resampling.BILINEAR)
    pixels = np.asarray(image.convert("L" if channels == 1 else "RGB"))
    return np.ascontiguousarray(pixels.reshape(size, size, channels).transpose(2, 0, 1))


def of_one_size(shown: Iterator[Frame], source: Path) -> Iterator[Frame]:
    """The frames; HandfulError at the first whose size is not that of the first."""
    size = None
    for frame in shown:
        height, width = frame.pixels.shape[:2]
        size = size or (width, height)
        if (width, height) != size:
            raise HandfulError(
                f"{printable(source)} changes its size: frame {frame.number} has {width}x{height} pixels, those before "
                f"have {size[0]}x{size[1]}; a camera has one size, so cut the clip there."
            )
        yield frame


def stills(folder: Path, grey: bool = False) -> Iterator[Frame]:
    """The pictures in a folder as frames, by the numbers in their names."""
    paths = pictures_in(folder)
    if not paths:
        raise HandfulError(f"The folder {printable(folder)} holds no frames; give one of pictures, or a video.")
    for number, path in enumerate(paths):
        yield Frame(picture(path, grey), number, None)


def pictures_in(folder: Path) -> list[Path]:
    """The visible pictures in a folder, in natural order."""
    return in_order(path for path in folder.iterdir() if path.suffix.lower() in SUFFIXES and path.name[0] != ".")


def in_order(paths: Iterable[Path]) -> list[Path]:
    """Paths by name, numbers in it by their value: `2.png`, `010.png`, `a9`, `a10`."""

    def key(path: Path) -> tuple[list[tuple[str, int]], str]:
        parts = re.findall(r"(\D*)(\d*)", path.name)
        return [(text, int(digits or 0)) for text, digits in parts], path.name

    return sorted(paths, key=key)


def picture(path: Path, grey: bool = False) -> Pixels:
    """A picture upright, uint8 [H, W, 3], or [H, W] if grey."""
    source = Picture(printable(path), "", "", path.read_bytes)
    try:
        with opened(source.content()) as image:
            return np.asarray(plain(image).convert("L" if grey else "RGB"))
    except Exception as error:  # Pillow's decoders raise nearly anything for damaged bytes
        raise unreadable(source, error, MEND) from error


def decoded(file: Path, grey: bool = False) -> Iterator[Frame]:
    """The frames of a video file, of whatever sizes."""
    name = printable(file)
    with opened_video(file, str(file)) as container:
        stream = container.streams.video[0]
        stream.thread_type = "AUTO"
        done = yield from frames_of(container, name, grey)
        if done < WHOLE * stream.frames:  # 0 where it does not say
            raise broken_off(name, done, f"it says that it has {stream.frames}")


def opened_video(file: Path, content: Any, **options: Any) -> av.container.InputContainer:
    """A container with a video stream, of a file or of what is read from it."""
    name = printable(file)
    try:
        container = av.open(content, metadata_errors="replace", **options)
    except (av.FFmpegError, OSError) as error:
        raise HandfulError(f"{name} cannot be read as a video ({reason(error)}); {MEND}.") from error
    if not container.streams.video:
        container.close()
        raise HandfulError(f"{name} holds no pictures, only other streams; give a video.")
    return container


def frames_of(container: av.container.InputContainer, name: str, grey: bool) -> Generator[Frame, None, int]:
    """The frames of an opened video; returns how many they were."""
    done, start = 0, None
    try:
        for frame in container.decode(video=0):
            pixels: NDArray[np.uint8] = frame.to_ndarray(format="gray" if grey else "rgb24").astype(
                np.uint8, copy=False
            )
            if start is None:
                start = frame.time  # of a camera it may be that since it was switched on
            yield Frame(pixels, done, None if frame.time is None or start is None else frame.time - start)
            done += 1
    except (av.FFmpegError, OSError) as error:
        if not done:
            raise HandfulError(f"{name} cannot be read as a video ({reason(error)}); {MEND}.") from error
        raise broken_off(name, done, reason(error)) from error
    if not done:
        raise HandfulError(f"{name} is a video without a frame; leave it out.")
    return done


def reason(error: Exception) -> str:
    """What a decoder says of a file."""
    return getattr(error, "strerror", None) or first_line(error)


def broken_off(name: str, done: int, why: str) -> HandfulError:
    """The error for a video that ends before its end."""
    return HandfulError(
        f"{name} breaks off after {wording.count(done, 'frame')} ({why}); mend it, or cut it off there."
    )


class Following(Iterator[Frame]):
    """The frames of a camera, or of a file that grows: it waits for the next one until it is closed, by any thread."""

    def __init__(self, source: Path, grey: bool) -> None:
        self.source, self.closed = source, threading.Event()
        self.shown = of_one_size(self.decoded(grey), source)

    def __next__(self) -> Frame:
        if self.closed.is_set():
            raise StopIteration
        return next(self.shown)

    def close(self) -> None:
        """Stop; a thread that waits for a frame then gets none."""
        self.closed.set()

    def decoded(self, grey: bool) -> Iterator[Frame]:
        """The frames as they come."""
        name = printable(self.source)
        if self.source.is_dir():
            raise HandfulError(f"{name} is a folder, which cannot be followed; give a file that grows, or a camera.")
        if is_camera(self.source):
            with opened_video(self.source, str(self.source), format="v4l2") as container:
                for frame in frames_of(container, name, grey):
                    yield frame
                    if self.closed.is_set():
                        break
            return
        if ends_with_its_index(self.source):
            raise HandfulError(
                f"{name} is an mp4 file whose index is written last, so nothing can be seen before it ends; record as "
                ".ts or .mkv, or as fragmented mp4."
            )
        with Growing(self.source, self.closed) as file:
            try:
                with opened_video(self.source, file, options=AT_ONCE) as container:
                    yield from frames_of(container, name, grey)
            except HandfulError:
                if not file.ended:  # one that was ended is cut off where it was
                    raise
            if file.interrupted:
                raise KeyboardInterrupt


class Growing:
    """A file that is read as it grows: at its end `read` waits for more, until it is told to stop."""

    def __init__(self, path: Path, stop: threading.Event) -> None:
        self.stop, self.interrupted = stop, False
        try:
            self.file = path.open("rb", buffering=0)
        except OSError as error:
            raise HandfulError(f"{printable(path)} cannot be opened ({error.strerror}); give a file.") from error

    def __enter__(self) -> Growing:
        return self

    def __exit__(self, *_: object) -> None:
        self.file.close()

    def read(self, size: int) -> bytes:
        """At most so many bytes, and none when told to stop."""
        try:
            while not self.ended:
                if found := self.file.read(size):
                    return found
                self.stop.wait(GLANCE)
        except KeyboardInterrupt:  # would be lost in the decoder, which calls this
            self.interrupted = True
        return b""

    @property
    def ended(self) -> bool:
        """Whether it was told to stop, or Ctrl-C was pressed as it waited."""
        return self.interrupted or self.stop.is_set()


def is_camera(source: Path) -> bool:
    """Whether a path is a device."""
    return source.exists() and stat.S_ISCHR(source.stat().st_mode)


def ends_with_its_index(path: Path) -> bool:
    """Whether a file is an mp4 or mov file whose frames come before the index that says where they are."""
    try:
        with path.open("rb") as file:
            while len(head := file.read(8)) == 8:
                size, kind = int.from_bytes(head[:4], "big"), head[4:]
                if not kind.isalnum() or kind in (b"moov", b"moof"):
                    return False
                if kind == b"mdat":
                    return True
                file.seek(max(size, 8) - 8, 1)
    except OSError:  # told when it is opened
        pass
    return False
