"""bench/meta_step.py: its contenders compute the same, it refuses those that do not, and it runs end to end."""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

BENCH = Path(__file__).parents[1] / "bench"
MODES = ("second order", "first order", "test time", "test time, every step")
# 84x84 is slow in float64, so two of its tasks must do, and its way through pooling matters in second order most
CASES = [
    *((setting, mode) for setting in ("omniglot", "note002") for mode in MODES),
    ("84x84", "second order"),
]


@pytest.fixture
def bench(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    """The bench's list of contenders, imported by its path as the script does."""
    monkeypatch.syspath_prepend(str(BENCH))
    import meta_step_contenders

    return meta_step_contenders


def compared(bench: ModuleType, name: str) -> Any:
    """The setting in which results are compared."""
    setting = bench.SETTINGS[name]
    return replace(setting, tasks=2) if name == "84x84" else setting


def run(*arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, str(BENCH / "meta_step.py"), "--threads", "1", *arguments]
    return subprocess.run(command, capture_output=True, text=True, env={**os.environ, **environment})


@pytest.mark.parametrize(("setting", "mode"), CASES)
@pytest.mark.parametrize("library", ["higher", "torchopt"])
def test_libraries_compute_the_same(bench: ModuleType, library: str, setting: str, mode: str) -> None:
    pytest.importorskip(library, reason=f"{library} is not installed; the extra brings it: pip install handful[bench]")
    errors = bench.disagreement(compared(bench, setting), mode, [library])
    assert errors[library] < 1e-8


@pytest.mark.parametrize(("setting", "mode"), CASES)
def test_handful_computes_the_same(bench: ModuleType, setting: str, mode: str) -> None:
    found = compared(bench, setting)
    errors = bench.disagreement(found, mode, bench.contenders(found, mode, ()))
    assert "Handful" in errors
    assert max(errors.values()) < 1e-8


def test_orders_differ(bench: ModuleType) -> None:
    """Or agreement in second order would say nothing."""
    gradients = []
    for first_order in (False, True):
        setting = bench.SETTINGS["tiny"]
        plain = bench.PlainLoop(bench.make_network(setting), setting, first_order)
        plain.outer_gradient(bench.make_episode(setting))
        gradients.append(torch.cat([p.grad.flatten() for p in plain.parameters]))
    second, first = gradients
    assert (second - first).norm() > 1e-3 * second.norm()


def test_contenders_that_differ_are_not_timed(
    bench: ModuleType, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    import meta_step

    class Careless(bench.PlainLoop):  # type: ignore[name-defined, misc]
        def outer_gradient(self, episode: Any) -> None:
            super().outer_gradient(episode._replace(query_y=episode.query_y.flip(1)))

    monkeypatch.setitem(bench.MAKERS, "Handful", Careless)
    options = argparse.Namespace(mode=None, device="cpu")
    assert meta_step.compare(bench.SETTINGS["tiny"], options) is None
    assert "Handful is" in capsys.readouterr().out


@pytest.mark.parametrize("mode", MODES[:2])
def test_operations_are_counted_right(bench: ModuleType, mode: str) -> None:
    """Handful does what the hand count says; autograd's own second derivatives do a little more.

    One task, for the counter is wrong about the weights' gradient of grouped convolutions.
    """
    setting = replace(bench.SETTINGS["omniglot"], tasks=1)
    counted = {}
    for name in ("plain loop", "Handful"):
        contender = bench.MAKERS[name](bench.make_network(setting), setting, mode == "first order")
        with FlopCounterMode(display=False) as counter:
            contender.outer_gradient(bench.make_episode(setting))
        counted[name] = counter.get_total_flops()
    needed = bench.step_flops(setting, mode)
    assert counted["Handful"] == pytest.approx(needed)
    assert needed <= counted["plain loop"] < 1.1 * needed


def test_runs_end_to_end(tmp_path: Path) -> None:
    rows_file = tmp_path / "rows.json"
    mode = "second order"
    done = run("--setting", "tiny", "--mode", mode, "--repeats", "2", "--warmup", "1", "--json", str(rows_file))
    assert done.returncode == 0, done.stderr
    assert "all agree in float64" in done.stdout
    rows = json.loads(rows_file.read_text(encoding="utf-8"))
    assert {"plain loop", "Handful"} <= {row["contender"] for row in rows}
    for row in rows:
        assert row["left_out"] is None or row["allocator"] == "kept"  # which needs glibc
        if row["left_out"] is None:
            assert 0 < row["min"] <= row["median"] <= row["max"]
            assert (row["repeats"], row["unit"], row["mode"]) == (2, "s", mode)
            assert row["cpu"] > 0
            assert row["machine_torch"]


def test_goals_compare_each_as_installed(
    bench: ModuleType, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    import meta_step
    from meta_step_workers import Sample

    def pretend(jobs: Any, repeats: int, warmup: int) -> dict[Any, Any]:
        """Handful takes 1 s, and 2 s on the default allocator; the others take 3 s on the default and 2 s else."""
        seconds = {("Handful", "kept"): 1.0, ("Handful", "default"): 2.0, ("plain loop", "default"): 3.0}
        return {job: [Sample(seconds.get((job.contender, job.allocator), 2.0), 1.0, 2**20)] * 2 for job in jobs}

    monkeypatch.setattr(meta_step, "measure", pretend)
    options = argparse.Namespace(mode=None, device="cpu", threads=1, repeats=2, warmup=0)
    rows = meta_step.compare(bench.SETTINGS["tiny"], options)
    assert rows is not None
    meta_step.report_goals(rows)
    goals = {row["measured"]: row for row in rows if row["measured"].startswith("goal")}
    first = goals["goal: tiny, first order, times as fast as the plain loop, as installed"]
    assert (first["median"], first["unit"], first["goal"], first["reached"]) == (3.0, "x", 1.5, True)
    memory = goals["goal: tiny, second order, peak memory of the plain loop over Handful's, as installed"]
    assert (memory["median"], memory["reached"]) == (1.0, True)
    assert "reached      tiny: first order" in capsys.readouterr().out


def test_growth_stops_at_the_limits_and_is_drawn(
    bench: ModuleType, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    import meta_step_growth
    from meta_step_workers import Sample

    def pretend(jobs: Any, repeats: int, warmup: int) -> dict[Any, Any]:
        return {job: [Sample(float(job.setting.tasks), 1.0, 2**20)] for job in jobs}

    monkeypatch.setattr(meta_step_growth, "measure", pretend)
    options = argparse.Namespace(largest=100, threads=1, device="cpu", repeats=1, warmup=0)
    rows = meta_step_growth.growth(bench.SETTINGS["tiny"], options)
    tasks = {row["size"]: row["left_out"] for row in rows if row["axis"] == "tasks" and row["contender"] == "Handful"}
    assert tasks[32] is None  # measured: 32 s, which is too long for the next
    assert "32 s at 32" in tasks[64]
    meta_step_growth.draw_growth(rows, tmp_path / "growth.png")
    assert (tmp_path / "growth.png").stat().st_size > 10_000


def test_profile(tmp_path: Path) -> None:
    rows_file = tmp_path / "rows.json"
    done = run("--profile", "--setting", "tiny", "--repeats", "2", "--warmup", "1", "--json", str(rows_file))
    assert done.returncode == 0, done.stderr
    rows = {row["measured"]: row for row in json.loads(rows_file.read_text(encoding="utf-8"))}
    parts = [row["median"] for name, row in rows.items() if name not in ("a step", "the same step with 2 filters")]
    assert sum(parts) == pytest.approx(rows["a step"]["median"])
    assert rows["convolutions"]["median"] > 0
    assert rows["batch norms"]["median"] > 0
    assert "convolutions" in done.stdout


@pytest.mark.skipif(torch.cuda.is_available(), reason="this machine has a GPU")
def test_a_gpu_that_is_not_there() -> None:
    done = run("--device", "cuda")
    assert done.returncode == 2
    assert "torch sees no GPU" in done.stderr
    assert "Traceback" not in done.stderr
