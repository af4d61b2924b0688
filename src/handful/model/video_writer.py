"""Writing frames as an mp4 file (by PyAV)."""

from __future__ import annotations

from contextlib import suppress
from fractions import Fraction
from pathlib import Path

import av
import numpy as np

from handful import wording
from handful.data.pictures import Pixels
from handful.errors import HandfulError, first_line

FAULTS = (OSError, av.FFmpegError)  # of a file that cannot be written
H264 = {"preset": "veryfast", "crf": "20"}


class VideoWriter:
    """Writes frames of one size to an mp4 file (H.264), under another name until `close`."""

    def __init__(self, path: Path, frame_rate: float) -> None:
        self.path, self.work = path, path.with_name(f".{path.name}.tmp")
        self.rate = Fraction(frame_rate).limit_denominator(1001)
        self.stream: av.VideoStream | None = None
        self.frames = 0
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            self.container = av.open(str(self.work), "w", format="mp4")
        except FAULTS as error:
            raise self.unwritten(error) from error

    def write(self, pixels: Pixels) -> None:
        """Add a frame, uint8 [H, W, 3]; HandfulError if it has another size than the first."""
        even = np.ascontiguousarray(pixels[: pixels.shape[0] // 2 * 2, : pixels.shape[1] // 2 * 2])  # as H.264 needs it
        if self.stream is None:
            self.stream = self.container.add_stream("libx264", rate=self.rate, options=H264)
            self.stream.height, self.stream.width = even.shape[:2]
            self.stream.pix_fmt = "yuv420p"
        if even.shape[:2] != (self.stream.height, self.stream.width):
            raise HandfulError(
                f"{self.path} has {wording.count(self.frames, 'frame')} of {self.stream.width}x{self.stream.height} "
                f"pixels, and then one of {even.shape[1]}x{even.shape[0]} follows; a video has one size, so cut the "
                "input there, or leave out the overlay."
            )
        self.add(self.stream, av.VideoFrame.from_ndarray(even, format="rgb24"))
        self.frames += 1

    def add(self, stream: av.VideoStream, frame: av.VideoFrame | None) -> None:
        """Encode a frame, or what is left to encode."""
        try:
            self.container.mux(stream.encode(frame))
        except FAULTS as error:
            raise self.unwritten(error) from error

    def close(self) -> None:
        """Finish the file, and give it its name."""
        if self.stream is not None:
            self.add(self.stream, None)
        try:
            self.container.close()
            self.work.replace(self.path)
        except FAULTS as error:
            raise self.unwritten(error) from error

    def unwritten(self, error: Exception) -> HandfulError:
        """The error for a file that cannot be written."""
        with suppress(OSError):
            self.work.unlink()
        return HandfulError(f"{self.path} cannot be written ({first_line(error)}); name another place for it.")
