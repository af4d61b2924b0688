"""The fitted model: what `fit` makes of a handful of images, and `predict` uses.

A model folder holds `model.safetensors` (the adapted network) and `card.json` (classes, preprocessing, where it comes
from, and how well such models do).  Opening one runs no code from it.
"""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator
from torch import nn

from handful.backbones import BACKBONES, weights_to_follow
from handful.data import class_folders, list_images, load_image
from handful.data.store import new_folder
from handful.errors import HandfulError
from handful.files import read_tensors, to_json, write_tensors, write_text
from handful.methods import METHODS
from handful.registry import build
from handful.run import Run

BATCH = 64
FORMAT: Literal[1] = 1
REPORTED = (
    *("mean", "ci95", "tasks", "way", "shot", "query", "task_hash", "norm_stats", "inner_steps"),
    *("floors", "data", "split", "note"),
)


class Preprocessing(BaseModel):
    """From a picture file to the network's input: resize to fill, crop, scale to [0, 1], invert."""

    model_config = ConfigDict(extra="forbid")
    channels: int = Field(ge=1, le=3)
    height: int = Field(ge=1, le=4096)
    width: int = Field(ge=1, le=4096)
    invert: bool
    """Turn dark ink on light paper into bright ink on black, as the training images were."""

    def __call__(self, path: Path) -> NDArray[np.uint8]:
        """uint8 [C, H, W] of a picture file."""
        image = load_image(path, (self.channels, self.height, self.width))
        return 255 - image if self.invert else image


class Card(BaseModel):
    """What a model is."""

    model_config = ConfigDict(extra="forbid")
    format: Literal[1] = FORMAT
    handful: str
    problem: str
    classes: list[str]
    support: dict[str, int]
    """Images a class that it was fitted on."""
    preprocessing: Preprocessing
    backbone: dict[str, Any]
    method: dict[str, Any]
    inner_steps: int
    norm_stats: str
    recipe: str
    trained_on: str
    seen: str | None = None
    """What the backbone's weights had been trained on before."""
    accuracy: dict[str, Any] | None = None
    """What such models reach on test tasks of their training data: mean, ci95, tasks, way, shot, task_hash, floors."""

    @model_validator(mode="after")
    def _every_class_has_its_support(self) -> Card:
        if sorted(self.classes) != sorted(self.support):
            raise ValueError("its classes are not those of its support")
        return self


@dataclass
class Prediction:
    """One picture's answer: the most probable class, and the probabilities of the `top` classes, best first."""

    input: str
    label: str
    probabilities: dict[str, float]


@dataclass
class Model:
    """A network fitted to named classes.  Predictions are inductive: each picture is judged by itself."""

    network: nn.Module
    card: Card

    def predict(self, inputs: Sequence[str | Path], top: int | None = None) -> list[Prediction]:
        """Name pictures: files, or folders of files."""
        paths = picture_paths(inputs)
        answers: list[Prediction] = []
        for start in range(0, len(paths), BATCH):
            part = paths[start : start + BATCH]
            images = np.stack([self.card.preprocessing(path) for path in part])
            for path, row in zip(part, self.probabilities(torch.from_numpy(images))):
                best = row.argsort(descending=True)[: top or len(row)].tolist()
                named = {self.card.classes[index]: float(row[index]) for index in best}
                answers.append(Prediction(str(path), self.card.classes[best[0]], named))
        return answers

    def probabilities(self, images: torch.Tensor) -> torch.Tensor:
        """uint8 [n, C, H, W] -> [n, classes]."""
        with torch.no_grad():
            logits: torch.Tensor = self.network(images.float().div(255))
        return logits.softmax(-1)

    def save(self, folder: str | Path) -> Path:
        """Write the model folder; an older model of that name is replaced once the new one is whole."""
        folder = Path(folder)
        if folder.exists() and not (folder / "card.json").exists():
            raise HandfulError(f"{folder} exists and is not a model folder; choose another name.")
        with new_folder(folder) as work:
            write_tensors(work / "model.safetensors", self.network.state_dict())
            write_text(work / "card.json", to_json(self.card.model_dump()))
        return folder

    @classmethod
    def load(cls, folder: str | Path, backbone: nn.Module | None = None) -> Model:
        """Open a model folder; `backbone` is the module, if it is none that a card can name."""
        folder = Path(folder)
        try:
            card = Card(**json.loads((folder / "card.json").read_text(encoding="utf-8")))
        except FileNotFoundError as error:
            raise HandfulError(f"{folder} is not a model folder (no card.json); `handful fit` makes one.") from error
        except (ValueError, TypeError, ValidationError) as error:
            raise HandfulError(f"{folder / 'card.json'} is damaged: {str(error).splitlines()[0]}.") from error
        shape = card.preprocessing
        if backbone is None:
            input_shape = (shape.channels, shape.height, shape.width)
            with weights_to_follow():
                backbone = build("backbone", BACKBONES, card.backbone, input_shape=input_shape)
        method = build("method", METHODS, card.method, backbone=backbone)
        network = method.unfitted([card.support[name] for name in card.classes])
        tensors, _ = read_tensors(folder / "model.safetensors")
        try:
            network.load_state_dict(tensors)
        except RuntimeError as error:
            raise HandfulError(
                f"{folder / 'model.safetensors'} does not fit its card.json: {str(error).splitlines()[-1].strip()}"
            ) from error
        return cls(network.eval().requires_grad_(False), card)


