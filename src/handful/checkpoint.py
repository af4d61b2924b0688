"""What training keeps on disk so that it can go on: the run folder's claim, its checkpoint and its metrics."""

from __future__ import annotations

import csv
import io
import os
import platform
import shutil
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import IO, Any

import torch
from tensorboard.compat.proto.event_pb2 import Event, SessionLog
from tensorboard.compat.proto.summary_pb2 import Summary
from tensorboard.summary.writer.record_writer import RecordWriter
from torch import nn
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LRScheduler

from handful.errors import HandfulError, first_line
from handful.files import append, is_temporary, read_tensors, sweep, to_json, write_tensors, write_text
from handful.processes import rank
from handful.reading import from_json
from handful.recipe import NO_MATTER, Recipe
from handful.run import BEFORE_THE_RECIPE, METRICS, WRITTEN, Run, is_run, trained_in
from handful.runtime import Precision

LOCK = ".lock"
HELD: set[IO[str]] = set()  # lock files; those of this process alone
if sys.platform != "win32":
    import fcntl

    # else a process that loads tasks would hold the folder of a training that was killed for as long as it lives on
    os.register_at_fork(after_in_child=lambda: [file.close() for file in HELD])


@dataclass
class Progressed:
    """How far a run has come."""

    step: int = 0
    seconds: float = 0.0
    best_score: float | None = None  # until the first validation
    losses: list[float] = field(default_factory=list)
    """Of the steps since the last row of `metrics.csv`, and their scores."""
    scores: list[float] = field(default_factory=list)
    unjudged: dict[str, Any] = field(default_factory=dict)
    """The last row of `metrics.csv`, if it was still to be validated when training was told to stop."""
    chunk: int = 0
    """Tasks whose graph is held at a time; 0 before that is decided (`handful.memory`)."""
    backprop: str = "graph"
    """As decided, among `backprops` and for `memory_gib`."""
    backprops: list[str] = field(default_factory=list)
    memory_gib: float | None = None


@contextmanager
def claim(out: Path, recipe: Recipe, precision: Precision, fresh: bool) -> Iterator[None]:
    """Hold a folder for a run while it is trained.

    Refused are a run of another recipe or precision, a folder that holds something else, and one that another process
    trains into.
    """
    if not is_run(out) and out.exists() and (not out.is_dir() or not all(map(left_behind, out.iterdir()))):
        raise HandfulError(f"{out} exists and is not a run folder; choose another --out.")
    with locked(out):
        sweep(out)
        if is_run(out):
            take_over(out, recipe, precision, fresh)
        yield


def left_behind(path: Path) -> bool:
    """Whether a file may be all that is left of a training that was killed before its folder was a run.

    The recipe, which the user may have written, is none of them: it is written last, and deleted first.
    """
    return path.name in (LOCK, *BEFORE_THE_RECIPE) or is_temporary(path)


@contextmanager
def locked(out: Path) -> Iterator[None]:
    """Keep other processes out of a folder, where the system can: it lets go when this one ends, however it ends."""
    try:
        out.mkdir(parents=True, exist_ok=True)
        file = (out / LOCK).open("w")
    except OSError as error:
        raise HandfulError(f"{out} cannot be written ({error}).") from error
    with file:
        if sys.platform != "win32":
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError as error:
                raise HandfulError(
                    f"{out} is being trained by another process; wait for it, or choose another --out."
                ) from error
            except OSError:
                pass  # a file system without locks, as some that machines share
        HELD.add(file)
        try:
            yield
        finally:
            HELD.remove(file)


def take_over(out: Path, recipe: Recipe, precision: Precision, fresh: bool) -> None:
    """Go on with a run of the same recipe in the same precision; delete what it wrote, if it is to start anew."""
    if fresh:
        # the files that make it a run last: killed in between, the same command goes on deleting
        for path in [*out.glob("events.out.tfevents.*"), *(out / name for name in reversed(WRITTEN))]:
            shutil.rmtree(path) if path.is_dir() else path.unlink(missing_ok=True)
        return
    if found := difference(Run.read_recipe(out).model_dump(mode="json"), recipe.model_dump(mode="json")):
        key, before, now = found
        raise HandfulError(
            f"{out} was trained with another recipe ({key} is {before!r} there and {now!r} now); "
            "choose another --out, or --fresh to start it anew."
        )
    if (before := trained_in(out)) != precision:
        raise HandfulError(
            f"{out} was trained in {before}, and would go on in {precision}; set precision to {before}, choose another "
            "--out, or --fresh to start it anew."
        )


