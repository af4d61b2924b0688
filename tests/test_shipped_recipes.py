"""A smoke scale of every shipped recipe: its own data, backbone, decoder and method, from pictures to report.

Shrunk are the steps, the tasks and what is in one, the pictures where the recipe's data come in any size, and how much
of the data is read; nothing is swapped for something smaller.  Real data that is absent skips its recipes.
"""

from __future__ import annotations

import math
import os
import shutil
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml

from handful import memory, training
from handful.checkpoint import read_metrics
from handful.data import Data, ImageStore, cache_dir
from handful.data.rails import library as rails
from handful.data.video import library as video
from handful.recipe import DataRecipe, LoopRecipe, ProtocolRecipe, Recipe, load_recipe, parse, shipped_recipes
from handful.report.record import read_record, write_record
from handful.reproduction import compared, judgeable, scored
from handful.run import open_data
from handful.training import train_recipe

fcntl: Any = pytest.importorskip("fcntl", reason="no file locks on this system")
REAL = ("mini_imagenet", "omniglot", "ped2", "rails", "scenes")
STEPS, TASKS, CLASSES = 1, 2, 3
MOST = {"way": 2, "shot": 2, "query": 1, "inner_steps": 2, "tasks": TASKS}
DATA = {
    "mini_imagenet": {"classes": CLASSES, "image_size": 32},
    "rails": {"scenes": 3},
    "rail_scenes": {"scenes": 3},
    "ped2": {"image_size": 32},
    "scenes": {"image_size": 32},
    "sprites": {"image_size": 32, "clips": 1},
}


def fewer(section: ProtocolRecipe) -> dict[str, Any]:
    """What a protocol says, at the smoke scale."""
    return {key: min(value, MOST[key]) if key in MOST else value for key, value in section.said().items()}


def shorter(loop: LoopRecipe) -> dict[str, Any]:
    """A stage of training, at the smoke scale; one of no steps stays so."""
    sizes = {key: min(getattr(loop, key), MOST[key]) for key in ("way", "shot", "query") if hasattr(loop, key)}
    one = {"tasks_per_step": 1} if hasattr(loop, "tasks_per_step") else {"batch": 2}
    often = {"validate_every": STEPS, "validation_tasks": TASKS}
    return {**loop.model_dump(), **sizes, **one, **often, "steps": min(loop.steps, STEPS), "milestones": [1]}


def smoke(name: str) -> Recipe:
    """A shipped recipe that trains in a second or two."""
    recipe = load_recipe(name)
    method = recipe.method.spec()
    if "inner_steps" in method:
        method["inner_steps"] = min(method["inner_steps"], MOST["inner_steps"])
    sections = {
        "data": recipe.data.model_dump() | DATA.get(recipe.data.name, {}),
        "method": method,
        "pretrain": shorter(recipe.pretrain) if recipe.pretrain else None,
        "train": shorter(recipe.train),
        "evaluate": {
            **fewer(recipe.evaluate),
            "tasks": TASKS,
            "also": [fewer(other) for other in recipe.evaluate.also],
        },
    }
    return parse(yaml.safe_dump(recipe.model_dump() | sections), name).resolved()


