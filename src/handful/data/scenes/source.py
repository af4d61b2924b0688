"""Views from a cab, rendered with their exact rails: frame number `index` of a seed is always the same."""

from __future__ import annotations

import numpy as np

from handful.data.pictures import Picture
from handful.data.rails import Frame
from handful.data.scenes.camera import Camera, draw_camera
from handful.data.scenes.render import render
from handful.data.scenes.scene import draw_scene

VERSION = 2  # of what is drawn: raised when the same seed gives another picture
WIDTH, HEIGHT = 512, 288


def render_frame(
    seed: int,
    index: int,
    *,
    camera: Camera | None = None,
    light: str | None = None,
    ground: str | None = None,
    size: tuple[int, int] = (WIDTH, HEIGHT),
) -> Frame:
    """The frame `index` of a seed: a picture and all of its lines, always the same for the same numbers.

    camera: one for many frames, where each would have its own; its size then counts; light, ground: names of
    `handful.data.scenes.scene`, if they must be; size: width and height in pixels.

    The lines are `left` and `right`, the middle of the heads of the rails that the train runs on, and `inner left` and
    `inner right`, their inner edges; the same with `neighbour` and `second neighbour` before for the tracks
    beside, and with `left-hand` and `right-hand` for both ways through a switch, one of which the train's own is.
    Each goes as far as it can be seen.  Raises HandfulError for another light or ground.
    """
    random = np.random.default_rng([seed, index])
    drawn = draw_camera(random, *size)  # also where one is given, so that the scene is the same
    scene = draw_scene(random, light, ground)
    camera = camera or drawn
    image, lines = render(scene, camera)
    tags = (scene.ground, scene.light.name, *(["switch"] if scene.switch else []))
    picture = Picture(f"rail scene {index} of seed {seed}", "", "", lambda: image)
    return Frame(picture, camera.width, camera.height_px, lines, tags)
