"""Figures made of rounded strokes: people, what they ride, and what stands about.  Heights of a body are the unit."""

from __future__ import annotations

from typing import NamedTuple, TypeAlias

import numpy as np
from numpy.typing import NDArray

Floats: TypeAlias = NDArray[np.float32]
Point: TypeAlias = tuple[float, float]
Colour: TypeAlias = tuple[float, float, float]
Stroke: TypeAlias = tuple[float, ...]  # x, y of both ends, radius, radius of its hole, opacity, red, green, blue
Figure: TypeAlias = list[Stroke]  # from back to front; x to the right, y up from where it stands

DARK: Colour = (38, 38, 42)
STRIDE = 0.17  # half of the distance between the feet


def stroke(start: Point, end: Point, radius: float, colour: Colour, hole: float = -1.0, opacity: float = 1.0) -> Stroke:
    """A line with round ends; hole: the radius within which it is empty, which makes a ring of a point."""
    return (*start, *end, radius, hole, opacity, *colour)


def shadow(width: float) -> Stroke:
    """On the ground."""
    return stroke((-width, 0.0), (width, 0.0), 0.07, (0, 0, 0), opacity=0.35)


def person(phase: float, facing: float, shirt: Colour, trousers: Colour, skin: Colour, lean: float = 0.0) -> Figure:
    """Somebody on foot; phase: of the gait, radians; facing: -1 (left) to 1; lean: how far the shoulders are ahead."""
    swing, bob = STRIDE * np.sin(phase) * (0.35 + 0.65 * abs(facing)), 0.015 * np.cos(2 * phase)
    side = 1.0 if facing >= 0 else -1.0
    hip, shoulder = (0.0, 0.47 + bob), (side * lean, 0.76 + bob)
    feet = [(way * swing, 0.05 + 0.05 * max(0.0, way * side * float(np.cos(phase)))) for way in (1, -1)]
    hands = [(shoulder[0] - way * swing, 0.45 + bob) for way in (1, -1)]
    return [
        shadow(0.2),
        stroke(shoulder, hands[0], 0.04, tuned(shirt, 0.75)),
        stroke(hip, feet[1], 0.06, tuned(trousers, 0.8)),
        stroke(hip, feet[0], 0.06, trousers),
        stroke(hip, shoulder, 0.115, shirt),
        stroke(shoulder, hands[1], 0.04, tuned(shirt, 0.85)),
        stroke((side * lean * 1.2, 0.92 + bob), (side * lean * 1.2, 0.93 + bob), 0.085, skin),
    ]


def cyclist(phase: float, facing: float, shirt: Colour, trousers: Colour, skin: Colour) -> Figure:
    """Somebody on a bicycle."""
    side = 1.0 if facing >= 0 else -1.0
    hubs = [(way * 0.34, 0.22) for way in (1, -1)]
    saddle, pedal = (-0.12 * side, 0.62), (0.09 * np.cos(phase), 0.2 + 0.09 * np.sin(phase))
    shoulder, bars = (0.12 * side, 0.92), (0.28 * side, 0.66)
    return [
        shadow(0.45),
        *(stroke(hub, hub, 0.22, DARK, hole=0.17) for hub in hubs),
        *(stroke(hub, saddle, 0.025, DARK) for hub in hubs),
        stroke(hubs[0] if side > 0 else hubs[1], bars, 0.025, DARK),
        stroke(saddle, pedal, 0.065, trousers),
        stroke(saddle, shoulder, 0.115, shirt),
        stroke(shoulder, bars, 0.04, tuned(shirt, 0.85)),
        stroke((0.2 * side, 1.07), (0.2 * side, 1.08), 0.085, skin),
    ]


def cart(facing: float, paint: Colour, skin: Colour) -> Figure:
    """A cart with a driver, twice as long as a person is tall."""
    side = 1.0 if facing >= 0 else -1.0
    return [
        shadow(0.9),
        stroke((-0.75 * side, 1.25), (0.55 * side, 1.25), 0.07, tuned(paint, 1.15)),
        *(stroke((x * side, 0.6), (x * side, 1.25), 0.035, DARK) for x in (-0.7, 0.5)),
        stroke((0.0, 0.6), (0.0, 0.85), 0.13, tuned(paint, 0.6)),
        stroke((0.0, 1.05), (0.0, 1.06), 0.09, skin),
        stroke((-0.7, 0.42), (0.7, 0.42), 0.24, paint),
        *(stroke((x, 0.15), (x, 0.15), 0.16, DARK, hole=0.05) for x in (-0.55, 0.55)),
    ]


