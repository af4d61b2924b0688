"""Files of annotated frames: each format, which one it is, and every way in which they are broken."""

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from handful.data import load_frames, survey_frames
from handful.data.rails import pairs
from handful.errors import HandfulError
from tests.data.conftest import noise

from .conftest import LEFT, RIGHT, record, write


def problems_of(path: Path) -> list[str]:
    found = survey_frames(path)
    assert found is not None
    return found.problems


def test_our_own_format(annotated: Path) -> None:
    found = survey_frames(annotated)
    assert found is not None
    assert (found.kind, len(found.frames), found.problems, found.notes) == ("rail lines", 3, [], [])
    first = found.frames[0]
    assert (first.width, first.height, sorted(first.lines)) == (64, 40, ["left", "right"])
    assert first.lines["right"].tolist() == RIGHT
    assert first.pixels().shape == (40, 64, 3)
    assert len(load_frames(annotated / "annotations.json")) == 3  # the file as well as the folder


def test_further_lines_absent_lines_and_words(tmp_path: Path) -> None:
    more = {"rails": [LEFT, RIGHT], "lines": {"branch left": LEFT}, "kind": "tram", "tags": ["snow", "dark"]}
    records = [record(0, **more), record(1, left=None), record(2, left=[], right=None, tags="fog", origin="x")]
    found = survey_frames(write(tmp_path, records))
    assert found is not None
    assert not found.problems
    assert [sorted(frame.lines) for frame in found.frames] == [
        ["branch left", "left", "rail 1", "rail 2", "right"],
        ["right"],
        [],
    ]
    assert [frame.tags for frame in found.frames] == [("tram", "snow", "dark"), (), ("fog",)]
    assert found.notes == ["Without any line: 1 picture."]


def test_every_broken_line_is_named_and_the_others_are_kept(tmp_path: Path) -> None:
    records = [
        record(0, left=[[10, 38]]),
        record(0),
        record(1, left=RIGHT, right=LEFT),
        record(2, right=[[50, 38], [70, 20]], lft=LEFT),
        record(3),
        record(4, width="64"),
        {"picture": "images/0.png"},
    ]
    found = survey_frames(write(tmp_path, records))
    assert found is not None
    expected = [
        "The line 'left' of images/0.png has one point, and a line takes two at least; mend it, or leave it out.",
        "images/0.png is annotated twice, in ",
        "images/1.png lies right of 'right' in 27 of the 27 rows that both have; name them the other way round.",
        "record 3 (images/2.png): There is no key 'lft'; did you mean 'left'?",
        "has 1 point outside its 64x40 pixels, (70, 20) the first",
        "images/3.png is annotated, but there is no such picture in ",
        "images/4.png has the width '64' and the height 40; say the whole numbers",
        'record 6 names no picture as its "image".',
    ]
    assert len(found.problems) == len(expected)
    assert all(words in problem for words, problem in zip(expected, found.problems))
    assert [sorted(frame.lines) for frame in found.frames] == [["right"], ["left", "right"], ["left", "right"]]
    with pytest.raises(HandfulError, match="has one point"):
        load_frames(tmp_path)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ('{"records": [', r"annotations\.json: it is no valid JSON \(line 1, column 14\); write it anew\."),
        ("[1, 2]", r'there is no list "records"; docs/rails\.md shows the format\.'),
        ('{"records": []}', r"annotates no picture"),
        ("[" * 100_000, "it is no valid JSON"),
        ('{"records": [{"image": "images/0.png", "rails": 3}]}', r'"rails" is a list of lines, and "lines" names each'),
    ],
)
def test_malformed_files(annotated: Path, text: str, words: str) -> None:
    (annotated / "annotations.json").write_text(text)
    with pytest.raises(HandfulError, match=words):
        load_frames(annotated)


