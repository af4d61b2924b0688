"""bench/video_parts.py runs, in a small form, and pairs the seeds."""

from __future__ import annotations

import importlib.util
import json
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from handful.data.video import library

SCRIPT = Path(__file__).parents[1] / "bench" / "video_parts.py"
TINY = (
    "data={name: sprites, image_size: 32, clips: 3}",
    "backbone={name: unet, widths: [4, 8]}",
    "pretrain.batch=2",
    "train.shot=1",
    "train.query=1",
    "train.tasks_per_step=2",
    "pretrain.validation_tasks=2",
    "train.validation_tasks=2",
    "evaluate.shot=1",
)


@pytest.fixture
def bench(monkeypatch: pytest.MonkeyPatch) -> Any:
    """The script as a module, on few rendered scenes."""
    for name in ("VAL", "TEST", "A_SCENE"):
        monkeypatch.setattr(library, name, 1)
    spec = importlib.util.spec_from_file_location("bench_video_parts", SCRIPT)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_every_form_of_every_seed(
    bench: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(bench, "RECIPE", "sprites-mpn")
    sizes = ["--seeds", "2", "--steps", "2", "--episodes", "1", "--draws", "2"]
    changes = [word for change in TINY for word in ("--set", change)]
    out = tmp_path / "rows.json"
    words = [str(SCRIPT), "--out", str(tmp_path / "runs"), *sizes, *changes, "--json", str(out)]
    monkeypatch.setattr(sys, "argv", words)
    bench.main()
    rows = {row["measured"]: row for row in json.loads(out.read_text(encoding="utf-8"))}
    stages = ("pre-trained", "pre-trained, adapted", "meta-trained", "meta-trained, adapted")
    assert {name for name in rows if not name.startswith("adds: ")} == {
        f"{unit}, {stage}" for unit in ("plain", "unit") for stage in stages
    }
    assert len(list((tmp_path / "runs").iterdir())) == 4
    unit, plain = (rows[f"{name}, pre-trained"]["auc/raw"] for name in ("unit", "plain"))
    assert rows["adds: the unit"]["auc/raw"] == pytest.approx(unit - plain)
    assert f"| {plain:.2f} |" in capsys.readouterr().out


def test_differences_are_paired(bench: Any) -> None:
    """Three seeds that differ by far more than the forms do: 4.303 s / sqrt(3)."""
    names = {name for asked in bench.ADDED for name in asked[1:]}
    base = np.array([50.0, 70.0, 90.0])
    found = {name: [dict.fromkeys(bench.FIGURES, value) for value in base] for name in names}
    found["unit, pre-trained"] = [dict.fromkeys(bench.FIGURES, value) for value in base + np.array([1.0, 2.0, 3.0])]
    rows = {row["measured"]: row for row in bench.added(found)}
    assert rows["adds: the unit"]["auc/macro"] == pytest.approx(2)
    assert rows["adds: the unit"]["auc/macro ±"] == pytest.approx(4.303 / np.sqrt(3), abs=1e-3)
    assert rows["adds: the meta stage"]["auc/raw"] == 0
    assert "| adds: the unit | +2.00 ± 2.48 |" in bench.table([*rows.values()])


def test_one_seed_has_no_interval(bench: Any, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        bench.arguments(["--out", "x", "--seeds", "1"])
    assert "an interval over seeds takes 2 of them" in capsys.readouterr().err
