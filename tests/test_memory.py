"""Memory of a step: measured and planned before the first one, kept to when resumed, and flat over many."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F

from handful import memory
from handful.data.store import ImageStore
from handful.episodes import Episode, EpisodeSampler
from handful.errors import HandfulError
from handful.files import read_tensors
from handful.memory import GIB, Plan, leanest, peak_bytes, plan, size, step_peak
from handful.methods import ANIL, MAML, GradientBased, MAMLPlusPlus, Reptile
from handful.recipe import load_recipe
from handful.training import train_recipe
from tests.methods.family import made_for
from tests.test_training import trained, weights

CPU = torch.device("cpu")


def made(store: ImageStore, method: Callable[..., GradientBased] = MAML, **options: Any) -> GradientBased:
    return made_for(store, method, channels=16, **options)


def draw(store: ImageStore, query: int = 4) -> Callable[[int], Episode]:
    sampler = EpisodeSampler(store.train, 3, 2, query)
    return lambda tasks: sampler.episodes(0, tasks)


def peak_of_a_step(method: GradientBased, episode: Episode) -> int:
    method(episode).loss.backward()  # once before, for what is made at a first call
    return peak_bytes(lambda: method(episode).loss.backward(), CPU)


def test_peak_is_what_is_alive_at_once() -> None:
    """Not the sum of what was allocated: a tensor that is gone counts no more."""
    size = 1 << 20

    def work() -> None:
        for _ in range(3):
            held = torch.ones(size, dtype=torch.uint8)
            del held
        pair = [torch.ones(size, dtype=torch.uint8) for _ in range(2)]
        del pair

    assert peak_bytes(work, CPU) == 2 * size
    assert peak_bytes(lambda: None, CPU) == 0


def test_several_processes_take_what_all_have_the_memory_for() -> None:
    roomy, less = Plan(8, 8, "graph", 400, 500), Plan(8, 3, "graph", 150, 200)
    least = Plan(8, 4, "recompute", 80, 100)
    found = [leanest([roomy, other], ["graph", "recompute"]) for other in (roomy, less, least)]
    assert [(plan.backprop, plan.chunk) for plan in found] == [("graph", 8), ("graph", 3), ("recompute", 4)]


@pytest.mark.parametrize(
    ("method", "options", "query", "chunk"),
    [
        (MAML, {"inner_steps": 5}, 4, 6),
        (MAML, {"inner_steps": 5}, 9, 2),  # queries are passed task by task
        (MAML, {"inner_steps": 10, "backprop": "recompute"}, 4, 6),
        (MAMLPlusPlus, {"inner_steps": 4}, 4, 6),
        (ANIL, {"inner_steps": 5}, 4, 6),
        (MAML, {"inner_steps": 3, "first_order": True}, 4, 6),
        (Reptile, {"inner_steps": 5}, 4, 6),
    ],
)
def test_the_estimate_is_near_what_a_step_takes(
    store: ImageStore, method: Callable[..., GradientBased], options: dict[str, Any], query: int, chunk: int
) -> None:
    """From one and two tasks and steps, within a quarter."""
    ready = made(store, method, **options)
    once, more = step_peak(ready, draw(store, query), chunk)
    ready.chunk = chunk
    taken = peak_of_a_step(ready, draw(store, query)(6))
    assert once + chunk * more == pytest.approx(taken, rel=0.25)


def test_a_smaller_budget_holds_fewer_tasks_and_then_recomputes(store: ImageStore) -> None:
    """What is chosen fits the budget when it is measured, and one task more would not have been planned."""
    method = made(store, inner_steps=4)
    once, more = step_peak(method, draw(store), 8)
    method.backprop = "recompute"
    _, light = step_peak(method, draw(store), 8)
    assert light < more / 2
    plans = {}
    for share in (8.2, 2.2, 1.01, 0.7):
        budget = once + share * more
        method = made(store, inner_steps=4)
        found = plan(method, draw(store), 8, budget / GIB)
        assert (method.chunk, method.backprop) == (found.chunk, found.backprop)
        assert found.peak <= found.budget <= budget
        plans[share] = (found.chunk, found.backprop)
        assert peak_of_a_step(method, draw(store)(8)) < 1.25 * budget + 8 * 2**10
    assert [plans[share] for share in (8.2, 2.2, 1.01)] == [(n, "graph") for n in (8, 2, 1)]
    assert plans[0.7][1] == "recompute"


def test_a_way_back_that_was_asked_for_is_kept(store: ImageStore) -> None:
    for backprop in ("graph", "recompute"):
        assert plan(made(store, backprop=backprop), draw(store), 4, 10).backprop == backprop
    method = made(store, inner_steps=4, backprop="graph")
    once, more = step_peak(method, draw(store), 4)
    with pytest.raises(HandfulError, match="A step of one task needs"):
        plan(method, draw(store), 4, (once + 0.7 * more) / GIB)


def test_a_step_that_does_not_fit_is_refused_with_the_numbers(
    store: ImageStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What is needed and what is allowed, and by whom: the least of the ways back."""
    monkeypatch.setattr(
        memory, "step_peak", lambda method, draw, together: (GIB, (2 if method.backprop == "graph" else 1) * GIB)
    )
    with pytest.raises(HandfulError) as refusal:
        plan(made(store), draw(store), 4, 1.5)
    assert str(refusal.value) == (
        "A step of one task needs 2.0 GiB, but train.memory_gib allows 1.5 GiB; raise it, or lower way, shot, query or "
        "inner_steps."
    )
    with pytest.raises(HandfulError, match=r"raise it, set method.backprop to auto or recompute, or lower way"):
        plan(made(store, backprop="graph"), draw(store), 4, 1.5)
    monkeypatch.setattr(memory, "free_memory", lambda device: 2 * GIB)
    with pytest.raises(HandfulError, match=r"allows 1.4 GiB \(70% of what is free\); raise it"):
        plan(made(store), draw(store), 4, None)


