"""bench/evaluation.py, end to end and small."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

BENCH = Path(__file__).parents[1] / "bench" / "evaluation.py"


def test_runs_end_to_end(tmp_path: Path) -> None:
    """Both paths agree, and rows say what was measured."""
    size = ["--data", "random", "--classes", "5", "--tasks", "6", "--reference", "3", "--threads", "1"]
    command = [sys.executable, str(BENCH), "--method", "protonet", "--backbone", "conv4", *size]
    ran = subprocess.run(
        [*command, "--json", str(tmp_path / "rows.json")], capture_output=True, text=True, check=True, env=os.environ
    )
    assert "embedded once" in ran.stdout
    once, anew = json.loads((tmp_path / "rows.json").read_text())
    assert once["measured"] == "protonet, 6 tasks, embedded once"
    assert (once["scaled_from_tasks"], anew["scaled_from_tasks"]) == (6, 3)
    assert anew["speed_up"] == 1
    assert {"unit", "repeats", "median", "min", "max", "machine_cpu"} <= set(once)
