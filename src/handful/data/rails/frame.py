"""An annotated frame: a picture, and the lines that a person drew in it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from handful import wording
from handful.data.pictures import Picture, Pixels, opened, plain, unreadable
from handful.errors import HandfulError

Line: TypeAlias = NDArray[np.float64]

MEND = "mend it, or take its record out of the annotations"
SLACK = 1.0  # pixels that a point may lie outside: the border of a picture is half a pixel beyond a pixel's centre
CROSSED = 0.5  # pixels that the left rail may lie right of the right one: both end where they meet


@dataclass(frozen=True)
class Frame:
    """A picture with lines.

    picture: decoded only by `pixels`; width, height: pixels of the image in which the lines were drawn; lines: name
    -> its points (x, y), float64 [n, 2], bottom to top, where (0, 0) is the centre of the upper left pixel; `left`
    and `right` are the rails of the track that is meant, names that end in these words those of another track; a line
    that cannot be seen has no entry; tags: words for the place, such as `tram` or `snow`.
    """

    picture: Picture
    width: int
    height: int
    lines: Mapping[str, Line]
    tags: tuple[str, ...] = ()

    def pixels(self) -> Pixels:
        """The picture upright, uint8 [height, width, 3]; HandfulError if it is none, or of another size."""
        try:
            with opened(self.picture.content()) as image:
                pixels = np.asarray(plain(image).convert("RGB"))
        except Exception as error:  # Pillow's decoders raise nearly anything for damaged bytes
            raise unreadable(self.picture, error, MEND) from error
        if fault := self.size_fault((pixels.shape[1], pixels.shape[0])):
            raise HandfulError(fault)
        return pixels

    def size_fault(self, found: tuple[int, int]) -> str | None:
        """A sentence if the picture has another (width, height) than its annotation."""
        if found == (self.width, self.height):
            return None
        return (
            f"{self.picture.name} has {found[0]}x{found[1]} pixels, but its lines were drawn in {self.width}x"
            f"{self.height}; give the picture that was annotated, or scale the lines and say its size."
        )

    def faults(self) -> list[str]:
        """A sentence for each line that leaves the picture, and each pair of rails that cross."""
        return [*self._outside(), *self._crossings()]

    def _outside(self) -> list[str]:
        told = []
        for name, line in self.lines.items():
            beyond = np.any((line < -SLACK) | (line > np.array([self.width, self.height]) - 1 + SLACK), 1)
            if count := int(beyond.sum()):
                x, y = line[beyond][0]
                told.append(
                    f"The line {name!r} of {self.picture.name} has {wording.count(count, 'point')} outside its "
                    f"{self.width}x{self.height} pixels, ({x:g}, {y:g}) the first; cut it off at the border."
                )
        return told

    def _crossings(self) -> list[str]:
        told = []
        for left, right in pairs(self.lines):
            (x, y), (right_x, right_y) = climbing(self.lines[left]).T, climbing(self.lines[right]).T
            rows = np.arange(np.ceil(max(0, y[-1], right_y[-1])), min(self.height, y[0], right_y[0]) + 1e-9)
            gap = np.interp(rows, right_y[::-1], right_x[::-1]) - np.interp(rows, y[::-1], x[::-1])
            if wrong := int((gap < -CROSSED).sum()):
                way_out = "name them the other way round" if wrong == len(rows) else "draw them again where they cross"
                told.append(
                    f"The line {left!r} of {self.picture.name} lies right of {right!r} in {wrong} of the "
                    f"{wording.count(len(rows), 'row')} that both have; {way_out}."
                )
        return told


def pairs(lines: Mapping[str, Line]) -> list[tuple[str, str]]:
    """The names of the left and the right rail of each track that has both: `left`, `right`; `x left`, `x right`."""
    both = [(name, name.removesuffix("left") + "right") for name in lines if name.split(" ")[-1] == "left"]
    return [pair for pair in both if pair[1] in lines]


def climbing(line: Line) -> Line:
    """The points of a line above all before them, so that a row has one x; a line that turns down ends there."""
    y = line[:, 1]
    return line[np.concatenate([[True], y[1:] < np.minimum.accumulate(y)[:-1]])]


def line_of(points: Any) -> Line:
    """Points (x, y) as a line, bottom to top; ValueError with what is wrong with them."""
    try:
        line = np.array(points, np.float64)
    except (TypeError, ValueError, OverflowError) as error:
        raise ValueError("is no list of points [x, y]") from error
    if line.ndim != 2 or line.shape[1] != 2:
        raise ValueError("is no list of points [x, y]")
    if len(line) < 2:
        raise ValueError("has one point, and a line takes two at least")
    if not np.isfinite(line).all():
        raise ValueError("has a point that is no number")
    return line[::-1].copy() if line[0, 1] < line[-1, 1] else line
