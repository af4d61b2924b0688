"""The fitted model: what `fit` makes of a handful of pictures, and `predict` uses.

A model folder holds `model.safetensors` (the adapted network) and `card.json` (`Card`).  Opening one runs no code from
it.
"""

from __future__ import annotations

import csv
import hashlib
import io
import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from pydantic import ValidationError
from torch import Tensor, nn

from handful.backbones import BACKBONES, weights_to_follow
from handful.data.store import new_folder
from handful.embedders import Embed
from handful.errors import HandfulError, first_line
from handful.files import read_tensors, to_json, write_tensors, write_text
from handful.methods import METHODS
from handful.methods.metric import Fitted, embedding
from handful.model.card import NONE_OF_THESE, Card
from handful.model.inputs import Input, batches, lenient, pictures
from handful.model.leave_one_out import likeness
from handful.registry import build

BATCH = 32
MOST, SPARE = 8, 10**6  # of what a file of weights holds: numbers that its card may ask for, as step sizes of the loop


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
        folder = Path(folder)
        refuse_other_folder(folder)
        card = to_json(self.card.model_dump())
        tensors = {name: value.clone() for name, value in self.network.state_dict().items()}  # some may share memory
        with new_folder(folder) as work:
            write_tensors(work / "model.safetensors", tensors, {"card": digest(card)})
            write_text(work / "card.json", card)
        return folder

    @classmethod
    def load(cls, folder: str | Path, backbone: nn.Module | None = None) -> Model:
        """Open a model folder; `backbone` is the module, if it is none that a card can name."""
        folder = Path(folder)
        card, text = read_card(folder)
        file = folder / "model.safetensors"
        tensors, told = read_tensors(file)
        if told.get("card", digest(text)) != digest(text):
            raise HandfulError(
                f"{file} does not fit its card.json, which was changed after both were written; fit anew."
            )
        if problem := unlike(card, tensors):  # before anything of a size that they name is made
            raise HandfulError(f"{file} does not fit its card.json: {problem}")
        shape = card.preprocessing
        input_shape = (shape.channels, shape.height, shape.width)
        if backbone is None:
            if card.backbone["name"] not in BACKBONES:
                raise HandfulError(
                    f"{folder} has the backbone {card.backbone['name']}, which is no part of Handful; in Python, "
                    "`hf.Model.load(folder, backbone=module)` takes it."
                )
            with weights_to_follow():
                with torch.device("meta"):  # shapes alone: a card may name any size
                    sketch = build("backbone", BACKBONES, card.backbone, input_shape=input_shape)
                    asked = build("method", METHODS, card.method, backbone=sketch).state_dict()
                if problem := too_large(asked, tensors):
                    raise HandfulError(f"{file} does not fit its card.json: {problem}")
                backbone = build("backbone", BACKBONES, card.backbone, input_shape=input_shape)
        method = build("method", METHODS, card.method, backbone=backbone)
        network = method.unfitted([card.support[name] * card.views for name in card.classes])
        try:
            network.load_state_dict(tensors)
        except RuntimeError as error:
            raise HandfulError(f"{file} does not fit its card.json: {str(error).splitlines()[-1].strip()}") from error
        return cls(network.eval().requires_grad_(False), card)

    def __getstate__(self) -> dict[str, Any]:
        """For copies and pickles: without what is made anew."""
        return {key: value for key, value in vars(self).items() if key in ("network", "card")}


def read_card(folder: Path) -> tuple[Card, str]:
    """The card of a model folder, and its text."""
    file = folder / "card.json"
    try:
        text = file.read_text(encoding="utf-8")
        return Card(**json.loads(text)), text
    except (FileNotFoundError, NotADirectoryError) as error:
        raise HandfulError(f"{folder} is not a model folder (no card.json); `handful fit` makes one.") from error
    except ValidationError as error:
        first = error.errors()[0]
        place = ".".join(map(str, first["loc"])) or "the whole"
        raise HandfulError(f"{file} is damaged: {place}: {first['msg']}.") from error
    except (OSError, ValueError, TypeError, RecursionError) as error:
        raise HandfulError(f"{file} is damaged: {first_line(error)}.") from error


def digest(card: str) -> str:
    """Of the text of a card, which its weights name, so that neither changes without the other."""
    return hashlib.sha256(card.encode()).hexdigest()


def unlike(card: Card, tensors: Mapping[str, Tensor]) -> str:
    """What in a file of weights cannot be of this card, if anything."""
    if broken := [name for name, value in tensors.items() if not value.float().isfinite().all()]:
        return f"{broken[0]} holds values that are not finite."
    if ("support" in tensors) != ("labels" in tensors):
        return "it holds a support without labels, or labels without a support."
    if "labels" not in tensors:
        return ""
    labels, wanted = tensors["labels"], [card.views * card.support[name] for name in card.classes]
    if labels.dtype != torch.long or labels.dim() != 1 or len(labels) != len(tensors["support"]):
        return f"its labels are {list(labels.shape)} and its support {list(tensors['support'].shape)}."
    if len(labels) != sum(wanted):
        return f"it holds {len(labels)} images, and the card says {sum(wanted)}."
    if labels.min() < 0 or torch.bincount(labels, minlength=len(wanted)).tolist() != wanted:
        return "it has other numbers of images in a class than the card says."
    return ""


def too_large(asked: Mapping[str, Tensor], tensors: Mapping[str, Tensor]) -> str:
    """Whether the parts that a card names are of another size than the weights that are to fill them."""
    for name, value in asked.items():
        found = tensors.get(name.removeprefix("network."))
        if found is not None and found.shape != value.shape:
            return f"{name} is {list(found.shape)} there, and the card asks for {list(value.shape)}."
    numbers, held = (sum(value.numel() for value in of.values()) for of in (asked, tensors))
    return f"the card asks for {numbers} numbers, and it holds {held}." if numbers > MOST * held + SPARE else ""


def refuse_other_folder(folder: Path) -> None:
    """Refuse to write a model where something else lies, which would be lost."""
    if not folder.exists():
        return
    if not (folder / "card.json").exists():
        raise HandfulError(f"{folder} exists and is not a model folder; choose another name.")
    if others := sorted(path.name for path in folder.iterdir() if path.name not in ("card.json", "model.safetensors")):
        raise HandfulError(f"{folder} holds more than a model ({others[0]}), which would be lost; choose another name.")


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
