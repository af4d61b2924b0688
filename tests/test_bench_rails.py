"""bench/rails.py and bench/rail_tasks.py run on two folds of few places, in a small form."""

from __future__ import annotations

import json
import runpy
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from handful.data import render_frame
from handful.data.rails import library
from handful.demo.rails import write_frames
from handful.episodes import Episode
from handful.evaluation import interval
from handful.problems import RailLines
from handful.problems.rail_lines.predictions import mirrored
from handful.recipe import load_recipe
from handful.training import train_recipe
from tests.rails import rows, track
from tests.test_rail_lines import TINY

BENCH = Path(__file__).parents[1] / "bench"
FEW = {"train": 3, "val": 3, "test": 3}


def trained(folder: Path, residual: bool, monkeypatch: pytest.MonkeyPatch) -> list[Path]:
    """Runs of two folds of nine places."""
    monkeypatch.setattr(library, "SCENES", FEW)
    places = write_frames([render_frame(9, index, light="day") for index in range(9)], folder / "places")
    changes = [*TINY, "data.name=rails", f"data.root={places}", "data.scenes=0", "data.targets=ego"]
    if residual:
        changes += ["decoder={name: row_regression, hidden: 8}", "pretrain=null"]
        changes = [change for change in changes if not change.startswith(("decoder.", "pretrain."))]
    runs = [folder / "run0", folder / "run1"]
    for fold, run in enumerate(runs):
        train_recipe(load_recipe("rails-maml", [*changes, f"data.fold={fold}"]), run, quiet=True)
    return runs


@pytest.mark.parametrize("residual", [False, True])
def test_the_benches(
    residual: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    runs = trained(tmp_path, residual, monkeypatch)
    tuning = ["--tuning-steps", 2, "--tuning-tasks", 2]
    files = ["--json", tmp_path / "rows.json", "--sheet", tmp_path / "sheet.png"]
    files += ["--reliability", tmp_path / "reliability.png", *(["--lines-only"] if residual else [])]
    command = [sys.executable, BENCH / "rails.py", *runs, "--shots", 1, "--draws", 4, *tuning, *files]
    done = subprocess.run(list(map(str, command)), capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    rows = {row["row"]: row for row in json.loads((tmp_path / "rows.json").read_text(encoding="utf-8"))}
    own = ["zero-shot", "adapted", "fitted", *([] if residual else ["pre-trained", "fine-tuning"])]
    mirrors = [] if residual else [f"{name}, mirrored too" for name in own]
    assert set(rows) == {*own, *mirrors, "support mean"}
    for row in rows.values():
        assert (row["places"], row["shots"]) == (6, 1)
        assert 0 <= row["path_iou_worst_tenth"] <= row["path_iou"] <= 1
        assert f"{row['path_iou']:.3f}" in done.stdout
        assert row["over_fitted"] == pytest.approx(row["path_iou"] - rows["fitted"]["path_iou"], abs=1e-6)
    assert np.isfinite(rows["adapted"]["path_iou_ci95"])
    if residual:  # a decoder that has learned next to nothing says the mean line of the support
        assert rows["zero-shot"]["path_iou"] == pytest.approx(rows["support mean"]["path_iou"], abs=0.1)
    for name in ("sheet", "reliability"):
        with Image.open(tmp_path / f"{name}.png") as image:
            assert min(image.size) > 500
            grey = float((np.asarray(image.convert("L")) == 64).mean())  # the ground of lines without pictures
            assert (grey > 0.3) == (residual and name == "sheet")
    said = [line.split()[0] for line in done.stdout.splitlines()[-3:]]
    assert said == ["run0", "run1", "all"]

    tasks = ["--shots", 1, "--queries", 1, "--tasks", 2, *tuning, "--json", tmp_path / "tasks.json"]
    monkeypatch.setattr(sys, "argv", list(map(str, ["rail_tasks.py", *runs, *tasks])))
    monkeypatch.syspath_prepend(BENCH)
    capsys.readouterr()
    runpy.run_path(str(BENCH / "rail_tasks.py"), run_name="__main__")
    printed = capsys.readouterr().out
    found = json.loads((tmp_path / "tasks.json").read_text(encoding="utf-8"))
    assert {row["row"] for row in found} == {*own, "support mean"}
    for source in ("photographs", "rendered scenes"):
        listed = [row for row in found if row["source"] == source]
        whole = {row["row"]: row for row in listed if row["kind"] == "all"}
        for row in whole.values():
            assert (row["tasks"], row["shots"]) == (4, 1)
            assert f"{row['path_iou']:.3f}" in printed
            over = whole["fitted"]["points_20px"] - row["points_20px"]
            assert row["fitted_over_points_20px"] == pytest.approx(over, abs=1e-9)
            parts = [part for part in listed if part["row"] == row["row"] and part["kind"] != "all"]
            assert sum(part["tasks"] for part in parts) == 4
            assert sum(part["tasks"] * part["path_iou"] for part in parts) / 4 == pytest.approx(row["path_iou"])


@pytest.mark.parametrize("good", [0, 3])
@pytest.mark.parametrize("frames", [2, 7])
def test_adapting_helps_where_what_is_left_out_is_answered_better(
    good: int, frames: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A method that is right after so many inner steps alone; each frame is left out once, in its mirror too."""
    monkeypatch.syspath_prepend(BENCH)
    helps = runpy.run_path(str(BENCH / "rail_parts.py"))["helps"]
    targets = rows([track(50 + 4 * number) for number in range(frames)])[0, ..., :2]
    numbers = torch.arange(float(frames)).unsqueeze(1)
    asked: list[float] = []

    class Told:
        inner_steps = 3

        def predict(self, episode: Episode, steps: int, every_step: bool) -> torch.Tensor:
            assert not every_step
            assert not set(episode.support_x.flatten().tolist()) & set(episode.query_x.flatten().tolist())
            x, there = episode.query_y[0, ..., :2].unbind(-1)
            right = torch.stack([x if steps == good else torch.zeros_like(x), (2 * there - 1) * 9], -1)
            straight, turned = right.chunk(2)
            asked.extend(episode.query_x.flatten().tolist())
            return torch.cat([straight, mirrored(turned)])[None, None]

    plain = RailLines({"name": "row_regression", "residual": False})
    assert helps(Told(), plain, [numbers, -numbers - 1], targets) == (good == 3)
    assert sorted(asked) == sorted([*numbers.flatten().tolist(), *(-numbers - 1).flatten().tolist()] * 2)
    assert helps(Told(), plain, [numbers[:1]], targets[:1])  # of one frame nothing is known


def test_intervals_over_places(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(BENCH)
    spread_over = runpy.run_path(str(BENCH / "rail_parts.py"))["spread_over"]
    values = np.random.default_rng(0).random(12)
    names = [str(number) for number in range(12)]
    assert spread_over(values, names) == pytest.approx(float(interval(values)))
    again = spread_over(np.repeat(values, 5), [name for name in names for _ in range(5)])
    assert again == pytest.approx(float(interval(values)))  # what is said five times is known no better
    assert np.isnan(spread_over(values, ["one"] * 12))
