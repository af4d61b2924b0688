"""sprites: people who walk along the paths of rendered scenes, and odd movers with their exact labels and masks.

for pixels, odd in render(seed=0, scene=3, clip=1, odd=True): ...     # the same numbers give the same clip

Odd are a bicycle, a skater, a cart, somebody who runs across the paths, one who zigzags, and one who falls.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal, NamedTuple, TypeAlias

import numpy as np
from numpy.typing import NDArray

from handful.data.pictures import Pixels
from handful.data.video.figures import Colour, Figure, cart, cyclist, drawn, lay, person, turned
from handful.data.video.scene import MARGIN, Path, Scene, curve, draw_scene

VERSION = 1  # of what is drawn: raised when the same numbers give another clip
FRAMES = 120  # of a clip
SEEN = 4e-4  # share of the picture that something odd takes up at least, to count as seen
GAIT = 5.2  # radians of the gait a body height walked
Kind: TypeAlias = Literal["walker", "cyclist", "skater", "cart", "runner", "zigzag", "faller"]
ODD: tuple[Kind, ...] = ("cyclist", "skater", "cart", "runner", "zigzag", "faller")
FASTER: dict[Kind, tuple[float, float]] = {  # than people walk, at least and at most
    "walker": (0.85, 1.15),
    "cyclist": (2.2, 3.0),
    "skater": (1.7, 2.3),
    "cart": (1.2, 1.8),
    "runner": (1.8, 2.4),
    "zigzag": (1.1, 1.4),
    "faller": (0.9, 1.1),
}
DOWN, LYING = 6, 26  # frames that a fall takes, and that one lies thereafter


class Shown(NamedTuple):
    """A frame, uint8 [size, size, 3], and where something odd is seen in it, bool [size, size]."""

    pixels: Pixels
    odd: NDArray[np.bool_]


@dataclass(frozen=True)
class Mover:
    """Somebody or something that moves along a path.

    start: the frame at which it is at the path's beginning; speed: heights a frame; aside: of the path's middle, in
    heights; sway: frames of a slow change of pace; size: of its height; phase: of its gait; back: the other way.
    """

    kind: Kind
    path: Path
    start: float
    speed: float
    aside: float
    sway: float
    size: float
    phase: float
    back: bool
    colours: tuple[Colour, Colour, Colour]

    @property
    def falls(self) -> float:
        """The frame at which one who falls does."""
        return self.start + 0.45 * self.path.length / self.speed

    def far(self, frame: float) -> float:
        """How far along its path it is, in heights."""
        time = frame - self.start
        if self.kind == "faller":
            time -= float(np.clip(frame - self.falls, 0, LYING))
        far = self.speed * (time + 1.5 * np.sin(time / self.sway + self.phase))
        return self.path.length - far if self.back else far

    def shape(self, frame: float, facing: float) -> Figure:
        """What it looks like; facing: -1 (left) to 1."""
        shirt, trousers, skin = self.colours
        phase = self.phase + GAIT * self.far(frame)
        if self.kind == "cyclist":
            return cyclist(phase / 2, facing, shirt, trousers, skin)
        if self.kind == "cart":
            return cart(facing, shirt, skin)
        if self.kind == "skater":
            return person(1.2, facing, shirt, trousers, skin, lean=0.12)
        figure = person(phase, facing, shirt, trousers, skin, lean=0.1 if self.kind == "runner" else 0.02)
        if self.kind == "faller":
            since = frame - self.falls
            fallen = np.clip(min(since, LYING - since) / DOWN, 0, 1)
            return turned(figure, float(fallen) * np.pi / 2 * (1 if facing >= 0 else -1))
        return figure

    def place(self, frame: float, scene: Scene) -> tuple[float, float, float]:
        """Where it is, (x, y) in shares of the picture's side, and how much to the right it goes, -1 to 1."""
        zigzag = 0.5 * (2 * abs((frame / 9) % 2 - 1) - 1) if self.kind == "zigzag" else 0.0
        x, y, right = self.path.at(self.far(frame), self.aside + zigzag, scene.height)
        return x, y, -right if self.back else right

    def is_odd(self, frame: float) -> bool:
        """Whether what it does now is odd: who falls is odd from then until up again."""
        return self.kind not in ("walker", "faller") or (self.kind == "faller" and 0 < frame - self.falls < LYING)


