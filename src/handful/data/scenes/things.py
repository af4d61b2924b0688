"""What stands beside the tracks: trees, slopes, walls, platforms, houses, enough to be taken for a cab view."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
from numpy.typing import ArrayLike

from handful.data.scenes.camera import Floats
from handful.data.scenes.canvas import FINE, Canvas

Edges = list[tuple[float, float, ArrayLike]]


def pick(random: np.random.Generator, *colours: tuple[float, float, float]) -> Floats:
    """One of the colours, a little different each time."""
    colour: Floats = np.array(colours[int(random.integers(len(colours)))]) * random.uniform(0.88, 1.1)
    return colour


def steps(first: float, last: float) -> Floats:
    """Places along the track from `first` to `last`, further apart further away."""
    first = max(first, -2.0)
    count = int(np.clip(7 * np.log2(max(last - first, 4) / 4), 3, 26))
    places: Floats = first + (last - first) * (np.geomspace(1, 40, count) - 1) / 39
    return places


def strip(canvas: Canvas, s: Floats, edges: Edges, random: np.random.Generator, uneven: float = 0.04) -> None:
    """Faces along the track: from each (metres right of it, above it, colour) to the next, in that one's colour."""
    own = canvas.scene.tracks[0]
    for (across, low, _), (further, high, colour) in pairwise(edges):
        near, far = own.place(s, across), own.place(s, further)
        ground = np.stack([near[:-1], near[1:], far[1:], far[:-1]], 1)
        above = np.broadcast_to(np.array([low, low, high, high]), ground.shape[:2])
        tones = 1 + uneven * random.standard_normal((len(ground), 1))
        canvas.faces(ground, above, np.asarray(colour) * tones, (s[:-1] + s[1:]) / 2)


def skyline(canvas: Canvas, random: np.random.Generator) -> None:
    """Hills and woods at the horizon."""
    camera, across = canvas.camera, np.linspace(-0.2, 1.2, 120) * canvas.camera.width
    base = camera.middle[1] + camera.horizon + np.tan(camera.roll) * (across - camera.middle[0])
    for layer, (metres, colour) in enumerate([(1500.0, (92, 106, 112)), (450.0, (66, 80, 54))]):
        if random.random() < 0.3:
            continue
        turns = across / camera.width * 2.2
        waves = sum(random.normal(0, 1 / k) * np.sin(turns * k + random.uniform(0, 7)) for k in range(1, 9))
        rough = random.normal(0, 0.06 + 0.3 * layer, len(across))
        rise = random.uniform(0.02, 0.07) * camera.height_px * np.maximum(0, 1.1 + 0.6 * waves + 0.6 * rough)
        outline = np.concatenate([np.stack([across, base - rise], 1), np.stack([across, base + 3], 1)[::-1]]) * FINE
        canvas.spot(outline, tuple(canvas.shown([colour], np.array([metres]))[0]), metres)


def trees(canvas: Canvas, random: np.random.Generator, side: int, across: float) -> None:
    """A wood or a row of trees; some are conifers."""
    count, spots = int(random.integers(8, 24)), 36
    size = random.uniform(3.5, 11, count)
    foot = canvas.scene.tracks[0].place(random.uniform(7, 260, count), across + side * random.uniform(1, 12, count))
    bare = canvas.scene.ground == "snow" or random.random() < 0.2
    green = pick(random, (96, 88, 78)) if bare else pick(random, (74, 98, 44), (64, 92, 48), (98, 108, 52))
    canvas.strokes(np.stack([foot, foot], 1), np.stack([np.full(count, -0.4), 0.6 * size], 1), 0.3, (60, 50, 40))
    firs = random.random(count) < 0.25
    shift = random.standard_normal((count, spots, 2)).clip(-2, 2)
    shift = np.take_along_axis(shift, np.argsort(-shift[..., 1:], 1), 1)  # light falls from above: those last
    tone = random.uniform(0.62, 1.25, (count, spots, 1)) * (0.85 - 0.16 * shift[..., 1:])
    radius = size[:, None] * random.uniform(0.05, 0.14, (1, spots))
    high = size[:, None, None]
    broad = ~firs
    canvas.discs(
        foot[broad],
        0.62 * size[broad],
        (shift * [0.2, 0.17] * high)[broad],
        radius[broad],
        (green * tone)[broad],
    )
    fir(canvas, foot[firs], size[firs], pick(random, (42, 64, 42), (50, 70, 40)))


def fir(canvas: Canvas, foot: Floats, size: Floats, green: Floats) -> None:
    """Conifers: four triangles, one above the other."""
    pixels, depth = canvas.places(foot, np.full(len(foot), -0.2))
    for (x, y), metre, high, z in zip(pixels, canvas.camera.pixels * FINE / depth, size * 1.2, depth):
        for k in range(4 if z > 2 else 0):
            wide, low = (0.2 - 0.04 * k) * high * metre, y - (0.1 + 0.2 * k) * high * metre
            corners = np.array([[x - wide, low], [x + wide, low], [x, low - 0.42 * high * metre]])
            canvas.spot(corners, tuple(canvas.shown([green * (0.8 + 0.12 * k)], np.array([z]))[0]), float(z))


