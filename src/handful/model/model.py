"""The fitted model: what `fit` makes of a handful of pictures, and `predict` uses.

A model folder (`handful.model.folder`) holds the adapted network, and its `Card`.
"""

from __future__ import annotations

import csv
import io
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor, nn

from handful.backbones import BACKBONES, weights_to_follow
from handful.embedders import Embed
from handful.errors import HandfulError
from handful.files import write_text
from handful.methods import METHODS
from handful.methods.metric import Fitted, embedding
from handful.model.card import NONE_OF_THESE, Card
from handful.model.folder import fill, misfit, read_card, read_weights, refuse_too_large, write_folder
from handful.model.inputs import Input, batches, lenient, pictures
from handful.model.leave_one_out import likeness
from handful.problems import Classification
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
                alike = likeness(pooled(features), self.directions)
            else:
                logits, alike = self.network(images.float().div(255)), None
        return (logits.double() * self.card.temperature).softmax(-1).float(), alike

    @cached_property
    def embed(self) -> Embed:
        """Images -> features, for a network that judges by them."""
        assert isinstance(self.network, Fitted)
        return embedding(self.network.backbone, self.network.maps)

    @cached_property
    def directions(self) -> Tensor:
        """The support's features at unit length, [S, d]: normalised once, since there may be many."""
        assert isinstance(self.network, Fitted)
        return F.normalize(pooled(self.network.support), dim=-1)

    @cached_property
    def learned(self) -> Any:
        """What the head of such a network learned from the support."""
        assert isinstance(self.network, Fitted)
        with torch.no_grad():
            return self.network.learn()

    def save(self, folder: str | Path) -> Path:
        """Write the model folder; an older model of that name is replaced once the new one is whole."""
        return write_folder(folder, self.card, self.network)

    @classmethod
    def load(cls, folder: str | Path, backbone: nn.Module | None = None) -> Model:
        """Open a model folder; `backbone` is the module, if it is none that a card can name."""
        folder = Path(folder)
        card, text = read_card(folder, Card, Classification.name)
        tensors = read_weights(folder, text)
        if problem := unlike(card, tensors):  # before anything of a size that they name is made
            raise misfit(folder, problem)
        shape = card.preprocessing
        input_shape = (shape.channels, shape.height, shape.width)
        if backbone is None:
            if card.backbone["name"] not in BACKBONES:
                raise HandfulError(
                    f"{folder} has the backbone {card.backbone['name']}, which is no part of Handful; in Python, "
                    "`hf.Model.load(folder, backbone=module)` takes it."
                )

            def made() -> nn.Module:
                found: nn.Module = build("backbone", BACKBONES, card.backbone, input_shape=input_shape)
                return found

            refuse_too_large(folder, lambda: build("method", METHODS, card.method, backbone=made()), tensors)
            with weights_to_follow():
                backbone = made()
        method = build("method", METHODS, card.method, backbone=backbone)
        network = method.unfitted([card.support[name] * card.views for name in card.classes])
        return cls(fill(network, tensors, folder), card)

    def __getstate__(self) -> dict[str, Any]:
        """For copies and pickles: without what is made anew."""
        return {key: value for key, value in vars(self).items() if key in ("network", "card")}


def unlike(card: Card, tensors: Mapping[str, Tensor]) -> str:
    """What in a file of weights cannot be the support of this card, if anything."""
    if ("support" in tensors) != ("labels" in tensors):
        return "it holds a support without labels, or labels without a support."
    if "labels" not in tensors:
        return ""
    labels, wanted = tensors["labels"], [card.views * card.support[name] for name in card.classes]
    if labels.dtype != torch.long or labels.dim() != 1 or len(labels) != len(tensors["support"]):
        return f"its labels are {list(labels.shape)} and its support {list(tensors['support'].shape)}."
    if len(labels) != sum(wanted):
        return f"it holds {len(labels)} images, and the card says {sum(wanted)}."
    if (
        labels.min() < 0
        or labels.max() >= len(wanted)
        or torch.bincount(labels, minlength=len(wanted)).tolist() != wanted
    ):
        return "it has other numbers of images in a class than the card says."
    return ""


def pooled(features: Tensor) -> Tensor:
    """One vector an image: [n, d] as it is, of maps [n, r, d] the mean over positions."""
    return features if features.dim() == 2 else features.mean(1)


def write_csv(path: Path, answers: Sequence[Prediction], classes: Sequence[str]) -> None:
    """A table of predictions: input, label, the probability of each class, likeness, and why there is no answer."""
    table = io.StringIO()
    writer = csv.writer(table)
    writer.writerow(["input", "label", *classes, "likeness", "error"])
    for answer in answers:
        shares = (answer.probabilities.get(name) for name in classes)
        writer.writerow([answer.input, answer.label, *shares, answer.likeness, answer.error])
    write_text(path, table.getvalue())