@pytest.fixture(scope="module")
def stores(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One cache for all recipes, and for all processes of pytest-xdist, where nobody else looks for a whole store."""
    base = tmp_path_factory.getbasetemp()
    return (base.parent if "PYTEST_XDIST_WORKER" in os.environ else base) / "smoke-stores"


@pytest.fixture(autouse=True)
def few(stores: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Few rendered frames and clips that validate and test, and no measuring of a step's memory: it takes six steps."""
    monkeypatch.setenv("HANDFUL_CACHE", str(stores))
    monkeypatch.setattr(rails, "SCENES", {"train": 3, "val": 3, "test": 3})
    for name in ("VAL", "TEST", "A_SCENE"):
        monkeypatch.setattr(video, name, 1)
    monkeypatch.setattr(memory, "step_peak", lambda *_: (0.0, 0.0))


@pytest.fixture
def out(tmp_path: Path) -> Iterator[Path]:
    """The run folder, gone after the test: those of the large networks take gigabytes together."""
    yield tmp_path / "run"
    shutil.rmtree(tmp_path / "run", ignore_errors=True)


@pytest.fixture(scope="module")
def few_clips(real_data: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two training clips of Ped2 and one test clip, with its labels and masks."""
    source, folder = real_data / "ped2", tmp_path_factory.mktemp("few") / "ped2"
    for clip in ("training/videos/01.mp4", "training/videos/02.mp4", "testing/videos/01.mp4"):
        (folder / clip).parent.mkdir(parents=True, exist_ok=True)
        (folder / clip).symlink_to(source / clip)
    with np.load(source / "pixel_masks_ped2.npz") as masks:
        frames = int(masks["lengths"][0])
        kept = {"shape": masks["shape"], "lengths": masks["lengths"][:1], "bits": masks["bits"][:frames]}
        np.savez(folder / "pixel_masks_ped2.npz", **kept)
    np.save(folder / "frame_labels_ped2.npy", np.load(source / "frame_labels_ped2.npy")[:frames])
    return folder


def first_classes(recipe: DataRecipe) -> Data:
    """The data of a recipe, of pictures the first classes of each split; one process at a time makes a store."""
    cache_dir().mkdir(exist_ok=True)
    with (cache_dir() / "lock").open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        data = open_data(recipe)
    if isinstance(data, ImageStore):
        return replace(data, splits={name: classes[:CLASSES] for name, classes in data.splits.items()})
    return data


@pytest.mark.parametrize("name", shipped_recipes())
def test_a_shipped_recipe_trains_and_its_figures_can_be_traced(
    name: str, out: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest
) -> None:
    recipe = smoke(name)
    if recipe.data.name in REAL:
        folder: Path = request.getfixturevalue("real_data")
        if not (folder / recipe.data.name).is_dir():
            pytest.skip(f"no {recipe.data.name}: {folder} has no {recipe.data.name}/")
        monkeypatch.setenv("HANDFUL_DATA", str(folder))
    if recipe.data.name == "ped2":
        monkeypatch.setenv("HANDFUL_DATA", str(request.getfixturevalue("few_clips").parent))
    monkeypatch.setattr(training, "open_data", first_classes)
    run, results = train_recipe(recipe, out, quiet=True)

    assert getattr(run.method, "spec") == recipe.method.spec()  # noqa: B009 - set by the registry
    stages = [(out / "pretrain", recipe.pretrain), (out, recipe.train)]
    for folder, loop in [(folder, loop) for folder, loop in stages if loop and loop.steps]:
        row = read_metrics(folder / "metrics.csv")[-1]
        assert int(row["step"]) == loop.steps
        assert math.isfinite(float(row["loss"]))
        assert math.isfinite(float(row["val_mean"]))
    written = {path.relative_to(out).as_posix() for path in out.rglob("*") if path.is_file()}
    assert written >= {"recipe.yaml", "environment.json", "split.json", "metrics.csv", "report.html"}
    assert written >= {f"checkpoints/{which}/model.safetensors" for which in ("best", "last")}
    assert {path for path in written if path.startswith("eval/")} == {f"eval/{result.file_name}" for result in results}
    assert any(path.startswith("plots/") for path in written)
    assert len(results) == len(recipe.protocols())
    for result in results:
        assert result.run["recipe_hash"] == recipe.hash()
        assert {"commit", "python", "torch", "numpy", "handful", "lightning-fabric", "platform"} <= set(result.run)
        assert len(result.task_hash) == 16
        assert result.floors
        assert math.isfinite(result.mean)

    record = read_record(write_record(out, tmp_path / "record.json"))
    judged, left_out = judgeable(record)
    assert record.recipe_hash == recipe.hash()
    assert len(judged) == len({result.file_name for result in results})
    assert not left_out
    for recorded in judged:
        comparison = compared(recorded, scored(run, recorded, results))
        assert comparison.same_tasks
        assert all(figure.inside for figure in comparison.figures)
