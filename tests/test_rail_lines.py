"""Rail lines from recipe to report, on few rendered scenes."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch

from handful.checkpoint import read_metrics
from handful.data import load
from handful.data.rails import library
from handful.data.rails.store import HEIGHT, WIDTH
from handful.data.store import ImageStore
from handful.errors import HandfulError
from handful.evaluation import check_fits, evaluate
from handful.files import read_tensors
from handful.methods import MAML
from handful.problems import RailLines
from handful.recipe import load_recipe, parse
from handful.run import Run
from handful.training import train, train_recipe
from tests.rails import Tiny

FIGURES = {"path_iou", "points_20px", "f1", "gauge_error", "limit_error"}
TINY = [
    "data.name=rail_scenes",
    "data.fold=null",
    "data.scenes=3",
    "backbone.weights=none",
    "backbone.resolution=96",
    "decoder.channels=8",
    "method.inner_steps=1",
    "pretrain.steps=2",
    "pretrain.batch=2",
    "train.steps=2",
    "train.tasks_per_step=1",
    "evaluate.tasks=2",
    "evaluate.inner_steps=2",
    *(f"{section}.{key}=2" for section in ("pretrain", "train") for key in ("validate_every", "validation_tasks")),
    *("train.shot=1", "train.query=1", "evaluate.query=1"),
]


class Wide(Tiny):
    """For frames of full size."""

    def __init__(self) -> None:
        super().__init__()
        self.input_shape = (3, HEIGHT, WIDTH)


@pytest.fixture
def few(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(library, "SCENES", {"train": 3, "val": 3, "test": 3})


def test_the_shipped_recipe_is_of_rail_lines() -> None:
    recipe = load_recipe("rails-maml")
    assert recipe.decoder is not None
    assert recipe.decoder.spec() == {"name": "row_distributions", "channels": 64}
    assert (recipe.data.name, recipe.data.targets, recipe.train.augment) == ("rails", "varied", "cameras")
    assert recipe.method.spec()["adapt"] == ["head"]
    assert parse(recipe.to_yaml(), "again").resolved() == recipe


@pytest.mark.usefixtures("few")
def test_a_run_from_recipe_to_report(store: ImageStore, tmp_path: Path) -> None:
    _, results = train_recipe(load_recipe("rails-maml", TINY), tmp_path / "run", quiet=True)
    (result,) = results
    shown = json.loads(next((tmp_path / "run" / "eval").iterdir()).read_text())
    assert set(shown) >= {*FIGURES, "mean", "ci95", "task_hash"}
    assert set(shown["floors"]["support mean"]) == {"mean", "ci95", *FIGURES}
    assert (result.problem, result.metric, result.way, len(result.by_inner_step)) == ("rail_lines", "path_iou", 1, 3)
    assert "rendered" in str(result.note)
    for name in ("report.html", "plots/frames.png", "split.json", "pretrain/checkpoints/best/model.safetensors"):
        assert (tmp_path / "run" / name).is_file()
    assert "support mean" in (tmp_path / "run" / "report.html").read_text()
    for folder, step in ((tmp_path / "run" / "pretrain", "2"), (tmp_path / "run", "2")):
        rows = read_metrics(folder / "metrics.csv")
        assert rows[-1]["step"] == step
        assert float(rows[-1]["loss"]) > 0
        assert rows[-1]["val_mean"]
    first, last = (
        read_tensors(tmp_path / "run" / part / "checkpoints" / "last" / "model.safetensors")[0]
        for part in ("pretrain", ".")
    )
    assert any(not torch.equal(first[name], last[name]) for name in last)  # episodes went on from there

    again = Run.open(tmp_path / "run")
    assert isinstance(again.method.problem, RailLines)
    assert evaluate(again).per_task == result.per_task
    with pytest.raises(HandfulError, match=r"patterns is classification, and .* was trained for rail_lines\."):
        check_fits(again, store)


@pytest.mark.usefixtures("few")
def test_a_method_of_ones_own_parts(tmp_path: Path) -> None:
    data = load("rail_scenes", scenes=3)
    torch.manual_seed(0)
    method = MAML(Wide(), inner_steps=1, adapt=["head"])
    settings: dict[str, Any] = {"way": 1, "shot": 1, "query": 1, "steps": 1, "tasks_per_step": 1}
    settings |= {"validate_every": 1, "validation_tasks": 2, "augment": "cameras"}
    decoder = {"name": "row_regression", "rows": 12, "channels": 2, "hidden": 8}
    evaluation = {"tasks": 2, "inner_steps": 0}
    run = train(method, data, out=tmp_path / "run", decoder=decoder, evaluate=evaluation, quiet=True, **settings)
    assert run.recipe.decoder is not None
    assert run.recipe.decoder.spec()["rows"] == 12
    problem = Run.open(tmp_path / "run", backbone=Wide()).method.problem
    assert isinstance(problem, RailLines)
    assert problem.residual


@pytest.mark.usefixtures("few")
@pytest.mark.parametrize(
    ("change", "message"),
    [
        ("train.way=5", "A task of rail lines has no classes, so way must be 1, not 5"),
        ("train.augment=photos", "varies frames by cameras, and not by photos: set it to cameras or none"),
        ("pretrain.augment=photos", "varies frames by cameras, and not by photos: set it to cameras or none"),
        ("pretrain.head=cosine", "pretrain.head is for classification, and the problem is rail_lines; leave it out"),
        ("train.shot=9", "has 3 frames with the lines that are asked for, but 9-shot tasks with 1 queries need 10"),
        ("backbone={name: conv4, channels: 4}", "gives no maps at strides 8, 16 and 32"),
        ("method={name: protonet}", "compares features names classes, but the problem is rail_lines; use maml"),
        ("method={name: proto-maml}", "head from class means, but the problem is rail_lines; use maml"),
        ("decoder.channels=60", "decoder.channels is 60"),
        ("decoder={name: row_regression}", "adds to the mean line of a support"),
        ("decoder.name=row_distribution", "There is no decoder 'row_distribution'; did you mean 'row_distributions'"),
        ("decoder.rows=4", "There is no option of decoder 'row_distributions' 'rows'"),
        ("data.scenes=0", "scenes is 0, but 'rail_scenes' is trained on 1 or more"),
        ("data.image_size=84", "'rail_scenes' does not take image_size; leave it out"),
        ("data.targets=egoo", "data.targets is 'egoo': input should be 'ego' or 'varied'"),
        ("data.fold=3", "data.fold is 3: input should be less than or equal to 2"),
    ],
)
def test_what_a_recipe_of_rail_lines_refuses(change: str, message: str, tmp_path: Path) -> None:
    with pytest.raises(HandfulError, match=message):
        train_recipe(load_recipe("rails-maml", [*TINY, change]), tmp_path / "run", quiet=True)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ("decoder={name: row_distributions}", "A decoder is for rail lines and video anomalies, and 'folder' is"),
        ("train.augment=cameras", "as drawings or as photos, and not by cameras"),
        ("pretrain={steps: 1, batch: 2, augment: cameras}", "as drawings or as photos, and not by cameras"),
    ],
)
def test_what_a_recipe_of_classes_refuses(recipe_file: Path, tmp_path: Path, change: str, message: str) -> None:
    with pytest.raises(HandfulError, match=message):
        train_recipe(load_recipe(str(recipe_file), [change]), tmp_path / "run", quiet=True)
