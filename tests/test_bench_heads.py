"""bench/heads.py: its forms compute the same, it refuses those that do not, and it runs end to end."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode

BENCH = Path(__file__).parents[1] / "bench"


@pytest.fixture
def bench(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    """The script as a module."""
    monkeypatch.syspath_prepend(str(BENCH))
    import heads

    return heads


def run(*arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, str(BENCH / "heads.py"), "--threads", "1", *arguments]
    return subprocess.run(command, capture_output=True, text=True)


FORMS = [
    "tiny",
    "glofa-tiny",
    "conv4-5w1s",
    "conv4-5w5s",
    "glofa-5w5s-8tasks",
    "prototypes-tiny",
    "prototypes-unit-tiny",
]


@pytest.mark.parametrize("setting", FORMS)
def test_forms_compute_the_same(bench: ModuleType, setting: str) -> None:
    assert bench.disagreement(bench.SETTINGS[setting], "cpu")[0] < bench.TOLERANCE


def test_the_published_form_of_frn_is_its_equation(bench: ModuleType) -> None:
    """Q (S^T S + penalty I)^-1 S^T S rho, by an explicit inverse."""
    setting = bench.SETTINGS["tiny"]
    query, support, *_ = setting.inputs("cpu", torch.float64)
    penalty, rho = torch.full((1, setting.way), 0.25, dtype=torch.float64), torch.tensor(0.75, dtype=torch.float64)
    gram = support[0].mT @ support[0]
    hat = torch.linalg.inv(gram + 0.25 * torch.eye(setting.d, dtype=torch.float64)) @ gram
    expected = (query[0].unsqueeze(1) - rho * query[0].unsqueeze(1) @ hat).square().sum(-1).mean(-1)  # [Q, N]
    torch.testing.assert_close(bench.published_frn(query, support, penalty, rho)[0], expected)


def test_the_read_out_has_the_shapes_of_note_003(bench: ModuleType) -> None:
    setting = bench.SETTINGS["prototypes-read-out"]
    assert (setting.tasks, setting.queries, setting.way, setting.d) == (2, 65_536, 10, 128)
    query, keys = setting.inputs("cpu", torch.float32, 5)
    assert (query.shape, keys.shape) == ((2, 5, 128), (2, 10, 128))
    made: list[tuple[int, ...]] = []

    class Watch(TorchFunctionMode):
        def __torch_function__(
            self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
        ) -> Any:
            result = func(*args, **(kwargs or {}))
            made.extend([tuple(result.shape)] if isinstance(result, Tensor) else [])
            return result

    for form, held in ((bench.published_read_out, True), (bench.read_out, False)):
        made.clear()
        with Watch():
            assert form(query, keys).shape == (2, 5, 128)
        assert ((2, 5, 10, 128) in made) == held


@pytest.mark.parametrize("wrong", ["value", "gradient", "nothing"])
def test_forms_that_differ_are_not_timed(
    bench: ModuleType, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], wrong: str
) -> None:
    def careless(query: Tensor, support: Tensor, penalty: Tensor, rho: Tensor) -> Tensor:
        found = bench.distances(query, support, penalty, rho.detach() if wrong == "gradient" else rho)
        changed: dict[str, Tensor] = {"value": 1.001 * found, "nothing": found * torch.nan}
        return changed.get(wrong, found + 0 * rho)

    monkeypatch.setitem(bench.FRN_FORMS, "auto", careless)
    monkeypatch.setattr(sys, "argv", ["heads.py", "--setting", "tiny"])
    threads = torch.get_num_threads()
    try:
        assert bench.main() == 1
    finally:
        torch.set_num_threads(threads)
    assert "auto is" in capsys.readouterr().out


def test_runs_end_to_end(tmp_path: Path) -> None:
    rows_file = tmp_path / "rows.json"
    settings = [word for name in ("tiny", "glofa-tiny", "prototypes-tiny") for word in ("--setting", name)]
    done = run(*settings, "--seconds", "0", "--json", str(rows_file))
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("all agree in float64") == 3
    rows = json.loads(rows_file.read_text(encoding="utf-8"))
    measured = [row for row in rows if row["form"]]
    assert len(measured) == 2 * (5 + 2 + 2)  # passes and forms
    for row in measured:
        assert 0 < row["min"] <= row["median"] <= row["max"]
        assert (row["repeats"], row["unit"]) == (3, "s")
        assert row["peak_mib"] > 0
        assert row["machine_torch"]
    goals = [row for row in rows if not row["form"]]
    assert {row["measured"] for row in goals} == {
        f"goal: {name}, {passes}, {goal}"
        for name, goal in (
            ("tiny", "times as fast as the best form"),
            ("glofa-tiny", "times as fast as published"),
            ("prototypes-tiny", "times as fast as published"),
            ("prototypes-tiny", "peak memory of the published form over its own"),
        )
        for passes in ("forward", "forward and backward")
    }
    assert all(row["reached"] == (row["median"] >= row["goal"]) for row in goals)


def test_goals(bench: ModuleType) -> None:
    row: dict[str, Any] = {"setting": "pretraining-16", "pass": "forward"}
    row |= {"times_best": 1.0, "times_published": 9.0, "memory_of_published": 1.5}
    found = {name.split(", ")[2]: figure >= least for name, figure, least in bench.goals(row)}
    assert found == {
        "times as fast as the best form": True,
        "times as fast as published": True,
        "peak memory of the published form over its own": False,
    }
    assert [least for *_, least in bench.goals({**row, "setting": "prototypes-read-out"})] == [5, 5]
    assert not list(bench.goals({**row, "setting": "prototypes-unit"}))
    way = {"glofa-5w5s": 3, "glofa-20w5s": 10}
    assert {name: next(bench.goals({**row, "setting": name}))[2] for name in way} == way


def test_what_does_not_fit_the_memory_is_left_out(
    bench: ModuleType, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(bench, "free_memory", lambda device: 2**30)
    monkeypatch.setattr(sys, "argv", ["heads.py", "--setting", "pretraining-128", "--threads", "1"])
    assert bench.main() == 0
    assert "left out: the published form needs about 3.0 GiB, and 1.0 GiB are free" in capsys.readouterr().out


@pytest.mark.skipif(torch.cuda.is_available(), reason="this machine has a GPU")
def test_a_gpu_that_is_not_there() -> None:
    done = run("--device", "cuda")
    assert done.returncode == 2
    assert "torch sees no GPU" in done.stderr
    assert "Traceback" not in done.stderr