@pytest.mark.parametrize("image", ["a" * 5000 + ".png", "\0.png", "~nobody/a.png"])
def test_names_that_no_file_can_have(tmp_path: Path, image: str) -> None:
    (problem,) = problems_of(write(tmp_path, [record(0, image=image)]))
    assert "is annotated, but there is no such picture" in problem


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("a.json", f'{{"raw_file": "images/0.png", "lanes": [[{10**400}, 1]], "h_samples": [1, 2]}}'),
        ("annotations.json", "9" * 5000),
        ("a.json", f'{{"raw_file": "images/0.png", "lanes": [[9, 8, 7], [1, 2, 3]], "h_samples": [{10**30}, 2, 1]}}'),
        ("a.json", f'{{"records": [{{"image": "images/0.png", "width": 64, "height": {2**31}}}]}}'),
    ],
)
def test_numbers_that_are_far_too_large(annotated: Path, name: str, text: str) -> None:
    (annotated / "annotations.json").unlink()
    (annotated / name).write_text(text)
    assert problems_of(annotated)


def test_a_file_in_another_encoding(annotated: Path) -> None:
    (annotated / "annotations.json").write_bytes(b'{"records": "\xff"}')
    with pytest.raises(HandfulError, match=r"annotations\.json cannot be read \(.*\); write it anew as UTF-8"):
        load_frames(annotated)


def test_what_is_nothing(tmp_path: Path) -> None:
    (tmp_path / "notes.json").write_text('{"a": 1}')
    assert survey_frames(tmp_path) is survey_frames(tmp_path / "notes.json") is survey_frames(tmp_path / "no") is None
    with pytest.raises(
        HandfulError, match="holds no annotated frames; known are files of rail lines, TEP-Net ego paths"
    ):
        load_frames(tmp_path)
    with pytest.raises(HandfulError, match="is not there"):
        load_frames(tmp_path / "no")


def test_ego_paths(tmp_path: Path) -> None:
    write(tmp_path)
    (tmp_path / "annotations.json").unlink()
    noise(0, (1920, 1080)).save(tmp_path / "images" / "rs1.jpg")
    rails = {"left_rail": [[700, 1079], [800, 500]], "right_rail": [[1000, 1079], [830, 500]]}
    (tmp_path / "egopath.json").write_text(json.dumps({"rs1.jpg": rails}))
    (frame,) = load_frames(tmp_path)
    assert (frame.width, frame.height) == frame.pixels().shape[1::-1] == (1920, 1080)
    assert frame.lines["left"].tolist() == rails["left_rail"]
    found = survey_frames(tmp_path)
    assert found is not None
    assert found.notes[0].startswith("Without annotation: 3 pictures, ")
    (tmp_path / "egopath.json").write_text(json.dumps({"rs1.jpg": {"left_rai": [], **rails}, "rs2.jpg": 3}))
    problems = problems_of(tmp_path)
    assert "rs1.jpg: There is no key 'left_rai'; did you mean 'left_rail'?" in problems[0]
    assert problems[1].endswith("rs2.jpg has no rails.")


def test_tusimple(tmp_path: Path) -> None:
    noise(0, (1280, 720)).save(tmp_path / "20.jpg")
    lanes = [[-2, 900, 1000], [-2, 600, 500], [-2, -2, -2], [700, 720, 760], [-2, 200, 100]]
    row = {"lanes": lanes, "h_samples": [300, 500, 700], "raw_file": "20.jpg"}
    (tmp_path / "label_data.json").write_text(json.dumps(row) + "\n\n")
    (frame,) = load_frames(tmp_path)
    assert {name: line.tolist() for name, line in frame.lines.items()} == {
        "rail 1": [[100, 700], [200, 500]],
        "left": [[500, 700], [600, 500]],
        "right": [[760, 700], [720, 500], [700, 300]],
        "rail 2": [[1000, 700], [900, 500]],
    }
    assert (frame.width, frame.height) == (1280, 720)
    rows = [json.dumps(row), "{", json.dumps({**row, "h_samples": [1]})]
    (tmp_path / "label_data.json").write_text("\n".join(rows))
    problems = problems_of(tmp_path)
    assert "label_data.json: line 2: it is no valid JSON" in problems[0]
    assert "line 3: raw_file, h_samples and lanes should be there" in problems[1]


