"""Tracks as curves on the ground: clothoids, parallel tracks, switches, and where their rails are."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np

from handful.data.scenes.camera import Floats

GAUGE = 1.435  # metres between the inner edges of the rails
HEAD = 0.07  # metres: the width of a rail's head
BEHIND, FAR, STEP = -12.0, 420.0, 1.0  # metres: where a track starts, ends, and between its points
TURN = np.deg2rad(55)  # a track is followed until it has turned so far


@dataclass(frozen=True)
class Track:
    """A track.

    name: "" for the one that the train is on, else such as `neighbour`; s: metres along the train's own track [n];
    middle: ground coordinates [n, 2].
    """

    name: str
    s: Floats
    middle: Floats

    @cached_property
    def heading(self) -> Floats:
        """Radians to the right of straight ahead, [n]."""
        towards = np.gradient(self.middle, axis=0)
        return np.arctan2(towards[:, 0], towards[:, 1])

    def beside(self, metres: Floats | float, name: str = "") -> Track:
        """A track so many metres to the right of this one."""
        return Track(name, self.s, self.at(metres))

    def at(self, metres: Floats | float) -> Floats:
        """The points [n, 2] so many metres to the right of the middle."""
        normal = np.stack([np.cos(self.heading), -np.sin(self.heading)], 1)
        return self.middle + np.reshape(metres, (-1, 1)) * normal

    def place(self, s: Floats, metres: Floats | float) -> Floats:
        """The points [k, 2] at s [k] along the train's own track, so many metres to the right of the middle."""
        heading = np.interp(s, self.s, self.heading)
        middle = np.stack([np.interp(s, self.s, self.middle[:, axis]) for axis in range(2)], 1)
        return middle + np.reshape(metres, (-1, 1)) * np.stack([np.cos(heading), -np.sin(heading)], 1)

    def rails(self) -> dict[str, Floats]:
        """Name of a line -> points [n, 2]: the middle of the heads, and their inner edges."""
        before = f"{self.name} " if self.name else ""
        half = GAUGE / 2
        return {
            f"{before}left": self.at(-half - HEAD / 2),
            f"{before}right": self.at(half + HEAD / 2),
            f"{before}inner left": self.at(-half),
            f"{before}inner right": self.at(half),
        }


def clothoid(random: np.random.Generator, sharpest: float) -> Track:
    """The train's own track: its curvature changes linearly between random places; `sharpest`: of 1/metres."""
    knots = np.cumsum([BEHIND, *random.uniform(25, 130, 12)])
    values = random.normal(0, sharpest / 2, len(knots)).clip(-sharpest, sharpest)
    values[random.random(len(knots)) < 0.35] = 0.0
    s = np.arange(BEHIND, FAR, STEP)
    heading = np.cumsum(np.interp(s, knots, values)) * STEP
    heading -= np.interp(0.0, s, heading)
    heading = TURN * np.tanh(heading / TURN)
    middle = np.cumsum(np.stack([np.sin(heading), np.cos(heading)], 1), 0) * STEP
    middle -= [np.interp(0.0, s, middle[:, axis]) for axis in range(2)]
    return Track("", s, middle)


def diverging(track: Track, start: float, side: int, radius: float, angle: float, name: str) -> Track:
    """The branch of a switch: from `start` an arc to that side (-1 left, 1 right), then straight on at `angle`."""
    along = np.maximum(track.s - start, 0)
    arc = radius * angle
    away = np.where(along < arc, along**2 / (2 * radius), arc * angle / 2 + (along - arc) * angle)
    return track.beside(side * away, name)


def crossing_over(track: Track, start: float, length: float, spacing: float, name: str) -> Track:
    """A branch that ends in the parallel track `spacing` metres to the right, after `length` metres."""
    share = np.clip((track.s - start) / length, 0, 1)
    return track.beside(spacing * share**3 * (10 - 15 * share + 6 * share**2), name)
