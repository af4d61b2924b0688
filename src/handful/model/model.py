"""The fitted model: what `fit` makes of a handful of pictures, and `predict` uses.

A model folder holds `model.safetensors` (the adapted network) and `card.json` (`Card`).  Opening one runs no code from
it.
"""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from pydantic import ValidationError
from torch import Tensor, nn

from handful.backbones import BACKBONES, weights_to_follow
from handful.data.store import new_folder
from handful.embedders import Embed
from handful.errors import HandfulError
from handful.files import read_tensors, to_json, write_tensors, write_text
from handful.methods import METHODS
from handful.methods.metric import Fitted, embedding
from handful.model.card import NONE_OF_THESE, Card
from handful.model.inputs import Input, batches, lenient, pictures
from handful.model.leave_one_out import likeness
from handful.registry import build

BATCH = 32


@dataclass
class Prediction:
    """One picture's answer: the most probable class, and the probabilities of the `top` classes, best first.

    likeness: to the picture of the support that is most like it, from 0 to 1, where the model knows; a model with a
    threshold says `none of these` below it.  error: why there is no answer.
    """

    input: str
    label: str
    probabilities: dict[str, float]
    likeness: float | None = None
    error: str | None = None

    def as_dict(self) -> dict[str, Any]:
        """For JSON: all but `error`, or the input and its error alone."""
        if self.error is not None:
            return {"input": self.input, "error": self.error}
        return {key: value for key, value in vars(self).items() if key != "error"}

    def __str__(self) -> str:
        if self.error is not None:
            return self.error
        named = ", ".join(f"{name} {100 * share:.1f} %" for name, share in self.probabilities.items())
        if self.label in self.probabilities:
            return f"{self.input}: {named}"
        return f"{self.input}: {self.label} (likeness {self.likeness:.3f}; nearest: {named})"


class Model:
    """A network fitted to named classes.  Predictions are inductive: each picture is judged by itself."""

    def __init__(self, network: nn.Module, card: Card, embed: Embed | None = None) -> None:
        """embed: images -> features of a network that judges by them, if it is at hand; it is made if not."""
        self.network = network
        self.card = card
        if embed is not None:
            self.embed = embed

    def predict(
        self, inputs: Input | Sequence[Input], top: int | None = None, skip_bad: bool = False
    ) -> list[Prediction]:
        """Name pictures: files, folders of files, PIL images, arrays [H, W, C], tensors [C, H, W].

        skip_bad: the answer to a picture that cannot be read holds the `error`, and the others are named all the same.
        """
        wanted = pictures(inputs)
        if not wanted:
            raise HandfulError("Nothing to predict: name at least one picture or folder.")
        answers: list[Prediction] = []
        for batch in batches(wanted, lenient(lambda picture: self.card.preprocessing(picture)[0], skip_bad), BATCH):
            named = iter(self.named([seen for seen in batch if not isinstance(seen, HandfulError)], top))
            for seen in batch:
                answer = Prediction("", "", {}, error=str(seen)) if isinstance(seen, HandfulError) else next(named)
                answers.append(replace(answer, input=wanted[len(answers)].name))
        return answers

    def named(self, images: Sequence[NDArray[np.uint8]], top: int | None) -> Iterator[Prediction]:
        """Answers to pictures as the network takes them."""
        if not images:
            return
        probabilities, alike = self.judged(torch.from_numpy(np.stack(images)))
        for row, like in zip(probabilities, alike if alike is not None else [None] * len(probabilities)):
            best = row.argsort(descending=True)[: top or len(row)].tolist()
            named = {self.card.classes[index]: float(row[index]) for index in best}
            unknown = like is not None and self.card.threshold is not None and like < self.card.threshold
            label = NONE_OF_THESE if unknown else self.card.classes[best[0]]
            yield Prediction("", label, named, None if like is None else float(like))

    def judged(self, images: Tensor) -> tuple[Tensor, Tensor | None]:
        """uint8 [n, C, H, W] -> probabilities [n, classes], and likeness to the support [n] where it is known."""
        with torch.no_grad():
            if isinstance(self.network, Fitted):
                features = self.embed(images)
                logits = self.network.head.judge(features[None], self.learned)[0]
                alike = likeness(pooled(features), pooled(self.network.support))
            else:
                logits, alike = self.network(images.float().div(255)), None
        return (logits.double() * self.card.temperature).softmax(-1).float(), alike

    @cached_property
    def embed(self) -> Embed:
        """Images -> features, for a network that judges by them."""
        assert isinstance(self.network, Fitted)
        return embedding(self.network.backbone, self.network.maps)

    @cached_property
    def learned(self) -> Any:
        """What the head of such a network learned from the support."""
        assert isinstance(self.network, Fitted)
        with torch.no_grad():
            return self.network.learn()

    def save(self, folder: str | Path) -> Path:
        """Write the model folder; an older model of that name is replaced once the new one is whole."""
        folder = Path(folder)
        refuse_other_folder(folder)
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
        tensors, _ = read_tensors(folder / "model.safetensors")
        images = card.views * sum(card.support.values())
        if "labels" in tensors and len(tensors["labels"]) != images:  # before anything of that size is made
            raise HandfulError(
                f"{folder / 'model.safetensors'} does not fit its card.json: it holds {len(tensors['labels'])} images, "
                f"and the card says {images}."
            )
        shape = card.preprocessing
        if backbone is None:
            input_shape = (shape.channels, shape.height, shape.width)
            if card.backbone["name"] not in BACKBONES:
                raise HandfulError(
                    f"{folder} has the backbone {card.backbone['name']}, which is no part of Handful; in Python, "
                    "`hf.Model.load(folder, backbone=module)` takes it."
                )
            with weights_to_follow():
                backbone = build("backbone", BACKBONES, card.backbone, input_shape=input_shape)
        method = build("method", METHODS, card.method, backbone=backbone)
        network = method.unfitted([card.support[name] * card.views for name in card.classes])
        try:
            network.load_state_dict(tensors)
        except RuntimeError as error:
            raise HandfulError(
                f"{folder / 'model.safetensors'} does not fit its card.json: {str(error).splitlines()[-1].strip()}"
            ) from error
        return cls(network.eval().requires_grad_(False), card)


def refuse_other_folder(folder: Path) -> None:
    """Refuse to write a model where something else lies."""
    if folder.exists() and not (folder / "card.json").exists():
        raise HandfulError(f"{folder} exists and is not a model folder; choose another name.")


def pooled(features: Tensor) -> Tensor:
    """One vector an image: [n, d] as it is, of maps [n, r, d] the mean over positions."""
    return features if features.dim() == 2 else features.mean(1)


def write_csv(path: Path, answers: Sequence[Prediction], classes: Sequence[str]) -> None:
    """A table of predictions: input, label, and the probability of each class."""
    table = io.StringIO()
    writer = csv.writer(table)
    writer.writerow(["input", "label", *classes])
    for answer in answers:
        writer.writerow([answer.input, answer.label, *(answer.probabilities.get(name) for name in classes)])
    write_text(path, table.getvalue())
