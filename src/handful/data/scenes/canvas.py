"""A canvas for what stands on the ground: shapes are drawn far to near, lit and in the haze of their distance."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray
from PIL import Image, ImageDraw

from handful.data.scenes.camera import NEAREST, Camera, Floats
from handful.data.scenes.ground import illumination
from handful.data.scenes.scene import Scene

FINE = 2  # pixels of the canvas to one of the picture, each way: what smoothes the edges
OUTSIDE = 20_000.0  # pixels beyond which nothing is drawn: a polygon may reach far out, and must not overflow


class Canvas:
    """Keeps shapes for one camera, many of a kind at a time; `finished` draws them.

    Shapes have ground coordinates [m, k, 2] and heights above the rails [m, k] of k points each, and colours [m, 3] or
    [3] in 0..255, as they are in daylight.  deeper: how many times their distance they count as being away, when it
    is decided what hides what.
    """

    def __init__(self, scene: Scene, camera: Camera) -> None:
        self.scene, self.camera, self.deeper = scene, camera, 1.0
        self.shapes: list[tuple[float, int, list[float], tuple[int, ...], int]] = []

    def finished(self) -> NDArray[np.uint8]:
        """Colours and cover of the picture, uint8 [H, W, 4]."""
        image = Image.new("RGBA", (self.camera.width * FINE, self.camera.height_px * FINE))
        pen = ImageDraw.Draw(image)
        for _, _, points, fill, width in sorted(self.shapes, reverse=True, key=lambda shape: shape[:2]):
            if width > 0:
                pen.line(points, fill, width)
            elif len(points) == 4:
                pen.ellipse(points, fill)
            else:
                pen.polygon(points, fill)
        return np.asarray(image.reduce(FINE))

    def places(self, ground: Floats, above: Floats) -> tuple[Floats, Floats]:
        """Pixels of the canvas [..., 2] and depths [...] of points."""
        pixels, depth = self.camera.project(ground, above)
        return ((pixels + 0.5) * FINE).clip(-OUTSIDE, OUTSIDE), depth

    def shown(self, colours: ArrayLike, z: Floats) -> Any:
        """Colours [m, 3] as they are seen at distances z [m], as lists of whole numbers."""
        light = self.scene.light
        clear = np.exp(-z / light.haze)[:, None]
        seen = np.asarray(colours) * illumination(self.scene, z)[:, None] * clear
        return (seen + np.array(light.haze_colour) * (1 - clear)).clip(0, 255).astype(int).tolist()

    def faces(self, ground: Floats, above: Floats, colours: ArrayLike, order: Floats | None = None) -> None:
        """Polygons; those behind the camera are left out.  order: how far they count when things hide each other."""
        pixels, depth = self.places(ground, above)
        z = depth.mean(1)
        order = z if order is None else order
        fills = self.shown(np.broadcast_to(np.asarray(colours, np.float64), (len(z), 3)), z)
        for far, seen, points, fill in zip(order.tolist(), depth.max(1) > NEAREST, pixels, fills):
            if seen:
                self._keep(far, points, (*fill, 255), 0)

    def strokes(self, ground: Floats, above: Floats, metres: float, colour: ArrayLike) -> None:
        """Lines of a thickness in metres: a pixel of the canvas at least, and fainter where they would be thinner."""
        pixels, depth = self.places(ground, above)
        z = depth.mean(1)
        thick = metres * self.camera.pixels * FINE / z
        fills = self.shown(np.broadcast_to(np.asarray(colour, np.float64), (len(z), 3)), z)
        cover = (255 * thick).clip(60, 255).astype(int).tolist()
        for i, width in enumerate(np.maximum(1, np.rint(thick)).astype(int).tolist()):
            if depth[i].min() > 2 * NEAREST:
                self._keep(float(z[i]), pixels[i], (*fills[i], cover[i]), width)

    def discs(self, ground: Floats, above: Floats, shifts: Floats, radii: Floats, colours: Floats) -> None:
        """Round spots about points [m, 2] at heights [m]: shifts [m, n, 2] and radii [m, n] in metres, and colours.

        Each point's spots keep their order; colours [m, n, 3].
        """
        pixels, depth = self.places(ground, above)
        metre = self.camera.pixels * FINE / depth
        middles = pixels[:, None] + shifts * metre[:, None, None]
        sizes = (radii * metre[:, None])[..., None]
        boxes = np.concatenate([middles - sizes, middles + sizes], -1)
        for i in np.flatnonzero((depth > 2) & (radii[:, 0] * metre > 0.7)).tolist():
            count = boxes.shape[1] if sizes[i, 0, 0] > 4 else boxes.shape[1] // 3
            fills = self.shown(colours[i, :count], np.full(count, depth[i]))
            for box, fill in zip(boxes[i, :count], fills):
                self._keep(float(depth[i]), box, (*fill, 255), 0)

    def spot(self, box: Floats, fill: tuple[int, int, int], z: float) -> None:
        """A shape of pixels [k, 2] in a colour that shines by itself, or is known to be seen so; k = 2: a disc."""
        self._keep(z, box, (*fill, 255), 0)

    def _keep(self, z: float, points: Floats, fill: tuple[int, ...], width: int) -> None:
        self.shapes.append((z * self.deeper, -len(self.shapes), points.ravel().tolist(), fill, width))
