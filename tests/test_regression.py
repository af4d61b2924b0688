"""Regression end to end through the command line, and what an error metric changes on the way."""

from __future__ import annotations

import csv
import json
import math
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

import handful as hf
from handful import wording
from handful.checkpoint import read_metrics
from handful.data.store import ImageStore
from handful.errors import HandfulError
from handful.evaluation import Result, evaluate_method
from handful.files import read_tensors
from handful.problems import Regression
from handful.recipe import Protocol, load_recipe
from handful.run import Run
from handful.training import train_recipe
from tests.conftest import Command, ok, refused

RECIPE = """
name: sines
data: {name: sinusoid}
backbone: {name: mlp, hidden: [16]}
method: {name: maml, inner_lr: 0.01, inner_steps: 1}
train: {way: 1, shot: 5, query: 5, tasks_per_step: 4, steps: 40, validate_every: 20, validation_tasks: 8, lr: 0.01}
evaluate: {tasks: 30, inner_steps: 3}
"""


@pytest.fixture
def tiny(tmp_path: Path) -> Path:
    path = tmp_path / "sines.yaml"
    path.write_text(RECIPE, encoding="utf-8")
    return path


def trained(tiny: Path, out: Path, *changes: str) -> Run:
    return train_recipe(load_recipe(str(tiny), changes), out, quiet=True)[0]


def test_the_whole_way(handful: Command, tiny: Path, tmp_path: Path) -> None:
    out = tmp_path / "run"
    ran = ok(handful("train", tiny, "--out", out))
    assert "mean squared error " in ran.out
    assert "floors: support mean " in ran.out
    assert "30 tasks, 5-shot, 5 queries, inductive, 3 inner steps, test split; floors" in ran.out
    assert "%" not in ran.out.replace("95 %", "")
    assert "scoring 30 test tasks, 5-shot, 5 queries" in ran.err
    assert "%" not in ran.err
    told = json.loads(ok(handful("evaluate", out, "--tasks", 10, "--shot", 3, "--query", 7, "--json")).out)
    assert (told["problem"], told["metric"], told["way"]) == ("regression", "mean_squared_error", 1)
    lines = json.loads(ok(handful("evaluate", out, "--tasks", 10, "--on", "lines", "--json")).out)
    assert lines["note"] == "Trained on sinusoid, tested on other data: lines."
    assert (told["norm_stats"], told["transductive"]) == ("none", False)
    assert len(told["by_inner_step"]) == 4
    assert set(told["floors"]) == {"support mean"}
    with (out / "metrics.csv").open(encoding="utf-8", newline="") as file:
        assert "score" in (csv.DictReader(file).fieldnames or [])
    assert {path.stem for path in (out / "plots").iterdir()} == {
        *("fitted_curves", "adaptation_curve", "learning_curve", "task_histogram")
    }
    with Image.open(out / "plots" / "fitted_curves.png") as picture:
        assert picture.width > 1000
    page = (out / "report.html").read_text(encoding="utf-8")
    assert "Six test tasks: the function" in page
    assert "best validation mean squared error" in page
    assert "a class" not in page

    ok(handful("train", tiny, "--out", tmp_path / "other", "--set", "train.steps=20"))
    assert "(95 % over 10 paired tasks)" in ok(handful("compare", out, tmp_path / "other", "--tasks", 10)).out
    compared = ok(handful("compare", out, tmp_path / "other", "--tasks", 10)).out
    assert "points" not in compared
    (tmp_path / "support").mkdir()
    refused(
        handful("fit", tmp_path / "support", "--from", out, "--out", tmp_path / "model"),
        "regression",
        "run.method.fit(x, y)",
    )


def test_bad_recipes_are_one_sentence(handful: Command, tiny: Path, recipe_file: Path, tmp_path: Path) -> None:
    def refuse(recipe: Path, change: str, *words: str) -> None:
        refused(handful("train", recipe, "--out", tmp_path / "no", "--set", change), *words)
        assert not (tmp_path / "no").exists()

    refuse(tiny, "train.way=5", "way must be 1, not 5")
    refuse(tiny, "evaluate.way=2", "way must be 1, not 2")
    refuse(tiny, "train.way=0", "train.way is 0")
    refuse(tiny, "train.augment=photos", "augment")
    refuse(tiny, "data.root=/data", "'sinusoid' does not take root")
    refuse(tiny, "data.rotations=true", "does not take rotations")
    refuse(tiny, "backbone={name: conv4}", "not inputs [1]")
    refuse(tiny, "backbone.hidden=[0]", "backbone.hidden")
    refuse(recipe_file, "train.way=1", "1-way", "way=2")


def test_the_data_sets_are_listed(handful: Command) -> None:
    names = json.loads(ok(handful("list", "datasets", "--json")).out)
    assert {"glyphs", "sinusoid", "lines"} <= set(names)
    refused(handful("data", "build", "lines"), "nothing to build")


def test_workers_and_resuming_change_nothing(tiny: Path, tmp_path: Path) -> None:
    def weights(run: Run) -> list[torch.Tensor]:
        return list(read_tensors(run.weights("last"))[0].values())

    whole = trained(tiny, tmp_path / "whole")
    workers = trained(tiny, tmp_path / "workers", "train.workers=2")
    train_recipe(load_recipe(str(tiny)), tmp_path / "short", max_minutes=0, quiet=True)
    resumed = trained(tiny, tmp_path / "short")
    for other in (workers, resumed):
        assert all(torch.equal(a, b) for a, b in zip(weights(whole), weights(other), strict=True))
    opened = Run.open(tmp_path / "whole")
    assert isinstance(opened.method.problem, Regression)
    assert hf.evaluate(opened).per_task == hf.evaluate(whole).per_task


