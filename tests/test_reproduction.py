"""A recorded recipe, trained again: which of its figures come out, and what is refused."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import pytest

import handful as hf
from handful.checkpoint import difference
from handful.evaluation import Result
from handful.recipe import SHIPPED, Protocol, load_recipe
from handful.report.record import Recorded, read_record, record_of
from handful.reproduction import Value, compared, judgeable, recorded_recipe
from tests.conftest import Command, ok, refused

EXTRA = ("--tasks", 9, "--seed", 1)  # a protocol that training does not end with


@pytest.fixture
def recorded(handful: Command, recipe_file: Path, tmp_path: Path) -> Path:
    """The record of a run of the tiny recipe, beside it; the run is in `run`."""
    run, record = tmp_path / "run", record_of(recipe_file)
    ok(handful("train", recipe_file, "--out", run))
    ok(handful("evaluate", run, *EXTRA))
    ok(handful("report", run, "--record", record))
    return record


def edit(record: Path, **changes: Any) -> dict[str, Any]:
    """Change what a record says; None takes a key out."""
    told = json.loads(record.read_text(encoding="utf-8")) | changes
    told = {key: value for key, value in told.items() if value is not None}
    record.write_text(json.dumps(told), encoding="utf-8")
    return told


def test_the_same_machine_gives_the_recorded_figures(
    handful: Command, recorded: Path, recipe_file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    recipe_file = recipe_file.rename(tmp_path / "changed.yaml")  # the name in it is that of the shipped one still
    recorded = recorded.rename(record_of(recipe_file))
    ran = ok(handful("reproduce", recipe_file))
    assert "3 of 3 recorded figures in the new interval" in ran.out
    assert f"recipe {load_recipe(str(recipe_file)).hash()}, as recorded" in ran.out
    assert "OTHER" not in ran.out
    run = Path("out/reproduce/changed")
    told = json.loads(ok(handful("reproduce", recipe_file, "--json")).out)
    assert (told["run"], told["steps"], told["recorded_steps"]) == (str(run), 12, 12)
    assert told["reproduced"] is told["same_recipe"] is True
    for comparison in told["comparisons"]:
        (figure,) = comparison["figures"]
        assert figure["now"] == figure["recorded"]
        assert comparison["same_tasks"]
        assert comparison["task_hash"] == comparison["recorded_task_hash"]
    asked = [(each["seed"], each["tasks"], each["norm_stats"]) for each in told["comparisons"]]
    assert sorted(asked) == [(0, 12, "batch"), (0, 12, "support"), (1, 9, "batch")]
    assert read_record(recorded).results[0].run["recipe_hash"] == told["recipe_hash"]
    assert len(list((run / "eval").iterdir())) == 3


def test_a_figure_outside_the_interval_is_exit_code_1(handful: Command, recorded: Path, recipe_file: Path) -> None:
    """The run is there already, and is not trained again: it was made by the recipe that is asked for."""
    run = recorded.parent / "run"
    results = json.loads(recorded.read_text(encoding="utf-8"))["results"]
    results[1] |= {"mean": results[1]["mean"] - 1.5 * results[1]["ci95"], "task_hash": "0" * 16}
    results[1]["published"] = {"mean": 2.0, "source": "Nobody 2017"}
    edit(recorded, results=results)
    ran = handful("reproduce", recipe_file, "--out", run)
    assert ran.code == 1
    assert "2 of 3 recorded figures in the new interval" in ran.out
    assert ran.out.count("OUTSIDE the new interval") == 2
    assert "published 200.0 %: OUTSIDE the new interval (Nobody 2017)" in ran.out
    assert "OTHER than the recorded 0000000000000000" in ran.out

    results[1]["mean"] += 0.7 * results[1]["ci95"]  # 0.8 of the interval away
    edit(recorded, results=results)
    again = hf.reproduce(recipe_file, out=run, quiet=True)
    assert again.reproduced
    assert not all(comparison.same_tasks for comparison in again.comparisons)


def test_unfinished_runs_say_so(handful: Command, recorded: Path, recipe_file: Path, tmp_path: Path) -> None:
    ran = handful("reproduce", recipe_file, "--out", tmp_path / "short", "--max-minutes", 0)
    assert ran.code in (0, 1)
    assert "(recorded: 12): not at its end, the same command goes on" in ran.out
    told = json.loads(handful("reproduce", recipe_file, "--out", tmp_path / "short", "--json").out)
    assert (told["steps"], told["reproduced"]) == (12, True)


def test_what_is_refused(handful: Command, recorded: Path, recipe_file: Path, pictures: Path, tmp_path: Path) -> None:
    new = tmp_path / "new"

    def run(*words: object) -> Any:
        return handful("reproduce", recipe_file, "--out", new, *words)

    refused(run("--set", "train.lr=0.02"), "record of another recipe (train.lr is 0.01 there and 0.02 now)")
    refused(run("--set", "evaluate.tasks=3"), "evaluate.tasks")
    refused(run("--set", "train.stepz=3"), "did you mean 'train.steps'")
    told = edit(recorded)
    elsewhere = [result | {"trained_on": "glyphs"} for result in told["results"]]
    edit(recorded, results=elsewhere)
    refused(run(), "no figure that can be judged", "which a record does not describe")
    edit(recorded, results=[])
    refused(run(), "no figure that can be judged.")
    edit(recorded, results=[{"mean": 1}])
    refused(run(), "is not the record of a run: results.0.metric")
    recorded.write_text("{", encoding="utf-8")
    refused(run(), "is not the record of a run")
    refused(handful("report", tmp_path / "run", "--record", recorded), "is not the record of a run")
    recorded.unlink()
    refused(run(), "There is no record", "handful report RUN --record")
    assert not new.exists()

    recorded.write_text(json.dumps(told), encoding="utf-8")
    moved = f"data.root={pictures.parent / '.' / pictures.name}"
    assert ok(run("--set", moved, "--set", "train.workers=0")).out


def test_records_of_before(recorded: Path, recipe_file: Path) -> None:
    """The oldest hold neither a hash nor settings; another recipe than that of the file is refused all the same."""
    run = recorded.parent / "run"
    edit(recorded, recipe_hash=None)
    found = hf.reproduce(recipe_file, out=run, quiet=True)
    assert found.reproduced
    assert found.same_recipe is None
    assert "recorded before recipes had a hash, with the same settings" in str(found)
    edit(recorded, settings=None, recipe_hash=None)
    assert "whether it was the same cannot be told" in str(hf.reproduce(recipe_file, out=run, quiet=True))
    with pytest.raises(hf.HandfulError, match=r"another recipe \(train.steps is 12 there and 13 now\)"):
        hf.reproduce(recipe_file, out=run, changes=["train.steps=13"], quiet=True)


def test_another_hash_of_the_same_settings(recorded: Path, recipe_file: Path) -> None:
    """As when keys were added to recipes since."""
    edit(recorded, recipe_hash="0" * 16)
    found = hf.reproduce(recipe_file, out=recorded.parent / "run", quiet=True)
    assert found.same_recipe is False
    assert "recorded as 0000000000000000 with the same settings, when recipes had other keys" in str(found)


def test_other_versions_are_named(recorded: Path, recipe_file: Path) -> None:
    told = edit(recorded)
    edit(recorded, environment=told["environment"] | {"torch": "1.0", "threads": 99})
    found = hf.reproduce(recipe_file, out=recorded.parent / "run", quiet=True)
    assert set(found.changed) == {"torch", "threads"}
    assert "(1.0)" in str(found)


def test_published_figures_stay_when_a_record_is_written_anew(handful: Command, recorded: Path) -> None:
    results = edit(recorded)["results"]
    results[1]["published"] = {"mean": 0.5, "ci95": 0.1, "source": "Somebody 2017"}
    edit(recorded, results=results)
    run = recorded.parent / "run"
    ok(handful("evaluate", run, "--tasks", 5))  # a new one, before all others
    ok(handful("report", run, "--record", recorded))
    published = [result for result in read_record(recorded).results if result.published]
    assert [(one.tasks, one.seed, one.norm_stats) for one in published] == [
        (results[1]["tasks"], results[1]["seed"], results[1]["norm_stats"])
    ]
    assert published[0].published is not None
    assert published[0].published.source == "Somebody 2017"


def test_an_interval_holds_what_lies_in_it() -> None:
    assert Value(0.5, 0.1).holds(0.6)
    assert Value(0.5, 0.1).holds(0.4)
    assert not Value(0.5, 0.1).holds(0.6001)
    assert not Value(0.5, 0.1).holds(0.3999)
    assert Value(0.3, 0.0).holds(0.1 + 0.2)  # rounding aside
    assert not Value(0.3, 0.0).holds(0.3001)
    for nowhere in (Value(0.5, None), Value(0.5, math.nan), Value(math.nan, 0.1), Value(math.inf, math.nan)):
        assert not nowhere.holds(0.5)
    assert not Value(0.5, 0.1).holds(math.nan)


def result(metric: str, mean: float, ci95: float, measures: dict[str, dict[str, float]]) -> Result:
    """A result of two tasks."""
    said = {"problem": "p", "method": "m", "backbone": "b", "data": "d", "split": "test", "norm_stats": "none"}
    counts = dict.fromkeys(("way", "shot", "query", "seed", "inner_steps"), 1)
    steps: dict[str, Any] = {"by_inner_step": [], "by_inner_step_ci95": [], "floors": {}, "transductive": False}
    made: dict[str, Any] = {**said, **counts, **steps, "tasks": 2, "task_hash": "0" * 16, "seconds": 1.0}
    return Result(metric=metric, mean=mean, ci95=ci95, measures=measures, **made)


def test_every_measure_is_a_figure_and_the_lower_ones_count_as_well() -> None:
    then = result("path_iou", 0.8, 0.01, {"gauge_error": {"mean": 5.0, "ci95": 1.0}, "f1": {"mean": 0.5, "ci95": 0.2}})
    recorded = Recorded.model_validate(then.as_dict())
    now = result("path_iou", 0.805, 0.01, {"gauge_error": {"mean": 2.0, "ci95": 1.0}, "f1": {"mean": 0.6, "ci95": 0.1}})
    figures = compared(recorded, now).figures
    assert {figure.name: figure.inside for figure in figures} == {"path_iou": True, "gauge_error": False, "f1": True}
    lost = compared(recorded, result("path_iou", 0.805, 0.01, {}))
    assert [figure.inside for figure in lost.figures] == [True, False, False]
    undefined = Recorded.model_validate(then.as_dict() | {"measures": {"auc/pixel": {"mean": None, "ci95": None}}})
    assert [figure.name for figure in compared(undefined, now).figures] == ["path_iou"]


def test_what_cannot_be_judged_is_said() -> None:
    one = result("frame_auc", 0.9, math.nan, {}).as_dict() | {"tasks": 1, "ci95": None}
    diverged = result("mean_squared_error", math.inf, math.nan, {}).as_dict() | {"mean": None, "ci95": None}
    record = read_record(SHIPPED / "lines-maml.result.json")
    record = record.model_copy(update={"results": [Recorded.model_validate(each) for each in (one, diverged)]})
    assert judgeable(record) == ([], ["a result over 1 task, which has no interval", "a result that diverged"])


@pytest.mark.parametrize("path", sorted(SHIPPED.glob("*.result.json")), ids=lambda path: path.name.split(".")[0])
def test_every_shipped_record_can_be_reproduced(path: Path) -> None:
    """It is of its recipe, and all its results can be asked for: of the recipe's protocols, or beside them."""
    record = read_record(path)
    recipe = load_recipe(record.recipe)
    assert path == record_of(SHIPPED / f"{record.recipe}.yaml")
    then = recorded_recipe(record, record.recipe, path)
    assert difference(then.model_dump(mode="json"), recipe.model_dump(mode="json")) is None
    judged, left_out = judgeable(record)
    assert len(judged) == len(record.results) >= 1
    assert not left_out
    asked = {(each.way, each.shot, each.query, each.tasks, recipe.seed) for each in recipe.protocols()}
    # the queries of labelled clips are all their frames
    queries = [recipe.protocols()[0].query if each.support else each.query for each in judged]
    found = {(each.way, each.shot, query, each.tasks, each.seed) for each, query in zip(judged, queries)}
    assert asked <= found
    for each in judged:
        norm_stats = None if each.norm_stats == "none" else each.norm_stats
        Protocol.model_validate(each.model_dump(include={"way", "shot", "query"}) | {"norm_stats": norm_stats})
        assert each.ci95 is not None
        assert len(str(each.task_hash)) == 16
    assert len({(each.task_hash, each.norm_stats, each.inner_steps) for each in judged}) == len(judged)