def render(
    seed: int, scene: int, clip: int, *, odd: bool = False, frames: int = FRAMES, size: int = 128
) -> Iterator[Shown]:
    """A clip of a scene, frame by frame, always the same for the same numbers.

    odd: whether odd movers come along, one or two a clip, each kind in its turn; size: pixels of a side.
    """
    world = draw_scene(seed, scene, size)
    random = np.random.default_rng([seed, scene, 1 + clip])
    movers = people(random, world, frames)
    if odd:
        movers += odd_movers(random, world, clip + scene, frames)
    still = [(y, drawn(figure, x * size, y * size, world.height(y) * size, size)) for figure, (x, y) in world.things]
    flicker = random.uniform(0.1, 0.6, 2)
    for frame in range(frames):
        image, mask = world.ground.copy(), np.zeros((size, size), bool)
        shown = [(y, patch, False) for y, patch in still]
        for mover in movers:
            if 0 < mover.far(frame) < mover.path.length:
                x, y, right = mover.place(frame, world)
                height = world.height(y) * mover.size
                patch = drawn(mover.shape(frame, right), x * size, y * size, height * size, size)
                shown.append((y, patch, mover.is_odd(frame)))
        for _, patch, is_odd in sorted(shown, key=lambda each: each[0]):  # the nearest last
            if patch is not None:
                lay(image, mask, patch, is_odd)
        image *= np.float32(world.gain * (1 + 0.01 * np.sin(flicker[0] * frame) + random.normal(0, 0.003)))
        image += world.lamp * np.float32(1 + 0.15 * np.sin(flicker[1] * frame) + random.normal(0, 0.04))
        image += np.float32(world.noise) * random.standard_normal((size, size, 1), np.float32)
        yield Shown(image.clip(0, 255).astype(np.uint8), mask if mask.mean() > SEEN else np.zeros_like(mask))


def people(random: np.random.Generator, scene: Scene, frames: int) -> list[Mover]:
    """Those who walk by, some of them in pairs; how many there are at a time varies from clip to clip."""
    found: list[Mover] = []
    long = scene.paths[0].length / scene.pace
    count = random.poisson(scene.crowd * random.uniform(0.4, 1.5) * (frames + long) / long)
    for start in random.uniform(-long, frames, count):
        one = mover(random, scene, "walker", scene.paths[random.integers(len(scene.paths))], float(start))
        found.append(one)
        if random.random() < 0.25:
            friend = mover(random, scene, "walker", one.path, one.start + random.uniform(-1, 1))
            same = {"speed": one.speed, "back": one.back, "aside": one.aside + 0.35, "sway": one.sway}
            found.append(Mover(**{**vars(friend), **same, "phase": one.phase}))
    return found


def odd_movers(random: np.random.Generator, scene: Scene, turn: int, frames: int) -> list[Mover]:
    """One that comes along in the first half of a clip, and in some clips another later."""
    found = []
    for number, early in enumerate((0.15, 0.6)[: 1 + (random.random() < 0.4)]):
        kind = ODD[(turn + 3 * number) % len(ODD)]
        path = across(random, scene) if kind == "runner" else scene.paths[random.integers(len(scene.paths))]
        one = mover(random, scene, kind, path, 0.0)
        reaches = entry(one.path) / one.speed
        begins = random.uniform(early, early + 0.2) * frames - reaches
        if kind == "faller":  # is seen walking before
            begins -= one.falls - reaches
        found.append(Mover(**{**vars(one), "start": begins}))
    return found


def entry(path: Path) -> float:
    """How far along a path the picture's edge is, about the same from either end, in heights."""
    inside = (path.points > 0).all(1) & (path.points < 1).all(1)
    return float(path.far[inside.argmax()])


def across(random: np.random.Generator, scene: Scene) -> Path:
    """A way over the ground, from the lower edge to a side far off."""
    start, end = (random.uniform(0.25, 0.75), 1 + MARGIN), (random.choice([-MARGIN, 1 + MARGIN]), 0.4)
    return curve(start, (start[0], 0.4), (float(end[0]), end[1]), scene.height)


def mover(random: np.random.Generator, scene: Scene, kind: Kind, path: Path, start: float) -> Mover:
    """A mover of a kind with a pace, a place beside the path's middle and clothes of its own."""
    shirt, trousers = (random.uniform(20, 235, 3) * random.uniform(0.4, 1.0) for _ in range(2))
    skin = np.array([225, 180, 150]) * random.uniform(0.35, 1.0)
    return Mover(
        kind,
        path,
        start,
        speed=scene.pace * random.uniform(*FASTER[kind]),
        aside=random.uniform(-0.35, 0.35),
        sway=random.uniform(8, 20),
        size=random.uniform(0.88, 1.12),
        phase=random.uniform(0, 2 * np.pi),
        back=bool(random.random() < 0.5),
        colours=(as_colour(shirt), as_colour(trousers), as_colour(skin)),
    )


def as_colour(values: NDArray[np.float64]) -> Colour:
    """Red, green, blue."""
    red, green, blue = values.tolist()
    return red, green, blue