def tree(random: np.random.Generator) -> Figure:
    """A tree, twice as tall as a person."""
    green = (random.uniform(35, 70), random.uniform(75, 105), random.uniform(30, 55))
    crown = [(random.uniform(-0.4, 0.4), random.uniform(1.2, 1.8), random.uniform(0.25, 0.45)) for _ in range(6)]
    return [
        shadow(0.5),
        stroke((0, 0.02), (0, 1.3), 0.08, (75, 58, 42)),
        *(stroke((x, y), (x, y), r, tuned(green, random.uniform(0.75, 1.2))) for x, y, r in crown),
    ]


def post(random: np.random.Generator) -> Figure:
    """A lamp post."""
    grey = random.uniform(50, 90)
    arm = (random.choice([-0.3, 0.3]), 2.0)
    return [
        stroke((0, 0), (0, 2.0), 0.035, (grey, grey, grey)),
        stroke((0, 2.0), arm, 0.03, (grey, grey, grey)),
        stroke(arm, arm, 0.07, (235, 230, 205)),
    ]


def bench(random: np.random.Generator) -> Figure:
    """A bench."""
    wood = tuned((120, 88, 58), random.uniform(0.7, 1.2))
    return [
        shadow(0.45),
        *(stroke((x, 0.0), (x, 0.3), 0.03, DARK) for x in (-0.4, 0.4)),
        stroke((-0.5, 0.3), (0.5, 0.3), 0.045, wood),
        stroke((-0.5, 0.52), (0.5, 0.52), 0.04, tuned(wood, 0.85)),
    ]


def tuned(colour: Colour, factor: float) -> Colour:
    """Lighter or darker."""
    red, green, blue = (min(255.0, factor * value) for value in colour)
    return red, green, blue


def turned(figure: Figure, angle: float) -> Figure:
    """Turned about where it stands, in radians, to the right; its shadow stays."""
    cos, sin = np.cos(angle), np.sin(angle)

    def point(x: float, y: float) -> Point:
        return float(cos * x + sin * y), float(max(cos * y - sin * x, 0.06))

    first, *others = figure
    return [first, *((*point(*each[:2]), *point(*each[2:4]), *each[4:]) for each in others)]


class Patch(NamedTuple):
    """A drawn figure: its rows and columns in the picture, what of it lets through [h, w, 1], and what it adds."""

    rows: slice
    columns: slice
    through: Floats
    paint: Floats


def drawn(figure: Figure, x: float, y: float, height: float, size: int) -> Patch | None:
    """A figure that stands at (x, y) in a picture of `size` pixels a side, its edges smoothed over a pixel.

    x, y, height: in pixels; None if nothing of it is in the picture.
    """
    strokes = np.array(figure, np.float32).T
    ax, ay, bx, by, radius, hole = (strokes[:6] * height)[:, :, None, None]
    ax, ay, bx, by = x + ax, y - ay, x + bx, y - by
    reach = float(radius.max()) + 1
    rows, columns = (
        slice(max(int(min(a.min(), b.min()) - reach), 0), min(int(max(a.max(), b.max()) + reach) + 2, size))
        for a, b in ((ay, by), (ax, bx))
    )
    if rows.start >= rows.stop or columns.start >= columns.stop:
        return None
    px = np.arange(columns.start, columns.stop, dtype=np.float32) - ax
    py = np.arange(rows.start, rows.stop, dtype=np.float32)[:, None] - ay
    dx, dy = bx - ax, by - ay
    along = np.clip((px * dx + py * dy) / (dx * dx + dy * dy + 1e-6), 0, 1)
    distance = np.hypot(px - along * dx, py - along * dy)
    cover = np.clip(radius - distance + 0.5, 0, 1)
    if (hole > 0).any():
        cover -= np.clip(hole - distance + 0.5, 0, 1)
    cover *= strokes[6, :, None, None]
    through, paint = np.ones((*cover.shape[1:], 1), np.float32), np.zeros((*cover.shape[1:], 3), np.float32)
    for share, colour in zip(cover[..., None], strokes[7:].T):
        paint += share * (colour - paint)
        through *= 1 - share
    return Patch(rows, columns, through, paint)


def lay(image: Floats, odd: NDArray[np.bool_], patch: Patch, is_odd: bool) -> None:
    """Lay a drawn figure over an image [H, W, 3] in place; odd [H, W]: where something odd is seen, kept up to date."""
    under = image[patch.rows, patch.columns]
    under *= patch.through
    under += patch.paint
    seen, before = patch.through[..., 0] < 0.5, odd[patch.rows, patch.columns]
    before[:] = (before & ~seen) | (seen & is_odd)
