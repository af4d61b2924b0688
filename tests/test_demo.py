"""The demos, end to end, on the real glyphs and on rendered scenes, for a few steps."""

from __future__ import annotations

import re
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import av
import pytest

from handful.demo import video
from handful.demo.ending import show_end
from handful.demo.glyphs import run_demo
from handful.files import write_text
from handful.recipe import load_recipe


def test_demo(tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("handful.demo.glyphs.CHANGES", ["train.steps=4", "train.validate_every=2", "evaluate.tasks=20"])
    run_demo(tmp_path / "demo", max_minutes=1)
    run_demo(tmp_path / "demo", max_minutes=1)  # a second time goes on, or finds all done
    shown = capsys.readouterr().out
    assert "of 75 drawings" in shown
    assert "cut short" not in shown
    assert "Over 20 such tasks" in shown
    assert len(list((tmp_path / "demo" / "task" / "support").rglob("*.png"))) == 5
    assert len(list((tmp_path / "demo" / "task" / "query").rglob("*.png"))) == 75
    for made in ("run/report.html", "run/plots/contact_sheet.png", "model/card.json", "model/model.safetensors"):
        assert (tmp_path / "demo" / made).is_file()


def test_a_demo_that_was_cut_short_says_so(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("handful.demo.glyphs.CHANGES", ["train.validate_every=10", "evaluate.tasks=20"])
    run_demo(tmp_path / "demo", max_minutes=0)
    assert "Training was cut short by --max-minutes at step 1 of 2000" in capsys.readouterr().out


def test_a_demo_that_ends_in_its_first_stage_says_so(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    recipe = load_recipe("sprites-mpn")
    assert recipe.pretrain is not None
    write_text(tmp_path / "run" / "pretrain" / "metrics.csv", "step,loss\n1,0.5\n7,0.4\n")
    run: Any = SimpleNamespace(folder=tmp_path / "run", recipe=recipe)
    show_end(run, tmp_path, started=0)
    shown = capsys.readouterr().out
    assert f"by --max-minutes at step 7 of {recipe.pretrain.steps} of its first stage: these figures" in shown


SHORT = [
    *("data.image_size=32", "data.clips=2", "backbone.widths=[2, 3]", "decoder.prototypes=2", "pretrain.steps=2"),
    *("pretrain.validate_every=2", "pretrain.validation_tasks=2", "train.steps=2", "train.validate_every=2"),
    *("train.validation_tasks=2", "train.tasks_per_step=1", "train.shot=2", "train.query=2"),
    *("evaluate.shot=2", "evaluate.tasks=2"),
]


def test_the_demo_of_video(tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(video, "CHANGES", SHORT)
    monkeypatch.setattr(video, "NORMAL", 2)
    monkeypatch.setattr(video, "ODD", 80)
    monkeypatch.setattr(video, "SIZE", 64)
    for name in ("VAL", "TEST", "A_SCENE"):
        monkeypatch.setattr(f"handful.data.video.library.{name}", 1)
    video.run_demo(tmp_path / "demo", max_minutes=1)
    shown = capsys.readouterr().out
    assert re.search(r"by 3 steps of maml from the run sprites-mpn on 2 windows of its first half\.", shown)
    assert re.search(
        r"odd\.mp4, 80 frames, an odd mover is seen in [1-9]\d*: \d+ of these are alarms, and \d+ of ", shown
    )
    assert re.search(r" AUC [\d.]+ %; without a network [\d.]+ %\.", shown)
    made = tmp_path / "demo"
    for name in ("run/report.html", "watcher/card.json", "timeline.png", "normal/0.mp4", "normal/1.mp4", "odd.mp4"):
        assert (made / name).is_file()
    with av.open(str(made / "overlay.mp4")) as overlay:
        assert len(list(overlay.decode(video=0))) == 80