def railsem19(folder: Path, objects: list[dict[str, Any]]) -> Path:
    (folder / "jpgs" / "rs19_val").mkdir(parents=True)
    (folder / "jsons" / "rs19_val").mkdir(parents=True)
    noise(0, (64, 40)).save(folder / "jpgs" / "rs19_val" / "rs7.jpg")
    content = {"frame": "rs7", "imgWidth": 64, "imgHeight": 40, "objects": objects}
    (folder / "jsons" / "rs19_val" / "rs7.json").write_text(json.dumps(content))
    return folder


def test_railsem19_polylines(tmp_path: Path) -> None:
    beside = [[[60, 38], [50, 12]], [[63, 38], [53, 12]]]
    objects: list[dict[str, Any]] = [
        {"label": "rail", "polyline-pair": beside},
        {"label": "rail", "polyline-pair": [RIGHT, LEFT]},  # either may come first
        {"label": "rail", "polyline": [[2, 12], [1, 30]]},
        {"label": "person", "boundingbox": [1, 2, 3, 4]},
    ]
    (frame,) = load_frames(railsem19(tmp_path, objects))
    assert {name: line.tolist() for name, line in frame.lines.items()} == {
        "left": LEFT,
        "right": RIGHT,
        "track 2 left": beside[0],
        "track 2 right": beside[1],
        "rail 1": [[1, 30], [2, 12]],
    }
    assert len(load_frames(tmp_path / "jsons" / "rs19_val" / "rs7.json")) == 1
    shutil.rmtree(tmp_path / "jsons")
    railsem19_file = tmp_path / "rs7.json"
    railsem19_file.write_text('{"frame": "rs7", "objects": []}')
    with pytest.raises(HandfulError, match=r"rs7\.json: frame, imgWidth, imgHeight and objects should be there"):
        load_frames(railsem19_file)


def test_two_kinds_of_files_in_a_folder(annotated: Path) -> None:
    (annotated / "z.json").write_text('{"images/0.png": {"left_rail": [], "right_rail": []}}')
    with pytest.raises(HandfulError, match=r"holds rail lines \(annotations\.json\) and TEP-Net ego paths \(z\.json\)"):
        load_frames(annotated)


def test_masks(tmp_path: Path) -> None:
    (tmp_path / "uint8" / "rs19_val").mkdir(parents=True)
    (tmp_path / "jpgs" / "rs19_val").mkdir(parents=True)
    mask = np.full((40, 64), 9, np.uint8)
    mask[12:, 20:41], mask[12:, 20:23], mask[12:, 38:41] = 12, 17, 17
    for name in ("rs1", "rs2", "rs3"):
        noise(int(name[-1]), (64, 40)).save(tmp_path / "jpgs" / "rs19_val" / f"{name}.jpg")
    Image.fromarray(mask).save(tmp_path / "uint8" / "rs19_val" / "rs1.png")
    (frame,) = load_frames(tmp_path)
    assert frame.picture.name.endswith("rs1.jpg")
    assert frame.lines["left"][[0, -1]].tolist() == [[21, 39], [21, 12]]
    (tmp_path / "uint8" / "rs19_val" / "rs2.png").write_text("no picture")
    noise(1).save(tmp_path / "uint8" / "rs19_val" / "rs3.png")
    problems = problems_of(tmp_path)
    assert "rs2.png is no readable mask" in problems[0]
    assert "rs3.png is no mask: it has 3 channels" in problems[1]


def test_the_real_places(real_rails: Path) -> None:
    frames = load_frames(real_rails)
    assert len(frames) == 58
    assert {(frame.width, frame.height) for frame in frames} == {(512, 288)}
    assert all(pairs(frame.lines) == [("left", "right")] and not frame.faults() for frame in frames)
    assert all((np.diff(line[:, 1]) < 0).all() for frame in frames for line in frame.lines.values())
    assert sum("tram" in frame.tags for frame in frames) == 17
    assert sum("snow" in frame.tags for frame in frames) == 7
    assert frames[3].pixels().shape == (288, 512, 3)
