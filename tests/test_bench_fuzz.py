"""bench/fuzz.py in short: bad input of every kind is read, or refused by a sentence; what is planted is found."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest

for package in ("hypothesis", "schemathesis"):
    pytest.importorskip(package, reason=f"{package} is not installed: handful[fuzz]")

BENCH = Path(__file__).parents[1] / "bench"
QUICK = (
    *("recipe", "recipe-set", "recipe-data", "store-record", "store-images", "store-labels", "clips-record"),
    *("clips-masks", "rails-own", "rails-tusimple", "rails-masks", "video-labels", "video-masks", "archive"),
    *("pickle-cifar-fs", "pickle-tiered-labels", "list-classes", "weights-pth", "model-card", "model-weights"),
    *("watcher-weights", "picture", "video-watched", "served"),
)
AS_TRAINED = ("run-split", "run-weights", "report-result")  # a run is made first
MADE_ANEW = ("clips-record", "clips-masks")  # what lies in the cache
PLANTED = """
import os, subprocess, sys, time
from pathlib import Path
sys.path.insert(0, {bench!r})
import fuzz
import fuzz_forms
from fuzz_targets import Target
from handful.errors import HandfulError

def kit(folder):
    (folder / "a.bin").write_bytes(b"valid file")

def planted(folder):
    content = (folder / "a.bin").read_bytes()
    start = content[:1]
    if start == b"o": (Path.cwd() / "outside").write_text("x")
    if start == b"d": os.remove("/nowhere/at/all")
    if start == b"p": subprocess.run(["true"])
    if start == b"u": __import__("pickle").loads(b"cos\\nmkdir\\n.")
    if start == b"m": return bytearray(500 * 2**20).count(1)
    if start == b"h": time.sleep(60)
    if start == b"e": sys.exit(3)
    if start == b"s": raise HandfulError("two\\nlines")
    if start == b"a": raise HandfulError("A sentence.")
    if start != b"v": raise ValueError(str(len(content)))
    (folder / "inside").write_text("as it may")

FORM = fuzz_forms.Form(fuzz_forms.scratched, lambda valid: [b"a", *{inputs!r}])
fuzz.HANG, fuzz.MEMORY = 3.0, 2**28
sys.exit(fuzz.main([Target("planted", kit, "a.bin", FORM, planted)]))
"""


def rows_of(words: list[str], tmp_path: Path) -> tuple[subprocess.CompletedProcess[str], dict[str, dict[str, Any]]]:
    """A script that ends in the bench, and its rows by target; the last is of them all."""
    options = ["--json", str(tmp_path / "rows.json"), "--save", str(tmp_path / "found")]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    done = subprocess.run([sys.executable, *words, *options], capture_output=True, text=True, env=environment)
    file = tmp_path / "rows.json"
    rows = json.loads(file.read_text(encoding="utf-8")) if file.exists() else []
    return done, {row["target"]: row for row in rows}


@pytest.mark.parametrize("targets", [QUICK, AS_TRAINED])
def test_bad_input_is_read_or_refused_by_a_sentence(targets: tuple[str, ...], tmp_path: Path) -> None:
    chosen = [word for name in targets for word in ("--target", name)]
    words = [str(BENCH / "fuzz.py"), *chosen, "--engine", "nasty"]
    done, rows = rows_of([*words, "--inputs", "5"], tmp_path)
    assert done.returncode == 0, done.stdout + done.stderr
    assert set(rows) == {*targets, "all"}
    for name, row in rows.items():
        assert row["findings"] == 0
        assert row["median"] == row["read"] + row["refused"] >= 10
        assert row["read"] > 0, f"{name}: what is valid is refused"
        assert row["refused"] > 0 or name in MADE_ANEW
    assert rows["all"]["median"] > 40 * len(targets) / 2


def test_chance_finds_nothing_either(tmp_path: Path) -> None:
    chosen = ["--target", "recipe", "--target", "rails-own", "--target", "model-card", "--target", "served"]
    done, rows = rows_of([str(BENCH / "fuzz.py"), *chosen, "--engine", "hypothesis", "--inputs", "20"], tmp_path)
    assert done.returncode == 0, done.stdout + done.stderr
    assert all(row["median"] >= 20 for row in rows.values())


def planted(tmp_path: Path, inputs: list[bytes]) -> list[str]:
    script = tmp_path / "planted.py"
    script.write_text(PLANTED.format(bench=str(BENCH), inputs=inputs), encoding="utf-8")
    return [str(script), "--target", "planted"]


def test_what_is_planted_is_found_and_can_be_replayed(tmp_path: Path) -> None:
    words = planted(tmp_path, [b"x longer", b"x", *(bytes([start]) for start in b"odpuesm")])
    done, rows = rows_of([*words, "--engine", "nasty"], tmp_path)
    assert done.returncode == 1, done.stderr
    for told in (
        *("ValueError: 1 ", "Outside: opens for writing", "Outside: os.remove of /nowhere/at/all", "SystemExit: 3"),
        *("Outside: starts true", "Outside: unpickles os.mkdir", "an error that is not one line", "MiB of memory"),
    ):
        assert told in done.stdout, f"{told} is not in {done.stdout}"
    row = rows["planted"]
    assert (row["median"], row["read"], row["refused"]) == (11, 2, 2)  # valid, and much memory; two sentences
    assert not (tmp_path / "outside").exists()
    files = {file.read_bytes(): file for file in (tmp_path / "found" / "planted").glob("*") if not file.suffix}
    assert b"x" in files
    assert b"x longer" not in files  # the same defect, by more
    again = subprocess.run([sys.executable, *words, "--replay", str(files[b"x"])], capture_output=True, text=True)
    assert again.returncode == 1
    assert "ValueError: 1" in again.stderr


def test_a_hang_is_found(tmp_path: Path) -> None:
    done, rows = rows_of([*planted(tmp_path, [b"h", b"x"]), "--engine", "nasty"], tmp_path)
    assert done.returncode == 1
    assert "a hang of 3 s" in done.stdout
    assert rows["planted"]["median"] == 3  # the process ends with it


@pytest.mark.parametrize("engine", ["hypothesis", "atheris"])
def test_either_engine_finds_what_is_planted(engine: str, tmp_path: Path) -> None:
    pytest.importorskip(engine, reason=f"{engine} is not installed: handful[fuzz]")
    done, rows = rows_of([*planted(tmp_path, []), "--engine", engine, "--inputs", "60"], tmp_path)
    assert done.returncode == 1, done.stderr
    assert "ValueError" in done.stdout
    assert rows["planted"]["median"] == 60


@pytest.fixture
def bench(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    """The script as a module."""
    monkeypatch.syspath_prepend(str(BENCH))
    import fuzz

    return fuzz


def test_inputs_are_the_same_in_every_run(bench: ModuleType) -> None:
    import fuzz_forms

    class Kept(list[bytes]):
        valid = json.dumps({"a": [1, {"b": 2}], "c": "d"}).encode()
        target = SimpleNamespace(form=fuzz_forms.JSON)

        def __call__(self, content: bytes) -> None:
            self.append(content)

    first, second = Kept(), Kept()
    for kept in (first, second):
        bench.by_hypothesis(kept, 0, 50)
    assert first == second
    assert len({*first}) > 40


def test_an_unknown_target(tmp_path: Path) -> None:
    done, _ = rows_of([str(BENCH / "fuzz.py"), "--target", "recipes", "--engine", "nasty"], tmp_path)
    assert done.returncode == 2
    assert "there is no target recipes; known: recipe, recipe-set" in done.stderr
