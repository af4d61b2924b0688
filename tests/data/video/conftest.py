"""Small clips: a bright square that moves over noise, as videos, as folders of frames, and in the field's layout."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import av
import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

WIDTH, HEIGHT = 32, 24
Grey = NDArray[np.uint8]


def footage(count: int = 8, seed: int = 0, size: tuple[int, int] = (WIDTH, HEIGHT)) -> Grey:
    """Frames [count, H, W]."""
    width, height = size
    shown = np.random.default_rng(seed).integers(0, 120, (1, height, width), np.uint8).repeat(count, 0)
    for i, frame in enumerate(shown):
        frame[8:14, (2 * i) % (width - 6) :][:, :6] = 200 + i % 50
    return shown


def write_video(
    path: Path, shown: Grey, codec: str = "ffv1", rate: int = 10, options: dict[str, str] | None = None
) -> Path:
    """Frames [count, H, W] as a video: without loss in .mkv, by mpeg4 or libx264 in others."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with av.open(str(path), "w", options=options or {}) as container:
        stream = container.add_stream(codec, rate=rate, options={"g": "5"})
        assert isinstance(stream, av.VideoStream)
        stream.height, stream.width = shown.shape[1:]
        stream.pix_fmt = "gray" if codec == "ffv1" else "yuv420p"
        for pixels in shown:
            container.mux(stream.encode(av.VideoFrame.from_ndarray(pixels, format="gray")))
        container.mux(stream.encode(None))
    return path


def write_folder(path: Path, shown: Grey, names: Sequence[str] | None = None) -> Path:
    """Frames as 1.png, 2.png, ..., 10.png."""
    path.mkdir(parents=True, exist_ok=True)
    for i, pixels in enumerate(shown):
        Image.fromarray(pixels).save(path / (names[i] if names else f"{i + 1}.png"))
    return path


LENGTHS = {"training": [20, 30], "testing": [9, 11, 8]}


@pytest.fixture
def field(tmp_path: Path) -> Path:
    """Two training clips and three test clips of a scene, with labels and masks."""
    return write_field(tmp_path / "field")


def write_field(folder: Path) -> Path:
    for part, lengths in LENGTHS.items():
        for i, count in enumerate(lengths):
            write_folder(folder / part / "frames" / f"{i + 1:02}", footage(count, seed=len(part) + 10 * i))
    masks = truth()
    np.save(folder / "frame_labels_field.npy", np.asarray(masks.any((1, 2)), float)[None])
    np.savez(folder / "pixel_masks_field.npz", bits=np.packbits(masks.reshape(len(masks), -1), 1), shape=[5, 7])
    return folder


def truth() -> NDArray[np.bool_]:
    """Masks [28, 5, 7] of the test frames: something odd in the middle of each clip."""
    masks = np.zeros((sum(LENGTHS["testing"]), 5, 7), bool)
    masks[5:8, 1:3, 4:] = True
    masks[14:19, 3, 2] = True
    masks[26:28, 4] = True
    return masks
