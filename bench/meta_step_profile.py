"""Where the time of Handful's second-order step goes: by kind of operation, and outside of all operations."""

from __future__ import annotations

import statistics
import time
from collections import defaultdict
from dataclasses import replace
from typing import Any

from torch.utils._python_dispatch import TorchDispatchMode

from handful.runtime import environment, keep_freed_memory
from meta_step_contenders import MAKERS, Setting, make_episode, make_network
from meta_step_workers import Row

KINDS = {"convolution": "convolutions", "batch_norm": "batch norms", "mm": "matrix products"}
OTHER = "element by element, sums, copies"
OUTSIDE = "outside of operations: Python and autograd"
NARROW = "the same step with 2 filters"


class Stopwatch(TorchDispatchMode):
    """Adds up the time inside of operations, by kind; what the watch itself takes is not counted."""

    def __init__(self) -> None:
        super().__init__()
        self.seconds: dict[str, float] = defaultdict(float)

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        started = time.perf_counter()
        result = func(*args, **(kwargs or {}))
        name = str(func)
        kind = next((kind for part, kind in KINDS.items() if part in name), OTHER)
        self.seconds[kind] += time.perf_counter() - started
        return result


def profile(setting: Setting, repeats: int, warmup: int) -> list[Row]:
    """Rows of seconds; on the CPU, where an operation has ended when its call returns."""
    keep_freed_memory()
    whole = step_seconds(setting, repeats, warmup)
    parts: dict[str, list[float]] = defaultdict(list)
    step = Step(setting)
    for repeat in range(warmup + repeats):
        with Stopwatch() as watch:
            step()
        for kind in (*KINDS.values(), OTHER):
            if repeat >= warmup:
                parts[kind].append(watch.seconds[kind])
    median = statistics.median(whole)
    left = median - sum(map(statistics.median, parts.values()))
    figures = {"a step": whole, **parts, OUTSIDE: [left]}
    figures[NARROW] = step_seconds(replace(setting, channels=2), repeats, warmup)
    machine = {f"machine_{key}": value for key, value in environment().items()}
    print(f"\n{setting}, second order")
    rows = []
    for name, seconds in figures.items():
        print(f"{name:<44} {statistics.median(seconds):8.4f} s {statistics.median(seconds) / median:6.0%}")
        found = {"median": statistics.median(seconds), "min": min(seconds), "max": max(seconds)}
        rows.append(
            {"measured": name, "setting": setting.name, "unit": "s", "repeats": len(seconds), **found, **machine}
        )
    return rows


class Step:
    """One outer gradient of Handful."""

    def __init__(self, setting: Setting) -> None:
        self.contender = MAKERS["Handful"](make_network(setting), setting, False)
        self.episode = make_episode(setting)

    def __call__(self) -> None:
        self.contender.outer_gradient(self.episode)


def step_seconds(setting: Setting, repeats: int, warmup: int) -> list[float]:
    """Of undisturbed steps."""
    step, seconds = Step(setting), []
    for _ in range(warmup + repeats):
        started = time.perf_counter()
        step()
        seconds.append(time.perf_counter() - started)
    return seconds[warmup:]
