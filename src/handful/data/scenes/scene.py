"""What is in a scene: the tracks, the ground, what stands beside, the light; all of it drawn at random."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import TypeAlias

import numpy as np

from handful.data.scenes.tracks import Track, clothoid, crossing_over, diverging
from handful.errors import unknown

Colour: TypeAlias = tuple[float, float, float]

LIGHTS = ("day", "overcast", "dusk", "night", "tunnel", "fog", "rain")
GROUNDS = ("ballast", "snow", "street", "lawn")
OFTEN = {"day": 0.3, "overcast": 0.22, "dusk": 0.1, "night": 0.08, "tunnel": 0.08, "fog": 0.1, "rain": 0.12}


@dataclass(frozen=True)
class Light:
    """How a scene is lit.

    ambient: of daylight, 1 at noon; lamp: of the head lamp; haze: metres after which 1/e of what is behind shines
    through; colours 0..255: of the haze, the sky above and at the horizon; warm: what red is multiplied with, and
    blue divided by.
    """

    name: str
    ambient: float
    lamp: float
    haze: float
    haze_colour: Colour
    zenith: Colour
    horizon: Colour
    clouds: float
    warm: float


@dataclass(frozen=True)
class Scene:
    """A scene.  tracks: the train's own first; sides: what stands left (-1) and right (1), from near to far.

    seed: of what only decorates, such as the place of a tree; tunnel: metres along the track at which one starts and
    ends; switch: whether the train's way divides.
    """

    tracks: Sequence[Track]
    ground: str
    light: Light
    sides: dict[int, tuple[str, ...]]
    tunnel: tuple[float, float] | None
    wires: bool
    dashboard: float
    seed: int

    @property
    def switch(self) -> bool:
        """Whether the train's way divides."""
        return any(track.name == "left-hand" for track in self.tracks)

    @cached_property
    def edges(self) -> tuple[float, float]:
        """How far the tracks reach to the left and to the right of the train's own, in metres, near the train."""
        near = [
            track.place(np.array([20.0]), 0.0) - self.tracks[0].place(np.array([20.0]), 0.0) for track in self.tracks
        ]
        return min(float(place[0, 0]) for place in near), max(float(place[0, 0]) for place in near)


def draw_scene(random: np.random.Generator, light: str | None = None, ground: str | None = None) -> Scene:
    """A scene at random; light, ground: one of `LIGHTS`, of `GROUNDS`, if it must be.

    Raises HandfulError for another light or ground.
    """
    for kind, name, known in (("light", light, LIGHTS), ("ground", ground, GROUNDS)):
        if name is not None and name not in known:
            raise unknown(kind, name, known)
    drawn = str(random.choice(GROUNDS, p=[0.62, 0.1, 0.18, 0.1]))
    light = light or str(random.choice(list(OFTEN), p=list(OFTEN.values())))
    ground = ground or ("ballast" if light == "tunnel" else drawn)
    tram = ground in ("street", "lawn")
    tracks = draw_tracks(random, tram)
    inside = light == "tunnel"
    portal = inside or (not tram and random.random() < 0.08)
    start = -12.0 if inside else random.uniform(60, 160)
    choices = (
        ("houses", "trees", "fence") if tram else ("trees", "trees", "bushes", "slope", "wall", "platform", "fields")
    )
    sides = {side: tuple(map(str, random.choice(choices, 2, replace=False))) for side in (-1, 1)}
    return Scene(
        tracks=tracks,
        ground=ground,
        light=draw_light(random, light, ground),
        sides={-1: (), 1: ()} if inside else sides,
        tunnel=(start, start + random.uniform(70, 400)) if portal else None,
        wires=bool(random.random() < 0.75),
        dashboard=float(random.uniform(0.02, 0.09)) if random.random() < 0.15 else 0.0,
        seed=int(random.integers(2**31)),
    )


def draw_tracks(random: np.random.Generator, tram: bool) -> list[Track]:
    """The train's own track, parallel ones, and in a third of all scenes a switch."""
    own = clothoid(random, 1 / random.choice([40, 90, 400] if tram else [180, 500, 1500]))
    spacing = random.uniform(2.9, 3.6) if tram else random.uniform(3.8, 5.0)
    first = int(random.choice([-1, 1]))
    count = int(random.choice(3, p=[0.35, 0.45, 0.2]))
    places = [first * spacing, random.choice([-first, 2 * first]) * spacing][:count]
    tracks = [own.beside(place, name) for place, name in zip(places, ("neighbour", "second neighbour"))]
    if random.random() >= 1 / 3:
        return [own, *tracks]
    start, side = random.uniform(6, 40), int(random.choice([-1, 1]))
    if count and random.random() < 0.5:
        side = first
        branch = crossing_over(own, start, random.uniform(35, 80), first * spacing, "")
    else:
        branch = diverging(own, start, side, *((50.0, 0.2) if tram else (190.0, 1 / 9)), name="")
    left, right = (branch, own) if side < 0 else (own, branch)
    taken = (left, right)[int(random.integers(2))]  # how the switch is set
    return [replace(taken, name=""), *tracks, replace(left, name="left-hand"), replace(right, name="right-hand")]


def draw_light(random: np.random.Generator, name: str, ground: str) -> Light:
    """The light of that name, a little different each time."""

    def about(*colour: float) -> Colour:
        red, green, blue = (np.array(colour) * random.uniform(0.9, 1.08) + random.normal(0, 4, 3)).clip(0, 255)
        return float(red), float(green), float(blue)

    grey, white = about(205, 210, 214), about(228, 231, 233)
    blue, pale = about(92, 142, 205), about(196, 213, 228)
    far = float(random.uniform(700, 2500))
    if name == "overcast":
        return Light(name, random.uniform(0.65, 0.9), 0, 0.6 * far, grey, grey, white, 0.5, random.uniform(0.96, 1.02))
    if name == "dusk":
        low = about(236, 176, 128)
        return Light(
            name, random.uniform(0.3, 0.5), 0.25, far, low, about(78, 98, 140), low, 0.8, random.uniform(1.02, 1.15)
        )
    if name == "night":
        dark = about(16, 19, 30)
        return Light(
            name, random.uniform(0.03, 0.09), 1.0, far, dark, dark, about(34, 36, 50), 0.2, random.uniform(0.98, 1.1)
        )
    if name == "fog":
        fog = about(203, 206, 208)
        return Light(
            name, random.uniform(0.6, 0.95), 0.1, random.uniform(20, 90), fog, fog, fog, 0, random.uniform(0.97, 1.05)
        )
    if name == "rain":
        wet = about(168, 175, 182)
        return Light(
            name, random.uniform(0.4, 0.65), 0.1, random.uniform(120, 350), wet, wet, about(190, 195, 200), 0.3, 0.97
        )
    lamp = 0.75 if name == "tunnel" else 0.0
    return Light(name, random.uniform(0.8, 1.1), lamp, far, pale, blue, pale, 1.0, random.uniform(0.97, 1.06))
