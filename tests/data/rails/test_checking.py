"""`handful data check` of annotated frames: what is there, everything that is wrong, the sheet."""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from handful.data import check, survey_frames
from handful.errors import HandfulError
from handful.report import frame_sheet
from tests.conftest import Command, ok
from tests.data.conftest import noise

from .conftest import LEFT, record, write


def test_a_sound_folder(annotated: Path) -> None:
    for place in (annotated, annotated / "annotations.json"):
        report = check(place)
        assert report.ok
        assert (report.kind, report.images, report.classes) == ("rail lines", 3, 0)
        assert (report.sizes, report.lines) == ({"64x40": 3}, {"left": 3, "right": 3})
    assert str(report) == (
        f"{annotated / 'annotations.json'}: rail lines, 3 frames of 64x40 pixels\nlines: left in 3, right in 3"
    )


def test_everything_wrong_is_told(tmp_path: Path) -> None:
    write(tmp_path, [record(0, left=[[1, 2]]), record(1), record(2), record(3), record(4)])
    noise(1, (32, 20)).save(tmp_path / "images" / "1.png")
    (tmp_path / "images" / "2.png").write_text("no picture")
    shutil.copy(tmp_path / "images" / "0.png", tmp_path / "images" / "4.png")
    report = check(tmp_path)
    assert (report.images, report.lines) == (4, {"right": 4, "left": 3})
    told = "\n".join(report.problems)
    assert len(report.problems) == 5
    for words in (
        "Identical (the same file) among the annotated ones, so a picture may be learned from and asked for: ",
        "The line 'left' of images/0.png has one point",
        "images/3.png is annotated, but there is no such picture",
        "2.png is no readable picture",
        "1.png has 32x20 pixels, but its lines were drawn in 64x40",
    ):
        assert words in told
    assert report.unreadable == [str(tmp_path / "images" / "2.png")]


def test_the_command_and_its_sheet(handful: Command, annotated: Path, tmp_path: Path) -> None:
    ran = ok(handful("data", "check", annotated, "--sheet", tmp_path / "sheet.png", "--json"))
    assert json.loads(ran.out)["lines"] == {"left": 3, "right": 3}
    with Image.open(tmp_path / "sheet.png") as image:
        assert image.width > 1000
    (annotated / "annotations.json").write_text("{")
    ran = handful("data", "check", annotated)
    assert ran.code == 2
    assert "annotations.json: it is no valid JSON (line 1, column 2); write it anew." in ran.out


def test_the_sheet_draws_lines_and_crosses_out_what_cannot_be_read(tmp_path: Path) -> None:
    write(tmp_path, [record(0, lines={"branch left": LEFT}), record(1), record(2, left=None)])
    (tmp_path / "images" / "1.png").write_text("no picture")
    found = survey_frames(tmp_path)
    assert found is not None
    (ax,) = frame_sheet(found.frames).axes
    texts = [text.get_text() for text in ax.texts]
    assert texts[:2] == ["3 frames", "lines: left, right, branch left"]
    assert texts[2:] == ["0.png", "1.png", "2.png"]
    assert len(ax.images) == 2
    assert len(ax.lines) == 6 + 2  # the lines, and a cross
    first = ax.images[0].get_extent()
    x, y = map(np.asarray, ax.lines[1].get_data())  # the branch is drawn first
    assert x[0] == pytest.approx(first[0] + (LEFT[0][0] + 0.5) * 200 / 64)
    assert y[0] == pytest.approx(first[3] + (LEFT[0][1] + 0.5) * 200 / 64)
    many = frame_sheet(found.frames[:1] * 61)
    assert many.axes[0].texts[0].get_text() == "61 frames, 60 of them drawn"
    with pytest.raises(HandfulError, match="There are no annotated frames to draw"):
        frame_sheet([])


def test_the_real_places_are_sound(real_rails: Path) -> None:
    report = check(real_rails)
    assert report.ok, str(report)
    assert (report.images, report.lines, report.duplicates) == (58, {"left": 58, "right": 58}, [])
    assert report.notes[0].startswith("Without annotation: 67 pictures, ")
