"""bench/data_path.py: what a wait is, what is compared on a GPU, and all of it end to end and small."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from types import ModuleType

import pytest
import torch

BENCH = Path(__file__).parents[1] / "bench"
TINY = """
name: tiny
data: {name: omniglot}
backbone: {name: conv4, channels: 4, downsample: stride, pooling: mean}
method: {name: protonet}
pretrain: {steps: 100, batch: 8, augment: photos}
train: {way: 3, shot: 1, query: 2, tasks_per_step: 2, steps: 10, augment: drawings}
"""


@pytest.fixture
def bench(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    """The script as a module."""
    monkeypatch.syspath_prepend(str(BENCH))
    import data_path

    return data_path


def run(*arguments: object) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, str(BENCH / "data_path.py"), "--threads", "1", *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True)


def test_a_wait_is_a_share_of_the_longer_step(bench: ModuleType) -> None:
    """Turn by turn, so that a slow minute of the machine makes none."""
    assert bench.waits([2.0, 20.0, 4.0], [1.0, 10.0, 4.0]) == 0.5
    assert bench.waits([1.0, 3.0], [1.0, 3.0]) == 0


def test_every_drawn_case_has_a_kept_one(bench: ModuleType) -> None:
    for kind in ("cpu", "cuda"):
        found = bench.cases(kind)
        kept = [case[2:] for case in found if case.workers is None]
        assert len(set(kept)) == len(kept)
        assert all(case[2:] in kept for case in found)
    assert {case.precision for case in bench.cases("cuda")} == {"32-true", "bf16-mixed"}


def test_layout_is_put_back(bench: ModuleType) -> None:
    before = bench.layout.channels_last
    images = torch.rand(2, 3, 84, 84)
    with bench.laid_out(channels_last=False):
        assert bench.layout.laid_out(images) is images
    with bench.laid_out(channels_last=True):
        assert bench.layout.laid_out(images).is_contiguous(memory_format=torch.channels_last)
    assert bench.layout.channels_last is before


def test_runs_end_to_end(tmp_path: Path) -> None:
    recipe, out = tmp_path / "tiny.yaml", tmp_path / "rows.json"
    recipe.write_text(TINY, encoding="utf-8")
    done = run("--recipe", recipe, "--repeats", 2, "--json", out)
    assert done.returncode == 0, done.stderr
    rows = json.loads(out.read_text(encoding="utf-8"))
    names = ["not channels-last, kept", "kept", "drawn, no workers", "drawn, 1 worker", "drawn, 2 workers"]
    assert [(row["stage"], row["case"]) for row in rows] == [
        (s, n) for s in ("pre-training", "episodes") for n in names
    ]
    for row in rows:
        images, steps = (8, 100) if row["stage"] == "pre-training" else (18, 10)
        assert 0 < row["min"] <= row["median"] <= row["max"]
        assert (row["repeats"], row["unit"], row["augment"]) == (2, "s", "photos" if images == 8 else "drawings")
        assert row["images_per_second"] * row["median"] == pytest.approx(images)
        assert row["projected_minutes"] == pytest.approx(steps * row["median"] / 60)
        assert 0 < row["matrix_share"] < 1
        assert row["machine_torch"]
        if row["case"].endswith("kept"):
            assert row["waits"] is row["below_bound"] is None
        else:
            assert row["below_bound"] == (row["waits"] < row["bound"])
    assert done.stdout.count("the bound of 5%") == 6


def test_what_cannot_be_measured_is_said(tmp_path: Path) -> None:
    recipe = tmp_path / "glyphs.yaml"
    recipe.write_text(TINY.replace("omniglot", "glyphs"), encoding="utf-8")
    done = run("--recipe", recipe)
    assert done.returncode == 2
    assert "glyphs.yaml is of glyphs; known are recipes of omniglot and mini_imagenet." in done.stderr
    assert "Traceback" not in done.stderr
    assert run("--repeats", 0).returncode == 2
