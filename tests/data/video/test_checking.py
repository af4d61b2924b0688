"""`handful data check` on folders of clips: what is there, and all that is wrong at once."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
from PIL import Image

from handful.data import check
from handful.data.video.checking import glimpses
from tests.conftest import Command, ok, refused
from tests.data.video.conftest import footage, write_folder, write_video


def test_sound_clips(field: Path, handful: Command) -> None:
    write_video(field / "training" / "videos" / "01.mkv", footage(10))
    ran = ok(handful("data", "check", field, "--sheet", field / "sheet.png"))
    assert f"{field}: clips, 5 clips of 8 to 30 frames, 32x24 pixels\n" in ran.out
    assert "clips of the splits: 2 training, 3 testing" in ran.out
    assert "Labelled abnormal: 10 of 28 test frames, with masks of 7x5 pixels." in ran.out
    assert "Passed over: 1 clip in training/videos, since training/frames has 2." in ran.out
    with Image.open(field / "sheet.png") as sheet:
        assert sheet.width > 400
    found = json.loads(ok(handful("data", "check", field, "--json")).out)
    assert (found["kind"], found["images"], found["sizes"]) == ("clips", 78, {"32x24": 5})
    assert found["clips"]["testing/02"] == 11


def test_videos_in_a_folder(tmp_path: Path) -> None:
    write_video(tmp_path / "b.mkv", footage(9))
    write_video(tmp_path / "a.mp4", footage(9, seed=1, size=(64, 48)), "mpeg4", rate=25)
    found = check(tmp_path)
    assert found.ok
    assert str(found).startswith(f"{tmp_path}: clips, 2 clips of 9 frames, 64x48, 32x24 pixels, 25 and 10 frames a sec")
    assert "The clips have several sizes; all are stretched to one." in found.notes
    assert "No test clips: all of it is taken for normal." in found.notes
    for i in range(3):
        write_folder(tmp_path / f"class{i}", footage(3, seed=i))
    assert check(tmp_path).kind == "class folders"  # whatever videos lie among them


def test_all_that_is_wrong_is_said_at_once(field: Path, handful: Command) -> None:
    frames = field / "testing" / "frames"
    (frames / "01" / "3.png").write_bytes(b"no picture")
    Image.fromarray(footage(1, size=(40, 30))[0]).save(frames / "02" / "99.png")
    write_folder(field / "training" / "frames" / "03", footage(3))
    shutil.copytree(field / "training" / "frames" / "01", frames / "04")
    found = check(field)
    assert not found.ok
    for part in (
        "3.png is no readable picture",
        "02 changes its size: frame 11 has 40x30 pixels",
        "The clip training/03 has 3 frames, but a window of 4 and the frame after it are 5",
        "The same frames are in training/01 and testing/04; keep one of them.",
    ):
        assert any(part in problem for problem in found.problems), part
    assert "The labels were not compared with the frames, since clips cannot be read to their end." in found.notes
    ran = handful("data", "check", field)
    assert ran.code == 2
    assert ran.out.count("\n- ") == 4


def test_labels_that_do_not_fit(field: Path) -> None:
    np.save(field / "frame_labels_field.npy", np.zeros(5))
    assert ["5 labels" in problem for problem in check(field).problems] == [True]
    shutil.copy(field / "frame_labels_field.npy", field / "labels.npy")
    assert ["both say what is abnormal" in problem for problem in check(field).problems] == [True]
    for file in field.glob("*labels*"):
        file.unlink()
    found = check(field)
    assert found.ok
    assert "No labels: nothing says which test frames are abnormal." in found.notes
    shutil.rmtree(field / "training")
    assert ["test clips of a scene and no training clip of it" in problem for problem in check(field).problems] == [
        True
    ]


def test_neither_clips_nor_pictures(tmp_path: Path, handful: Command) -> None:
    (tmp_path / "notes.txt").write_text("none")
    (problem,) = check(tmp_path).problems
    assert "holds no pictures" in problem
    assert "no clips" in problem
    refused(handful("data", "check", tmp_path, "--sheet", tmp_path / "sheet.png"), "There are no pictures in")


def test_the_sheet_shows_frames_from_beginning_to_end(tmp_path: Path) -> None:
    assert len(glimpses(write_folder(tmp_path / "few", footage(5)))) == 5
    many = glimpses(write_folder(tmp_path / "many", footage(60)))
    assert len(many) == 8
    assert all(frame is not None and frame.shape == (3, 96, 96) for frame in many)
    (tmp_path / "many" / "50.png").write_bytes(b"no picture")
    assert glimpses(tmp_path / "many")[-1] is None
