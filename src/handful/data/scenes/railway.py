"""What belongs to the railway: masts and wires, signals, tunnels."""

from __future__ import annotations

import numpy as np

from handful.data.scenes.canvas import FINE, Canvas
from handful.data.scenes.things import BESIDE, Edges, pick, skyline, steps, strip

MAST, ARM, WIRE, MESSENGER = 7.0, 5.9, 5.4, 6.6  # metres above the rails
SPAN = 55.0  # metres between two masts


def furnish(canvas: Canvas, random: np.random.Generator) -> None:
    """Put everything on the canvas that the scene asks for."""
    scene = canvas.scene
    if not (scene.tunnel and scene.tunnel[0] < 0):
        skyline(canvas, random)
    for side, things in scene.sides.items():
        edge = scene.edges[0 if side < 0 else 1]
        reach = 3.2 if scene.ground in ("street", "lawn") else 4.2
        for i, name in enumerate(things):
            canvas.deeper = 1 + 0.3 * i  # along the track, what is further out is hidden by what is not
            BESIDE[name](canvas, random, side, edge + side * (reach + 7 * i))
    canvas.deeper = 1.0
    if scene.wires:
        catenary(canvas, random)
    if scene.tunnel:
        tunnel(canvas, random, *scene.tunnel)
    elif random.random() < 0.3:
        signal(canvas, random)


def catenary(canvas: Canvas, random: np.random.Generator) -> None:
    """Masts with arms, or portals over all tracks; a contact wire and its messenger above each track."""
    scene, own = canvas.scene, canvas.scene.tracks[0]
    s = np.arange(random.uniform(4, SPAN), 330, SPAN)
    side, portal = int(random.choice([-1, 1])), bool(random.random() < 0.3)
    left, right = scene.edges
    places = {-1: own.place(s, left - 2.9), 1: own.place(s, right + 2.9)}
    grey = pick(random, (72, 74, 74), (120, 122, 120), (92, 84, 76))
    for k in (-1, 1) if portal else (side,):
        canvas.strokes(np.stack([places[k]] * 2, 1), np.tile([-0.4, MAST + 0.8], (len(s), 1)), 0.28, grey)
    if portal:
        for high in (MAST, MAST + 0.7):
            canvas.strokes(np.stack([places[-1], places[1]], 1), np.full((len(s), 2), high), 0.16, grey)
    else:
        for low in (ARM, MAST):
            arm = np.stack([places[side], own.place(s, 0.4 * side)], 1)
            canvas.strokes(arm, np.tile([low, ARM + 0.2], (len(s), 1)), 0.08, grey)
    along = np.concatenate([np.arange(-2, 14, 1.0), np.geomspace(14, 330, 36)])
    share = ((along - s[0]) / SPAN) % 1
    sag = MESSENGER - 3.6 * share * (1 - share)
    wired = [track for track in scene.tracks if not track.name or track.name.endswith("neighbour")]
    for track in wired:
        points = track.place(along, 0.0)
        pieces = np.stack([points[:-1], points[1:]], 1)
        canvas.strokes(pieces, np.full((len(pieces), 2), WIRE), 0.022, (48, 48, 50))
        canvas.strokes(pieces, np.stack([sag[:-1], sag[1:]], 1), 0.018, (56, 56, 58))
        hangers = points[2::6]
        canvas.strokes(
            np.stack([hangers] * 2, 1), np.stack([np.full(len(hangers), WIRE), sag[2::6]], 1), 0.01, (66, 66, 68)
        )


def tunnel(canvas: Canvas, random: np.random.Generator, start: float, end: float) -> None:
    """A vault over all tracks from `start` to `end`, and its portal if that is ahead."""
    left, right = canvas.scene.edges
    middle, half = (left + right) / 2, (right - left) / 2 + 2.9
    angles = np.linspace(-np.pi / 2, np.pi / 2, 9)
    arch = [(middle + half * float(np.sin(a)), 2.6 + 3.6 * float(np.cos(a))) for a in angles]
    profile = [(middle - half, -0.4), *arch, (middle + half, -0.4)]
    rock = pick(random, (86, 82, 78), (62, 60, 60), (108, 102, 94))
    edges: Edges = [(across, high, rock) for across, high in profile]
    strip(canvas, steps(start, min(end, 330.0)), edges, random, 0.1)
    if start <= 0:
        return
    wide, high = half + 5, 9.5
    rim = [(middle - wide, -0.4), (middle - wide, high), (middle + wide, high), (middle + wide, -0.4), *profile[::-1]]
    ground = canvas.scene.tracks[0].place(np.full(len(rim), start), np.array([across for across, _ in rim]))
    canvas.faces(
        ground[None], np.array([[above for _, above in rim]]), pick(random, (134, 126, 116)), np.array([start - 1])
    )


def signal(canvas: Canvas, random: np.random.Generator) -> None:
    """A colour light signal beside the track."""
    side = int(random.choice([-1, 1]))
    across = canvas.scene.edges[0 if side < 0 else 1] + side * 2.4
    foot = canvas.scene.tracks[0].place(np.array([random.uniform(15, 90)]), across)
    post = np.stack([foot, foot], 1)
    canvas.strokes(post, np.array([[-0.3, 4.6]]), 0.14, (78, 78, 80))
    canvas.strokes(post, np.array([[3.3, 4.8]]), 0.6, (24, 24, 26))
    (lamp,), (depth,) = canvas.places(foot, np.array([4.3]))
    radius = 0.14 * canvas.camera.pixels * FINE / depth
    lit = (250, 40, 30) if random.random() < 0.5 else (60, 240, 140)
    canvas.spot(np.array([lamp - radius, lamp + radius]), lit, float(depth) - 0.5)
