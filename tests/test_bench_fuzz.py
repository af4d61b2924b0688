"""bench/fuzz.py in short: bad input of every kind is read, or refused by a sentence; what is planted is found."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from types import ModuleType, SimpleNamespace

import pytest

for package in ("hypothesis", "schemathesis"):
    pytest.importorskip(package, reason=f"{package} is not installed: handful[fuzz]")

BENCH = Path(__file__).parents[1] / "bench"
SHORT = (
    *("recipe", "recipe-set", "store-record", "store-images", "store-labels", "clips-record", "clips-masks"),
    *("rails-own", "rails-tusimple", "rails-masks", "video-labels", "video-masks", "archive", "pickle-cifar-fs"),
    *("pickle-tiered-labels", "list-classes", "weights-pth", "model-card", "model-weights", "watcher-weights"),
    *("run-split", "run-weights", "picture", "video-watched", "served"),
)
NEVER_REFUSED = (
    *("clips-record", "clips-masks"),  # what lies in the cache is made anew
    *("pickle-cifar-fs", "pickle-tiered-labels"),  # a report tells of it
)
PLANTED = """
import os, subprocess, sys, time
from pathlib import Path
sys.path.insert(0, {bench!r})
import fuzz
import fuzz_forms
from fuzz_forms import Target
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
    if start == b"m": return bytearray(300 * 2**20).count(1)
    if start == b"h": time.sleep(60)
    if start == b"e": sys.exit(3)
    if start == b"s": raise HandfulError("")
    if start == b"a": raise HandfulError("A sentence.")
    if start != b"v": raise ValueError(str(len(content)))
    (folder / "inside").write_text("as it may")

FORM = fuzz_forms.Form(fuzz_forms.scratched, lambda valid: [b"a", *{inputs!r}])
fuzz.HANG, fuzz.MEMORY = 3.0, 2**28
sys.exit(fuzz.main([Target("planted", kit, "a.bin", FORM, planted)]))
"""


def run(*words: object) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    return subprocess.run([sys.executable, *map(str, words)], capture_output=True, text=True, env=environment)


def test_bad_input_is_read_or_refused_by_a_sentence(tmp_path: Path) -> None:
    chosen = [word for name in SHORT for word in ("--target", name)]
    engines = ("--engine", "nasty", "--engine", "hypothesis", "--inputs", "5")
    done = run(BENCH / "fuzz.py", *chosen, *engines, "--json", tmp_path / "rows.json", "--save", tmp_path / "found")
    assert done.returncode == 0, done.stdout + done.stderr
    rows = json.loads((tmp_path / "rows.json").read_text(encoding="utf-8"))
    assert [row["target"] for row in rows] == [*(name for name in SHORT for _ in range(2)), "all"]
    for row in rows:
        assert row["findings"] == 0
        assert row["median"] == row["read"] + row["refused"]
        assert row["median"] >= {"nasty": 10, "hypothesis": 5, "all": 900}[row["engine"]]
        if row["engine"] == "nasty":
            assert row["read"] > 0, f"{row['target']}: what is valid is refused"
            assert row["refused"] > 0 or row["target"] in NEVER_REFUSED


class Planted:
    """A script that fuzzes what is broken on purpose."""

    def __init__(self, folder: Path, inputs: list[bytes]) -> None:
        self.folder, self.script = folder, folder / "planted.py"
        self.script.write_text(PLANTED.format(bench=str(BENCH), inputs=inputs), encoding="utf-8")

    def run(self, *words: object) -> subprocess.CompletedProcess[str]:
        return run(self.script, *words, "--save", self.folder / "found")


def test_what_is_planted_is_found_and_can_be_replayed(tmp_path: Path) -> None:
    planted = Planted(tmp_path, [b"x longer", b"x", *(bytes([start]) for start in b"odpuesm")])
    done = planted.run("--engine", "nasty")
    assert done.returncode == 1, done.stderr
    for told in (
        *("ValueError: 1 (ValueError planted.py", "opens for writing", "os.remove of /nowhere/at/all", "starts true"),
        *("unpickles os.mkdir", "SystemExit: 3", "an error that is not one line", "MiB of memory"),
    ):
        assert told in done.stdout
    assert "11 inputs: 2 were read, 2 refused by a sentence, 8 findings" in done.stdout
    files = {file.read_bytes(): file for file in (tmp_path / "found" / "planted").glob("*") if not file.suffix}
    assert b"x" in files
    assert b"x longer" not in files  # the same defect, by more
    again = planted.run("--replay", files[b"x"])
    assert again.returncode == 1
    assert "ValueError: 1" in again.stderr


def test_a_hang_ends_the_process_and_is_found(tmp_path: Path) -> None:
    done = Planted(tmp_path, [b"h", b"x"]).run("--engine", "nasty")
    assert done.returncode == 1
    assert "a hang of 3 s" in done.stdout
    assert "3 inputs: 1 were read, 1 refused by a sentence, 1 findings" in done.stdout


@pytest.mark.parametrize("engine", ["hypothesis", "atheris"])
def test_either_engine_finds_what_is_planted(engine: str, tmp_path: Path) -> None:
    pytest.importorskip(engine, reason=f"{engine} is not installed: handful[fuzz]")
    done = Planted(tmp_path, []).run("--engine", engine, "--inputs", "60")
    assert done.returncode == 1, done.stderr
    assert "ValueError" in done.stdout
    assert "60 inputs: " in done.stdout


def test_an_unknown_target(tmp_path: Path) -> None:
    done = Planted(tmp_path, []).run("--target", "plante")
    assert done.returncode == 2
    assert "there is no target plante; known: planted" in done.stderr


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
    assert len({*first}) > 25
