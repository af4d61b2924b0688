"""Several processes: the gradients and figures of one, and what happens when one of them is told to stop or killed."""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Any

import pytest
import torch

from handful import processes
from handful.checkpoint import read_metrics
from handful.errors import HandfulError
from handful.files import read_tensors
from handful.launching import check_started
from tests.conftest import Command, ok

ROOT = Path(__file__).parents[1]
ENVIRONMENT = {**os.environ, "OMP_NUM_THREADS": "1"}
SLOWLY = ("train.steps=400", "train.validate_every=10", "train.optimizer=sgd")


def start(
    *words: str | Path, inside: tuple[str, ...] = (sys.executable,), told: Mapping[str, str] = MappingProxyType({})
) -> subprocess.Popen[str]:
    """The command line in processes of its own."""
    return subprocess.Popen(
        [*inside, *map(str, words)],
        cwd=ROOT,
        env={**ENVIRONMENT, **told},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        # what a shell starts in the background ignores Ctrl-C
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.default_int_handler),
    )


def ended(process: subprocess.Popen[str], seconds: float = 240) -> tuple[int, str, str]:
    """Its exit code and what it said."""
    try:
        out, err = process.communicate(timeout=seconds)
    except subprocess.TimeoutExpired:
        process.kill()
        raise AssertionError(f"not ended after {seconds} s: {process.communicate()}") from None
    return process.returncode, out, err


def train(
    recipe: Path, out: Path, devices: int, *changes: str, program: tuple[str | Path, ...] = ("-m", "handful")
) -> subprocess.Popen[str]:
    options = [word for change in changes for word in ("--set", change)]
    return start(*program, "train", recipe, "--out", out, "--devices", str(devices), *options)


def children(pid: int) -> list[int]:
    return [int(word) for word in Path(f"/proc/{pid}/task/{pid}/children").read_text(encoding="ascii").split()]


def wait_for_rows(out: Path, rows: int) -> None:
    until = time.monotonic() + 100
    while time.monotonic() < until:
        if len(read_metrics(out / "metrics.csv")) >= rows:
            return
        time.sleep(0.02)
    raise AssertionError(f"{out} has no {rows} rows")


def test_two_processes_descend_as_one(tmp_path: Path) -> None:
    """Every family of methods, two steps in float64."""
    found = []
    for devices in (1, 2):
        out = tmp_path / f"{devices}.pt"
        code, _, err = ended(
            start("-m", "tests.gradients", out, str(devices), told={"HANDFUL_CACHE": str(tmp_path / "cache")})
        )
        assert code == 0, err
        found.append(torch.load(out))
    one, two = found
    assert one.keys() == two.keys()
    assert len({name.split("|")[0] for name in one}) == 15
    for name, value in one.items():
        assert torch.allclose(two[name], value, rtol=1e-9, atol=1e-9), name


def test_a_run_by_two_processes(recipe_file: Path, tmp_path: Path) -> None:
    """Trained by one and by two; and both scored by one and by two."""
    changes = ("train.optimizer=sgd", "train.steps=3", "train.validate_every=1")
    runs, printed = [tmp_path / "one", tmp_path / "two"], []
    for devices, out in enumerate(runs, 1):
        code, said, err = ended(train(recipe_file, out, devices, *changes))
        assert code == 0, err
        printed.append(said)
    assert printed[1].count("accuracy") == printed[0].count("accuracy") > 0  # the second process says nothing
    one, two = (read_metrics(out / "metrics.csv") for out in runs)
    for row, other in zip(one, two, strict=True):
        for key in ("step", "loss", "score", "val_mean", "val_ci95"):
            assert (row[key] == "") == (other[key] == "")
            # float32 rounds otherwise, and batch norm over three pictures lets that grow with every step, until one
            # answer or two of a validation's 72 are others
            near = 1e-3 if key == "loss" else 0.03
            assert float(other[key] or 0) == pytest.approx(float(row[key] or 0), abs=near)
    results: list[dict[str, Any]] = []
    for count in ("1", "2"):
        words = ("-m", "handful", "evaluate", runs[1], "--tasks", "70", "--devices", count, "--json")
        code, said, err = ended(start(*words))
        assert code == 0, err
        results.append(json.loads(said))
    assert results[0]["per_task"] == results[1]["per_task"]
    assert len(results[0]["per_task"]) == 70
    assert results[0]["task_hash"] == results[1]["task_hash"]
    assert results[0]["floors"] == results[1]["floors"]


