"""A rendered scene as a fixed camera sees it: its ground, its paths, what stands about, and its light."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from handful.data.video.figures import Colour, Figure, Floats, Point, bench, post, tree, tuned

GROUNDS: tuple[tuple[Colour, Colour], ...] = (  # colours of the ground and of the paths
    ((96, 112, 70), (165, 158, 145)),
    ((100, 100, 104), (150, 148, 142)),
    ((176, 160, 128), (120, 112, 100)),
    ((205, 208, 212), (150, 150, 155)),
    ((118, 92, 78), (176, 170, 160)),
)
THINGS: tuple[Callable[[np.random.Generator], Figure], ...] = (tree, post, bench)
MARGIN = 0.35  # of the picture's side: how far beyond its edge a path goes
STEPS = 200  # points of a path
LEAST = 0.7  # of the picture's side: how much of a path is seen


class Path(NamedTuple):
    """A way through the scene: points [n, 2] in shares of the picture's side, and how far each is, in body heights."""

    points: Floats
    far: Floats

    @property
    def length(self) -> float:
        """From end to end, in heights of a body."""
        return float(self.far[-1])

    def seen(self) -> float:
        """How much of it lies in the picture, in shares of the picture's side."""
        steps = np.hypot(*np.diff(self.points, axis=0).T)
        x, y = self.points[1:].T
        return float(steps[(x > 0) & (x < 1) & (y > 0) & (y < 1)].sum())

    def at(self, far: float, aside: float, height: Callable[[float], float]) -> tuple[float, float, float]:
        """The point (x, y) so far along, and so far aside of the path, and how much to the right it goes, -1 to 1."""
        x, y = (float(np.interp(far, self.far, self.points[:, i])) for i in (0, 1))
        ahead = [float(np.interp(far + 0.1, self.far, self.points[:, i])) for i in (0, 1)]
        before = [float(np.interp(far - 0.1, self.far, self.points[:, i])) for i in (0, 1)]
        dx, dy = ahead[0] - before[0], ahead[1] - before[1]
        length = float(np.hypot(dx, dy)) + 1e-9
        size = height(y) * aside / length
        return x - dy * size, y + dx * size, dx / length


@dataclass(frozen=True)
class Scene:
    """What stays from frame to frame.

    ground: float [size, size, 3]; paths: those that people take; things: figures with where they stand (x, y); tall: a
    body's height at the lower edge and at the upper one, in shares of the picture's side; pace: heights a frame;
    crowd: people at a time; lamp: where it stands; glow: how bright it is; gain: of the light; noise: of the camera, in
    grey levels.
    """

    size: int
    ground: Floats
    paths: list[Path]
    things: list[tuple[Figure, Point]]
    tall: Point
    pace: float
    crowd: float
    lamp: Floats
    gain: float
    noise: float

    def height(self, y: float) -> float:
        """A body's height there, in shares of the picture's side."""
        return self.tall[1] + (self.tall[0] - self.tall[1]) * y


def draw_scene(seed: int, number: int, size: int) -> Scene:
    """The scene of a seed, always the same for the same numbers; size: pixels of a side."""
    random = np.random.default_rng([seed, number])
    horizon = random.uniform(0.1, 0.28)
    low = random.uniform(0.19, 0.27)
    tall = low, low * random.uniform(0.4, 0.6)

    def height(y: float) -> float:
        return tall[1] + (tall[0] - tall[1]) * y

    paths = [draw_path(random, horizon, height, number) for number in range(random.integers(1, 4))]
    ground = paint(random, size, horizon, paths, height)
    things = [
        (THINGS[random.integers(len(THINGS))](random), (random.uniform(0, 1), random.uniform(horizon + 0.05, 0.95)))
        for _ in range(random.integers(2, 5))
    ]
    x, y = random.uniform(0.1, 0.9, 2)
    rows, columns = np.mgrid[:size, :size].astype(np.float32) / size
    lamp = np.exp(-((rows - y) ** 2 + (columns - x) ** 2) / random.uniform(0.03, 0.1))[..., None].astype(np.float32)
    return Scene(
        size,
        ground,
        paths,
        things,
        tall,
        pace=random.uniform(0.045, 0.065),
        crowd=random.uniform(4, 9),
        lamp=lamp * np.float32(random.uniform(10, 40)),
        gain=random.uniform(0.65, 1.05),
        noise=random.uniform(1.0, 2.5),
    )


