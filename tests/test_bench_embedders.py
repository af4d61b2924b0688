"""bench/embedders.py runs end to end."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

from handful.onnx import absent

BENCH = Path(__file__).parents[1] / "bench" / "embedders.py"
TINY = ("--sizes", "32", "--batch", "2", "--repeats", "2", "--threads", "1", "--weights", "none")


def run(*options: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, str(BENCH), *options], capture_output=True, text=True)


def test_it_runs_end_to_end(tmp_path: Path) -> None:
    done = run(*TINY, "--json", str(tmp_path / "rows.json"))
    assert done.returncode == 0, done.stderr
    assert "images/s" in done.stdout
    rows = json.loads((tmp_path / "rows.json").read_text(encoding="utf-8"))
    ways = ["eager", "channels-last", *([] if absent() else ["onnxruntime"])]
    assert [(row["pixels"], row["way"]) for row in rows] == [(32, way) for way in ways]
    for row in rows:
        assert 0 < row["min"] <= row["median"] <= row["max"]
        assert (row["repeats"], row["unit"], row["batch"]) == (2, "images/s", 2)
        assert row["difference_from_eager"] < 1e-4
        assert row["machine_torch"]


def test_bad_options_are_refused() -> None:
    done = run(*TINY, "--batch", "0")
    assert done.returncode == 2
    assert "at least 1" in done.stderr
