"""bench/served.py runs end to end, with few requests."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

pytest.importorskip("gradio", reason="the extra [web] is not installed")

SCRIPT = Path(__file__).parents[1] / "bench" / "served.py"


def test_a_few_requests(tmp_path: Path) -> None:
    command = [sys.executable, SCRIPT, "--requests", "3", "--clients", "4", "--json", tmp_path / "a.json"]
    ran = subprocess.run(list(map(str, command)), capture_output=True, text=True)
    assert ran.returncode == 0, ran.stderr
    rows = json.loads((tmp_path / "a.json").read_text(encoding="utf-8"))
    assert [row["repeats"] for row in rows] == [3, 4, 1]
    for row in rows:
        assert 0 < row["min"] <= row["median"] <= row["max"] < 60_000
        assert f"{row['measured']:36} {row['median']:8.2f} ms" in ran.stdout
