"""The record of a run: what a figure needs to be believed, and nothing of the machine's folders."""

from __future__ import annotations

import json
from pathlib import Path

from handful.run import Run
from tests.conftest import Command, ok, refused
from tests.report.test_html import make_run, result


def test_a_record_holds_the_figures_and_what_belongs_to_them(
    handful: Command, recipe_file: Path, pictures: Path, tmp_path: Path
) -> None:
    run, out = tmp_path / "run", tmp_path / "recipes" / "tiny.result.json"
    pretrain = "pretrain={steps: 2, batch: 8, validate_every: 2, validation_tasks: 2}"
    ok(handful("train", recipe_file, "--out", run, "--set", "train.steps=3", "--set", pretrain))
    ok(handful("evaluate", run, "--split", "val", "--tasks", 4))
    assert f"{out}\n" in ok(handful("report", run, "--record", out)).out
    text = out.read_text(encoding="utf-8")
    told = json.loads(text)
    assert (told["recipe"], told["steps"]) == ("tiny", 5)
    assert told["training_minutes"] >= 0
    assert told["settings"]["train"]["steps"] == 3
    assert [(each["split"], each["norm_stats"]) for each in told["results"]] == [("test", "batch"), ("test", "support")]
    written = json.loads((run / "eval" / "test-3w1s3q-12tasks-seed0-batch-2steps.json").read_text(encoding="utf-8"))
    del written["per_task"], written["measures_per_task"]
    assert told["results"][0] == written
    assert told["environment"]["torch"]
    assert told["recipe_hash"] == written["run"]["recipe_hash"] == Run.read_recipe(run).hash()
    assert str(pictures) not in text


def test_what_has_no_record(handful: Command, tmp_path: Path) -> None:
    run, empty = make_run(tmp_path / "a", result()), make_run(tmp_path / "b")
    refused(handful("report", run, empty, "--record", tmp_path / "r.json"), "of one run, not of 2")
    refused(handful("report", empty, "--record", tmp_path / "r.json"), "no test result yet")
    assert not (tmp_path / "r.json").exists()