def fit(support: str | Path | Mapping[str, Sequence[str | Path]], run: Run, inner_steps: int | None = None) -> Model:
    """Adapt a run to a handful of labelled pictures: class folders, or class name -> picture files.

    Supports need not be balanced.  A run's head has a fixed number of ways; another number of classes is refused.
    """
    if run.method.problem.name != "classification":
        raise HandfulError(
            f"fit takes labelled pictures, and the run {run.folder} does {run.method.problem.name}; in Python, "
            "`network = run.method.fit(x, y)` adapts it to tensors x [n, ...] and y [n, 1]."
        )
    folders = support if isinstance(support, Mapping) else class_folders(Path(support))
    classes = {name: [Path(path) for path in paths] for name, paths in folders.items()}
    channels, height, width = run.data.input_shape
    preprocessing = Preprocessing(
        channels=channels, height=height, width=width, invert=bool(run.data.info.get("inverted", False))
    )
    run.method.attach_head(len(classes))
    images = np.stack([preprocessing(path) for paths in classes.values() for path in paths])
    labels = [index for index, paths in enumerate(classes.values()) for _ in paths]
    steps = inner_steps if inner_steps is not None else run.recipe.evaluate.inner_steps
    steps = run.method.inner_steps if steps is None else steps
    network = run.method.fit(torch.from_numpy(images).float().div(255), torch.tensor(labels), steps)
    card = Card(
        handful=version("handful"),
        problem=run.method.problem.name,
        classes=list(classes),
        support={name: len(paths) for name, paths in classes.items()},
        preprocessing=preprocessing,
        backbone=run.recipe.backbone.spec(),
        method=run.recipe.method.spec(),
        inner_steps=steps,
        norm_stats=run.method.inductive,
        recipe=run.recipe.name,
        trained_on=run.data.name,
        seen=getattr(run.method.backbone, "seen", None),
        accuracy=expected_accuracy(run, len(classes), min(map(len, classes.values())), steps),
    )
    return Model(network, card)


def expected_accuracy(run: Run, way: int, shot: int, inner_steps: int) -> dict[str, Any] | None:
    """The run's own inductive test result for this many ways, shots and steps, over most tasks, if it was measured."""
    asked = {"split": "test", "way": way, "shot": shot, "inner_steps": inner_steps}
    found = []
    for path in (run.folder / "eval").glob("*.json"):
        try:
            result = json.loads(path.read_text(encoding="utf-8"))
            inductive = result["norm_stats"] in (run.method.inductive, "none")
            if inductive and not result.get("trained_on") and all(result[key] == value for key, value in asked.items()):
                found.append({key: result[key] for key in REPORTED})
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise HandfulError(f"{path} is damaged; delete it, or score the run again.") from error
    return max(found, key=lambda result: result["tasks"], default=None)


def picture_paths(inputs: Sequence[str | Path]) -> list[Path]:
    """The picture files that files and folders name, in order, each once."""
    paths: list[Path] = []
    for given in map(Path, inputs):
        if given.is_dir():
            found = list_images(given)
            if not found:
                raise HandfulError(f"The folder {given} holds no pictures.")
            paths += found
        else:
            paths.append(given)
    if not paths:
        raise HandfulError("Nothing to predict: name at least one picture or folder.")
    return list(dict.fromkeys(paths))


def write_csv(path: Path, answers: Sequence[Prediction], classes: Sequence[str]) -> None:
    """A table of predictions: input, label, and the probability of each class."""
    table = io.StringIO()
    writer = csv.writer(table)
    writer.writerow(["input", "label", *classes])
    for answer in answers:
        writer.writerow([answer.input, answer.label, *(answer.probabilities[name] for name in classes)])
    write_text(path, table.getvalue())
