"""What an interruption may leave behind does not keep the same command from going on, and a full disk is a sentence."""

from __future__ import annotations

import errno
import multiprocessing
import os
import shutil
import signal
import subprocess
import sys
import threading
import time
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
import torch
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from handful import files
from handful.batches import Batches, loaded
from handful.checkpoint import Log, locked, read_metrics
from handful.errors import HandfulError
from handful.recipe import load_recipe
from handful.run import Run
from handful.training import train_recipe


def trained(recipe_file: Path, out: Path, **options: Any) -> Run:
    changes = ("train.steps=2", "train.validation_tasks=2", "evaluate.tasks=2")
    run, _ = train_recipe(load_recipe(str(recipe_file), changes), out, quiet=True, **options)
    return run


class Killed(BaseException):
    """As near to SIGKILL as a test of its own process comes."""


@pytest.mark.parametrize("first", range(4))
def test_killed_before_the_folder_was_a_run(
    recipe_file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, first: int
) -> None:
    """At each of the files that make it one."""
    original = os.replace
    written: list[Any] = []

    def replace(source: Any, target: Any) -> None:
        if len(written) == first:
            shutil.copy(source, Path(source).with_name(f".{Path(target).name}.1.tmp"))  # SIGKILL would leave it there
            raise Killed
        written.append(target)
        original(source, target)

    with monkeypatch.context() as patch:
        patch.setattr(os, "replace", replace)
        with pytest.raises(Killed):
            trained(recipe_file, tmp_path / "run")
    run = trained(recipe_file, tmp_path / "run")
    assert run.weights("last").exists()
    assert not list(run.folder.rglob("*.tmp"))


def test_a_folder_with_somebody_elses_recipe_is_none_that_training_began(recipe_file: Path, tmp_path: Path) -> None:
    out = tmp_path / "mine"
    out.mkdir()
    recipe = Path(shutil.copy(recipe_file, out / "recipe.yaml"))
    (out / "split.json").write_text("{}", encoding="utf-8")
    with pytest.raises(HandfulError, match="exists and is not a run folder"):
        trained(recipe, out)
    assert recipe.read_bytes() == recipe_file.read_bytes()


