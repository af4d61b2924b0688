"""The demo, end to end, on the real glyphs, for a few steps."""

from __future__ import annotations

from pathlib import Path

import pytest

from handful.demo.glyphs import run_demo


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