@pytest.fixture
def machines() -> Iterator[dict[str, str]]:
    """Two network namespaces, joined by one link, and the address in each: two machines, as far as a network shows."""
    names = {f"handful{os.getpid()}{end}": f"10.77.0.{number}" for number, end in enumerate("ab", 1)}
    first, second = names

    def ip(*words: str) -> None:
        done = subprocess.run(["ip", *words], capture_output=True, text=True)
        if done.returncode:
            pytest.skip(f"no network namespaces here: {done.stderr.strip()}")

    if not shutil.which("ip"):
        pytest.skip("no network namespaces here: there is no `ip`")
    try:
        for name in names:
            ip("netns", "add", name)
        ip("link", "add", "link0", "netns", first, "type", "veth", "peer", "name", "link0", "netns", second)
        for name, address in names.items():
            ip("-n", name, "addr", "add", f"{address}/24", "dev", "link0")
            for device in ("lo", "link0"):
                ip("-n", name, "link", "set", device, "up")
        yield names
    finally:
        for name in names:
            subprocess.run(["ip", "netns", "del", name], capture_output=True)


def test_two_machines(machines: dict[str, str], recipe_file: Path, tmp_path: Path, handful: Command) -> None:
    """One process on each, started by torchrun, that see each other through a network alone: as one process."""
    options = ("--set", "train.optimizer=sgd", "--set", "train.steps=3", "--set", "train.validate_every=1")
    out = tmp_path / "two"
    started = []
    for number, name in enumerate(machines):
        torchrun = (
            "-m",
            "torch.distributed.run",
            "--nnodes",
            "2",
            "--node-rank",
            str(number),
            "--master-port",
            "29511",
        )
        words = ("--master-addr", next(iter(machines.values())), "-m", "handful", "train", recipe_file, "--out", out)
        inside = ("ip", "netns", "exec", name, sys.executable)
        told = {"GLOO_SOCKET_IFNAME": "link0", "HANDFUL_CACHE": str(tmp_path / "cache")}
        started.append(start(*torchrun, *words, "--nodes", "2", *options, inside=inside, told=told))
    for process in started:
        code, _, err = ended(process, 120)
        assert code == 0, err
    ok(handful("train", recipe_file, "--out", tmp_path / "one", *options))
    assert json.loads((out / "environment.json").read_text(encoding="utf-8"))["processes"] == 2
    one, two = (read_metrics(of / "metrics.csv") for of in (tmp_path / "one", out))
    assert [float(row["loss"]) for row in two] == pytest.approx([float(row["loss"]) for row in one], abs=1e-3)


@pytest.mark.skipif(sys.platform != "linux", reason="the second process is found in /proc")
def test_one_of_two_is_killed(recipe_file: Path, tmp_path: Path) -> None:
    """The other ends by itself, and the same command goes on to what nothing has disturbed."""
    whole, out = tmp_path / "whole", tmp_path / "run"
    changes = ("train.optimizer=sgd", "train.validate_every=10", "train.steps=30")
    assert ended(train(recipe_file, whole, 2, *changes))[0] == 0
    for rows, first in ((12, False), (22, True)):
        process = train(recipe_file, out, 2, *changes)
        wait_for_rows(out, rows)
        second = children(process.pid)[0]
        os.kill(process.pid if first else second, signal.SIGKILL)
        code, _, err = ended(process)
        assert code != 0
        assert "Traceback" not in err
        until = time.monotonic() + 60
        while Path(f"/proc/{second}").exists() and time.monotonic() < until:
            time.sleep(0.1)
        assert not Path(f"/proc/{second}").exists()
    code, _, err = ended(train(recipe_file, out, 2, *changes))
    assert code == 0, err
    assert "going on from step 20" in err
    for which in ("last", "best"):
        mine, theirs = (read_tensors(of / "checkpoints" / which / "model.safetensors")[0] for of in (out, whole))
        assert all(torch.equal(value, theirs[name]) for name, value in mine.items())


