"""How much memory a step takes, and how many tasks fit into it at a time.

Memory is not guessed: a step of one task is run under the profiler of torch's allocator, with one and with two inner
steps, and once with two tasks.  What is alive at the peak is a + tasks * (b + inner steps * c), which the three
measurements settle.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch

from handful.episodes import Episode
from handful.errors import HandfulError
from handful.inner_loop import random_state, set_random_state
from handful.methods import Method
from handful.processes import beside

GIB = 2**30
SHARE = 0.7  # of the free memory that a step may take if nothing is said


@dataclass(frozen=True)
class Plan:
    """How a step of `tasks` tasks is taken: `chunk` tasks at a time, the way back by `backprop`; `peak` in bytes.

    passing: how the network is passed for several tasks, where the fastest way failed.
    """

    tasks: int
    chunk: int
    backprop: str
    peak: int
    budget: int
    passing: str = ""

    def __str__(self) -> str:
        once = "at once" if self.chunk >= self.tasks else f"{self.chunk} at a time"
        kept = "recomputing inner steps on the way back" if self.backprop == "recompute" else "keeping their graph"
        passing = {"vmap": "by vmap, ", "loop": "task by task, "}.get(self.passing, "")
        return f"{self.tasks} tasks a step, {once}, {passing}{kept}: about {size(self.peak)} of {size(self.budget)}"


def size(count: float) -> str:
    """`300 KiB`, `28 MiB`, `1.2 GiB`: bytes as a person says them."""
    if count >= GIB:
        return f"{count / GIB:.1f} GiB"
    return f"{count / 2**20:.0f} MiB" if count >= 2**20 else f"{count / 2**10:.0f} KiB"


def plan(method: Method, draw: Callable[[int], Episode], tasks: int, memory_gib: float | None) -> Plan:
    """The fastest way to take a step of so many tasks within `memory_gib`, by default a share of what is free.

    draw: number of tasks -> that many tasks, as the training draws them.  Sets the method's `chunk` and `backprop`.
    Raises HandfulError if not even one task fits.
    """
    method.chunk = None
    together = method.side_by_side(draw(tasks))  # on a GPU the first draw takes the data there
    free = free_memory(method.device) / sharing(method.device)
    budget = int(memory_gib * GIB) if memory_gib else int(SHARE * free)
    needed = []
    for backprop in method.backprops:
        method.backprop = backprop
        once, more = step_peak(method, draw, together)
        chunk = together if more == 0 else min(together, int((budget - once) // more))
        if chunk >= (1 if method.divisible else together):
            method.chunk = chunk
            passing = next(iter(method.passing), "")
            return Plan(tasks, chunk, backprop, int(once + chunk * more), budget, passing)
        needed.append(once + (more if method.divisible else together * more))
    asked = "one task" if method.divisible else f"{tasks} tasks, which cannot be divided,"
    source = "" if memory_gib else f" ({SHARE:.0%} of what is free)"
    spec: Any = getattr(method, "spec", {})
    heavy = spec.get("backprop") == "graph" and not spec.get("first_order")
    lighter = "set method.backprop to auto or recompute, " if heavy else ""
    raise HandfulError(
        f"A step of {asked} needs {size(min(needed))}, but train.memory_gib allows {size(budget)}{source}; raise it, "
        f"{lighter}or lower way, shot, query or inner_steps."
    )


def leanest(plans: Sequence[Plan], backprops: Sequence[str]) -> Plan:
    """What all of several processes have the memory for; backprops: from the fastest to the one that takes least."""
    backprop = max((found.backprop for found in plans), key=backprops.index)
    least = min((found for found in plans if found.backprop == backprop), key=lambda found: found.chunk)
    return replace(least, chunk=min(found.chunk for found in plans))


def step_peak(method: Method, draw: Callable[[int], Episode], together: int) -> tuple[float, float]:
    """Bytes of a training step, as (once, for each of the tasks that are taken together)."""

    def measured(tasks: int, inner_steps: int) -> int:
        method.inner_steps = inner_steps
        episode, peaks = draw(tasks).to(method.device), []
        for method.outer_step in (0, 2**62):  # whatever is annealed, at its start and at its end
            peaks.append(peak_bytes(lambda: method(episode).loss.backward(), method.device))
        return max(peaks)

    steps, buffers = method.inner_steps, {name: value.clone() for name, value in method.named_buffers()}
    drawn, outer = random_state(method.device), method.outer_step
    try:
        few = min(steps, 2)
        one, two, pair = measured(1, 1), measured(1, few), measured(min(2, together), 1)
    finally:
        method.inner_steps, method.outer_step = steps, outer
        method.zero_grad(set_to_none=True)
        method.load_state_dict(buffers, strict=False)  # nothing was learned by this
        set_random_state(drawn, method.device)
    a_step = max(two - one, 0)
    if together == 1:
        return 0, one + (steps - 1) * a_step
    a_task = max(pair - one - a_step, 0)
    return max(one - a_step - a_task, 0), a_task + steps * a_step


def peak_bytes(work: Callable[[], Any], device: torch.device) -> int:
    """The most memory that torch's allocator holds for `work` at any moment, beyond what it held before."""
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)
        before = torch.cuda.memory_allocated(device)
        work()
        return torch.cuda.max_memory_allocated(device) - before
    os.environ.setdefault("KINETO_LOG_LEVEL", "99")  # the profiler would announce itself on standard error
    with torch.autograd.profiler.profile(profile_memory=True) as profile:
        work()
    events: Any = profile.kineto_results
    changes = sorted((event.start_ns(), event.nbytes()) for event in events.events() if event.name() == "[memory]")
    held = peak = 0
    for _, change in changes:
        held += change
        peak = max(peak, held)
    return peak


def free_memory(device: torch.device) -> int:
    """Bytes that can still be had: of the GPU, or of the machine or the container around this process."""
    if device.type == "cuda":
        return torch.cuda.mem_get_info(device)[0]
    limits = [_available(), _left_in_container()]
    return min(limit for limit in limits if limit is not None)


def sharing(device: torch.device) -> int:
    """How many processes have a device's memory together: those of this machine on a CPU.  All must ask at once."""
    return beside() if device.type == "cpu" else 1


def _available() -> int:
    """What the system says can be had without swapping."""
    try:
        lines = Path("/proc/meminfo").read_text(encoding="ascii").splitlines()
        return next(int(line.split()[1]) * 1024 for line in lines if line.startswith("MemAvailable"))
    except (OSError, StopIteration, ValueError):
        return 4 * GIB  # not Linux: what any machine has


def _left_in_container() -> int | None:
    """What a control group leaves, if it sets a limit."""
    group = Path("/sys/fs/cgroup")
    try:
        limit, used = ((group / name).read_text(encoding="ascii") for name in ("memory.max", "memory.current"))
        return None if limit.strip() == "max" else int(limit) - int(used)
    except (OSError, ValueError):
        return None
