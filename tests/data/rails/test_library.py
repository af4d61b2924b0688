"""The data sets of annotated frames: splits by places, the cache, and what they do not take."""

from __future__ import annotations

import json
import os
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from handful.data import FRAMED, RailFrames, build, load
from handful.data.rails import library, store
from handful.data.rails.store import FOLDS, HEIGHT, WIDTH, folded
from handful.data.scenes import render_frame
from handful.errors import HandfulError
from handful.problems import RailLines
from handful.run import check_split
from tests.conftest import Command, ok
from tests.data.conftest import noise
from tests.data.rails.conftest import LEFT, RIGHT

PLACES = 7
FEW = {"train": 3, "val": 2, "test": 2}


@pytest.fixture
def places(tmp_path: Path) -> Path:
    """Seven annotated pictures of 64x40 pixels."""
    return annotate(tmp_path / "places")


def annotate(folder: Path, shift: float = 0.0) -> Path:
    (folder / "images").mkdir(parents=True)
    records = []
    for i in range(PLACES):
        noise(i, (64, 40)).save(folder / "images" / f"{i}.png")
        left = [[x + shift, y] for x, y in LEFT]
        records.append({"image": f"images/{i}.png", "width": 64, "height": 40, "left": left, "right": RIGHT})
    (folder / "annotations.json").write_text(json.dumps({"records": records}))
    return folder


