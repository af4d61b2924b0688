"""bench/rails.py runs on two folds of few places, in a small form."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from handful.data import render_frame
from handful.data.rails import library
from handful.demo.rails import write_frames
from handful.recipe import load_recipe
from handful.training import train_recipe
from tests.test_rail_lines import TINY

SCRIPT = Path(__file__).parents[1] / "bench" / "rails.py"


@pytest.mark.parametrize("residual", [False, True])
def test_the_bench(residual: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(library, "SCENES", {"train": 3, "val": 3, "test": 3})
    places = write_frames([render_frame(9, index, light="day") for index in range(9)], tmp_path / "places")
    changes = [*TINY, "data.name=rails", f"data.root={places}", "data.scenes=0", "data.targets=ego"]
    if residual:
        changes += ["decoder={name: row_regression, hidden: 8}", "pretrain=null"]
        changes = [change for change in changes if not change.startswith(("decoder.", "pretrain."))]
    runs = [tmp_path / "run0", tmp_path / "run1"]
    for fold, run in enumerate(runs):
        train_recipe(load_recipe("rails-maml", [*changes, f"data.fold={fold}"]), run, quiet=True)
    command = [sys.executable, SCRIPT, *runs, "--shots", 1, "--draws", 4, "--json", tmp_path / "rows.json"]
    done = subprocess.run(list(map(str, command)), capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    rows = {row["row"]: row for row in json.loads((tmp_path / "rows.json").read_text(encoding="utf-8"))}
    own = ["zero-shot", "adapted"] if residual else ["zero-shot", "adapted", "fine-tuning"]
    mirrors = [] if residual else [f"{name}, mirrored too" for name in own]
    assert set(rows) == {*own, *mirrors, "support mean"}
    for row in rows.values():
        assert (row["places"], row["shots"]) == (6, 1)
        assert 0 <= row["path_iou_worst_tenth"] <= row["path_iou"] <= 1
        assert f"{row['path_iou']:.3f}" in done.stdout
        assert row["over_adapted"] == pytest.approx(row["path_iou"] - rows["adapted"]["path_iou"], abs=1e-6)
    assert np.isfinite(rows["adapted"]["path_iou_ci95"])
    if residual:  # a decoder that has learned next to nothing says the mean line of the support
        assert rows["zero-shot"]["path_iou"] == pytest.approx(rows["support mean"]["path_iou"], abs=0.1)
