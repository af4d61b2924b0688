"""bench/rail_training.py runs on one fold of few places, in a small form, and pairs the places."""

from __future__ import annotations

import json
import runpy
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from handful.data import render_frame
from handful.data.rails import library
from handful.demo.rails import write_frames
from tests.test_rail_lines import TINY

BENCH = Path(__file__).parents[1] / "bench"


def test_forms_of_the_first_stage(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(library, "SCENES", {"train": 3, "val": 3, "test": 3})
    places = write_frames([render_frame(9, index, light="day") for index in range(9)], tmp_path / "places")
    small = [change for change in TINY if not change.startswith("data.")]
    changes = [
        word
        for change in [*small, f"data.root={places}", "data.targets=ego", "data.scenes=3"]
        for word in ("--set", change)
    ]
    out = tmp_path / "rows.json"
    words = [
        "rail_training.py",
        "--out",
        tmp_path / "runs",
        "--steps",
        1,
        "--folds",
        0,
        1,
        *changes,
        "--json",
        out,
    ]
    monkeypatch.setattr("sys.argv", list(map(str, words)))
    monkeypatch.syspath_prepend(BENCH)
    runpy.run_path(str(BENCH / "rail_training.py"), run_name="__main__")
    rows: dict[str, Any] = {row["measured"]: row for row in json.loads(out.read_text(encoding="utf-8"))}
    forms = ("as it is", "without rendered scenes", "without other cameras", "a frozen backbone")
    assert set(rows) == {f"{form}, {view}" for form in forms for view in ("alone", "mirrored too")}
    printed = capsys.readouterr().out
    for name, row in rows.items():
        assert row["places"] == 6
        assert f"{row['path_iou']:.3f}" in printed
        whole = rows[f"as it is, {name.rpartition(', ')[2]}"]
        if row is not whole:
            assert row["over_whole"] == pytest.approx(row["path_iou"] - whole["path_iou"], abs=1e-6)
    changed = {
        "as-it-is": "scenes: 3",
        "without-rendered-scenes": "scenes: 0",
        "without-other-cameras": "augment: none",
        "a-frozen-backbone": "frozen: true",
    }
    for form, said in changed.items():
        for fold in (0, 1):
            recipe = (tmp_path / "runs" / f"{form}-{fold}" / "recipe.yaml").read_text(encoding="utf-8")
            assert (said in recipe, f"fold: {fold}" in recipe) == (True, True)


def test_differences_are_paired(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(BENCH)
    bench = runpy.run_path(str(BENCH / "rail_training.py"))
    base = np.linspace(0.1, 0.9, 10)
    whole, better = (dict.fromkeys(bench["FIGURES"], base + more) for more in (0.0, 0.01))
    found = bench["row"]("better", "alone", better, whole)
    assert found["over_whole"] == pytest.approx(0.01)
    assert found["over_whole ±"] == pytest.approx(0, abs=1e-9)
    assert found["path_iou ±"] > 0.1
    assert "over_whole" not in bench["row"]("as it is", "alone", whole, whole)
    assert "| +0.010 ± 0.000 |" in bench["table"]([found])
