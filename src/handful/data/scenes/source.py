"""rail_scenes: views from a cab, rendered on the spot with their exact rails; nothing to download, nothing to build."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from typing import Any

import numpy as np

from handful.data.functions import SPLITS
from handful.data.pictures import Picture
from handful.data.rails import Frame
from handful.data.scenes.camera import Camera, draw_camera
from handful.data.scenes.render import render
from handful.data.scenes.scene import draw_scene
from handful.errors import unknown

VERSION = 1  # of what is drawn: raised when the same seed gives another picture
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


@dataclass(frozen=True)
class RailScenes:
    """Rendered scenes, in three streams of random numbers that share none."""

    name: str = "rail_scenes"
    about: str = "views from a train's cab, rendered on the spot with their exact rail lines"
    problem: str = "rail_lines"
    input_shape: tuple[int, ...] = (3, HEIGHT, WIDTH)

    @property
    def info(self) -> dict[str, Any]:
        """Which renderer draws them, and what every result on them must say."""
        note = "The pictures are rendered: a result on them says nothing of photographs."
        return {"name": self.name, "version": VERSION, "note": note}

    @property
    def digest(self) -> str:
        """SHA-256 of the name and the version."""
        return hashlib.sha256(f"{self.name} {VERSION}".encode()).hexdigest()

    @property
    def split_hash(self) -> str:
        """Names the renderer: the splits of each are streams of random numbers of their own."""
        return self.digest[:16]

    def split(self, name: str) -> SceneSplit:
        """The scenes of one split."""
        if name not in SPLITS:
            raise unknown("split", name, SPLITS)
        return SceneSplit(self, name)

    @property
    def train(self) -> SceneSplit:
        """The scenes of meta-training."""
        return self.split("train")

    @property
    def val(self) -> SceneSplit:
        """The scenes that select the best step."""
        return self.split("val")

    @property
    def test(self) -> SceneSplit:
        """The scenes that nothing but a final evaluation may see."""
        return self.split("test")

    def describe(self) -> dict[str, Any]:
        """The content of a run's `split.json`."""
        streams = dict.fromkeys(SPLITS, f"a stream of rendered scenes of its own, renderer {VERSION}")
        record = {"name": self.name, "problem": self.problem, "digest": self.digest, "hash": self.split_hash}
        return {**record, "classes": streams}

    def recipe(self) -> dict[str, Any]:
        """The `data` section of a recipe that opens it again."""
        return {"name": self.name}


@dataclass(frozen=True)
class SceneSplit:
    """The scenes of one split: as many as are asked for."""

    data: RailScenes
    name: str

    def frame(self, index: int, seed: int = 0, **options: Any) -> Frame:
        """One frame; seed: another gives other scenes; options as for `render_frame`."""
        return render_frame(len(SPLITS) * seed + SPLITS.index(self.name), index, **options)


SCENES = RailScenes()
