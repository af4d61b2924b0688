"""docs/extending.md, carried out: its files are written, its commands run."""

from __future__ import annotations

import re
import runpy
import shlex
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from handful.data import READERS
from handful.methods import METHODS
from tests.conftest import Command, refused

PAGE = (Path(__file__).parents[1] / "docs" / "extending.md").read_text(encoding="utf-8")
FILES: dict[str, str] = dict(re.findall(r'```\w+ title="(.+?)"\n(.*?)```', PAGE, re.DOTALL))


def commands(section: str) -> list[str]:
    """The lines of the console blocks below a heading."""
    (text,) = re.findall(rf"^## {section}$(.*?)(?=^## |\Z)", PAGE, re.DOTALL | re.MULTILINE)
    return "".join(re.findall(r"```console\n(.*?)```", text, re.DOTALL)).splitlines()


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """The files of the page in a folder of their own; afterwards Handful knows its own parts alone."""
    for name, text in FILES.items():
        (tmp_path / name).write_text(text, encoding="utf-8")
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(str(tmp_path))
    kept = [(registry, dict(registry)) for registry in (METHODS, READERS)]
    yield tmp_path
    for registry, before in kept:
        registry.clear()
        registry.update(before)  # type: ignore[arg-type]  # each with what it held
    for name in FILES:
        sys.modules.pop(Path(name).stem, None)


def carry_out(command: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """A command that starts with `python`; in this process, which has imported torch already, but for pytest."""
    python, script, *words = shlex.split(command)
    assert python == "python"
    if script == "-m":
        ran = subprocess.run([sys.executable, script, *words], capture_output=True, text=True)
        assert ran.returncode == 0, ran.stdout + ran.stderr
        return
    monkeypatch.setattr(sys, "argv", [script, *words])
    code: object = 0
    try:
        runpy.run_path(script, run_name="__main__")
    except SystemExit as stop:
        code = stop.code
    assert not code, command


def test_a_method(
    folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], handful: Command
) -> None:
    assert "medians" not in METHODS
    for command in commands("A method"):
        carry_out(command, monkeypatch)
    printed = capsys.readouterr().out
    assert re.search(r"^medians +ProtoNet with medians for means\.$", printed, re.MULTILINE)
    assert "5-way 3-shot" in printed
    assert (folder / "runs/medians/checkpoints/last/model.safetensors").is_file()
    del METHODS["medians"]  # as in a program that does not import it
    refused(handful("evaluate", "runs/medians"), "medians")


def test_a_data_set(folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    assert "asciiart" not in READERS
    for command in commands("A data set"):
        carry_out(command, monkeypatch)
    printed = capsys.readouterr().out
    assert "art: asciiart, 12 classes, 72 images" in printed
    assert "asciiart: 72 images [3, 28, 28] in 12 classes (4 train, 4 val, 4 test)" in printed
    assert "3-way 2-shot" in printed