def draw_path(random: np.random.Generator, horizon: float, height: Callable[[float], float], number: int) -> Path:
    """From one edge of the picture to another, slightly bent; the first leads from the left to the right."""
    while True:
        left, right = ((x, random.uniform(horizon + 0.2, 0.85)) for x in (-MARGIN, 1 + MARGIN))
        bottom = (random.uniform(0.2, 0.8), 1 + MARGIN)
        start, end = ((left, right), (left, bottom), (bottom, right))[random.integers(3) if number else 0]
        x, y = np.mean([start, end], 0) + random.uniform(-0.2, 0.2, 2)
        path = curve(start, (float(x), max(float(y), horizon + 0.15)), end, height)
        if path.seen() > LEAST:
            return path


def curve(start: Point, middle: Point, end: Point, height: Callable[[float], float]) -> Path:
    """A bent way, measured in heights of a body, which are smaller where it is farther off."""
    t = np.linspace(0, 1, STEPS)[:, None]
    points = (1 - t) ** 2 * start + 2 * t * (1 - t) * middle + t**2 * np.array(end)
    steps = np.hypot(*np.diff(points, axis=0).T) / [height(y) for y in points[1:, 1]]
    return Path(points.astype(np.float32), np.cumsum([0, *steps]).astype(np.float32))


def paint(
    random: np.random.Generator, size: int, horizon: float, paths: list[Path], height: Callable[[float], float]
) -> Floats:
    """The ground with its paths, and a wall with windows above it."""
    soil, way = GROUNDS[random.integers(len(GROUNDS))]
    rows, columns = np.mgrid[:size, :size].astype(np.float32) / size
    image = np.full((size, size, 3), soil, np.float32)
    image *= 1 + 0.10 * texture(random, size, 1.0)[..., None]
    broad = random.uniform(0.45, 0.7)
    for path in paths:
        points = path.points[::3]
        away = np.hypot(columns[..., None] - points[:, 0], rows[..., None] - points[:, 1])
        away = (away / [height(y) for y in points[:, 1]]).min(-1)
        share = np.clip((broad - away) * 6, 0, 1)[..., None]
        image += share * (np.array(way, np.float32) - image)
    image *= 1 + 0.05 * texture(random, size, 0.6)[..., None]
    wall = np.array(tuned((150, 135, 120), random.uniform(0.6, 1.2)), np.float32)
    high = (rows < horizon)[..., None]
    image = np.where(high, wall * (1 + 0.04 * texture(random, size, 0.8)[..., None]), image)
    pitch = random.uniform(0.08, 0.16)
    inside = (columns % pitch > 0.35 * pitch) & (rows % pitch > 0.4 * pitch) & (rows < horizon - 0.03)
    image[inside] *= random.uniform(0.45, 0.7)
    return image.astype(np.float32)


def texture(random: np.random.Generator, size: int, slope: float) -> Floats:
    """Noise of mean 0 and deviation 1 whose amplitude falls with frequency to this power, [size, size]."""
    frequency = np.hypot(np.fft.fftfreq(size)[:, None], np.fft.rfftfreq(size))
    frequency[0, 0] = np.inf
    spectrum = np.fft.rfft2(random.standard_normal((size, size))) / frequency**slope
    noise = np.fft.irfft2(spectrum, (size, size))
    return (noise / noise.std()).astype(np.float32)
