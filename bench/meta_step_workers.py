"""How bench/meta_step.py measures: a process for each contender, asked in turn for one step each.

A process of its own, because the allocator's settings hold for a whole process and so does its peak memory.  In turn,
because a machine's speed changes over minutes and must change for all alike.
"""

from __future__ import annotations

import contextlib
import resource
import statistics
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any, Literal, NamedTuple

import torch

from handful.runtime import environment, keep_freed_memory
from meta_step_contenders import MAKERS, OUTER_LR, TRAINING, Mode, Setting, library_versions, make_episode, make_network
from workers import Failed, Worker

Allocator = Literal["default", "kept"]
MATRIX_PRODUCT = "matrix product"
PRODUCT_SIZE = {"cpu": 2048, "cuda": 8192}

# After a parallel region the idle threads of OpenMP spin before they sleep.  Measured with libgomp and torch 2.13 on
# two cores: 5 to 7 ms of CPU in all, over within 20 ms.  So the next process starts after a pause, undisturbed, and
# OMP_WAIT_POLICY stays as it is (PASSIVE would slow the steps themselves).
PAUSE = 0.05
PRELOADED = ("torch", "torch.optim", "handful.methods")


@dataclass(frozen=True)
class Job:
    """What one process measures."""

    contender: str
    mode: Mode
    allocator: Allocator
    setting: Setting
    threads: int
    device: str

    @property
    def as_installed(self) -> bool:
        """Handful sets the allocator itself whenever it trains; the others leave it alone."""
        return self.device != "cpu" or self.allocator == ("kept" if self.contender.startswith("Handful") else "default")


class Sample(NamedTuple):
    """One step: seconds by the clock, seconds of CPU over all threads, bytes at the peak."""

    wall: float
    cpu: float
    peak: float


Row = dict[str, Any]


def measure(jobs: Sequence[Job], repeats: int, warmup: int) -> dict[Job, list[Sample] | str]:
    """Samples of every job, or the reason why it has none; the jobs take turns."""
    results: dict[Job, list[Sample] | str] = {}
    workers = [Worker(job, serve, PRELOADED) for job in jobs]
    try:
        for worker in workers:
            results[worker.job] = []
            try:
                worker.answer()
            except Failed as failure:
                results[worker.job] = str(failure)
        for turn in range(warmup + repeats):
            first = turn % len(workers)  # nobody always follows the same neighbour
            for worker in workers[first:] + workers[:first]:
                samples = results[worker.job]
                if isinstance(samples, str):
                    continue
                time.sleep(PAUSE)
                try:
                    sample = worker.ask("step")
                except Failed as failure:
                    results[worker.job] = str(failure)
                    continue
                if turn >= warmup:
                    samples.append(sample)
    finally:
        for worker in workers:
            worker.stop()
    return results


def serve(connection: Connection[Any, Any], job: Job) -> None:
    """The process: get ready, then one step for each request."""
    try:
        step, peak = prepare(job)
        connection.send(None)
        while connection.recv() == "step":
            connection.send(timed(step, peak, job.device))
    except (RuntimeError, MemoryError, ImportError) as error:  # torch says RuntimeError when memory ends
        connection.send(f"{type(error).__name__}: {str(error).splitlines()[0]}")
    except EOFError:  # the parent is gone
        pass


def prepare(job: Job) -> tuple[Callable[[], object], Peak]:
    """The step, and what tells its peak memory from here on."""
    torch.set_num_threads(job.threads)
    if job.allocator == "kept" and not keep_freed_memory():
        raise RuntimeError("this system's allocator cannot be told to keep freed memory")
    if job.contender == MATRIX_PRODUCT:
        # The rate that the convolutions could reach: on a GPU these may use TF32 unless told otherwise.
        torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32
        a = torch.rand(PRODUCT_SIZE[job.device], PRODUCT_SIZE[job.device], device=job.device)
        return (lambda: a @ a), Peak(job.device)
    episode = make_episode(job.setting).to(torch.device(job.device))
    touch_kernels(job.device)
    peak = Peak(job.device)
    contender = MAKERS[job.contender](make_network(job.setting).to(job.device), job.setting, job.mode == "first order")
    if job.mode not in TRAINING:
        return (lambda: contender.predict(episode, job.mode == "test time, every step")), peak
    optimizer = torch.optim.Adam(contender.parameters, lr=OUTER_LR)

    def step() -> None:
        optimizer.zero_grad()
        contender.outer_gradient(episode)
        optimizer.step()

    return step, peak


