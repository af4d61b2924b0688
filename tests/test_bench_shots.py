"""bench/shots.py runs end to end on two small runs."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

from tests.conftest import Command, ok

SCRIPT = Path(__file__).parents[1] / "bench" / "shots.py"


def test_shots(handful: Command, recipe_file: Path, pictures: Path, tmp_path: Path) -> None:
    runs = tmp_path / "first", tmp_path / "second"
    for run, steps in zip(runs, (4, 8)):
        ok(handful("train", recipe_file, "--out", run, "--set", f"train.steps={steps}"))
    small = ("--shots", "1", "3", "--way", "3", "--query", "2", "--tasks", "6")
    written = ("--json", str(tmp_path / "a.json"), "--plot", str(tmp_path / "a.png"))
    ran = subprocess.run([sys.executable, SCRIPT, *runs, *small, *written], capture_output=True, text=True)
    assert ran.returncode == 0, ran.stderr
    rows = json.loads((tmp_path / "a.json").read_text(encoding="utf-8"))
    assert [(row["shot"], Path(row["run"]).name) for row in rows] == [
        *((1, "first"), (1, "second")),
        *((3, "first"), (3, "second")),
    ]
    assert len({row["hash"] for row in rows}) == 2
    for row in rows:
        assert f"| {Path(row['run']).name} | {100 * row['mean']:.1f} ±" in ran.stdout
        assert row["min"] <= row["median"] <= row["max"]
        assert row["machine_torch"]
        assert not any(isinstance(value, dict | list) for value in row.values())
    assert (tmp_path / "a.png").read_bytes()[:4] == b"\x89PNG"
    on = f"{{name: folder, root: {pictures}, image_size: 16, channels: 1, split_seed: 5}}"
    elsewhere = subprocess.run([sys.executable, SCRIPT, *runs, *small, "--on", on], capture_output=True, text=True)
    assert elsewhere.returncode == 0, elsewhere.stderr
    assert rows[0]["hash"] not in elsewhere.stdout
