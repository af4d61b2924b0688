"""Small frames of rail lines made by hand, and a backbone with maps: what the tests of rail lines share."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import torch
from torch import Tensor, nn

from handful.data.rails import Line
from handful.data.rails.rows import rows_of
from handful.data.rails.store import RailFrames, Targets
from handful.problems.rail_lines.tasks import beside

WIDTH, HEIGHT = 128, 64
Lines = Mapping[str, Line]


def straight(foot: float, top: float, above: float = 20.0) -> Line:
    """A line from the lower border up to a row."""
    return np.array([[foot, HEIGHT - 0.5], [(foot + top) / 2, (HEIGHT - 0.5 + above) / 2], [top, above]])


def track(middle: float = 64.0, gauge: float = 40.0) -> dict[str, Line]:
    """`left` and `right` of a track that goes towards the middle of the picture."""
    sides = {"left": -0.5, "right": 0.5}
    return {name: straight(middle + side * gauge, 64 + side * 8) for name, side in sides.items()}


def frames(
    lines: Sequence[Lines] | int = 12, rendered: int | None = None, targets: Targets = "ego", seed: int = 0
) -> RailFrames:
    """Frames of noise, the first half of which trains, a quarter validates, a quarter tests; as many tracks, or these.

    rendered: the frames from here on count as rendered, and lie in a part of their own; none if not said.
    """
    random = np.random.default_rng(seed)
    if isinstance(lines, int):
        lines = [track(64 + random.uniform(-12, 12), 40 + random.uniform(-8, 8)) for _ in range(lines)]
    count = len(lines)
    first = count if rendered is None else rendered
    pixels = random.integers(0, 256, (count, 3, HEIGHT, WIDTH), np.uint8)
    ends = [0, count // 2, 3 * count // 4, count]
    splits = {name: np.arange(a, b) for name, a, b in zip(("train", "val", "test"), ends, ends[1:])}
    return RailFrames(
        name="tracks",
        pixels=[pixels[:first], pixels[first:]],
        lines=list(lines),
        names=[f"{number}.jpg" for number in range(count)],
        splits=splits,
        rendered=first,
        targets=targets,
        info={"name": "tracks"},
        digest=f"tracks {seed}",
    )


def rows(lines: Sequence[Lines], support: int | None = None) -> Tensor:
    """Targets [1, n, 2, 144, 4] of frames with these lines, beside the mean line of the first so many, or of all."""
    found = [[rows_of(each.get(side), WIDTH, HEIGHT) for side in ("left", "right")] for each in lines]
    targets = torch.from_numpy(np.array(found))[None]
    return beside(targets, targets[:, :support])


class Tiny(nn.Module):
    """Images [n, 3, 64, 128] -> maps at strides 8, 16, 32: without corners, so that finite differences hold."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Conv2d(3, 4, 8, stride=8)
        self.second = nn.Conv2d(4, 6, 2, stride=2)
        self.third = nn.Conv2d(6, 8, 2, stride=2)
        self.input_shape, self.calls = (3, HEIGHT, WIDTH), 0

    def pyramid(self, images: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        self.calls += 1
        eighth = torch.tanh(self.first(images))
        sixteenth = torch.tanh(self.second(eighth))
        return eighth, sixteenth, torch.tanh(self.third(sixteenth))

    def forward(self, images: Tensor) -> Tensor:
        return self.pyramid(images)[-1].mean((2, 3))
