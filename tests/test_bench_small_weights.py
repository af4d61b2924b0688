"""bench/small_weights.py takes the backbone's weights out of a run."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import torch

from handful.files import read_tensors
from handful.recipe import load_recipe
from handful.training import train_recipe

SCRIPT = Path(__file__).parents[1] / "bench" / "small_weights.py"


def test_the_weights_of_the_backbone_alone(recipe_file: Path, tmp_path: Path) -> None:
    short = ("train.steps=1", "train.validation_tasks=2", "evaluate={tasks: 2, query: 1}")
    run, _ = train_recipe(load_recipe(str(recipe_file), short), tmp_path / "run", quiet=True)
    out = tmp_path / "small.safetensors"
    subprocess.run([sys.executable, SCRIPT, run.folder, "--out", out], check=True, capture_output=True)
    tensors, told = read_tensors(out)
    wanted = run.method.backbone.state_dict()
    assert tensors.keys() == wanted.keys()
    assert all(torch.equal(value, wanted[key]) for key, value in tensors.items())
    assert told["recipe"] == run.recipe.name
    assert any("shot" in key for key in told)
