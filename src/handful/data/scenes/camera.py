"""The camera of a cab: a pinhole above flat ground.

Ground coordinates are metres, (x, z): x to the right and z ahead of the foot of the camera, along the track below it.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

Floats: TypeAlias = NDArray[np.float64]

NEAREST = 0.5  # metres before the camera at which what is drawn is cut off


@dataclass(frozen=True)
class Camera:
    """Where a camera stands, how it looks, and the size of its pictures.

    height: metres above the rails; offset: metres right of the middle of the track; pitch: radians down; yaw: radians
    to the right; roll: radians clockwise; focal: focal length in widths of the picture; width, height_px: pixels.
    """

    height: float = 2.6
    offset: float = 0.0
    pitch: float = 0.06
    yaw: float = 0.0
    roll: float = 0.0
    focal: float = 0.9
    width: int = 512
    height_px: int = 288

    @property
    def middle(self) -> tuple[float, float]:
        """The pixel coordinates of the picture's centre."""
        return (self.width - 1) / 2, (self.height_px - 1) / 2

    @property
    def pixels(self) -> float:
        """The focal length in pixels."""
        return self.focal * self.width

    def own(self, ground: Floats) -> Floats:
        """Ground coordinates [..., 2] of the track -> those of the camera: x to its right, z the way it looks."""
        x, z = ground[..., 0] - self.offset, ground[..., 1]
        sin, cos = np.sin(self.yaw), np.cos(self.yaw)
        return np.stack([x * cos - z * sin, x * sin + z * cos], -1)

    def project(self, ground: Floats, above: Floats | float = 0.0) -> tuple[Floats, Floats]:
        """Points (x, z) [..., 2], metres above the rails -> pixels (x, y) [..., 2], and how far before the camera.

        What is behind the camera has no place in the picture: it is put `NEAREST` before it.
        """
        x, z = np.moveaxis(self.own(ground), -1, 0)
        down = self.height - above
        sin, cos = np.sin(self.pitch), np.cos(self.pitch)
        depth = np.maximum(z * cos + down * sin, NEAREST)
        across, below = self.pixels * x / depth, self.pixels * (down * cos - z * sin) / depth
        sin, cos = np.sin(self.roll), np.cos(self.roll)
        place = np.stack([across * cos - below * sin, across * sin + below * cos], -1)
        return place + self.middle, depth

    def untilted(self, x: Any, y: Any) -> tuple[Any, Any]:
        """Pixels -> pixels right of and below the centre, as if the camera had no roll; of the type given."""
        sin, cos = float(np.sin(self.roll)), float(np.cos(self.roll))
        across, below = x - self.middle[0], y - self.middle[1]
        return across * cos + below * sin, below * cos - across * sin

    def ahead(self, below: Floats) -> tuple[Floats, Floats]:
        """Pixels below the centre (no roll) -> z of the ground seen there, and metres to the right a pixel.

        Both are only meant below the horizon, which is at -pixels * tan(pitch).
        """
        sin, cos = np.sin(self.pitch), np.cos(self.pitch)
        falling = below * cos + self.pixels * sin
        return self.height * (self.pixels * cos - below * sin) / falling, self.height / falling

    @property
    def horizon(self) -> float:
        """Pixels below the centre (no roll) at which the ground ends."""
        return float(-self.pixels * np.tan(self.pitch))


def draw_camera(random: np.random.Generator, width: int = 512, height: int = 288) -> Camera:
    """A camera as one finds behind windscreens of trains and trams."""
    focal = random.uniform(0.65, 1.35)
    horizon = random.uniform(-0.14, 0.08) * height  # pixels below the centre
    return Camera(
        height=random.uniform(1.9, 3.4),
        offset=random.normal(0, 0.25),
        pitch=float(np.arctan(-horizon / (focal * width))),
        yaw=random.normal(0, 0.05) / focal,
        roll=random.normal(0, 0.008),
        focal=focal,
        width=width,
        height_px=height,
    )