@pytest.fixture
def few(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(library, "SCENES", FEW)


def ids(data: RailFrames) -> dict[str, set[int]]:
    return {name: set(numbers.tolist()) for name, numbers in data.splits.items()}


@pytest.mark.parametrize("count", [3, PLACES, 58])
def test_every_place_is_tested_in_one_fold_and_trained_on_in_the_others(count: int) -> None:
    tested = []
    for fold in range(FOLDS):
        splits = folded(count, fold)
        assert not set(splits["train"]) & set(splits["test"])
        assert len(splits["train"]) + len(splits["test"]) == count
        assert abs(len(splits["test"]) - count / FOLDS) < 1
        tested.extend(splits["test"].tolist())
    assert sorted(tested) == list(range(count))


def test_photographs_at_one_size_with_their_lines(places: Path) -> None:
    data = load("rails", places)
    assert (data.problem, data.input_shape, len(data.names)) == ("rail_lines", (3, HEIGHT, WIDTH), PLACES)
    assert ids(data)["val"] == ids(data)["train"]  # too few for a split of their own
    assert not ids(data)["test"] & ids(data)["train"]
    assert data.rendered == PLACES
    expected = (np.array(LEFT) + 0.5) * [WIDTH / 64, HEIGHT / 40] - 0.5
    np.testing.assert_allclose(data.lines[0]["left"], expected)
    assert data.names[2] == "2.png"
    small = np.asarray(noise(2, (64, 40)).resize((WIDTH, HEIGHT), 2)).transpose(2, 0, 1)
    np.testing.assert_array_equal(data.train.fetch(np.array([2]))[0], small)


def test_a_recipe_opens_it_again(places: Path) -> None:
    data = load("rails", places, fold=2)
    again = load(**data.recipe())
    assert isinstance(again, RailFrames)
    assert again.describe() == data.describe()
    assert data.describe()["frames"]["test"] == [data.names[i] for i in data.splits["test"]]
    assert len({load("rails", places, fold=fold).split_hash for fold in range(FOLDS)}) == FOLDS
    assert {load("rails", places, fold=fold).digest for fold in range(FOLDS)} == {data.digest}


def test_the_cache_is_used_again_and_belongs_to_the_content(
    places: Path, cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = load("rails", places)
    moved = places.parent / "elsewhere" / "rails"
    shutil.copytree(places, moved)
    other = annotate(places.parent / "redrawn", shift=0.5)
    with monkeypatch.context() as frozen:
        frozen.setattr(store, "at_one_size", None)  # nothing is decoded again
        second, third = load("rails", places), load("rails", moved.parent)
        assert load("rails", places.parent / "elsewhere").digest == first.digest
        with pytest.raises(TypeError):
            load("rails", other)
    for again in (second, third):
        assert (again.digest, again.split_hash) == (first.digest, first.split_hash)
        np.testing.assert_array_equal(again.pixels[0], first.pixels[0])
        assert again.lines[3]["right"].tolist() == first.lines[3]["right"].tolist()
    assert len(list(cache.iterdir())) == 1
    redrawn = load("rails", other)
    assert redrawn.digest != first.digest
    assert redrawn.split_hash == first.split_hash
    assert len(list(cache.iterdir())) == 2


@pytest.mark.parametrize(
    ("name", "content"),
    [("frames.json", b"[]"), ("frames.json", b"[" * 100_000), ("pixels.npy", b""), ("pixels.npy", b"\x93NUMPY")],
)
def test_what_is_kept_and_damaged_is_made_anew(places: Path, name: str, content: bytes) -> None:
    before = load("rails", places)
    pixels = before.pixels[0].copy()
    for file in Path(os.environ["HANDFUL_CACHE"]).glob(f"rails-*/{name}"):
        file.write_bytes(content)
    after = load("rails", places)
    assert after.names == before.names
    np.testing.assert_array_equal(after.pixels[0], pixels)


@pytest.mark.usefixtures("few")
def test_rendered_scenes_train_and_validate_beside_photographs(places: Path) -> None:
    data = load("rails", places, scenes=3, fold=1)
    found = ids(data)
    assert found["train"] - set(range(PLACES)) == {7, 8, 9}
    assert found["val"] == {10, 11}
    assert found["test"] == ids(load("rails", places, fold=1))["test"]
    assert not (found["train"] | found["val"]) & found["test"]
    assert (data.rendered, len(data.names)) == (PLACES, PLACES + 5)
    across = np.array([6, 7, 9, 10])
    for pixels, number in zip(data.train.fetch(across), across):
        part = data.pixels[0] if number < 7 else data.pixels[1] if number < 10 else data.pixels[2]
        np.testing.assert_array_equal(pixels, part[number - (0 if number < 7 else 7 if number < 10 else 10)])


@pytest.mark.usefixtures("few")
def test_scenes_alone_need_no_source(handful: Command) -> None:
    data = load("rail_scenes", scenes=2, targets="varied")
    assert ids(data) == {"train": {0, 1}, "val": {2, 3}, "test": {4, 5}}
    assert (data.rendered, data.targets) == (0, "varied")
    assert data.recipe() == {"name": "rail_scenes", "scenes": 2, "targets": "varied"}
    frame = render_frame(2, 1)
    np.testing.assert_array_equal(data.test.fetch(np.array([5]))[0], frame.pixels().transpose(2, 0, 1))
    assert data.lines[5].keys() == frame.lines.keys()
    np.testing.assert_allclose(data.lines[5]["left"], frame.lines["left"])
    assert "rendered" in data.info["note"]
    shown = ok(handful("data", "list")).out
    assert all(name in shown for name in FRAMED)


@pytest.mark.usefixtures("few")
@pytest.mark.parametrize(
    ("name", "options", "message"),
    [
        ("rails", {"fold": 3}, "fold is 3, but the places have 3 folds, 0 to 2"),
        ("rails", {"fold": -1}, "fold is -1, but the places have 3 folds, 0 to 2"),
        ("rails", {"scenes": -1}, "scenes is -1, but 'rails' is trained on 0 or more"),
        ("rail_scenes", {"scenes": 0}, "scenes is 0, but 'rail_scenes' is trained on 1 or more"),
        ("rails", {"targets": "egoo"}, "There is no kind of targets 'egoo'; did you mean 'ego'"),
        ("rail_scenes", {"targets": "all"}, "There is no kind of targets 'all'; known: ego, varied"),
        ("rails", {"image_size": 84}, "'rails' does not take image_size; leave it out"),
        ("rail_scenes", {"fold": 1}, r"'rail_scenes' does not take fold; leave it out \(it takes scenes, targets\)"),
        ("rail_scenes", {"root": "here"}, "'rail_scenes' does not take root; leave it out"),
        ("rails", {"root": "nowhere"}, "nowhere holds no annotated frames; name the folder that does, by data.root"),
        ("rails", {"rebuild": True}, "'rails' is kept in the cache when it is first opened; there is nothing to build"),
        ("rail_scene", {}, "There is no data set 'rail_scene'; did you mean 'rail_scenes'"),
        ("glyphs", {"targets": "ego"}, "'glyphs' does not take targets; leave it out"),
    ],
)
def test_what_they_do_not_take(places: Path, name: str, options: dict[str, Any], message: str) -> None:
    given = {"root": places, **options} if name == "rails" else options
    with pytest.raises(HandfulError, match=message):
        load(name, **given)


def test_without_a_root_the_data_folder_is_searched_and_nothing_else(
    places: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    places.rename(places.parent / "rails")
    monkeypatch.chdir(places.parent)
    with pytest.raises(HandfulError, match=r"'rails' was not found: there are no annotated frames; .*in HANDFUL_DATA"):
        load("rails")
    monkeypatch.setenv("HANDFUL_DATA", str(places.parent))
    assert len(load("rails").names) == PLACES


def test_what_else_is_refused(places: Path) -> None:
    with pytest.raises(HandfulError, match="there is nothing to build"):
        build("rail_scenes")
    with pytest.raises(HandfulError, match="There is no split 'tset'; did you mean 'test'"):
        load("rails", places).split("tset")


def test_a_run_of_one_fold_is_not_opened_with_another(places: Path, tmp_path: Path) -> None:
    (tmp_path / "split.json").write_text(json.dumps(load("rails", places).describe()))
    check_split(tmp_path, load("rails", places))
    with pytest.raises(HandfulError, match="split"):
        check_split(tmp_path, load("rails", places, fold=1))


@pytest.mark.parametrize(("shot", "iou", "points"), [(1, 0.233, 0.070), (5, 0.298, 0.094), (10, 0.312, 0.096)])
def test_the_mean_line_of_real_places_scores_what_was_measured_before(
    real_rails: Path, shot: int, iou: float, points: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    data = load("rails", real_rails)
    assert len(data.names) == 58
    # no pixel is looked at
    monkeypatch.setattr(store.RailSplit, "fetch", lambda split, ids, device: torch.zeros(len(ids), 0, HEIGHT, WIDTH))
    whole = replace(data, splits={"test": np.arange(58)})
    episode = RailLines().sampler(whole.test, 1, shot, 10).episodes(0, 60)
    floor = RailLines().floors(episode)["support mean"]
    assert floor["path_iou"].mean().item() == pytest.approx(iou, abs=0.03)
    assert floor["points_20px"].mean().item() == pytest.approx(points, abs=0.02)