def test_what_is_planned_without_a_word_is_a_share_of_what_is_free(
    store: ImageStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(memory, "free_memory", lambda device: 10 * GIB)
    monkeypatch.setattr(memory, "step_peak", lambda method, draw, together: (0.5 * GIB, 2 * GIB))
    found = plan(made(store), draw(store), 16, None)
    assert found == Plan(16, 3, "graph", int(6.5 * GIB), 7 * GIB, "folded")


def test_the_plan_in_words() -> None:
    graph, recomputed = Plan(16, 16, "graph", GIB // 4, 7 * GIB), Plan(16, 3, "recompute", 6 * GIB, 7 * GIB)
    assert [size(count) for count in (2**19, 2**20, GIB)] == ["512 KiB", "1 MiB", "1.0 GiB"]
    assert str(graph) == "16 tasks a step, at once, keeping their graph: about 256 MiB of 7.0 GiB"
    assert (
        str(recomputed)
        == "16 tasks a step, 3 at a time, recomputing inner steps on the way back: about 6.0 GiB of 7.0 GiB"
    )
    for passing, said in (("folded", ""), ("vmap", "by vmap, "), ("loop", "task by task, ")):
        expected = f"16 tasks a step, at once, {said}keeping their graph: about 256 MiB of 7.0 GiB"
        assert str(replace(graph, passing=passing)) == expected


def test_the_plan_says_how_a_network_that_cannot_be_folded_is_passed(store: ImageStore) -> None:
    method = made(store)
    method.backbone.register_forward_hook(lambda module, inputs, features: features.clone())
    assert plan(method, draw(store), 4, 10).passing == "vmap"


@pytest.mark.parametrize("method", [MAML, MAMLPlusPlus, Reptile])
def test_nothing_is_learned_by_the_measurement(store: ImageStore, method: Callable[..., GradientBased]) -> None:
    """Weights, buffers, Adam's moments, norms of every step, gradients, settings and random numbers are as before."""
    ready = made(store, method)
    ready.backbone.register_forward_hook(lambda module, inputs, features: F.dropout(features, 0.2))
    ready(draw(store)(2)).loss.backward()  # so that there is something in the buffers
    ready.zero_grad()
    ready.outer_step = 7
    before = {name: value.clone() for name, value in ready.state_dict().items()}
    drawn, steps = torch.get_rng_state(), ready.inner_steps
    plan(ready, draw(store), 4, 10)
    assert torch.equal(torch.get_rng_state(), drawn)
    assert all(torch.equal(value, before[name]) for name, value in ready.state_dict().items())
    assert all(p.grad is None for p in ready.parameters())
    assert (ready.inner_steps, ready.outer_step) == (steps, 7)


def test_first_order_steps_are_planned_for_the_second_order_that_follows(store: ImageStore) -> None:
    """Derivative-order annealing must not run out of memory when it ends."""
    options = {"multi_step_epochs": 0, "per_step_norm": False, "per_step_rates": False, "inner_steps": 4}
    annealed, second = made(store, MAMLPlusPlus, first_order_steps=100, **options), made(store, inner_steps=4)
    assert sum(step_peak(annealed, draw(store), 4)) == pytest.approx(sum(step_peak(second, draw(store), 4)), rel=0.05)
    first = made(store, inner_steps=4, first_order=True)
    assert sum(step_peak(first, draw(store), 4)) < 0.8 * sum(step_peak(second, draw(store), 4))


def test_the_plan_is_printed_and_a_resumed_run_keeps_to_it(
    recipe_file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Although less is free by then: its sums are the same to the last bit.  What is asked anew is planned anew."""
    chunks: list[int] = []

    def planned(method: Any, draw: Any, tasks: int, memory_gib: float | None) -> Plan:
        chunks.append(3 if not chunks else 1)
        method.chunk = chunks[-1]
        return Plan(tasks, chunks[-1], method.backprops[0], GIB, 2 * GIB)

    monkeypatch.setattr("handful.training.plan", planned)
    train_recipe(load_recipe(str(recipe_file)), tmp_path / "whole")
    assert "4 tasks a step, 3 at a time, keeping their graph: about 1.0 GiB of 2.0 GiB" in capsys.readouterr().err
    chunks.clear()
    trained(recipe_file, tmp_path / "broken", max_minutes=0)
    assert chunks == [3]
    path = tmp_path / "broken" / "checkpoints" / "last" / "training.safetensors"
    assert json.loads(read_tensors(path)[1]["progressed"])["chunk"] == 3
    resumed = trained(recipe_file, tmp_path / "broken")
    assert chunks == [3]  # not planned again
    assert resumed.method.chunk == 3
    whole = read_tensors(tmp_path / "whole" / "checkpoints" / "last" / "model.safetensors")[0]
    assert all(torch.equal(value, whole[name]) for name, value in weights(resumed).items())
    other = trained(recipe_file, tmp_path / "broken", "train.memory_gib=1")
    assert other.method.chunk == chunks[-1] == 1
    trained(recipe_file, tmp_path / "broken", "method.backprop=recompute")
    assert len(chunks) == 3


SYSTEM = {
    "/proc/meminfo": "MemTotal:       24683520 kB\nMemFree: 1 kB\nMemAvailable:    8388608 kB\n",
    "/sys/fs/cgroup/memory.max": "4294967296\n",
    "/sys/fs/cgroup/memory.current": "1073741824\n",
}


@pytest.mark.parametrize(
    ("changes", "free"),
    [
        ({}, 3 * GIB),  # the container's limit less what it uses
        ({"/sys/fs/cgroup/memory.max": "max\n"}, 8 * GIB),
        ({"/sys/fs/cgroup/memory.max": None}, 8 * GIB),
        ({"/sys/fs/cgroup/memory.max": f"{64 * GIB}"}, 8 * GIB),
        ({"/proc/meminfo": None, "/sys/fs/cgroup/memory.max": None}, 4 * GIB),  # not Linux
        ({"/proc/meminfo": "MemTotal: 1 kB\n", "/sys/fs/cgroup/memory.max": "max"}, 4 * GIB),
    ],
)
def test_what_is_free_is_the_least_of_machine_and_container(
    changes: dict[str, str | None], free: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    files = {**SYSTEM, **changes}

    def read(path: Path, **_: Any) -> str:
        content = files.get(path.as_posix())
        if content is None:
            raise FileNotFoundError(path)
        return content

    monkeypatch.setattr(Path, "read_text", read)
    assert memory.free_memory(CPU) == free


FLAT = """
import re, sys, torch
from pathlib import Path
import handful as hf
from handful.episodes import Episode
from handful.runtime import keep_freed_memory
torch.set_num_threads(1)
keep_freed_memory()
torch.manual_seed(0)
method = hf.methods.MAML(hf.backbones.conv4(channels=24, input_shape=(1, 16, 16), downsample="stride"), inner_steps=2,
    rates="per_tensor", backprop=sys.argv[1])
method.attach_head(3)
method.train()
adam = torch.optim.Adam(method.parameters())
y = torch.arange(3).repeat(4, 1)

def resident():
    return int(re.search(r"VmRSS:\\s+(\\d+)", Path("/proc/self/status").read_text()).group(1)) / 1024

for step in range(1, 201):
    adam.zero_grad()
    method(Episode(torch.rand(4, 3, 1, 16, 16), y, torch.rand(4, 3, 1, 16, 16), y)).loss.backward()
    adam.step()
    if step == 20:
        before = resident()
print(before, resident() - before)
"""


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="the resident set is read from /proc")
@pytest.mark.parametrize("backprop", ["graph", "recompute"])
def test_memory_is_flat_over_two_hundred_steps(backprop: str) -> None:
    """No graph outlives its step: 180 of them add less than 4 MiB, where to keep them would take hundreds."""
    ran = subprocess.run(
        [sys.executable, "-c", FLAT, backprop], capture_output=True, text=True, check=True, env=os.environ
    )
    before, grown = map(float, ran.stdout.split())
    assert before > 50
    assert grown < 4
