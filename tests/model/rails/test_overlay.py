"""Lines drawn into pictures and videos, and never over an input."""

from __future__ import annotations

import re
from pathlib import Path

import av
import numpy as np
import pytest
from PIL import Image

from handful.data.pictures import Pixels
from handful.model.rails import LineModel
from handful.model.rails.overlay import COLOURS, drawn
from handful.problems.rail_lines import Answer
from tests.conftest import Command, ok, refused
from tests.model.rails.conftest import HEIGHT, WIDTH, painted, save_picture, write_video

GREY = np.full((HEIGHT, WIDTH, 3), 60, np.uint8)


def opened(path: Path) -> Pixels:
    """A picture's pixels."""
    with Image.open(path) as image:
        return np.asarray(image.convert("RGB"))


def has(pixels: Pixels, side: str, near: int = 0) -> int:
    """Pixels that have the colour of a side's line."""
    return int((np.abs(pixels.astype(int) - COLOURS[side]).max(-1) <= near).sum())


def test_lines_are_drawn_and_thin_where_they_are_unsure() -> None:
    points = np.array([[100.0, 200.0], [120.0, 20.0]])
    large = np.full((256, 512, 3), 60, np.uint8)
    sure, unsure = (drawn(large, {"left": Answer(points, confidence)}) for confidence in (0.9, 0.2))
    assert has(sure, "left") > 1.5 * has(unsure, "left") > 100
    assert has(sure, "right") == 0
    assert (large == 60).all()  # the picture itself is left alone


def test_pictures_and_videos_keep_their_names(handful: Command, saved: Path, tmp_path: Path) -> None:
    given, out = tmp_path / "in", tmp_path / "out" / "drawn"
    save_picture(given / "a.png", painted())
    save_picture(given / "deep" / "b.jpg", painted(size=(4 * WIDTH, 4 * HEIGHT)))
    write_video(given / "ride.avi", [painted(shift=i) for i in range(7)], "mpeg4")
    write_video(given / "walk.mp4", [painted()[:-1]] * 3, "mpeg4")  # an odd number of rows
    ran = ok(handful("predict", saved, given, "--overlay", out))
    assert "12 pictures, " in ran.out
    assert ran.out.rstrip().endswith("drawn and written")
    assert sorted(str(path.relative_to(out)) for path in out.rglob("*.*")) == [
        "a.png",
        "deep/b.jpg",
        "ride.mp4",
        "walk.mp4",
    ]
    assert has(opened(out / "a.png"), "left") > 20
    assert opened(out / "deep" / "b.jpg").shape == (4 * HEIGHT, 4 * WIDTH, 3)
    with av.open(str(out / "ride.mp4")) as video:
        frames = [np.asarray(frame.to_image()) for frame in video.decode(video=0)]
        assert video.streams.video[0].average_rate == 10
    assert len(frames) == 7
    assert all(has(frame, "right", near=130) > 10 for frame in frames)  # its colour has half the pixels
    with av.open(str(out / "walk.mp4")) as video:
        assert video.streams.video[0].height == HEIGHT - 2


@pytest.mark.parametrize(
    ("names", "folder", "message"),
    [
        (["in/a.png"], "in", r"The overlay of .*in/a\.png would be written over .*in/a\.png; name another folder"),
        (["in/a.png", "also/a.png"], "out", r"The overlay of .*also/a\.png would be written over .*out/a\.png"),
        (["in/ride.avi", "in/ride.mp4"], "out", r"The overlay of .*ride\.mp4 would be written over .*out/ride\.mp4"),
        (["in/a.png"], "in/a.png", r"The folder .*a\.png for overlays cannot be made \(File exists\); name another"),
        (["in/a.png"], "in/a.png/out", r"The folder .*out for overlays cannot be made \(Not a directory\)"),
    ],
)
def test_where_no_overlay_is_written(
    handful: Command, saved: Path, tmp_path: Path, names: list[str], folder: str, message: str
) -> None:
    for name in ("in/a.png", "also/a.png"):
        save_picture(tmp_path / name, painted())
    for name in ("in/ride.avi", "in/ride.mp4"):
        write_video(tmp_path / name, [GREY] * 2, "mpeg4")
    before = (tmp_path / "in" / "a.png").read_bytes()
    ran = handful("predict", saved, *(tmp_path / name for name in names), "--overlay", tmp_path / folder)
    refused(ran)
    assert re.search(message, ran.err)
    assert (tmp_path / "in" / "a.png").read_bytes() == before


def test_a_picture_without_a_suffix_becomes_png(handful: Command, saved: Path, tmp_path: Path) -> None:
    save_picture(tmp_path / "a.png", painted()).rename(tmp_path / "still")
    ok(handful("predict", saved, tmp_path / "still", "--overlay", tmp_path / "out"))
    assert opened(tmp_path / "out" / "still.png").shape == (HEIGHT, WIDTH, 3)


def test_a_frame_size_that_changes_ends_the_overlay_and_what_came_before_is_written(
    handful: Command, saved: Path, model: LineModel, tmp_path: Path
) -> None:
    parts = [
        write_video(tmp_path / f"{factor}.ts", [painted(size=(factor * WIDTH, factor * HEIGHT))] * 10)
        for factor in (1, 2)
    ]
    both = tmp_path / "both.ts"
    both.write_bytes(b"".join(part.read_bytes() for part in parts))
    ran = handful("predict", saved, both, "--overlay", tmp_path / "out", "--json")
    assert ran.code == 2
    assert "of 128x64 pixels, and then one of 256x128 follows; a video has one size, so cut the input" in ran.err
    with av.open(str(tmp_path / "out" / "both.mp4")) as video:
        assert len(list(video.decode(video=0))) >= 8
