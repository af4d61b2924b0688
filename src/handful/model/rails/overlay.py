"""Drawing the lines into pictures, and writing these as pictures or as a video."""

from __future__ import annotations

from collections.abc import Mapping
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
from PIL import Image, ImageDraw

from handful.data.pictures import Pixels
from handful.errors import HandfulError
from handful.problems.rail_lines import Answer

COLOURS = {"left": (255, 176, 0), "right": (0, 190, 255)}
FAINT = 0.5  # confidence below which a line is drawn thin
QUALITY = 90


def drawn(pixels: Pixels, lines: Mapping[str, Answer]) -> Pixels:
    """The picture with its lines, thin where they are unsure."""
    image = Image.fromarray(pixels)
    pen = ImageDraw.Draw(image)
    for name, (points, confidence) in lines.items():
        thick = max(1, round(pixels.shape[1] / 256))
        pen.line(
            [(x, y) for x, y in points.tolist()], COLOURS[name], thick if confidence >= FAINT else 1, joint="curve"
        )
    return np.asarray(image)


class VideoWriter:
    """Writes frames of one size to an mp4 file, H.264; `close` finishes it."""

    def __init__(self, path: Path, rate: float) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        self.path, self.rate = path, Fraction(rate).limit_denominator(1001)
        self.container = av.open(str(path), "w")
        self.stream: av.VideoStream | None = None

    def write(self, pixels: Pixels) -> None:
        """Add a frame, uint8 [H, W, 3]; HandfulError if it has another size than the first."""
        even = np.ascontiguousarray(pixels[: pixels.shape[0] // 2 * 2, : pixels.shape[1] // 2 * 2])  # as H.264 needs it
        if self.stream is None:
            self.stream = self.container.add_stream(
                "libx264", rate=self.rate, options={"preset": "veryfast", "crf": "20"}
            )
            self.stream.height, self.stream.width = even.shape[:2]
            self.stream.pix_fmt = "yuv420p"
        if even.shape[:2] != (self.stream.height, self.stream.width):
            raise HandfulError(
                f"A frame of {even.shape[1]}x{even.shape[0]} pixels follows one of {self.stream.width}x"
                f"{self.stream.height}; a video has one size."
            )
        for packet in self.stream.encode(av.VideoFrame.from_ndarray(even, format="rgb24")):
            self.container.mux(packet)

    def close(self) -> None:
        """Finish the file."""
        if self.stream is not None:
            for packet in self.stream.encode():
                self.container.mux(packet)
        self.container.close()


def write_picture(pixels: Pixels, path: Path) -> None:
    """A picture as JPEG, or as what its name says."""
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(pixels).save(path, quality=QUALITY)
