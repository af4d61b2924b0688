"""The commands and the code of docs/video.md run as they stand, on small clips and a tiny run."""

from __future__ import annotations

import json
import re
import shlex
import shutil
from pathlib import Path

import numpy as np
import pytest

from handful import wording
from handful.model.video.card import HOUR
from handful.model.video.fitting import FALSE_ALARMS
from handful.model.video.scores import threshold
from tests.conftest import Command, ok
from tests.model.rails.conftest import write_video
from tests.model.video.conftest import filmed, frames_in

PAGE = (Path(__file__).parents[3] / "docs" / "video.md").read_text(encoding="utf-8")
STAGES = [f"{stage}.{key}" for stage in ("pretrain", "train") for key in ("validate_every=1", "validation_tasks=2")]
SIZES = ["backbone.widths=[3,4]", "pretrain.steps=2", "train.steps=1", "evaluate.tasks=2"]
COUNTS = ["train.shot=1", "train.query=1", "evaluate.shot=1"]
SMALL = [word for change in (*SIZES, *COUNTS, *STAGES) for word in ("--set", change)]  # for a training of a second


def part(title: str) -> str:
    return PAGE.partition(f"## {title}")[2].partition("\n## ")[0]


@pytest.fixture
def place(clips: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with all that the page names."""
    monkeypatch.chdir(tmp_path)
    shutil.copy(clips / "normal.mp4", "normal.mp4")
    shutil.copy(clips / "odd.mp4", "new.mp4")
    shutil.copytree(clips, "clips")
    frames_in(tmp_path / "stills", filmed(9))
    (tmp_path / "footage").mkdir()
    shutil.copy(clips / "normal.mp4", "footage")
    return tmp_path


def test_the_commands_run(handful: Command, place: Path) -> None:
    (commands,) = re.findall(r"```\n(handful.*?)```", part("From a file"), re.DOTALL)
    for command in commands.splitlines():
        words, _, written = command.partition("#")[0].partition(" > ")
        if not words.strip():
            continue
        small = SMALL if words.startswith("handful train") else []
        ran = ok(handful(*shlex.split(words)[1:], *small))
        if written.strip():
            (place / written.strip()).write_text(ran.out, encoding="utf-8")
    (answer,) = json.loads((place / "scores.json").read_text(encoding="utf-8"))
    (example,) = json.loads(re.findall(r"```json\n(.*?)```", PAGE, re.DOTALL)[0])
    assert set(answer) == set(example)
    assert set(answer["frames"][0]) == set(example["frames"][0])
    assert json.loads((place / "watcher" / "card.json").read_text(encoding="utf-8"))["recipe"] == "ped2-mpn-small"
    assert {"scores.csv", "overlay.mp4", "timeline.png"} <= {path.name for path in place.iterdir()}
    said = re.findall(r"```\n(new\.mp4.*?)```", PAGE, re.DOTALL)[0].splitlines()
    found = ok(handful("predict", "watcher", "new.mp4")).out.splitlines()
    for line in (said[0], said[-1]):
        form = re.sub(r"[\d.]+", r"[\\d.]+", re.escape(line).replace("\\.", "."))
        assert any(re.fullmatch(form.replace("alarm ", "alarms? "), each) for each in found), (form, found)


def test_the_code_runs(place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (code,) = re.findall(r"```python\n(.*?)```", PAGE, re.DOTALL)
    names: dict[str, object] = {}
    exec(code, names)
    assert len(names["answer"].frames) == 48  # type: ignore[attr-defined]
    assert "From 120 frames of normal footage (12 s)" in capsys.readouterr().out


def test_the_number_of_frames_that_show_a_share() -> None:
    (count, share) = re.findall(r"one over that share, less one, of held-out frames: (\d+) for ([\d.]+)\.", PAGE)[0]
    assert threshold(np.zeros(int(count)), float(share)).promised
    assert not threshold(np.zeros(int(count) - 1), float(share)).promised
    assert f"{share} if not said: {wording.duration(float(share) * HOUR)} of an hour" in PAGE.replace("seconds", "s")
    assert float(share) == FALSE_ALARMS


def test_what_is_written_as_it_grows_may_be_followed(place: Path) -> None:
    for name in re.findall(r"predict watcher (\S+) --follow", PAGE):
        assert name == "/dev/video0" or Path(name).suffix == ".ts"
    write_video(place / "live.ts", filmed(6))
