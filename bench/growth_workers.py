"""How bench/growth.py measures: a process for each point begins to train, and then does what it is asked, in turn.

A process of its own, because its peak memory is the point's.  In turn, because a machine's speed changes over minutes
and must change for all alike.
"""

from __future__ import annotations

import contextlib
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import count, pairwise
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any, Literal, NamedTuple

import torch
import typer
from torch.optim.optimizer import register_optimizer_step_post_hook

from handful.backbones import conv4
from handful.checkpoint import read_metrics
from handful.cli import app
from handful.data import ImageStore
from handful.data.store import open_store
from handful.evaluation import evaluate_method
from handful.methods import MAML, Method, ProtoNet
from handful.recipe import Protocol
from handful.runtime import keep_freed_memory
from handful.training import train
from meta_step_workers import PAUSE, Peak, touch_kernels
from workers import Failed, Worker

Family = Literal["ProtoNet", "MAML"]
OPENING, STARTING, STEP, TASK, MAPPED = QUANTITIES = (
    "opening the store",
    "starting to train",
    "a training step",
    "evaluating a task",
    "images in memory",
)
TASKS = 4  # of a training step
EVALUATED = 10  # tasks of an evaluation, which is timed as a whole
# what this module and the script import, so that no child has to
PRELOADED = ("torch.optim", "handful.training", "handful.cli", "handful.report.style")
ROWS = 10  # of metrics.csv that a training of several processes writes, and that time its steps


@dataclass(frozen=True)
class Point:
    """What one process measures: a family of methods on a store, with tasks of a way and shot."""

    axis: str
    size: int
    family: Family
    store: Path
    way: int
    shot: int
    query: int
    channels: int
    threads: int


class Sample(NamedTuple):
    """Seconds, and bytes at the peak beyond what the process held before it opened the store."""

    seconds: float
    peak: int


class Begun(Exception):
    """The first step of a training was taken."""


def measure(points: Sequence[Point], starts: int, repeats: int) -> Iterator[tuple[Point, str, list[Sample]]]:
    """The samples of each quantity of each point: `starts` of a fresh process, `repeats` of what it does afterwards."""
    samples: dict[tuple[Point, str], list[Sample]] = {(point, name): [] for point in points for name in QUANTITIES}
    for turn in range(starts - 1):
        for point in rotated(points, turn):
            with running([point]) as (worker,):
                keep(samples, worker, worker.answer())
    with running(points) as workers:  # all at once, so that none begins while another one's step is timed
        for worker in workers:
            keep(samples, worker, worker.answer())
        for turn in range(repeats + 1):
            for worker in rotated(workers, turn):
                for name in (STEP, TASK):
                    time.sleep(PAUSE)
                    found = worker.ask(name)
                    if turn:  # the first warms up
                        keep(samples, worker, found)
        for worker in workers:
            keep(samples, worker, worker.ask(MAPPED))
    for (point, name), found in samples.items():
        yield point, name, found


@contextlib.contextmanager
def running(points: Sequence[Point]) -> Iterator[list[Worker[Point]]]:
    """A process for each point, started one after the other."""
    workers: list[Worker[Point]] = []
    try:
        for point in points:
            workers.append(Worker(point, serve, PRELOADED))
            if not workers[-1].connection.poll(600):
                raise Failed("a process does not begin to train within ten minutes")
        yield workers
    finally:
        for worker in workers:
            worker.stop()


def rotated(things: Sequence[Any], turn: int) -> list[Any]:
    """Nobody always follows the same neighbour."""
    first = turn % len(things)
    return [*things[first:], *things[:first]]


def keep(samples: dict[tuple[Point, str], list[Sample]], worker: Worker[Point], found: dict[str, Sample]) -> None:
    for name, sample in found.items():
        samples[worker.job, name].append(sample)


def serve(connection: Connection[Any, Any], point: Point) -> None:
    """The process: begin, then a step or an evaluation for each request."""
    try:
        with tempfile.TemporaryDirectory() as out:
            torch.set_num_threads(point.threads)
            keep_freed_memory()
            touch_kernels("cpu")
            peak = Peak("cpu")
            begun, store, method = begin(point, Path(out), peak)
            connection.send(begun)
            works = afterwards(point, store, method)
            while (asked := connection.recv()) != "stop":
                found = Sample(0.0, mapped(point.store)) if asked == MAPPED else timed(works[asked], peak)
                connection.send({asked: found})
    except (RuntimeError, MemoryError) as error:  # torch says RuntimeError when memory ends
        connection.send(f"{type(error).__name__}: {str(error).splitlines()[0]}")
    except EOFError:  # the parent is gone
        pass


