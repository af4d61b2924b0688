"""Small real input for every test: stores and folders of pictures with classes that can be told apart."""

from __future__ import annotations

import logging
import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pytest
import torch
from PIL import Image

from handful.cli import main
from handful.data.store import Contents, ImageStore, write_store

REAL_DATA = os.environ.get("HANDFUL_DATA") or Path(__file__).parents[1].parent / "shared" / "data"


@pytest.fixture(scope="session")
def real_data() -> Path:
    """The folder of real data sets; tests that need it are skipped where it is absent."""
    folder = Path(REAL_DATA)
    if not folder.is_dir():
        pytest.skip(f"no real data: {folder} is absent; set HANDFUL_DATA to the folder of omniglot/ and others")
    return folder


# Pytest listens to loggers that do not propagate, and to that one torch tells all that an export does, stacks and all.
logging.getLogger("torch.__trace").propagate = True
torch.set_num_threads(1)  # the tensors are tiny: threads would only wait for each other
SIZE = 16


def pattern(rng: np.random.Generator) -> np.ndarray:
    """A class: a coarse random picture, uint8 [SIZE, SIZE]."""
    coarse = rng.integers(0, 2, (4, 4)) * 200
    return np.kron(coarse, np.ones((SIZE // 4, SIZE // 4))).astype(np.uint8)


def drawing(base: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """One picture of a class: its pattern with noise."""
    return np.clip(base + rng.integers(-40, 55, base.shape), 0, 255).astype(np.uint8)


@pytest.fixture(autouse=True)
def own_cache(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> None:
    """No test reads or writes the user's cache."""
    monkeypatch.setenv("HANDFUL_CACHE", str(tmp_path_factory.getbasetemp() / "cache"))


@pytest.fixture(scope="session")
def store(tmp_path_factory: pytest.TempPathFactory) -> ImageStore:
    """30 classes of 12 pictures [1, 16, 16]: 16 train, 7 val, 7 test."""
    rng = np.random.default_rng(0)
    images = [drawing(base, rng)[None] for base in (pattern(rng) for _ in range(30)) for _ in range(12)]
    contents = Contents(
        images=iter(images),
        labels=np.repeat(np.arange(30), 12).tolist(),
        image_shape=(1, SIZE, SIZE),
        class_names=[f"pattern{i:02}" for i in range(30)],
        splits={"train": range(16), "val": range(16, 23), "test": range(23, 30)},
        info={"name": "patterns"},
    )
    return write_store(tmp_path_factory.mktemp("store") / "patterns", **contents._asdict())


@pytest.fixture(scope="session")
def pictures(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The same kind of classes as PNG files: 20 class folders of 8 pictures."""
    rng = np.random.default_rng(1)
    root = tmp_path_factory.mktemp("pictures")
    for index in range(20):
        base = pattern(rng)
        (root / f"class{index:02}").mkdir()
        for number in range(8):
            Image.fromarray(drawing(base, rng)).save(root / f"class{index:02}" / f"{number}.png")
    return root


RECIPE = """
name: tiny
data: {{name: folder, root: {root}, image_size: 16, channels: 1}}
backbone: {{name: conv4, channels: 8, downsample: stride, pooling: mean}}
method: {{name: maml, inner_lr: 0.4, inner_steps: 1}}
train: {{way: 3, shot: 1, query: 3, tasks_per_step: 4, steps: 12, lr: 0.01, validate_every: 4, validation_tasks: 8}}
evaluate: {{tasks: 12, inner_steps: 2, also: [{{norm_stats: support}}]}}
"""


@pytest.fixture
def recipe_file(tmp_path: Path, pictures: Path) -> Path:
    """A recipe that trains in a second."""
    path = tmp_path / "tiny.yaml"
    path.write_text(RECIPE.format(root=pictures), encoding="utf-8")
    return path


class Ran(NamedTuple):
    code: int
    out: str
    err: str


Command = Callable[..., Ran]


@pytest.fixture
def handful(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Command:
    def run(*words: object) -> Ran:
        monkeypatch.setattr(sys, "argv", ["handful", *map(str, words)])
        capsys.readouterr()
        try:
            main()
            code = 0
        except SystemExit as stop:
            code = int(stop.code or 0)
        return Ran(code, *capsys.readouterr())

    return run


def ok(ran: Ran) -> Ran:
    assert ran.code == 0, ran.err
    return ran


def refused(ran: Ran, *words: str) -> None:
    assert ran.code == 2
    assert ran.err.startswith("handful: ")
    assert ran.err.count("\n") == 1
    assert "Traceback" not in ran.err
    for word in words:
        assert word in ran.err
