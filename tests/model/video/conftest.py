"""Small clips of a fixed camera, normal and with something odd, and models that watch it."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from handful.data.pictures import Pixels
from handful.model.video import VideoModel, fit_video
from handful.recipe import parse
from handful.run import Run
from handful.training import train_recipe
from tests.model.rails.conftest import write_video

WIDTH, HEIGHT = 96, 64
ODD = 24  # the frame from which on something odd is there

RECIPE = """
name: tiny-video
data: {{name: video_folder, root: {root}, image_size: 32}}
backbone: {{name: unet, widths: [3, 4]}}
decoder: {{name: next_frame, prototypes: 3}}
method: {{name: maml, inner_lr: 0.05, inner_steps: 1, adapt: [head], norm_stats: running}}
pretrain: {{steps: 4, batch: 2, lr: 0.01, validate_every: 2, validation_tasks: 2}}
train: {{way: 1, shot: 3, query: 2, tasks_per_step: 2, steps: 4, lr: 0.01, validate_every: 2, validation_tasks: 2}}
evaluate: {{tasks: 2}}
"""


def filmed(count: int, odd: int | None = None, seed: int = 0, size: tuple[int, int] = (WIDTH, HEIGHT)) -> list[Pixels]:
    """Frames uint8 [H, W, 3] of one place, in colour: dark figures that walk, from frame `odd` on a fast bright one.

    seed: of the walkers; the place is the same.
    """
    width, height = size
    place, random = np.random.default_rng(5), np.random.default_rng(seed)
    coarse = place.integers(90, 170, (height // 8, width // 8, 3)).astype(np.uint8)
    ground = np.asarray(Image.fromarray(coarse).resize(size, Image.Resampling.BICUBIC))
    starts, speeds = random.uniform(0, width, 3), random.uniform(0.8, 1.2, 3)
    found = []
    for number in range(count):
        frame = ground.astype(int) + random.integers(-2, 3, ground.shape)
        for row, (start, speed) in enumerate(zip(starts, speeds)):
            x, y = int(start + speed * number) % (width + 20) - 10, height // 8 + row * height // 4
            frame[y : y + height // 5, max(x, 0) : max(x + 5, 0)] = 40
        if odd is not None and number >= odd:
            x = (number - odd) * 11 % (width - 12)
            frame[height // 2 : height // 2 + 12, x : x + 12] = (250, 240, 200)
        found.append(frame.clip(0, 255).astype(np.uint8))
    return found


def frames_in(folder: Path, frames: Sequence[Pixels]) -> Path:
    """A folder of frames 1.png, 2.png, ..."""
    folder.mkdir(parents=True)
    for number, frame in enumerate(frames, 1):
        Image.fromarray(frame).save(folder / f"{number}.png")
    return folder


@pytest.fixture(scope="session")
def clips(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """normal.mp4 of 120 frames, other.mp4, and odd.mp4 of 48 with something odd in the second half; 10 a second."""
    folder = tmp_path_factory.mktemp("clips")
    write_video(folder / "normal.mp4", filmed(120))
    write_video(folder / "other.mp4", filmed(48, seed=1))
    write_video(folder / "odd.mp4", filmed(48, ODD, seed=2))
    return folder


@pytest.fixture(scope="session")
def watcher(clips: Path) -> VideoModel:
    """Without a network."""
    return fit_video(clips / "normal.mp4", false_alarms=0.02)


@pytest.fixture
def saved(watcher: VideoModel, tmp_path: Path) -> Path:
    return watcher.save(tmp_path / "watcher")


@pytest.fixture(scope="session")
def run(tmp_path_factory: pytest.TempPathFactory) -> Run:
    """A tiny network after a few steps of both stages, on other clips."""
    folder = tmp_path_factory.mktemp("run")
    (folder / "data").mkdir()
    for number in range(3):
        write_video(folder / "data" / f"{number}.mp4", filmed(150, seed=10 + number))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("handful.training.conclude", lambda run, protocols, progress: [])  # it would be evaluated
        run, _ = train_recipe(parse(RECIPE.format(root=folder / "data"), "tiny"), folder / "run", quiet=True)
    return run