def difference(before: Any, now: Any, key: str = "") -> tuple[str, Any, Any] | None:
    """The first leaf in which two recipes differ, but for those that do not matter."""
    if isinstance(before, dict) and isinstance(now, dict):
        for name in {**before, **now}:
            inner = f"{key}.{name}" if key else name
            if inner not in NO_MATTER and (found := difference(before.get(name), now.get(name), inner)):
                return found
        return None
    return None if before == now else (key, before, now)


def save(
    out: Path,
    method: nn.Module,
    learner: nn.Module,
    optimizer: Optimizer,
    schedule: LRScheduler,
    progressed: Progressed,
) -> None:
    """Write the method's weights for everybody else, then all that a resumed run needs, in one file.

    learner: what is trained: the method, or the method with a classifier on it.  In this order a run that is killed in
    between goes on from the older checkpoint and writes both again.
    """
    folder = out / "checkpoints" / "last"
    tensors = {f"learner.{name}": value for name, value in learner.state_dict().items()}
    for index, state in optimizer.state_dict()["state"].items():
        tensors |= {f"optimizer.{index}.{name}": torch.as_tensor(value) for name, value in state.items()}
    numbers = {key: value for key, value in schedule.state_dict().items() if _is_plain(value)}
    metadata = {"progressed": to_json(asdict(progressed)), "schedule": to_json(numbers)}
    write_tensors(folder / "model.safetensors", method.state_dict())
    write_tensors(folder / "training.safetensors", tensors, metadata)


def resume(out: Path, learner: nn.Module, optimizer: Optimizer, schedule: LRScheduler) -> Progressed:
    """Load what `save` wrote, if anything."""
    path = out / "checkpoints" / "last" / "training.safetensors"
    if not path.exists():
        return Progressed()
    tensors, metadata = read_tensors(path)
    weights: dict[str, torch.Tensor] = {}
    states: dict[int, dict[str, torch.Tensor]] = {}
    try:
        for name, value in tensors.items():
            kind, _, rest = name.partition(".")
            if kind == "learner":
                weights[rest] = value
            else:
                index, _, key = rest.partition(".")
                states.setdefault(int(index), {})[key] = value
        learner.load_state_dict(weights)
        optimizer.load_state_dict({"state": states, "param_groups": optimizer.state_dict()["param_groups"]})
        schedule.load_state_dict(from_json(metadata["schedule"]))
        told = from_json(metadata["progressed"])
        known = {field.name for field in fields(Progressed)}  # older checkpoints tell more
        progressed = Progressed(**{key: value for key, value in told.items() if key in known})
    except (KeyError, ValueError, TypeError, RuntimeError) as error:
        raise HandfulError(f"{path} does not fit this run ({first_line(error)}); use --fresh.") from error
    for group, rate in zip(optimizer.param_groups, schedule.get_last_lr(), strict=True):
        group["lr"] = rate
    return progressed


def _is_plain(value: Any) -> bool:
    """Numbers and lists of numbers: a scheduler's functions are made anew."""
    return all(isinstance(item, int | float) for item in (value if isinstance(value, list) else [value]))


class Log:
    """`metrics.csv` and TensorBoard events, written by the first process.

    On resume, rows after the checkpoint are dropped, and that of its step if it waits for a validation: it comes again.
    Events are written in step with training: the thread of torch's SummaryWriter would tell of a full disk by itself.
    """

    def __init__(self, out: Path, step: int, waits: bool = False) -> None:
        if rank():
            return
        self.path = out / "metrics.csv"
        kept = [row for row in read_metrics(self.path) if int(row["step"]) <= step - waits] if step else []
        lines = [",".join(METRICS), *(",".join(row[key] for key in METRICS) for row in kept)]
        write_text(self.path, "\n".join(lines) + "\n")
        self.board = out / f"events.out.tfevents.{int(time.time()):010d}.{platform.node()}.{os.getpid()}"
        self._tell(file_version="brain.Event:2")
        self._tell(step=step + 1, session_log=SessionLog(status=SessionLog.START))  # voids later steps of before

    def write(self, row: dict[str, Any]) -> None:
        """Add one row."""
        if rank():
            return
        text = io.StringIO()
        csv.DictWriter(text, METRICS, restval="", lineterminator="\n").writerow(row)
        append(self.path, text.getvalue().encode())
        values = [Summary.Value(tag=key, simple_value=value) for key, value in row.items() if key != "step"]
        self._tell(step=row["step"], summary=Summary(value=values))

    def _tell(self, **event: Any) -> None:
        record = io.BytesIO()
        RecordWriter(record).write(Event(wall_time=time.time(), **event).SerializeToString())
        append(self.board, record.getvalue())


def read_metrics(path: Path) -> list[dict[str, str]]:
    """The rows of a metrics file that were written whole."""
    if not path.exists():
        return []
    with path.open(encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    return [row for row in rows if all(row.get(key) is not None for key in METRICS) and row["step"].isdigit()]
