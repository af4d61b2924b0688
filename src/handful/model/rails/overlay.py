"""Drawing the lines into pictures, and writing these as pictures or as a video."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from types import TracebackType

import numpy as np
from PIL import Image, ImageDraw

from handful.data.folders import SUFFIXES
from handful.data.pictures import Pixels
from handful.data.video.reading import rate
from handful.errors import HandfulError
from handful.files import write_atomically
from handful.model.rails.shots import Shot, Source
from handful.model.video_writer import VideoWriter
from handful.problems.rail_lines import Answer

COLOURS = {"left": (255, 176, 0), "right": (0, 190, 255)}
FAINT = 0.5  # confidence below which a line is drawn thin
QUALITY = 90


class Overlay:
    """A folder of pictures and videos with their lines drawn in, by the names of the inputs; a context to be left.

    A video becomes an mp4 file without sound.  Raises HandfulError, before anything is decoded: a folder that cannot
    be written; an overlay that would lie over an input, or over that of another.
    """

    def __init__(self, folder: Path, inputs: Sequence[Source]) -> None:
        self.places: dict[Source, Path] = {}
        taken = {source.file.resolve(): source.file for source in inputs}
        for source in inputs:
            place = folder / named(source)
            if (over := taken.get(place.resolve())) is not None:
                raise HandfulError(f"The overlay of {source.file} would be written over {over}; name another folder.")
            taken[place.resolve()] = place
            self.places[source] = place
        try:
            folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise HandfulError(
                f"The folder {folder} for overlays cannot be made ({error.strerror}); name another."
            ) from error
        self.video: VideoWriter | None = None

    def __enter__(self) -> Overlay:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.finish()

    def write(self, shot: Shot, lines: Mapping[str, Answer]) -> None:
        """Draw the lines of a shot, and write it; the frames of a video come one after another."""
        place = self.places[shot.source]
        if self.video is not None and self.video.path != place:
            self.finish()
        if shot.error is not None:
            return
        if shot.frame is None:
            write_picture(drawn(shot.pixels, lines), place)
            return
        if self.video is None:
            self.video = VideoWriter(place, rate(shot.source.file))
        self.video.write(drawn(shot.pixels, lines))

    def finish(self) -> None:
        """Finish the video that is being written."""
        if self.video is not None:
            self.video.close()
            self.video = None


def named(source: Source) -> Path:
    """The name of the overlay of a picture or a video."""
    if source.is_video:
        return source.name.with_suffix(".mp4")
    known = source.name.suffix.lower() in SUFFIXES
    return source.name if known else source.name.with_name(f"{source.name.name}.png")


def drawn(pixels: Pixels, lines: Mapping[str, Answer]) -> Pixels:
    """The picture with its lines, thin where they are unsure."""
    image = Image.fromarray(pixels)
    pen = ImageDraw.Draw(image)
    thick = max(1, round(pixels.shape[1] / 256))
    for name, (points, confidence) in lines.items():
        corners = [(x, y) for x, y in points.tolist()]
        pen.line(corners, COLOURS[name], thick if confidence >= FAINT else 1, joint="curve")
    return np.asarray(image)


def write_picture(pixels: Pixels, path: Path) -> None:
    """A picture in the format that its name says."""
    form = Image.registered_extensions()[path.suffix.lower()]
    write_atomically(path, lambda temporary: Image.fromarray(pixels).save(temporary, form, quality=QUALITY))