def begin(point: Point, out: Path, peak: Peak) -> tuple[dict[str, Sample], ImageStore, Method]:
    """Open the store and train until the weights have moved once; both are timed from before it is opened."""
    peak.reset()
    started = time.perf_counter()
    store = open_store(point.store)
    opened = Sample(time.perf_counter() - started, peak.read())
    method = make_method(point, store)
    settings: dict[str, Any] = {"way": point.way, "shot": point.shot, "query": point.query, "steps": 1000}
    hook = register_optimizer_step_post_hook(begun)
    with contextlib.suppress(Begun):
        train(method, store, out=out / "run", quiet=True, tasks_per_step=TASKS, evaluate={"tasks": 2}, **settings)
    hook.remove()
    first = Sample(time.perf_counter() - started, peak.read())
    return {OPENING: opened, STARTING: first}, store, method


def begun(*_: object) -> None:
    raise Begun


def make_method(point: Point, store: ImageStore) -> Method:
    torch.manual_seed(0)
    backbone = conv4(channels=point.channels, input_shape=store.input_shape, downsample="stride", pooling="mean")
    return ProtoNet(backbone) if point.family == "ProtoNet" else MAML(backbone, inner_lr=0.1, inner_steps=1)


def afterwards(point: Point, store: ImageStore, method: Method) -> dict[str, Callable[[], object]]:
    """What the process can be asked for."""
    sampler = method.problem.sampler(store.train, point.way, point.shot, point.query)
    optimizer = torch.optim.Adam(method.parameters())
    protocol = Protocol(way=point.way, shot=point.shot, query=point.query, tasks=EVALUATED)
    number = count(1)

    def step() -> None:
        first = TASKS * next(number)
        optimizer.zero_grad()
        method(sampler.episodes(first, first + TASKS)).loss.backward()
        optimizer.step()

    def evaluate() -> None:
        evaluate_method(method, store.test, protocol)
        method.train()

    return {STEP: step, TASK: evaluate}


def timed(work: Callable[[], object], peak: Peak) -> Sample:
    peak.reset()
    started = time.perf_counter()
    work()
    return Sample(time.perf_counter() - started, peak.read())


def mapped(store: Path) -> int:
    """Bytes of a store's images that this process has in memory; 0 where the system does not say.

    They are those of the file, shared by all processes of the machine, and the system may take them back.
    """
    total, ours = 0, False
    with contextlib.suppress(OSError):
        for line in Path("/proc/self/smaps").read_text(encoding="utf-8", errors="replace").splitlines():
            key, *words = line.split()
            if not key.endswith(":"):
                ours = line.endswith(str(store / "images.npy"))
            elif ours and key == "Rss:":
                total += 1024 * int(words[0])
    return total


def takes_devices() -> bool:
    """Whether `handful train` can use several processes."""
    command: Any = typer.main.get_command(app)
    return any("--devices" in option.opts for option in command.commands["train"].params)


def train_with(devices: int, family: Family, folder: Path, steps: int) -> tuple[list[float], int]:
    """Seconds a step, one figure a row of metrics.csv, and the peak bytes of the largest of the processes, whole.

    One thread a process, on random pixels in the shape of Omniglot.
    """
    method = "{name: protonet}" if family == "ProtoNet" else "{name: maml, inner_lr: 0.1, inner_steps: 1}"
    recipe = folder / f"{family}.yaml"
    recipe.write_text(
        f"name: growth\ndata: {{name: random}}\nbackbone: {{name: conv4, channels: 32, downsample: stride}}\n"
        f"method: {method}\nevaluate: {{tasks: 2}}\ntrain: {{tasks_per_step: {TASKS}, steps: {steps}, "
        f"validate_every: {steps}, validation_tasks: 2}}\n",
        encoding="utf-8",
    )
    out = folder / f"{family}-{devices}"
    command = [sys.executable, "-m", "handful", "train", str(recipe), "--out", str(out), "--fresh", "--json"]
    surroundings = {**os.environ, "OMP_NUM_THREADS": "1", "HANDFUL_CACHE": str(folder / "cache")}
    with (folder / "said").open("w+", encoding="utf-8") as said:
        process = subprocess.Popen([*command, "--devices", str(devices)], env=surroundings, stdout=said, stderr=said)
        _, status, used = os.wait4(process.pid, 0)  # with what it started and waited for
        process.returncode = os.waitstatus_to_exitcode(status)
        if process.returncode:
            said.seek(0)
            raise Failed(f"--devices {devices}: {said.read().strip().splitlines()[-1]}")
    rows = [(int(row["step"]), float(row["seconds"])) for row in read_metrics(out / "metrics.csv")]
    spans = [(after[1] - before[1]) / (after[0] - before[0]) for before, after in pairwise(rows)]
    return spans, 1024 * used.ru_maxrss