@pytest.mark.skipif(sys.platform != "linux", reason="signals")
def test_told_to_stop_the_first_stops_all(recipe_file: Path, tmp_path: Path) -> None:
    """And all end, although Python turns to a waiting thread only where it must (for torch's waits on each other)."""
    greedy = tmp_path / "greedy.py"
    greedy.write_text("import sys\nsys.setswitchinterval(60)\nfrom handful.cli import main\nmain()\n", encoding="utf-8")
    out = tmp_path / "run"
    process = train(recipe_file, out, 2, *SLOWLY, program=(greedy,))
    wait_for_rows(out, 3)
    process.send_signal(signal.SIGTERM)
    started = time.monotonic()
    code, _, err = ended(process, 60)
    assert code == 130, err
    assert time.monotonic() - started < 10
    assert err.count("told to stop: saved at step") == 1
    assert err.count("the same command, without --fresh, goes on") == 1


@pytest.mark.skipif(sys.platform != "linux", reason="signals")
def test_torchrun_is_told_to_stop(recipe_file: Path, tmp_path: Path) -> None:
    """It passes the signal on to both, and the step is saved once."""
    out = tmp_path / "run"
    options = [word for change in SLOWLY for word in ("--set", change)]
    torchrun = ("-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2")
    process = start(*torchrun, "-m", "handful", "train", recipe_file, "--out", out, "--devices", "2", *options)
    wait_for_rows(out, 3)
    process.send_signal(signal.SIGTERM)
    started = time.monotonic()
    code, _, err = ended(process, 60)
    assert code != 0
    assert time.monotonic() - started < 10
    assert err.count("told to stop: saved at step") == 1
    assert (out / "checkpoints" / "last" / "training.safetensors").exists()


def test_what_processes_cannot_share(recipe_file: Path, tmp_path: Path) -> None:
    code, _, err = ended(train(recipe_file, tmp_path / "run", 2, "train.tasks_per_step=3"))
    assert code == 2
    assert err.count("handful: ") == 1
    assert "train.tasks_per_step is 3, which 2 processes cannot share evenly; set it to a multiple of 2." in err


def test_what_the_second_stage_cannot_share_is_told_before_the_first(recipe_file: Path, tmp_path: Path) -> None:
    pretrain = "pretrain={steps: 2, batch: 8, validate_every: 2, validation_tasks: 2}"
    code, _, err = ended(train(recipe_file, tmp_path / "run", 2, pretrain, "train.tasks_per_step=3"))
    assert code == 2
    assert "train.tasks_per_step is 3, which 2 processes cannot share evenly" in err
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    ("told", "message"),
    [
        ({"SLURM_NTASKS": "2"}, "What SLURM says of its processes cannot be used (You set `--ntasks=2`"),
        ({"SLURM_NTASKS": "1", "SLURM_NTASKS_PER_NODE": "1"}, "SLURM has started 1 processes, and 2 are asked for"),
    ],
)
def test_others_than_slurm_has_started(told: dict[str, str], message: str, monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in {**told, "SLURM_JOB_NAME": "job", "SLURM_JOB_ID": "1"}.items():
        monkeypatch.setenv(name, value)
    with pytest.raises(HandfulError, match=re.escape(message)):
        check_started(2)


def test_others_than_torchrun_has_started(recipe_file: Path, tmp_path: Path) -> None:
    started = {"RANK": "0", "LOCAL_RANK": "0", "WORLD_SIZE": "4", "GROUP_RANK": "0", "LOCAL_WORLD_SIZE": "4"}
    words = ("-m", "handful", "train", recipe_file, "--out", tmp_path / "run", "--devices", "2")
    code, _, err = ended(start(*words, told={**started, "TORCHELASTIC_RUN_ID": "none"}))
    assert code == 2
    assert "torchrun has started 4 processes, and 2 are asked for; say with --devices" in err


def test_shares(monkeypatch: pytest.MonkeyPatch) -> None:
    """Together they are everything, once, and none has more than one more than another."""
    for count in (0, 1, 2, 5, 12):
        for world in (1, 2, 3, 5):
            monkeypatch.setattr(processes, "world", lambda world=world: world)
            shares: list[range] = []
            for rank in range(world):
                monkeypatch.setattr(processes, "rank", lambda rank=rank: rank)
                shares.append(processes.share(count))
            assert [item for share in shares for item in share] == list(range(count))
            assert max(map(len, shares)) - min(map(len, shares)) <= 1
    with pytest.raises(HandfulError, match="batch is 12, which 5 processes"):
        processes.even_share(12, "pretrain.batch")
