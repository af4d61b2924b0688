"""bench/video.py runs, in a small form."""

from __future__ import annotations

import importlib.util
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch

from handful.data.video.reading import frames
from tests.model.rails.conftest import write_video
from tests.model.video.conftest import filmed

SCRIPT = Path(__file__).parents[1] / "bench" / "video.py"


@pytest.fixture
def bench(monkeypatch: pytest.MonkeyPatch) -> Any:
    """The script as a module."""
    monkeypatch.syspath_prepend(SCRIPT.parent)
    spec = importlib.util.spec_from_file_location("bench_video", SCRIPT)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_the_network_is_the_same_in_every_run(bench: Any) -> None:
    first, second = (bench.model_of("sprites-mpn").network.state_dict() for _ in range(2))
    assert all(torch.equal(value, second[name]) for name, value in first.items())


@pytest.mark.parametrize("channels", [1, 3])
def test_frames_are_decoded_as_the_network_takes_them(
    bench: Any, channels: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    clip, shown = write_video(tmp_path / "clip.mp4", filmed(6)), []

    def seen(path: Path, **options: Any) -> Any:
        for frame in frames(path, **options):
            shown.append(frame.pixels.ndim)
            yield frame

    monkeypatch.setattr(bench, "frames", seen)
    card = bench.without_network("sprites-mpn").card.model_copy(update={"channels": channels})
    assert bench.decoded(clip, card) == 6
    assert shown == [2 if channels == 1 else 3] * 6


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