def test_killed_while_it_deletes_to_start_anew(
    recipe_file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Before each deletion but the first; what is left is a run, or nothing foreign."""
    original = Path.unlink
    for first in range(1, 6):
        trained(recipe_file, tmp_path / "run")
        deleted: list[Path] = []

        def unlink(path: Path, missing_ok: bool = False, deleted: list[Path] = deleted, first: int = first) -> None:
            if len(deleted) == first:
                raise Killed
            if path.suffix != ".tmp":
                deleted.append(path)
            original(path, missing_ok)

        with monkeypatch.context() as patch:
            patch.setattr(Path, "unlink", unlink)
            with pytest.raises(Killed):
                trained(recipe_file, tmp_path / "run", fresh=True)
        trained(recipe_file, tmp_path / "run", fresh=True)


def test_temporary_files_are_told_by_their_names(tmp_path: Path) -> None:
    ours, others = [".a.csv.12.tmp", "eval/.b.json.3.tmp"], ["a.tmp", ".a.tmp", ".a.csv.x.tmp", ".a.csv.12.tmp.gz"]
    for name in ours + others:
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).touch()
    files.sweep(tmp_path)
    assert sorted(p.relative_to(tmp_path).as_posix() for p in tmp_path.rglob("*") if p.is_file()) == sorted(others)


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="there is no /dev/full")
@pytest.mark.parametrize("full", ["metrics.csv", "events"])
def test_a_full_disk_is_one_sentence_whichever_file_meets_it(tmp_path: Path, full: str) -> None:
    log = Log(tmp_path, 0)
    (path,) = tmp_path.glob(f"{full}*")
    path.unlink()
    path.symlink_to("/dev/full")
    with pytest.raises(HandfulError, match=rf"{full}.* cannot be written \(.*No space left on device\)"):
        log.write({"step": 1, "seconds": 0.5, "loss": 1.0})


def test_a_row_that_waits_for_its_validation_is_written_once(tmp_path: Path) -> None:
    """Killed between the row and the checkpoint that knows of it, the next start writes it again."""
    Log(tmp_path, 0).write({"step": 5})
    for _ in range(2):
        Log(tmp_path, 10, waits=True).write({"step": 10})
    assert [row["step"] for row in read_metrics(tmp_path / "metrics.csv")] == ["5", "10"]


def test_events_are_read_by_tensorboard_and_those_after_the_checkpoint_are_void(tmp_path: Path) -> None:
    log = Log(tmp_path, 0)
    for step in (1, 2, 3):
        log.write({"step": step, "seconds": 0.5, "loss": step / 2})
    log = Log(tmp_path, 2)
    log.write({"step": 3, "seconds": 0.5, "loss": 4.0, "val_mean": 0.5, "val_ci95": 0.25})
    events = EventAccumulator(str(tmp_path)).Reload()
    assert [(event.step, event.value) for event in events.Scalars("loss")] == [(1, 0.5), (2, 1.0), (3, 4.0)]
    assert [event.value for event in events.Scalars("val_ci95")] == [0.25]
    assert [row["loss"] for row in read_metrics(tmp_path / "metrics.csv")] == ["0.5", "1.0", "4.0"]


HOLD_AND_FORK = """
import os, sys, time
from pathlib import Path
from handful.checkpoint import locked
with locked(Path(sys.argv[1])):
    child = os.fork()
    if child:
        print(child, flush=True)
    time.sleep(60)
"""


@pytest.mark.skipif(sys.platform == "win32", reason="there is no flock")
def test_a_process_that_loads_tasks_does_not_hold_the_folder_of_a_training_that_was_killed(tmp_path: Path) -> None:
    with subprocess.Popen([sys.executable, "-c", HOLD_AND_FORK, str(tmp_path)], stdout=subprocess.PIPE) as other:
        assert other.stdout is not None
        child = int(other.stdout.readline())
        try:
            with pytest.raises(HandfulError, match="another process"), locked(tmp_path):
                pass
            other.kill()
            other.wait()
            with locked(tmp_path):
                pass
            os.kill(child, 0)  # it lives
        finally:
            other.kill()
            os.kill(child, signal.SIGKILL)


def draw(start: int, stop: int, device: torch.device) -> int:
    return start


@pytest.mark.skipif(sys.platform == "win32", reason="there is no SIGTERM")
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_process_that_loads_batches_outlives_a_signal_that_all_get_and_no_second_one(number: signal.Signals) -> None:
    told = pytest.raises(HandfulError, match="A process that loads tasks was ended from outside, most often for")
    with told, closing(loaded(Batches("tasks", draw, 1), range(100), 1, torch.device("cpu"))) as steps:
        assert next(steps) == 0
        (worker,) = multiprocessing.active_children()
        assert worker.pid is not None
        os.kill(worker.pid, number)
        assert [next(steps) for _ in range(9)] == list(range(1, 10))
        os.kill(worker.pid, number)
        list(steps)
    worker.join()


@pytest.mark.skipif(sys.platform == "win32", reason="there is no SIGKILL")
def test_of_a_process_that_is_killed_the_next_batch_tells_and_no_step_in_between() -> None:
    """Which might take it for an error of its own, and go on in another way."""
    with closing(loaded(Batches("tasks", draw, 1), range(100), 1, torch.device("cpu"))) as steps:
        next(steps)
        (worker,) = multiprocessing.active_children()
        worker.kill()
        worker.join()
        time.sleep(0.2)
        with pytest.raises(HandfulError, match="was ended from outside"):
            list(steps)


def draw_tensors(start: int, stop: int, device: torch.device) -> list[torch.Tensor]:
    return [torch.rand(50, 50) for _ in range(6)]


@pytest.mark.skipif(sys.platform == "win32", reason="there is no SIGKILL")
@pytest.mark.parametrize("milliseconds", range(1, 40, 3))
def test_a_process_that_is_killed_in_the_midst_of_handing_over_is_told_of(milliseconds: int) -> None:
    """Where sockets break off, before the system tells that it has ended."""
    with closing(loaded(Batches("tasks", draw_tensors, 1), range(10**6), 1, torch.device("cpu"))) as steps:
        next(steps)
        (worker,) = multiprocessing.active_children()
        killing = threading.Timer(milliseconds / 1000, worker.kill)
        killing.start()
        with pytest.raises(HandfulError, match="was ended from outside"):
            list(steps)
        killing.join()


def draw_slowly(start: int, stop: int, device: torch.device) -> int:
    time.sleep(60 * start)
    return start


def test_processes_that_load_are_not_waited_for() -> None:
    with closing(loaded(Batches("tasks", draw_slowly, 1), range(9), 1, torch.device("cpu"))) as steps:
        assert next(steps) == 0
        started = time.monotonic()
    assert time.monotonic() - started < 4
    assert not multiprocessing.active_children()


def fail(start: int, stop: int, device: torch.device) -> int:
    raise RuntimeError("of the data's own")


@pytest.mark.parametrize("workers", [0, 1])
def test_what_goes_wrong_in_loading_is_told_as_it_is(workers: int) -> None:
    told = pytest.raises(RuntimeError, match="of the data's own")
    with told, closing(loaded(Batches("tasks", fail, 1), range(2), workers, torch.device("cpu"))) as steps:
        next(steps)


FAILING = """
import sys
from handful.batches import Batches
from handful.cli import main
def fail(*words):
    raise RuntimeError("of the data's own")
Batches.__getitem__ = fail
sys.argv = ["handful", "train", *sys.argv[1:]]
main()
"""


def test_a_training_that_fails_ends_although_a_process_loads_its_tasks(recipe_file: Path, tmp_path: Path) -> None:
    words = [str(recipe_file), "--out", str(tmp_path / "run"), "--set", "train.workers=1"]
    done = subprocess.run([sys.executable, "-c", FAILING, *words], capture_output=True, text=True, timeout=60)
    assert "of the data's own" in done.stderr


@pytest.mark.skipif(sys.platform == "win32", reason="there is no flock")
def test_a_file_system_without_locks_is_trained_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object) -> None:
        raise OSError(errno.ENOLCK, "No locks available")

    monkeypatch.setattr("fcntl.flock", refuse)
    with locked(tmp_path), locked(tmp_path):
        assert (tmp_path / ".lock").exists()
