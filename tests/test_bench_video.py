"""bench/video.py runs, in a small form."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

from tests.model.rails.conftest import write_video
from tests.model.video.conftest import filmed

SCRIPT = Path(__file__).parents[1] / "bench" / "video.py"


def test_the_bench(tmp_path: Path) -> None:
    clip = write_video(tmp_path / "clip.mp4", filmed(10))
    sizes = ("--recipe", "sprites-mpn", "--threads", "1", "--repeats", "1")
    command = [sys.executable, SCRIPT, clip, *sizes, "--json", tmp_path / "rows.json"]
    done = subprocess.run(list(map(str, command)), capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    rows = json.loads((tmp_path / "rows.json").read_text(encoding="utf-8"))
    assert [row["measured"].removeprefix("sprites-mpn: ") for row in rows] == [
        *("decoding and shrinking", "without a network", "the network", "the network, drawn and written"),
        "the network, a frame at a time",
    ]
    for row in rows:
        assert 0 < row["min"] <= row["median"] <= row["max"]
        assert (row["unit"], row["threads"], row["repeats"]) == ("frames/s", 1, 1)
        assert row["machine_cores"]
        assert f"{row['median']:.2f}" in done.stdout
    assert "goal of the network: 150 frames/s, " in done.stdout
