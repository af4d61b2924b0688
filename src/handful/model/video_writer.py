"""Writing frames as an mp4 file (by PyAV)."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager, suppress
from fractions import Fraction
from pathlib import Path
from typing import Final

import av
import numpy as np
from av.codec.codec import UnknownCodecError

from handful import wording
from handful.data.pictures import Pixels
from handful.errors import HandfulError, first_line

FAULTS = (OSError, av.FFmpegError)  # of a file that cannot be written
CODEC: Final = "libx264"
H264 = {"preset": "veryfast", "crf": "20"}


class VideoWriter:
    """Writes frames of one size to an mp4 file (H.264), under another name until `close`.

    Raises HandfulError for a file that cannot be written: what there was of it is gone then, and `close` does nothing.
    """

    def __init__(self, path: Path, frame_rate: float) -> None:
        self.path, self.work = path, path.with_name(f".{path.name}.tmp")
        self.rate = Fraction(frame_rate).limit_denominator(1001)
        self.container: av.container.OutputContainer | None = None
        self.stream: av.VideoStream | None = None
        self.frames = 0
        with self.whole_or_gone():
            path.parent.mkdir(parents=True, exist_ok=True)
            self.container = av.open(str(self.work), "w", format="mp4")

    def write(self, pixels: Pixels) -> None:
        """Add a frame, uint8 [H, W, 3]; HandfulError if it has another size than the first."""
        even = np.ascontiguousarray(pixels[: pixels.shape[0] // 2 * 2, : pixels.shape[1] // 2 * 2])  # as H.264 needs it
        height, width = even.shape[:2]
        stream = self.stream or self.begun(width, height)
        if (width, height) != (stream.width, stream.height):
            raise HandfulError(
                f"{self.path} has {wording.count(self.frames, 'frame')} of {stream.width}x{stream.height} pixels, and "
                f"then one of {width}x{height} follows; a video has one size, so cut the input there, or leave out the "
                "overlay."
            )
        self.add(stream, av.VideoFrame.from_ndarray(even, format="rgb24"))
        self.frames += 1

    def begun(self, width: int, height: int) -> av.VideoStream:
        """The stream, made for the first frame."""
        with self.whole_or_gone():
            assert self.container is not None
            self.stream = self.container.add_stream(CODEC, rate=self.rate, options=H264)
            self.stream.width, self.stream.height, self.stream.pix_fmt = width, height, "yuv420p"
            return self.stream

    def add(self, stream: av.VideoStream, frame: av.VideoFrame | None) -> None:
        """Encode a frame, or what is left to encode."""
        with self.whole_or_gone():
            assert self.container is not None
            self.container.mux(stream.encode(frame))

    def close(self) -> None:
        """Finish the file, and give it its name; nothing if it was finished, or could not be written."""
        if self.container is None:
            return
        if self.stream is not None:
            self.add(self.stream, None)
        with self.whole_or_gone():
            self.container.close()
            self.container = None
            self.work.replace(self.path)

    @contextmanager
    def whole_or_gone(self) -> Iterator[None]:
        """Within it, a fault ends the file: it is closed and removed, and one sentence says what happened."""
        try:
            yield
        except (*FAULTS, UnknownCodecError) as error:
            container, self.container = self.container, None
            with suppress(*FAULTS):
                if container is not None:
                    container.close()
            with suppress(OSError):
                self.work.unlink()
            if isinstance(error, UnknownCodecError):
                raise HandfulError(
                    f"{self.path} cannot be written, since this build of PyAV has no H.264 encoder ({CODEC}); install "
                    "one that has it (pip install --force-reinstall av), or leave out the overlay."
                ) from error
            raise HandfulError(
                f"{self.path} cannot be written ({first_line(error)}); name another place for it."
            ) from error