def test_the_best_weights_are_those_of_the_lowest_error(tiny: Path, tmp_path: Path) -> None:
    run = trained(tiny, tmp_path / "run", "train.validate_every=10", "train.lr=0.2", "train.schedule=constant")
    rows = [row for row in read_metrics(run.folder / "metrics.csv") if row["val_mean"]]
    lowest = min(float(row["val_mean"]) for row in rows)
    protocol = run.recipe.protocols()[0].model_copy(update={"tasks": 8})
    assert evaluate_method(run.method, run.data.val, protocol).mean == pytest.approx(lowest)
    assert lowest < max(float(row["val_mean"]) for row in rows)


def test_a_diverged_adaptation_is_said_and_is_null_in_json(handful: Command, tiny: Path, tmp_path: Path) -> None:
    """JSON has no NaN; the report reads null as it wrote it."""
    out = tmp_path / "run"
    recipe = trained(tiny, out, "train.steps=1").folder / "recipe.yaml"
    recipe.write_text(recipe.read_text().replace("inner_lr: 0.01", "inner_lr: 1.0e+38"))
    few = ("--tasks", 4, "--inner-steps", 3)
    assert "mean squared error diverged at inner step 1 (" in ok(handful("evaluate", out, *few)).out

    def strict(word: str) -> None:
        raise AssertionError(f"{word} is no JSON")

    written = (path.read_text() for path in out.glob("eval/*-4tasks-*.json"))
    for text in (ok(handful("evaluate", out, *few, "--json")).out, *written):
        told = json.loads(text, parse_constant=strict)
        assert told["mean"] is None
        assert told["by_inner_step"][0] > 0
        assert told["by_inner_step"][-1] is None
    ok(handful("report", out))
    assert "not a number" in (out / "report.html").read_text(encoding="utf-8")
    compared = ok(handful("compare", out, trained(tiny, tmp_path / "b", "train.steps=1").folder, *few, "--json"))
    assert json.loads(compared.out, parse_constant=strict)["differences"][0]["mean"] is None


def test_learning_beats_the_floor(tmp_path: Path) -> None:
    torch.manual_seed(0)
    method = hf.methods.MAML(hf.backbones.mlp(), inner_lr=0.05, inner_steps=3)
    lines, scored = hf.data.load("lines"), {"tasks": 100, "inner_steps": 10}
    run = hf.train(
        method, lines, way=1, shot=10, query=10, steps=150, out=tmp_path / "run", evaluate=scored, quiet=True
    )
    result = hf.evaluate(run)
    assert result.mean < result.floors["support mean"]["mean"] / 4
    assert "not clearly" not in str(result)
    x = torch.linspace(0, 1, 10)[:, None]
    network = run.method.fit(x, 3 * x - 1, inner_steps=10)
    assert (network(x) - (3 * x - 1)).square().mean() < 0.2


def test_a_result_that_does_not_beat_its_floor_says_so(store: ImageStore) -> None:
    method = hf.methods.MAML(hf.backbones.mlp())
    method.problem = Regression()
    method.attach_head(1)
    lines = hf.data.load("lines")
    protocol = Protocol(way=1, shot=5, query=5, tasks=40, inner_steps=0)
    result: Result = evaluate_method(method, lines.test, protocol)
    assert "not clearly below the floor 'support mean'" in str(result)
    assert "not clearly" not in str(replace(result, floors={"support mean": {"mean": 100.0, "ci95": 0.0}}))
    lost = replace(result, mean=math.nan, ci95=math.nan, by_inner_step=[1.0, 2.0, math.inf, math.nan])
    assert str(lost).startswith("mean squared error diverged at inner step 2 (95 % over 40 tasks, 5-shot")
    assert "not clearly below" in str(lost)
    with pytest.raises(HandfulError, match="'patterns' holds none"):
        evaluate_method(method, store.test, protocol)


def test_batch_norm_is_what_makes_a_result_transductive(store: ImageStore) -> None:
    method = hf.methods.MAML(hf.backbones.mlp(hidden=(4,), input_shape=store.input_shape))
    method.attach_head(3)
    result = evaluate_method(method, store.test, Protocol(way=3, shot=1, query=2, tasks=4))
    assert (result.norm_stats, result.transductive) == ("none", False)


def test_better() -> None:
    assert wording.better(0.9, 0.8, "accuracy")
    assert wording.better(0.8, 0.9, "mean_squared_error")
    assert not wording.better(0.9, 0.9, "accuracy")
    assert wording.better(5.0, math.nan, "mean_squared_error")
    assert not wording.better(math.nan, 5.0, "mean_squared_error")


@pytest.mark.parametrize(
    ("asked", "said"),
    [
        ((5, 1, 15), "5-way 1-shot, 15 queries a class"),
        ((5, 1, 1), "5-way 1-shot, 1 query a class"),
        ((1, 10, 10), "10-shot, 10 queries"),
        ((None, 10, None), "10-shot"),
        ((None, None, None), ""),
    ],
)
def test_protocols_in_words(asked: tuple[int | None, int | None, int | None], said: str) -> None:
    assert wording.protocol(*asked) == said


@pytest.mark.parametrize("name", ["sinusoid-maml", "lines-maml"])
def test_the_recipes_ask_for_what_the_goal_measures(name: str) -> None:
    (protocol,) = load_recipe(name).protocols()
    assert (protocol.way, protocol.shot, protocol.tasks, protocol.inner_steps) == (1, 10, 600, 10)
    assert np.prod(load_recipe(name).backbone.spec()["hidden"]) == 1600