def touch_kernels(device: str) -> None:
    """Load what torch loads on first use (75 MiB with the first optimizer): no contender is to be charged with it."""
    layer = torch.nn.Conv2d(1, 8, 3).to(device)
    optimizer = torch.optim.Adam(layer.parameters())
    layer(torch.rand(2, 1, 8, 8, device=device)).square().sum().backward()
    optimizer.step()


def timed(step: Callable[[], object], peak: Peak, device: str) -> Sample:
    """One step."""
    peak.reset()
    started, used = time.perf_counter(), time.process_time()
    step()
    if device == "cuda":
        torch.cuda.synchronize()
    wall, cpu = time.perf_counter() - started, time.process_time() - used
    return Sample(wall, cpu, peak.read())


class Peak:
    """Peak memory since `reset`, above what was in use when this was made: resident set, or what CUDA allocated."""

    def __init__(self, device: str) -> None:
        self.device = device
        self.base = 0
        self.reset()
        self.base = self.read()

    def reset(self) -> None:
        if self.device == "cuda":
            torch.cuda.synchronize()
            torch.cuda.reset_peak_memory_stats()
            return
        with contextlib.suppress(OSError):  # where the mark cannot be reset, it is the whole process's
            Path("/proc/self/clear_refs").write_text("5")

    def read(self) -> int:
        if self.device == "cuda":
            return torch.cuda.max_memory_allocated() - self.base
        return resident_peak() - self.base


def resident_peak() -> int:
    """Bytes at the peak, without the pages of library code, which are loaded as they are first run.

    VmHWM where there is one, for after an exec ru_maxrss still holds the parent's peak.
    """
    with contextlib.suppress(OSError, KeyError):
        lines = (line.split() for line in Path("/proc/self/status").read_text(encoding="ascii").splitlines())
        status = {words[0]: int(words[1]) for words in lines if words[-1] == "kB"}
        return 1024 * (status["VmHWM:"] - status["RssFile:"])
    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit


def median_wall(samples: Sequence[Sample]) -> float:
    return statistics.median(sample.wall for sample in samples)


def matrix_rate(samples: Sequence[Sample], device: str) -> float:
    """Floating-point operations a second."""
    return 2 * PRODUCT_SIZE[device] ** 3 / median_wall(samples)


def make_row(job: Job, samples: list[Sample] | str, rate: float, flops: int) -> Row:
    """What was measured, flat; without figures, and with the reason, where it could not be."""
    machine = environment()
    row: Row = {
        "measured": f"{job.setting.name}, {job.mode}, {job.contender}, allocator {job.allocator}",
        "setting": job.setting.name,
        "mode": job.mode,
        "contender": job.contender,
        "allocator": job.allocator,
        "as_installed": job.as_installed,
        **{name: getattr(job.setting, name) for name in ("tasks", "way", "shot", "query", "steps")},
        "unit": "s",
        **dict.fromkeys(("median", "min", "max", "cpu", "peak_mib", "matrix_share", "left_out")),
        "repeats": 0,
        "gflop": flops / 1e9,
        "matrix_gflops": rate / 1e9,
        "device": job.device,
        **{f"machine_{key}": machine[key] for key in ("cpu", "cores", "torch", "python", "commit", "gpu")},
        "machine_threads": job.threads,
        **{f"machine_{name}": found for name, found in library_versions().items()},
    }
    if isinstance(samples, str):
        return {**row, "left_out": samples}
    walls = [sample.wall for sample in samples]
    return {
        **row,
        "repeats": len(samples),
        "median": median_wall(samples),
        "min": min(walls),
        "max": max(walls),
        "cpu": statistics.median(sample.cpu for sample in samples),
        "peak_mib": max(sample.peak for sample in samples) / 2**20,
        "matrix_share": flops / median_wall(samples) / rate,
    }


def on_threads(count: int) -> str:
    return "1 thread" if count == 1 else f"{count} threads"
