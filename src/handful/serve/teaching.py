"""What the page does with a model, without the page: teach it, ask it, look into it, pack it."""

from __future__ import annotations

import io
import math
import secrets
import time
import zipfile
from collections import OrderedDict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache, partial
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image
from torch import Tensor

from handful.data.pictures import Picture, opened, upright
from handful.embedders import Embed
from handful.episodes import Episode
from handful.errors import HandfulError
from handful.methods import Metric
from handful.methods.metric import Fitted
from handful.model import Model, Prediction, export
from handful.model.fitting import fitted
from handful.model.model import pooled
from handful.model.start import Start
from handful.serve.limits import Refused
from handful.serve.worker import answers_to

THUMBNAIL = 128  # pixels of a side
NEAREST = 5
KEPT = 50  # models taught on the page that are kept, the latest ones
PACKED = 4  # models that are kept as the files that were asked for
SERVED = "served"


class Supported(NamedTuple):
    """The pictures that a model was taught: small copies to show, and their features.

    labels [n]; directions: features of unit length of each view, [n, V, d]; images: as an adapted network takes them,
    uint8 [n, C, H, W], and None of a network that judges by features.
    """

    thumbnails: list[Image.Image]
    labels: Tensor
    directions: Tensor
    images: Tensor | None


@dataclass
class Taught:
    """A model that the page can ask; one that was opened from its folder has not its pictures with it."""

    model: Model
    start: Start | None = None
    support: Supported | None = None


class Answer(NamedTuple):
    """To one picture: its prediction, the support pictures that are most like it, and how adapting changes it.

    nearest: small copies and captions, class and likeness, best first; curve: class -> its probability after 0, 1, ...,
    S inner steps.
    """

    prediction: Prediction
    nearest: list[tuple[Image.Image, str]]
    curve: dict[str, list[float]]


def teach(
    pictures: Mapping[str, Sequence[Picture]], start: Start, open_set: bool = False, until: float = math.inf
) -> Taught:
    """Fit a model on named classes of pictures, and keep what is shown of them.

    until: the time of `time.monotonic` after which no further picture is decoded, since nobody waits for it.  Raises
    HandfulError: a picture that cannot be decoded; a number of classes that the start cannot learn; it is too late.
    """
    thumbnails: dict[Picture, Image.Image] = {}

    def decoded(picture: Picture) -> Image.Image:
        if time.monotonic() > until:
            raise HandfulError("the time for it is over; try it with fewer pictures")
        with opened(picture.content()) as image:
            whole = upright(image, start.preprocessing.size, start.views)
        thumbnails[picture] = thumbnail(whole)
        return whole

    listed = [picture for given in pictures.values() for picture in given]
    embed = embedder_of(start.method) if isinstance(start.method, Metric) else None
    taken = {
        name: [picture._replace(content=partial(decoded, picture)) for picture in given]
        for name, given in pictures.items()
    }
    model = fitted(taken, start, open_set=open_set, embed=embed)
    labels = torch.arange(len(pictures)).repeat_interleave(torch.tensor([len(given) for given in pictures.values()]))
    images = None
    if isinstance(model.network, Fitted):  # all who teach have the same backbone: it is held once
        model.network.backbone = start.method.backbone.cpu()
        own = F.normalize(pooled(model.network.support), dim=-1).unflatten(0, (-1, model.card.views))
    else:
        images = torch.from_numpy(np.stack([start.preprocessing(picture)[0] for picture in listed]))
        own = directions(model, images).unsqueeze(1)
    return Taught(model, start, Supported([thumbnails[picture] for picture in listed], labels, own, images))


@lru_cache(maxsize=1)
def embedder_of(method: Metric) -> Embed:
    """The method's embedder, made once: by onnxruntime it holds weights of its own."""
    return method.embedder()


def thumbnail(image: Image.Image) -> Image.Image:
    """A small copy."""
    small = image.convert("RGB")
    small.thumbnail((THUMBNAIL, THUMBNAIL))
    return small


