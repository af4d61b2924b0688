"""Opening a run where its data is not at hand: enough to fit on, and not enough to score it."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest

from handful.errors import HandfulError
from handful.run import Run, description
from tests.conftest import Command, ok, refused


def test_a_run_is_fitted_on_without_its_data(
    handful: Command, recipe_file: Path, pictures: Path, tmp_path: Path
) -> None:
    data, run, support = tmp_path / "data", tmp_path / "run", tmp_path / "support"
    shutil.copytree(pictures, data)
    short = ("--set", "train.steps=4", "--set", f"data.root={data}")
    ok(handful("train", recipe_file, "--out", run, *short))
    for name in ("class01", "class02", "class05"):
        (support / name).mkdir(parents=True)
        shutil.copy(pictures / name / "0.png", support / name)
    ok(handful("fit", support, "--from", run, "--out", tmp_path / "near"))
    shutil.rmtree(data)
    ok(handful("fit", support, "--from", run, "--out", tmp_path / "far"))
    for name in ("card.json", "model.safetensors"):
        assert (tmp_path / "near" / name).read_bytes() == (tmp_path / "far" / name).read_bytes()

    opened = Run.open(run, without_data=True)
    assert opened.data.input_shape == (1, 16, 16)
    for split in ("train", "val", "test"):
        with pytest.raises(HandfulError, match=f"The {split} split of 'folder' is not at hand"):
            getattr(opened.data, split)
    refused(handful("evaluate", run, "--data", data), f"There is no folder {data}")

    older = json.loads((run / "split.json").read_text(encoding="utf-8"))
    del older["input_shape"]
    (run / "split.json").write_text(json.dumps(older), encoding="utf-8")
    refused(handful("fit", support, "--from", run, "--out", tmp_path / "old", "--data", data), "There is no folder")


@pytest.mark.parametrize(
    "changes",
    [{"name": []}, {"problem": None}, {"problem": []}, {"input_shape": [0]}, {"input_shape": "x"}, {"info": 3}],
)
def test_a_description_that_was_changed_is_none(tmp_path: Path, changes: dict[str, Any]) -> None:
    sound = {"name": "a", "problem": "classification", "hash": "b", "input_shape": [1, 16, 16], "info": {}}
    (tmp_path / "split.json").write_text(json.dumps(sound), encoding="utf-8")
    assert description(tmp_path) is not None
    (tmp_path / "split.json").write_text(json.dumps({**sound, **changes}), encoding="utf-8")
    assert description(tmp_path) is None


def test_a_recipe_in_another_encoding(tmp_path: Path) -> None:
    for name in ("recipe.yaml", "environment.json", "split.json"):
        (tmp_path / name).write_bytes(b"\xff\xfe")
    with pytest.raises(HandfulError, match=r"recipe.yaml cannot be read as a recipe"):
        Run.read_recipe(tmp_path)
