"""Video anomalies from recipe to report, on few rendered clips."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from typer.testing import CliRunner

from handful.checkpoint import read_metrics
from handful.cli import app
from handful.data.video import library
from handful.errors import HandfulError
from handful.evaluation import evaluate
from handful.recipe import load_recipe, parse
from handful.run import Run
from handful.training import train_recipe

TINY = [
    "data={name: sprites, image_size: 32, clips: 3}",
    "backbone={name: unet, widths: [4, 8]}",
    "decoder.prototypes=2",
    "method.inner_steps=1",
    "pretrain.steps=3",
    "pretrain.batch=2",
    "train.steps=2",
    "train.shot=1",
    "train.query=1",
    "train.tasks_per_step=2",
    "evaluate.tasks=2",
    "evaluate.shot=1",
    *(f"{section}.{key}=2" for section in ("pretrain", "train") for key in ("validate_every", "validation_tasks")),
]
FORMS = {"raw", "raw_smoothed", "minmax", "minmax_smoothed", "macro", "pixel"}


@pytest.mark.parametrize("name", ["ped2-mpn-small", "ped2-mpn", "scenes-mpn", "sprites-mpn"])
def test_shipped_recipes_are_of_videos(name: str) -> None:
    recipe = load_recipe(name)
    assert recipe.decoder is not None
    assert recipe.decoder.spec()["prototypes"] == (0 if name == "ped2-mpn-small" else 10)
    assert recipe.train.way == 1
    assert parse(recipe.to_yaml(), "again").resolved() == recipe


@pytest.fixture(scope="module", autouse=True)
def few(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """One scene that validates and one that tests, in a cache where nobody else looks for more."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("HANDFUL_CACHE", str(tmp_path_factory.mktemp("cache")))
        for name in ("VAL", "TEST", "A_SCENE"):
            patch.setattr(library, name, 1)
        yield


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("runs") / "run"
    train_recipe(load_recipe("sprites-mpn", TINY), folder, quiet=True)
    return folder


def test_a_run_holds_what_the_others_do(run: Path) -> None:
    shown = json.loads(next((run / "eval").iterdir()).read_text())
    assert set(shown["auc"]) == FORMS
    assert set(shown["floors"]) == {"copy", "linear extrapolation", "least squares"}
    assert all(set(floor["auc"]) == FORMS for floor in shown["floors"].values())
    assert shown["by_inner_step"][-1] == shown["mean"] == shown["auc"]["raw"]
    assert "rendered" in shown["note"]
    for name in ("report.html", "plots/windows.png", "split.json", "pretrain/checkpoints/best/model.safetensors"):
        assert (run / name).is_file()
    rows = read_metrics(run / "metrics.csv")
    assert rows[-1]["val_mean"] is not None
    assert "linear extrapolation" in (run / "report.html").read_text()


def test_the_command_line_says_the_same(run: Path) -> None:
    said = CliRunner().invoke(app, ["evaluate", str(run), "--tasks", "2", "--json"])
    assert said.exit_code == 0, said.output
    content = json.loads(said.stdout)
    assert set(content["auc"]) == FORMS
    published = CliRunner().invoke(app, ["evaluate", str(run), "--support", "clip_start"])
    assert published.exit_code == 0, published.output
    assert "of each tested clip, as published" in published.stdout


def test_normal_clips_are_judged_by_psnr(run: Path) -> None:
    opened = Run.open(run)
    result = evaluate(opened, opened.data.val, tasks=2)
    assert result.metric == "psnr"
    assert set(result.floors) == {"copy", "linear extrapolation", "least squares"}


def test_the_published_form_takes_a_step(tmp_path: Path) -> None:
    changes = [
        *TINY,
        "data.channels=3",
        "backbone={name: unet, widths: [4, 8], norm: none, upsampling: transposed, channels: 3}",
        "decoder.hidden=[4, 4]",
    ]
    _, (result,) = train_recipe(load_recipe("ped2-mpn", changes), tmp_path / "run", quiet=True)
    assert result.norm_stats == "none"


def test_single_windows_alone_can_be_trained_on(tmp_path: Path) -> None:
    _, (result,) = train_recipe(load_recipe("sprites-mpn", [*TINY, "train.steps=0"]), tmp_path / "run", quiet=True)
    assert result.metric == "frame_auc"


def test_a_published_protocol_can_be_trained(tmp_path: Path) -> None:
    changes = [*TINY, "evaluate.support=clip_start"]
    _, (result,) = train_recipe(load_recipe("sprites-mpn", changes), tmp_path / "run", quiet=True)
    assert result.support == "clip_start"


def test_support_without_labels_is_refused_before_training(tmp_path: Path) -> None:
    changes = [*TINY, "data={name: video_folder, root: clips}", "evaluate.support=clip_start"]
    folder = tmp_path / "clips" / "training" / "frames" / "01"
    folder.mkdir(parents=True)
    for number in range(200):
        pixels = np.random.default_rng(number).integers(0, 255, (32, 32), np.uint8)
        Image.fromarray(pixels).save(folder / f"{number}.png")
    changes[-2] = f"data={{name: video_folder, root: {tmp_path / 'clips'}, image_size: 32}}"
    with pytest.raises(HandfulError, match="which is for clips with labels, and the test split of 'video_folder' has"):
        train_recipe(load_recipe("sprites-mpn", changes), tmp_path / "run", quiet=True)


def test_a_backbone_without_a_fine_map_is_named(tmp_path: Path) -> None:
    with pytest.raises(HandfulError, match="gives no map that is as fine as a frame"):
        train_recipe(load_recipe("sprites-mpn", [*TINY, "backbone={name: conv4}"]), tmp_path / "run", quiet=True)