def directions(model: Model, images: Tensor) -> Tensor:
    """uint8 [n, C, H, W] -> features of unit length by the model's network, [n, d]."""
    with torch.no_grad():
        if isinstance(model.network, Fitted):
            features = pooled(model.embed(images))
        else:
            features = model.network.get_submodule("backbone")(images.float().div(255))
    return F.normalize(features, dim=-1)


def ask(taught: Taught, picture: Picture) -> Answer:
    """Name a picture, and say why.

    Raises HandfulError: it cannot be decoded.
    """
    model, support = taught.model, taught.support
    seen = model.card.preprocessing(picture)
    image, (prediction,) = torch.from_numpy(seen), answers_to(model, list(seen), [picture.name])
    if support is None:
        return Answer(prediction, [], {})
    cosines = support.directions @ directions(model, image)[0]
    alike = (1 + cosines.amax(1).clamp(-1, 1)) / 2  # as `likeness`, of each picture
    nearest = [
        (support.thumbnails[row], f"{model.card.classes[int(support.labels[row])]}: {float(alike[row]):.3f}")
        for row in alike.argsort(descending=True)[:NEAREST].tolist()
    ]
    return Answer(prediction, nearest, curve(taught, image))


def curve(taught: Taught, image: Tensor) -> dict[str, list[float]]:
    """The probability of each class for an image uint8 [1, C, H, W] after 0, 1, ..., S inner steps on the support.

    Empty for a method that takes no gradient steps.
    """
    start, support, card = taught.start, taught.support, taught.model.card
    if start is None or support is None or support.images is None:
        return {}
    method = start.method
    method.attach_head(len(card.classes))  # others may have taught another number meanwhile
    x, query = support.images.float().div(255), image.float().div(255)
    episode = Episode(x[None], support.labels[None], query[None], support.labels.new_zeros(1, 1)).to(method.device)
    logits = method.predict(episode, start.inner_steps, method.inductive)[:, 0, 0].double().cpu()
    shares = (logits * card.temperature).softmax(-1)
    return dict(zip(card.classes, shares.mT.tolist()))


def exported(model: Model) -> bytes:
    """The model as an ONNX file.  Raises HandfulError: it cannot be written as one, or what writes it is missing."""
    with TemporaryDirectory() as scratch:
        file = Path(scratch) / "model.onnx"
        export(model, file)
        return file.read_bytes()


def packed(model: Model) -> bytes:
    """The model's folder as a zip archive, as it is: weights hardly shrink."""
    content = io.BytesIO()
    with TemporaryDirectory() as scratch, zipfile.ZipFile(content, "w", zipfile.ZIP_STORED) as archive:
        for path in sorted(model.save(Path(scratch) / "model").iterdir()):
            archive.write(path, f"model/{path.name}")
    return content.getvalue()


class Shelf:
    """The served model, and the latest models that were taught on the page; who knows a key may have the model."""

    def __init__(self, served: Taught | None = None) -> None:
        self.served = served
        self.taught: OrderedDict[str, Taught] = OrderedDict()
        self.packers = {"zip": lru_cache(PACKED)(packed), "onnx": lru_cache(PACKED)(exported)}

    def put(self, taught: Taught, instead_of: str | None = None) -> str:
        """Keep a model that was taught, perhaps instead of an older one; its key."""
        key = secrets.token_urlsafe(16)
        self.taught.pop(instead_of or "", None)
        self.taught[key] = taught
        while len(self.taught) > KEPT:
            self.taught.popitem(last=False)
        return key

    def get(self, key: str) -> Taught:
        """The model of a key.  Raises Refused (404) if it is not kept, or no longer."""
        found = self.served if key == SERVED else self.taught.get(key)
        if found is None:
            raise Refused(404, f"There is no such model: the latest {KEPT} that were taught are kept; teach it again.")
        return found

    def file(self, key: str, kind: str) -> bytes:
        """The model of a key as one file, `zip` or `onnx`; the latest of each kind are made once.

        Raises Refused (404) as `get` does, and (501) for a model that cannot be written so, or not here.
        """
        model = self.get(key).model
        try:
            return self.packers[kind](model)
        except HandfulError as error:  # a network that is no graph, or nothing that writes one
            raise Refused(501, str(error)) from error
