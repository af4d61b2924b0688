"""bench/rail_scenes.py runs end to end on two frames a light."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

from handful.data.scenes import LIGHTS

SCRIPT = Path(__file__).parents[1] / "bench" / "rail_scenes.py"


def test_rail_scenes(tmp_path: Path) -> None:
    command = [sys.executable, str(SCRIPT), "--frames", "2", "--json", str(tmp_path / "rows.json")]
    ran = subprocess.run(command, capture_output=True, text=True)
    assert ran.returncode == 0, ran.stderr
    rows = json.loads((tmp_path / "rows.json").read_text(encoding="utf-8"))
    assert [row["measured"] for row in rows] == [f"rendering, {light}" for light in LIGHTS]
    for row in rows:
        assert 0 < row["min"] <= row["median"] <= row["max"]
        assert 0 <= row["both_rails"] <= 1
        assert f"{row['median']:.1f}" in ran.stdout
