"""Sky and ground: for each pixel the place on the ground that it shows, and what lies there.

All that depends on the distance alone is tabulated over the rows of a picture that is not tilted, sixteen entries a
row, so that a pixel costs a few look-ups.
"""

from __future__ import annotations

from functools import cache
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from handful.data.scenes.camera import Camera
from handful.data.scenes.scene import Colour, Scene
from handful.data.scenes.tracks import FAR, GAUGE, HEAD

Plane: TypeAlias = NDArray[np.float32]

PER_ROW = 16  # entries of the tables
SLEEPERS, SLEEPER, HALF_SLEEPER = 0.6, 0.26, 1.3  # metres from one to the next, along the track, half of its length
BEDS = {"ballast": 2.3, "snow": 1.9, "street": 1.5, "lawn": 1.3}  # metres to each side of a track's middle
TILE = 512  # pixels of the noise


@cache
def noise(blur: int) -> Plane:
    """Noise of mean 0 and deviation 1 that can be put side by side, [TILE, TILE], with grains of `blur` pixels."""
    small = np.random.default_rng(blur).standard_normal((TILE // blur, TILE // blur)).astype(np.float32)
    if blur > 1:
        wide = Image.fromarray(np.pad(small, 4, mode="wrap"))
        size = ((small.shape[1] + 8) * blur, (small.shape[0] + 8) * blur)
        small = np.asarray(wide.resize(size, Image.Resampling.BICUBIC))[4 * blur : -4 * blur, 4 * blur : -4 * blur]
    return np.ascontiguousarray((small - small.mean()) / small.std())


def on_ground(tile: Plane, x: Plane, z: Plane, grains: float) -> Plane:
    """A tile of noise laid on the ground, so many of its pixels to a metre."""
    column, row = (x * grains).astype(np.int32) & (TILE - 1), (z * grains).astype(np.int32) & (TILE - 1)
    return tile.ravel().take(row * TILE + column)


def in_picture(blur: int, random: np.random.Generator, shape: tuple[int, int]) -> Plane:
    """Noise from a random place on, [H, W]."""
    top, left = random.integers(0, TILE, 2)
    return endless(blur, -(-max(shape) // TILE) + 1)[top : top + shape[0], left : left + shape[1]]


@cache
def endless(blur: int, times: int) -> Plane:
    """Noise put side by side so many times, each way."""
    return np.tile(noise(blur), (times, times))


def sky(scene: Scene, camera: Camera, random: np.random.Generator) -> Plane:
    """The sky over the whole picture, float32 [H, W, 3] in 0..255: brighter at the horizon, with clouds."""
    light, whole = scene.light, (camera.height_px, camera.width)
    rise = np.clip((camera.horizon + camera.middle[1] - np.arange(whole[0])) / (0.55 * whole[0]), 0, 1) ** 0.7
    zenith, horizon = np.array([light.zenith, light.horizon], np.float32)
    colour = (horizon + rise[:, None] * (zenith - horizon)).astype(np.float32)[:, None, :]
    image = np.broadcast_to(colour, (*whole, 3)).copy()
    shape = (int(np.clip(camera.middle[1] + camera.horizon + 8, 1, whole[0])), whole[1])
    if not light.clouds:
        return image
    size = int(random.integers(5, 9)), int(random.integers(4, 8))
    low = Image.fromarray(random.standard_normal((size[1] * 2, size[0])).astype(np.float32))
    large = np.asarray(low.resize((shape[1], shape[0]), Image.Resampling.BICUBIC))
    cover = np.clip(0.6 * large + 0.14 * in_picture(16, random, shape) + random.uniform(-0.4, 0.5), 0, 1)
    cover *= (light.clouds * np.clip(rise[: shape[0]] * 3, 0.15, 1))[:, None]
    white = np.minimum(horizon * 1.05 + 8, 250)
    image[: shape[0]] += cover[..., None].astype(np.float32) * (white - colour[: shape[0]])
    return image


def ground(scene: Scene, camera: Camera, random: np.random.Generator) -> tuple[int, Plane, Plane]:
    """From the first row that shows ground on: its number, the colours [h, W, 3], and how much is ground, 0..1."""
    tilt = abs(np.tan(camera.roll)) * camera.width / 2 + 1
    first = int(np.clip(camera.middle[1] + camera.horizon - tilt, 0, camera.height_px - 2))
    across, below = camera.untilted(
        np.arange(camera.width, dtype=np.float32)[None, :],
        np.arange(first, camera.height_px, dtype=np.float32)[:, None],
    )
    nearest_row = camera.height_px / 2 + tilt
    table = np.arange(camera.horizon + 0.25, nearest_row, 1 / PER_ROW)
    z, a_pixel = camera.ahead(table)
    reach = np.minimum(z, FAR - 60)
    row = np.clip((below - table[0]) * PER_ROW, 0, len(table) - 1).astype(np.intp)

    def spread(values: NDArray[np.floating]) -> Plane:
        return values.astype(np.float32).take(row)

    x, ahead = across * spread(a_pixel), spread(reach)
    deep = np.abs(np.gradient(z)).clip(1e-4) * PER_ROW  # metres of the ground that a row shows
    cos, sin = np.cos(camera.yaw), np.sin(camera.yaw)
    texture_x, texture_z = x * cos + ahead * sin + 1000, ahead * cos - x * sin + 1000
    grains = on_ground(noise(1), texture_x, texture_z, 22) * spread(np.clip(0.1 / deep, 0.12, 1))
    patches = on_ground(noise(4), texture_x, texture_z, 5) * spread(np.clip(0.8 / deep, 0.1, 1))
    plains = on_ground(noise(16), texture_x, texture_z, 2.5)

    nearest: Plane = np.full(x.shape, 99, np.float32)
    sleeper, rail, foot = (np.zeros(x.shape, np.float32) for _ in range(3))
    with_sleepers = scene.ground in ("ballast", "snow")
    for track in scene.tracks:
        middle = camera.own(track.middle)
        towards = np.gradient(middle, axis=0)
        turned = np.arctan2(towards[:, 0], towards[:, 1])
        at, heading, s = (np.interp(reach, middle[:, 1], values) for values in (middle[:, 0], turned, track.s))
        away = x - spread(at)
        beside = away * spread(np.cos(heading))  # metres to the right of the track
        unsure = np.hypot(a_pixel * np.cos(heading), deep * np.sin(heading))  # metres that a pixel covers
        pixel, share = spread(unsure), spread(1 / unsure)
        distance = np.abs(beside)
        np.minimum(nearest, distance, out=nearest)
        if with_sleepers:
            along = spread(s) + away * spread(np.sin(heading))
            phase = np.abs(along / SLEEPERS - np.rint(along / SLEEPERS)) * SLEEPERS
            bar = covered(phase, SLEEPER, spread(deep), spread(1 / deep)) * spread(
                np.clip(1.6 - 2 * deep / SLEEPERS, 0, 1)
            )
            bar += (SLEEPER / SLEEPERS) * spread(np.clip(2 * deep / SLEEPERS - 0.6, 0, 1))
            np.maximum(sleeper, bar * np.clip((HALF_SLEEPER - distance) * share + 0.5, 0, 1), out=sleeper)
        from_rail = np.abs(distance - (GAUGE + HEAD) / 2)
        np.maximum(rail, covered(from_rail, HEAD, pixel, share), out=rail)
        np.maximum(foot, covered(from_rail, 2.6 * HEAD, pixel, share), out=foot)

    rough = {"ballast": 0.15, "snow": 0.04, "street": 0.06, "lawn": 0.12}[scene.ground]
    uneven = 0.22 * patches + (0.25 * plains if with_sleepers else 0)
    inside = np.clip((BEDS[scene.ground] + uneven - nearest) / 0.35 + 0.5, 0, 1)
    shine = spread(0.75 + 0.5 * np.clip(z / 120, 0, 1))  # flat angles mirror the sky
    worn = np.clip((0.75 - nearest) / 0.1, 0, 1) * np.float32(random.uniform(0, 0.22))  # oil and rust in the middle
    lit = spread(illumination(scene, reach))
    if scene.light.lamp:
        beam = np.exp(-((across / (0.3 * camera.width)) ** 2)).astype(np.float32)
        day = spread(illumination(scene, reach, lamp=False))
        lit = day + beam * (lit - day)
    clear = spread(np.exp(-reach / scene.light.haze))
    # Each material's share of a pixel, the upper ones first; the rest of it is left to those below.
    steel, rest = rail * shine, 1 - rail
    dark, rest = 0.75 * foot * rest, rest * (1 - 0.75 * foot)
    sleeper *= 0.55 if scene.ground == "snow" else 0.85
    wood, rest = sleeper * rest * (1 + 0.06 * grains), rest * (1 - sleeper) * (1 - worn)
    stones = inside * rest * (1 + rough * grains + 0.05 * patches)
    outside = (1 - inside) * rest * (1 + 0.09 * patches + 0.08 * plains + 0.7 * rough * grains)
    shares = np.stack([steel, dark, wood, stones, outside]).reshape(5, -1) * (lit * clear).reshape(1, -1)
    colour = shares.T @ materials(scene, random)
    colour = colour.reshape(*x.shape, 3) + (1 - clear)[..., None] * np.array(scene.light.haze_colour, np.float32)
    return first, colour, np.clip(below - camera.horizon, 0, 1).astype(np.float32)


def covered(distance: Plane, width: float, pixel: Plane, share: Plane) -> Plane:
    """How much of a pixel lies in a band of `width` metres around distance 0; share: 1 / metres of a pixel."""
    return np.clip(((width + pixel) / 2 - distance) * share, 0, 1) * np.minimum(1, width * share)


def materials(scene: Scene, random: np.random.Generator) -> Plane:
    """The colours of a rail's head, its foot with the shadow, of sleepers, the bed and the land beside, [5, 3]."""

    def colour(*choices: Colour) -> NDArray[np.floating]:
        return np.array(choices[int(random.integers(len(choices)))]) + random.normal(0, 7) + random.normal(0, 2.5, 3)

    grass, dry, earth = (82, 104, 46), (128, 120, 66), (112, 98, 78)
    land = {
        "ballast": colour(grass, grass, dry, earth),
        "snow": colour((216, 222, 232)),
        "street": colour((104, 104, 106), (84, 85, 88), (136, 132, 126)),
        "lawn": colour((112, 112, 112), grass, (140, 134, 126)),
    }[scene.ground]
    if scene.light.name == "tunnel":
        land = colour(earth, (98, 94, 90))
    bed = {
        "ballast": colour((120, 112, 104), (98, 86, 76), (146, 143, 138), (104, 98, 94)),
        "snow": colour((150, 148, 150), (206, 212, 222)),
        "street": land * random.uniform(0.85, 1.12),
        "lawn": colour(grass, dry),
    }[scene.ground]
    sleepers = colour((86, 72, 60), (160, 155, 146), (120, 110, 100), (74, 66, 60))
    steel = colour((176, 174, 172), (176, 174, 172), (142, 112, 92)) * random.uniform(0.85, 1.2)
    return np.array([steel, (58, 47, 41), sleepers, bed, land]).clip(0, 255).astype(np.float32)


def illumination(scene: Scene, z: NDArray[np.floating], lamp: bool = True) -> NDArray[np.floating]:
    """What a colour at distance z is multiplied by: daylight where no tunnel is, and the head lamp."""
    day = np.full(np.shape(z), scene.light.ambient)
    if scene.tunnel:
        start, end = scene.tunnel
        open_sky = np.clip((start + 4 - z) / 8, 0, 1) + np.clip((z - end + 6) / 12, 0, 1)
        day = day * (0.07 + 0.93 * np.clip(open_sky, 0, 1))
    return day + (scene.light.lamp / (1 + (z / 26) ** 2) if lamp else 0.0)
