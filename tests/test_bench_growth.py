"""bench/growth.py: slopes, tables, the plan's formulas, and all of it end to end and small."""

from __future__ import annotations

import json
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest

from handful.data.store import open_store

BENCH = Path(__file__).parents[1] / "bench"


@pytest.fixture
def bench(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    """The script as a module."""
    monkeypatch.syspath_prepend(str(BENCH))
    import growth

    return growth


@pytest.fixture
def planning(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    """The module of the plan."""
    monkeypatch.syspath_prepend(str(BENCH))
    import growth_plan

    return growth_plan


def run(*arguments: object) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, str(BENCH / "growth.py"), *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True)


def test_runs_end_to_end(tmp_path: Path) -> None:
    out, plot, page = tmp_path / "rows.json", tmp_path / "images" / "growth.png", tmp_path / "page.md"
    page.write_text(
        "Before.\n<!-- bench/growth.py: growth -->\nstale\n<!-- end of growth -->\nAfter.\n", encoding="utf-8"
    )
    done = run("--quick", "--json", out, "--plot", plot, "--page", page)
    assert done.returncode == 0, done.stderr
    assert "processes: left out (--quick)" in done.stdout
    assert plot.stat().st_size > 10_000
    rows = json.loads(out.read_text(encoding="utf-8"))
    found = {(row["axis"], row["quantity"], row["family"], row["kind"]) for row in rows}
    for axis in ("images", "classes", "way", "shot"):
        for quantity in ("starting to train", "a training step", "evaluating a task"):
            for family in ("ProtoNet", "MAML"):
                assert {(axis, quantity, family, "time"), (axis, quantity, family, "memory")} <= found
    for axis in ("images", "classes"):
        assert (axis, "opening the store", None, "time") in found
    assert ("images", "building the store", None, "time") in found
    assert ("images", "images in memory", "ProtoNet", "memory") in found
    for row in rows:
        assert 0 <= row["min"] <= row["median"] <= row["max"]
        assert row["kind"] == "memory" or row["min"] > 0
        assert np.isfinite(row["slope"])
        assert (row["unit"], row["machine_threads"]) == ("s" if row["kind"] == "time" else "MiB", 1)
        assert row["machine_torch"]
    text = page.read_text(encoding="utf-8")
    assert text.startswith("Before.\n<!--")
    assert text.endswith("<!-- end of growth -->\nAfter.\n")
    assert "stale" not in text
    assert "](images/growth.png)" in text
    assert "| by images | 240 | 2,400 | slope |" in text


def test_slope(bench: ModuleType) -> None:
    sizes = [10, 100, 1000]
    assert bench.slope(sizes, [7.0, 7.0, 7.0]) == pytest.approx(0)
    assert bench.slope(sizes, [3.0 * size for size in sizes]) == pytest.approx(1)
    assert bench.slope(sizes, [size**0.5 for size in sizes]) == pytest.approx(0.5)


def test_memory_that_does_not_show_has_a_slope(bench: ModuleType) -> None:
    rows = [bench.make_row("images", size, "opening the store", None, "memory", [0.0]) for size in (10, 1000)]
    bench.with_slopes(rows)
    assert [row["slope"] for row in rows] == pytest.approx([0, 0])


def test_a_page_without_a_place_for_the_tables_is_refused(bench: ModuleType, tmp_path: Path) -> None:
    page = tmp_path / "page.md"
    page.write_text("<!-- bench/growth.py: growth -->\n", encoding="utf-8")
    with pytest.raises(SystemExit, match="has no lines"):
        bench.fill(page, "growth", "text")
    assert page.read_text(encoding="utf-8") == "<!-- bench/growth.py: growth -->\n"


def test_made_stores_are_of_the_size_that_is_said(bench: ModuleType, tmp_path: Path) -> None:
    store = open_store(bench.build_store(tmp_path / "made", 20, 240))
    assert (store.images.shape, len(store.class_names)) == ((240, 1, 28, 28), 20)
    assert [len(store.split(name)) for name in ("train", "val", "test")] == [10, 5, 5]
    assert set(store.train.counts.tolist()) == {12}


def test_the_plan_is_the_formula(planning: ModuleType) -> None:
    stage = planning.Stage("recipe", "episodes", "backbone", 1_000_000, (), 10, 2e12)
    eight = planning.Link("8", 8, 1e9)
    seconds = 2 * 7 / 8 * 4e6 / 1e9 + planning.FEW * 2 * 3 * planning.LATENCY
    assert stage.communication(eight) == pytest.approx(seconds)
    assert stage.efficiency(eight) == pytest.approx(0.1 / (0.1 + seconds))
    enough = replace(stage, operations=stage.enough(eight) * planning.OPERATIONS)
    assert enough.efficiency(eight) == pytest.approx(planning.ENOUGH)
    normed = replace(stage, normed=(64, 64))
    more = 2 * 7 / 8 * 2 * 8 * 8 * 128 / 1e9 + 4 * 2 * 3 * planning.LATENCY
    assert normed.communication(eight) == pytest.approx(seconds + more)


def test_the_plan_counts_what_is_learned(planning: ModuleType) -> None:
    (maml,) = planning.stages("omniglot-maml-5w1s")
    assert maml.parameters == 111_936 + 64 * 5 + 5 + 18  # Conv-4 of one channel, a head, an inner rate a tensor
    assert (maml.inputs, maml.normed) == (16 * 5 * 2, ())
    first, second = planning.stages("miniimagenet-frn-resnet12-5w5s")
    assert (first.inputs, second.inputs) == (128, 20 * 20)
    assert first.parameters == 12_424_320 + 3
    assert len(first.normed) == len(second.normed) == 16
    assert first.operations == pytest.approx(3 * 128 * 7.0e9, rel=0.05)  # 3.5 thousand million products a picture


def test_the_page_has_the_plan(planning: ModuleType) -> None:
    text = (BENCH.parent / "docs" / "scaling.md").read_text(encoding="utf-8")
    assert f"<!-- bench/growth.py: plan -->\n\n{planning.plan()}\n\n<!-- end of plan -->" in text
