"""bench/faults.py in short: a run that is struck in several ways ends as an undisturbed one; what differs is seen."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import torch

from handful.files import read_tensors, write_tensors
from handful.recipe import parse
from tests.conftest import RECIPE

BENCH = Path(__file__).parents[1] / "bench"
PRETRAIN = "pretrain: {steps: 6, batch: 8, lr: 0.01, validate_every: 3, validation_tasks: 4}\n"


@pytest.fixture(scope="module")
def faults() -> Iterator[ModuleType]:
    """The script as a module."""
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(str(BENCH))
        import faults

        yield faults


@pytest.fixture(scope="module")
def bench(faults: ModuleType, pictures: Path, tmp_path_factory: pytest.TempPathFactory) -> Any:
    """A recipe of both stages that trains in a second, and its undisturbed run."""
    work = tmp_path_factory.mktemp("faults")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("HANDFUL_CACHE", str(tmp_path_factory.getbasetemp() / "cache"))
        return faults.Bench(parse(RECIPE.format(root=pictures) + PRETRAIN, "tiny"), work, limit=120, seed=0)


def test_struck_in_several_ways_a_run_ends_as_if_nothing_had_been(faults: ModuleType, bench: Any) -> None:
    row = faults.Row("several")
    last = "checkpoints/last/training.safetensors"
    strikes: list[Callable[[Path], bool]] = [
        lambda run: faults.kill_in_write(bench, row, run, f"half 2 {last}"),
        lambda run: faults.kill(bench, row, run),
        lambda run: faults.stop(bench, row, run),
    ]
    faults.strike_runs(bench, row, lambda: bool(strikes), lambda run: strikes.pop(0)(run))
    assert (row.findings, row.stuck, row.identical) == ([], 0, row.runs)
    assert row.struck >= 1  # the random moments may come after the end
    assert row.notes["temporary files left"] == 1


def test_a_disk_that_was_full_is_enlarged(faults: ModuleType, bench: Any) -> None:
    row = faults.Row("disk full")
    try:
        faults.on_disks(bench, row, [20 * faults.PAGE, faults.ROOM])
    except faults.LeftOut as reason:
        pytest.skip(str(reason))
    assert (row.findings, row.stuck, row.struck, row.identical, row.runs) == ([], 0, 1, 1, 1)
    assert [note for note in row.notes if note.startswith("at ")]


def change_tensor(run: Path) -> None:
    """By the smallest step there is."""
    path = run / "checkpoints" / "last" / "training.safetensors"
    tensors, told = read_tensors(path)
    name = next(name for name in tensors if name.startswith("learner."))
    value = tensors[name].flatten()
    value[-1] = torch.nextafter(value[-1], torch.tensor(9.0))
    write_tensors(path, {**tensors, name: value.view(tensors[name].shape)}, told)


def change_text(name: str, before: str, after: str) -> Callable[[Path], None]:
    def change(run: Path) -> None:
        (path,) = run.glob(name)
        text = path.read_text(encoding="utf-8")
        assert before in text
        path.write_text(text.replace(before, after, 1), encoding="utf-8")

    return change


def change_progress(run: Path) -> None:
    path = run / "checkpoints" / "last" / "training.safetensors"
    tensors, told = read_tensors(path)
    progressed = {**json.loads(told["progressed"]), "step": 3}
    write_tensors(path, tensors, {**told, "progressed": json.dumps(progressed)})


CHANGES: dict[str, Callable[[Path], object]] = {
    "the tensor learner.": change_tensor,
    "what it says of progressed": change_progress,
    "pretrain/metrics.csv differs": change_text("pretrain/metrics.csv", "\n1,", "\n2,"),
    "batch-2steps.json differs": change_text("eval/*-batch-2steps.json", '"mean": 0', '"mean": 1'),
    "report.html is missing": lambda run: (run / "report.html").unlink(),
    ".metrics.csv.1.tmp should not be there": lambda run: (run / ".metrics.csv.1.tmp").touch(),
}


@pytest.mark.parametrize("said", CHANGES)
def test_what_differs_is_seen(faults: ModuleType, bench: Any, tmp_path: Path, said: str) -> None:
    run = Path(shutil.copytree(bench.whole, tmp_path / "run"))
    assert faults.differences(bench.whole, run) == []
    CHANGES[said](run)
    (found,) = faults.differences(bench.whole, run)
    assert said in found
    row = faults.Row("changed", runs=1)
    faults.judge(row, bench.whole, run)
    assert not row.clean


def test_what_tells_the_time_makes_no_difference(faults: ModuleType, bench: Any, tmp_path: Path) -> None:
    run = Path(shutil.copytree(bench.whole, tmp_path / "run"))
    change_text("eval/*-batch-2steps.json", '"seconds": ', '"seconds": 9')(run)
    text = (run / "metrics.csv").read_text(encoding="utf-8").splitlines()
    step, _, *rest = text[-1].split(",")
    (run / "metrics.csv").write_text("\n".join([*text[:-1], ",".join([step, "999", *rest])]), encoding="utf-8")
    assert faults.differences(bench.whole, run) == []
    assert faults.differences(bench.whole, bench.whole) == []


def test_a_process_that_does_not_end_is_a_finding(faults: ModuleType, bench: Any, tmp_path: Path) -> None:
    training = faults.Training(bench, tmp_path / "run")
    training.limit = 0.1
    with pytest.raises(faults.Finding, match="hung for 0 s in the start"):
        training.end()
    assert training.process.poll() is not None