def bushes(canvas: Canvas, random: np.random.Generator, side: int, across: float) -> None:
    """Low growth along the track."""
    count, spots = 45, 9
    foot = canvas.scene.tracks[0].place(random.uniform(4, 220, count), across + side * random.uniform(0, 5, count))
    size = random.uniform(0.5, 1.7, (count, 1))
    green = pick(random, (96, 88, 74)) if canvas.scene.ground == "snow" else pick(random, (86, 104, 50), (104, 104, 60))
    shift = random.standard_normal((count, spots, 2)) * [0.6, 0.28] * size[..., None]
    radius = size * random.uniform(0.18, 0.42, (count, spots))
    canvas.discs(foot, 0.4 * size[:, 0], shift, radius, green * random.uniform(0.62, 1.2, (count, spots, 1)))


def slope(canvas: Canvas, random: np.random.Generator, side: int, across: float) -> None:
    """A cutting: the ground rises beside the track."""
    green = np.array((206, 210, 220)) if canvas.scene.ground == "snow" else pick(random, (96, 106, 58), (118, 108, 76))
    rise = random.uniform(1.5, 7)
    edges: Edges = [
        (across, -0.4, green),
        (across + side * 4, 0.5 * rise, green),
        (across + side * 11, rise, 0.86 * green),
    ]
    strip(canvas, steps(-2, 240), edges, random)


def wall(canvas: Canvas, random: np.random.Generator, side: int, across: float) -> None:
    """A noise barrier or a retaining wall."""
    colour = pick(random, (128, 126, 122), (104, 92, 80), (96, 112, 104), (150, 142, 130))
    first, high = float(random.choice([-2.0, random.uniform(5, 60)])), random.uniform(1.6, 4)
    edges: Edges = [(across, -0.4, colour), (across, high, colour), (across + side * 0.4, high, 1.15 * colour)]
    strip(canvas, steps(first, first + random.uniform(40, 200)), edges, random)


def platform(canvas: Canvas, random: np.random.Generator, side: int, across: float) -> None:
    """A platform with its white edge; behind it often a wall or a building."""
    edge = canvas.scene.edges[0 if side < 0 else 1] + side * 1.75
    high, first = random.uniform(0.35, 0.95), float(random.choice([-2.0, random.uniform(5, 40)]))
    deck = (
        np.array((222, 226, 232)) if canvas.scene.ground == "snow" else pick(random, (138, 132, 126), (116, 112, 110))
    )
    shadow = (74, 70, 68)
    edges: Edges = [(edge, -0.2, shadow), (edge, high, shadow), (edge + side * 0.35, high, (206, 204, 196))]
    edges.append((edge + side * 4.5, high, deck))
    if random.random() < 0.6:
        back = pick(random, (150, 128, 108), (120, 60, 46), (168, 164, 156))
        edges.append((edge + side * 4.5, high + random.uniform(2.5, 6), back))
    strip(canvas, steps(first, first + random.uniform(60, 180)), edges, random, 0.03)


def fence(canvas: Canvas, random: np.random.Generator, side: int, across: float) -> None:
    """Posts with two rails."""
    posts = canvas.scene.tracks[0].place(np.arange(4.0, 120, 4), across)
    colour = pick(random, (120, 118, 114), (90, 78, 66))
    for high in (0.6, 1.1):
        canvas.strokes(np.stack([posts[:-1], posts[1:]], 1), np.full((len(posts) - 1, 2), high), 0.05, colour)
    canvas.strokes(np.stack([posts, posts], 1), np.tile([-0.3, 1.2], (len(posts), 1)), 0.09, colour)


def houses(canvas: Canvas, random: np.random.Generator, side: int, across: float) -> None:
    """A row of houses with windows."""
    s, own = float(random.uniform(4, 30)), canvas.scene.tracks[0]
    while s < 190:
        length, high, place = random.uniform(8, 22), random.uniform(5, 15), across + side * random.uniform(3, 8)
        near, far = own.place(np.array([s, s + length]), place)
        outer = own.place(np.array([s]), place + side * 11)[0]
        colour = pick(random, (186, 172, 146), (150, 110, 88), (170, 172, 172), (196, 178, 122), (138, 74, 58))
        fronts = np.array([[near, far], [near, outer]])
        corners = fronts[:, [0, 1, 1, 0]]
        canvas.faces(
            corners, np.tile([-0.3, -0.3, high, high], (2, 1)), np.outer((0.85, 1.0), colour), np.full(2, s + 0.1)
        )
        if s < 80:
            left = np.array([0.12, 0.4, 0.68])[:, None]
            shares = np.concatenate([left, left + 0.18, left + 0.18, left], 1)  # [3, 4] of the way along a front
            low = np.arange(1.2, high - 1.6, 3.2)
            along = fronts[:, None, None, 0] + shares[None, :, :, None] * np.diff(fronts, axis=1)[:, None]
            ground = np.repeat(along.reshape(-1, 4, 2), len(low), 0)
            above = np.tile(low[:, None] + [0, 0, 1.6, 1.6], (6, 1))
            canvas.faces(ground, above, pick(random, (62, 70, 82), (48, 50, 56)), np.full(len(ground), s))
        s += length + float(random.choice([0.0, random.uniform(3, 25)]))


def fields(canvas: Canvas, random: np.random.Generator, side: int, across: float) -> None:
    """Open land, at times with trees far off."""
    if random.random() < 0.5:
        trees(canvas, random, side, across + side * random.uniform(25, 60))


BESIDE = {
    "trees": trees,
    "bushes": bushes,
    "slope": slope,
    "wall": wall,
    "platform": platform,
    "fence": fence,
    "houses": houses,
    "fields": fields,
}
