"""A model that finds painted rails exactly, pictures and videos of such rails, and a folder of rendered frames."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

import av
import numpy as np
import pytest
import torch
import torch.nn.functional as F
from PIL import Image, ImageDraw
from torch import Tensor, nn

from handful.data import render_frame
from handful.data.pictures import Pixels
from handful.data.scenes import draw_camera
from handful.demo.rails import write_frames
from handful.embedders import TorchEmbedder
from handful.model.rails.card import LineCard
from handful.model.rails.model import LineModel, unfitted

WIDTH, HEIGHT = 128, 64
RANDOM = {"name": "efficientnet_lite0", "weights": "none", "resolution": None}

WriteVideo = Callable[..., Path]


class Painted(nn.Module):
    """Finds what is red as the left rail and what is green as the right one: [n, 3, H, W] -> [n, 2, H/4, W/4 + 1]."""

    def forward(self, images: Tensor) -> Tensor:
        found = F.avg_pool2d(images[:, :2] - images[:, 2:], 4)
        there = 40 * (found.amax(-1, keepdim=True) - 0.1)
        return torch.cat([30 * found, there], -1)


def painted(shift: float = 0.0, size: tuple[int, int] = (WIDTH, HEIGHT), sides: str = "both") -> Pixels:
    """A grey picture with a red left and a green right rail from the lower border up to a quarter of the height."""
    width, height = size
    image = Image.new("RGB", size, (60, 60, 60))
    pen = ImageDraw.Draw(image)
    for side, place, colour in (("left", 0.3, (255, 0, 0)), ("right", 0.7, (0, 255, 0))):
        if sides in (side, "both"):
            foot, top = (place * width + shift, height), ((0.5 + (place - 0.5) / 2) * width + shift, height / 4)
            pen.line([foot, top], colour, width // 20)
    return np.asarray(image)


def blank_card(**changes: object) -> LineCard:
    """The card of an untrained model of 128x64 pixels."""
    content = {
        "handful": "0",
        "problem": "rail_lines",
        "lines": ["left", "right"],
        "frames": 5,
        "width": WIDTH,
        "height": HEIGHT,
        "size": (WIDTH, HEIGHT),
        "mirror": False,
        "backbone": RANDOM,
        "decoder": {"name": "row_distributions", "channels": 16},
        "method": "Adam",
        "steps": 1,
    }
    return LineCard(**{**content, **changes})


@pytest.fixture(scope="session")
def untrained() -> LineModel:
    torch.manual_seed(0)
    card = blank_card()
    return LineModel(unfitted(card), card)


@pytest.fixture
def model(untrained: LineModel, monkeypatch: pytest.MonkeyPatch) -> LineModel:
    """It finds painted rails, also once it was saved and opened."""
    monkeypatch.setattr("handful.model.rails.model.embedder", lambda network: TorchEmbedder(Painted()))
    return LineModel(untrained.network, untrained.card)


@pytest.fixture
def saved(model: LineModel, tmp_path: Path) -> Path:
    return model.save(tmp_path / "line")


def save_picture(path: Path, pixels: Pixels) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(pixels).save(path)
    return path


def write_video(
    path: Path, frames: Sequence[Pixels], codec: str = "libx264", options: dict[str, str] | None = None
) -> Path:
    """Ten frames a second, an intra-coded one every five."""
    with av.open(str(path), "w", options=options or {}) as container:
        stream = container.add_stream(codec, rate=10, options={"g": "5"})
        assert isinstance(stream, av.VideoStream)
        stream.height, stream.width = frames[0].shape[:2]
        stream.pix_fmt = "yuv420p"
        stream.bit_rate = 2_000_000
        for pixels in frames:
            container.mux(stream.encode(av.VideoFrame.from_ndarray(pixels, format="rgb24")))
        container.mux(stream.encode(None))
    return path


def half_of(path: Path, to: Path) -> Path:
    """A file that was cut off in the middle."""
    content = path.read_bytes()
    to.write_bytes(content[: len(content) // 2])
    return to


@pytest.fixture(scope="session")
def rendered(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Three annotated frames of one camera."""
    camera = draw_camera(np.random.default_rng(3), 512, 288)
    frames = [render_frame(3, index, camera=camera, light="day") for index in range(3)]
    return write_frames(frames, tmp_path_factory.mktemp("line") / "annotated")


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """A decoder is trained for two steps on four views."""
    monkeypatch.setattr("handful.model.rails.start.VIEWS", 4)
    monkeypatch.setattr("handful.model.rails.start.STEPS", 2)
    monkeypatch.setattr("handful.model.rails.start.embedder", TorchEmbedder)
