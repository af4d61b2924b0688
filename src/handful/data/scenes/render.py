"""A scene as a camera sees it, and where its rails are in the picture."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageFilter

from handful.data.scenes.camera import Camera, Floats
from handful.data.scenes.canvas import Canvas
from handful.data.scenes.ground import Plane, ground, in_picture, sky
from handful.data.scenes.railway import furnish
from handful.data.scenes.scene import Scene

NARROWEST = 2.0  # pixels between the rails, at a right angle to them: further away they are not annotated
FAINTEST = 0.08  # of the contrast that haze leaves, or of daylight
DENSE = 0.5  # metres between the points of a rail that are looked at, far away
SPACING = 2.0  # pixels between two points of a line


class Rendered(NamedTuple):
    """image: uint8 [H, W, 3]; lines: name -> (x, y) [n, 2] in pixels, bottom to top, as far as they can be seen."""

    image: NDArray[np.uint8]
    lines: dict[str, Floats]


def render(scene: Scene, camera: Camera) -> Rendered:
    """Draw a scene; what only decorates is drawn at random from the scene's own seed."""
    random = np.random.default_rng(scene.seed)
    shape = (camera.height_px, camera.width)
    image = sky(scene, camera, random)
    first, floor, share = ground(scene, camera, random)
    image[first:] += share[..., None] * (floor - image[first:])
    canvas = Canvas(scene, camera)
    furnish(canvas, random)
    drawn = canvas.finished()
    cover = drawn[..., 3:] * np.float32(1 / 255)
    contrast = np.minimum(drawn[..., 1], np.abs(drawn[..., 1] - np.float32(scene.light.haze_colour[1])))
    rough = 0.05 * contrast * (in_picture(1, random, shape) + in_picture(4, random, shape))  # what haze hides is smooth
    image += cover * (drawn[..., :3] + rough[..., None] - image)
    hidden = drawn[..., 3] > 127
    if scene.dashboard:  # hides nothing: who annotates photographs draws rails on to the border behind it
        dashboard(image, scene, random)
    return Rendered(developed(image, scene, random), seen(scene, camera, hidden))


def dashboard(image: Plane, scene: Scene, random: np.random.Generator) -> None:
    """Paint the dashboard over the lower border."""
    height, width = image.shape[:2]
    bend = np.linspace(-1, 1, width) - random.uniform(-0.5, 0.5)
    top = height * (1 - scene.dashboard * (1 - 0.35 * bend**2))
    below = np.arange(height)[:, None] - top[None, :]
    share = np.clip(below + 0.5, 0, 1)[..., None].astype(np.float32)
    image += share * (np.float32(random.uniform(12, 45)) - image)


def developed(image: Plane, scene: Scene, random: np.random.Generator) -> NDArray[np.uint8]:
    """What lens, weather, and sensor make of it."""
    height, width = image.shape[:2]
    light = scene.light
    if light.name == "rain":
        wet_windscreen(image, random)
    cast = np.array([light.warm, 1.0, 1 / light.warm], np.float32) * random.normal(1, 0.02, 3).astype(np.float32)
    across, down = np.linspace(-1, 1, width, dtype=np.float32), np.linspace(-1, 1, height, dtype=np.float32)
    dark = 1 - np.float32(random.uniform(0, 0.22)) * (across[None, :] ** 2 + down[:, None] ** 2) / 2
    exposure = 1.35 if light.name in ("night", "tunnel") else random.uniform(0.85, 1.1)
    image *= dark[..., None]
    image *= cast * np.float32(exposure)
    grain = random.uniform(1.5, 3.5) * (2.2 if light.ambient < 0.35 else 1)
    stray = random.uniform(0, 10)
    image += (np.float32(grain) * in_picture(1, random, (height, width)) + np.float32(stray))[..., None]
    pixels = Image.fromarray(np.clip(image, 0, 255, out=image).astype(np.uint8))
    if (blur := random.uniform(0.0, 0.9)) > 0.3:
        pixels = pixels.filter(ImageFilter.BoxBlur(blur))
    return np.asarray(pixels)


def wet_windscreen(image: Plane, random: np.random.Generator) -> None:
    """Drops and streaks on the glass."""
    height, width = image.shape[:2]
    image += (6 * in_picture(1, random, (height, width)) * in_picture(16, random, (height, width)))[..., None]
    for _ in range(int(random.integers(15, 60))):
        size = int(random.integers(2, 7))
        y, x = int(random.integers(0, height - 2 * size)), int(random.integers(0, width - 2 * size))
        part = image[y : y + 2 * size, x : x + 2 * size]
        rim = np.hypot(*np.mgrid[-size + 0.5 : size, -size + 0.5 : size]) / size
        share = np.clip(1.6 * (1 - rim), 0, 0.75)[..., None].astype(np.float32)
        part += share * (part[::-1].mean((0, 1)) * np.float32(random.uniform(0.9, 1.25)) - part)


def seen(scene: Scene, camera: Camera, hidden: NDArray[np.bool_]) -> dict[str, Floats]:
    """The rails of all tracks in the picture: between the borders, before what hides them, as far as one sees."""
    reach = min(
        -scene.light.haze * np.log(FAINTEST),
        26 * np.sqrt(scene.light.lamp / FAINTEST) if scene.light.ambient < FAINTEST else np.inf,
    )
    rows = camera.pixels * camera.height / np.arange(1.0, 1.5 * camera.height_px, 0.5)  # half a row apart, about
    s = np.union1d(np.arange(scene.tracks[0].s[0], scene.tracks[0].s[-1], DENSE), rows[rows < scene.tracks[0].s[-1]])
    lines = {}
    for track in scene.tracks:
        drawn = {}
        for name, points in track.rails().items():
            fine = np.stack([np.interp(s, track.s, points[:, axis]) for axis in range(2)], 1)
            drawn[name], depth = camera.project(fine)
        left, right, *_ = drawn.values()
        towards = np.gradient((left + right) / 2, axis=0)
        across = right - left
        gap = np.abs(across[:, 0] * towards[:, 1] - across[:, 1] * towards[:, 0]) / np.hypot(*towards.T).clip(1e-9)
        clear = (depth > 1) & (depth < reach) & (np.minimum.accumulate(np.where(depth > 1, gap, np.inf)) > NARROWEST)
        for name, pixels in drawn.items():
            x, y = np.rint(pixels).astype(np.int64).T
            shown = clear & (x >= 0) & (y >= 0) & (x < camera.width) & (y < camera.height_px)
            shown[shown] = ~hidden[y[shown], x[shown]]
            if len(found := np.flatnonzero(shown)) > 1:
                lines[name] = thinned(pixels[found[0] : found[-1] + 1])
    return lines


def thinned(line: Floats) -> Floats:
    """Every point that is `SPACING` pixels on from the one before, and the last."""
    length = np.concatenate([[0.0], np.cumsum(np.hypot(*np.diff(line, axis=0).T))])
    kept = np.unique(np.append(np.searchsorted(length, np.arange(0, length[-1], SPACING)), len(line) - 1))
    return line[kept]
