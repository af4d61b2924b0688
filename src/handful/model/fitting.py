"""`fit`: a model from a handful of labelled pictures, on a meta-trained run or on a backbone as it is; `add`: more."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from importlib.metadata import version
from pathlib import Path, PurePath
from typing import NamedTuple, TypeAlias

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from handful import wording
from handful.data import class_folders
from handful.data.folders import (
    alike,
    empty_folders,
    loose_pictures,
    nothing_in,
    other_files,
    split_folders,
    unwrapped,
)
from handful.data.pictures import Picture, View
from handful.embedders import Embed
from handful.episodes import Episode
from handful.errors import HandfulError
from handful.methods import Method, Metric
from handful.methods.metric import Fitted
from handful.methods.protonet import Prototypes
from handful.model.card import Card, Check, Preprocessing
from handful.model.inputs import Input, batches, lenient, pictures
from handful.model.leave_one_out import Judge, copies, folds_of, leave_one_out, open_set_threshold, temperature, wilson
from handful.model.model import BATCH, Model, pooled
from handful.model.start import VIEWS, Spec, Start, from_backbone, from_run
from handful.registry import spec_of
from handful.rows import Rows
from handful.run import Run

Support: TypeAlias = "str | Path | Mapping[str, Input | Sequence[Input]]"

WORST = 10
PIXELS = 32  # of a side, for the floor


def fit(
    support: Support,
    run: Run | None = None,
    inner_steps: int | None = None,
    *,
    backbone: Spec | nn.Module | None = None,
    method: Spec | None = None,
    open_set: bool = False,
    check: bool = True,
    skip_bad: bool = False,
) -> Model:
    """Learn named classes from a handful of labelled pictures: class folders, or class name -> pictures.

    run: the meta-trained run to adapt; without it nothing is trained: a frozen backbone, EfficientNet-Lite0 with its
    ImageNet weights unless another is given, and a head on its features, ridge regression unless another `method` is
    named.  Supports need not be balanced; one picture of a class will do.  open_set: say `none of these` of pictures
    that are less like the support than its own pictures are.  check: leave pictures out in turn, to see how good the
    model is and to scale its probabilities; it takes learning anew as often.  skip_bad: leave out pictures that cannot
    be read, and say so.

    Raises HandfulError: no or unreadable pictures; a run whose head has another number of ways; open_set where the
    model cannot tell.
    """
    if run is None:
        if inner_steps is not None:
            raise HandfulError("inner_steps is about a run; name one, or leave it out.")
        found, notes = found_in(support)
        start = from_backbone(backbone, method, sum(map(len, found.values())))
    elif backbone is not None or method is not None:
        raise HandfulError("A run has its backbone and its method; leave them out, or leave out the run.")
    else:
        start = from_run(run, inner_steps)
        found, notes = found_in(support)
    return fitted(found, start, open_set=open_set, check=check, skip_bad=skip_bad, notes=notes)


def add(model: Model, support: Support, *, check: bool = True, skip_bad: bool = False) -> Model:
    """The model with further pictures, of its classes or of new ones; those that it knows are not embedded again.

    check and skip_bad as in `fit`.  Raises HandfulError: as `fit` does; a network that was adapted by gradient steps.
    """
    network, card = model.network, model.card
    if not isinstance(network, Fitted):
        raise HandfulError(
            f"Pictures can be added to a model that compares features; this one was adapted by {card.method['name']}, "
            "so fit it anew with all pictures."
        )
    found, notes = found_in(support)
    seen = take(found, card.preprocessing, VIEWS[: card.views], model.embed, skip_bad)
    classes = list(dict.fromkeys([*card.classes, *found]))
    places = torch.tensor([classes.index(name) for name in found])
    known = network.support.unflatten(0, (-1, card.views))
    features = torch.cat([known, seen.inputs])
    labels = torch.cat([network.labels[:: card.views], places[seen.labels]])
    grown = Fitted(network.backbone, network.head, network.maps, labels.numel() * card.views, len(classes)).eval()
    grown.support.copy_(features.flatten(0, 1))
    grown.labels.copy_(labels.repeat_interleave(card.views))
    same = copies(features[:, 0].flatten(1))
    judge = by_features(grown, card.views)
    which, logits = leave_one_out(judge, labels, len(classes), same) if check else none_judged(len(classes))
    counts = torch.bincount(labels).tolist()
    extended = card.model_copy(
        update={
            "classes": classes,
            "support": dict(zip(classes, counts)),
            "temperature": temperature(logits, labels[which]),
            **({} if card.threshold is None else open_set_threshold(vectors(features), labels)._asdict()),
            "accuracy": None,  # was of other ways or shots
            "check": None,
            "notes": [*card.notes, *notes, *seen.notes()],
        }
    )
    if len(which):
        extended.check = checked(extended, logits, labels, which, len(same.unique()))
    return Model(grown.requires_grad_(False), extended, model.embed)


def found_in(support: Support) -> tuple[dict[str, list[Picture]], list[str]]:
    """Class name -> its pictures, at least one of each, and one class; and what a person should know of them."""
    notes: list[str] = []
    if isinstance(support, Mapping):
        folders: Mapping[str, Input | Sequence[Input]] = support
    else:
        source = Path(support)
        folders = class_folders(source)
        if parts := split_folders(source := unwrapped(source)):
            raise HandfulError(
                f"{support} holds the splits {', '.join(parts)} and not classes; name one of them: {parts['train']}."
            )
        notes = [*alike(folders), *(nothing_in(child, source) for child in empty_folders(source))]
        notes += [*loose_pictures(source, {"": source}), *other_files(source)]
    found = {str(name): pictures(given) for name, given in folders.items()}
    if empty := [name for name, given in found.items() if not given]:
        raise HandfulError(f"The class {empty[0]!r} has no picture to learn from; give it one, or leave it out.")
    if not found:
        raise HandfulError("There are no classes to learn; give at least one, with a picture.")
    return found, notes


class Taken(NamedTuple):
    """Support pictures as a method takes them, class after class.

    labels [n]; inputs: features of each view, [n, V, ...], or the pictures, uint8 [n, C, H, W]; small: the pictures,
    shrunk, [n, d]; same [n]: the first picture that is the same to the network; skipped: those that cannot be read.
    """

    pictures: list[Picture]
    classes: list[str]
    labels: Tensor
    inputs: Tensor
    small: Tensor
    same: Tensor
    skipped: list[str]

    def place(self, index: int) -> str:
        """Where a picture lies in the support."""
        return place(self.pictures[index], self.classes[int(self.labels[index])])

    def notes(self) -> list[str]:
        """What a person should know of these pictures."""
        told = [f"Left out, since they cannot be read: {', '.join(self.skipped)}."] if self.skipped else []
        copies = [(first, index) for index, first in enumerate(self.same.tolist()) if first != index]
        for first, index in copies:
            if self.labels[first] != self.labels[index]:
                both = " and ".join(self.place(i) for i in (first, index))
                told.append(f"The same picture in two classes, so no answer is right for both: {both}.")
        within = sum(bool(self.labels[first] == self.labels[index]) for first, index in copies)
        if within:
            told.append(f"{wording.count(within, 'picture')} more than once in a class; copies are left out together.")
        return told


def place(picture: Picture, name: str) -> str:
    """Where a picture of a class lies in its support, CLASS/FILE: no more of its path is for those who get the card."""
    *folders, file = PurePath(picture.name).parts
    below = folders[len(folders) - folders[::-1].index(name) :] if name in folders else []
    return "/".join([name, *below, file])


def take(
    found: Mapping[str, Sequence[Picture]],
    preprocessing: Preprocessing,
    views: tuple[View, ...],
    embed: Embed | None,
    skip_bad: bool,
) -> Taken:
    """Read pictures, and embed their views if there is something to embed them with: each once, here.

    Raises HandfulError: a picture that cannot be read, unless it may be skipped; a class of which none can.
    """
    names = list(found)
    listed = [(picture, label) for label, given in enumerate(found.values()) for picture in given]
    kept: list[tuple[Picture, int]] = []
    inputs, small = Rows(len(listed)), Rows(len(listed))
    same, skipped = [], []
    first: dict[bytes, int] = {}

    done = 0
    for batch in batches(listed, lenient(lambda item: preprocessing(item[0], views), skip_bad), BATCH):
        good = []
        for item, seen in zip(listed[done:], batch):
            if isinstance(seen, HandfulError):
                skipped.append(place(item[0], names[item[1]]))
                continue
            same.append(first.setdefault(hashlib.blake2b(seen[0].tobytes()).digest(), len(kept)))
            kept.append(item)
            good.append(seen)
        done += len(batch)
        if good:
            images = torch.from_numpy(np.stack(good))
            small.append(shrunk(images[:, 0]))
            embedded = embed and embed(images.flatten(0, 1)).unflatten(0, images.shape[:2]).cpu()
            inputs.append(images[:, 0] if embedded is None else embedded)
    labels = torch.tensor([label for _, label in kept], dtype=torch.long)
    counts = torch.bincount(labels, minlength=len(found)).tolist()
    if unread := [name for name, count in zip(found, counts) if not count]:
        tried = found[unread[0]][0].name
        raise HandfulError(
            f"No picture of the class {unread[0]!r} can be read ({tried} was tried); give it one, or leave it out."
        )
    return Taken(
        [picture for picture, _ in kept], names, labels, inputs.whole, small.whole, torch.tensor(same), skipped
    )


def fitted(
    found: Mapping[str, Sequence[Picture]],
    start: Start,
    *,
    open_set: bool = False,
    check: bool = True,
    skip_bad: bool = False,
    notes: Sequence[str] = (),
    embed: Embed | None = None,
) -> Model:
    """Learn the classes of these pictures, and check what was learned by leaving pictures out.

    embed: the embedder of a method that compares features, if it is at hand; it is made if not.
    """
    method, way, views = start.method, len(found), len(start.views)
    if isinstance(method, Metric) and embed is None:
        embed = method.embedder()
    if open_set and embed is None:
        raise HandfulError(
            "open_set needs a method that compares features; a network that was adapted by gradients knows no likeness."
        )
    method.attach_head(way)
    seen = take(found, start.preprocessing, start.views, embed, skip_bad)
    labels = seen.labels
    network: nn.Module
    if isinstance(method, Metric):
        network = method.fitted(seen.inputs.flatten(0, 1), labels.repeat_interleave(views))
        judge = by_features(network, views)
    else:
        images = seen.inputs.float().div(255)
        network = method.fit(images, labels, start.inner_steps)
        judge = by_adaptation(method, images, labels, start.inner_steps)
    which, logits = leave_one_out(judge, labels, way, seen.same) if check else none_judged(way)
    if not logits.isfinite().all():
        raise HandfulError(
            f"What {spec_of(method)['name']} says of its own pictures is no number: the weights that it starts from "
            "are damaged, or its training diverged; train anew, by a lower rate."
        )
    counts = torch.bincount(labels).tolist()
    card = Card(
        handful=version("handful"),
        problem=method.problem.name,
        classes=list(found),
        support=dict(zip(found, counts)),
        views=views,
        preprocessing=start.preprocessing,
        backbone=start.backbone,
        method=method.spec,
        inner_steps=start.inner_steps,
        norm_stats=method.inductive,
        recipe=start.recipe,
        trained_on=start.trained_on,
        seen=getattr(method.backbone, "seen", None),
        temperature=temperature(logits, labels[which]),
        **(open_set_threshold(vectors(seen.inputs), labels)._asdict() if open_set else {}),
        accuracy=start.accuracy(way, min(counts)),
        notes=[*start.notes, *notes, *seen.notes()],
    )
    if len(which):
        card.check = checked(card, logits, labels, which, len(seen.same.unique()), seen)
    return Model(network, card, embed)


def by_features(network: Fitted, views: int) -> Judge:
    """Pictures of the support judged by the features of others; the views of a picture stand together."""
    features, labels = network.support.unflatten(0, (-1, views)), network.labels[::views]

    def judge(learn: Tensor, out: Tensor) -> Tensor:
        support, classes = features[learn].flatten(0, 1), labels[learn].repeat_interleave(views)
        with torch.no_grad():
            logits: Tensor = network.head(support[None], classes[None], features[out, 0][None], network.way)
        return logits[0]

    return judge


def by_adaptation(method: Method, images: Tensor, labels: Tensor, inner_steps: int) -> Judge:
    """Pictures of the support judged by the network, adapted to others by gradient steps."""

    def judge(learn: Tensor, out: Tensor) -> Tensor:
        unknown = labels.new_zeros(1, len(out))
        episode = Episode(images[learn][None], labels[learn][None], images[out][None], unknown).to(method.device)
        return method.predict(episode, inner_steps, method.inductive, every_step=False)[-1, 0].cpu()

    return judge


def checked(
    card: Card, logits: Tensor, labels: Tensor, which: Tensor, distinct: int, seen: Taken | None = None
) -> Check:
    """How the pictures `which` were judged by the others, logits [m, N]; and, if they are `seen`, by their pixels.

    distinct: pictures of the support that are not the same.
    """
    right, way = labels[which], len(card.classes)
    probabilities = (logits.double() * card.temperature).softmax(-1)
    of_label = probabilities.gather(1, right[:, None]).squeeze(1)
    best = logits.argmax(-1)
    hits = int((best == right).sum())
    low, high = wilson(hits, len(which))
    floors = {"chance": 1 / way, "largest class": int(torch.bincount(right).max()) / len(which)}
    worst = []
    if seen is not None:
        floors["pixel class mean"] = pixel_floor(seen, way)
        worst = [
            {
                "picture": seen.place(int(which[row])),
                "label": card.classes[int(right[row])],
                "named": card.classes[int(best[row])],
                "probability": float(of_label[row]),
            }
            for row in of_label.argsort()[:WORST]
        ]
    return Check(
        accuracy=hits / len(which),
        low=low,
        high=high,
        pictures=len(which),
        folds=folds_of(distinct),
        alone=folds_of(distinct) == distinct,
        floors=floors,
        worst=worst,
    )


def pixel_floor(seen: Taken, way: int) -> float:
    """Accuracy of the nearest class mean in pixels, each picture left out."""
    nearest = Prototypes()

    def judge(learn: Tensor, out: Tensor) -> Tensor:
        with torch.no_grad():
            logits: Tensor = nearest(seen.small[learn][None], seen.labels[learn][None], seen.small[out][None], way)
        return logits[0]

    which, logits = leave_one_out(judge, seen.labels, way, seen.same)
    return float((logits.argmax(-1) == seen.labels[which]).double().mean())


def none_judged(way: int) -> tuple[Tensor, Tensor]:
    """What leaving pictures out gives where none is left out."""
    return torch.zeros(0, dtype=torch.long), torch.zeros(0, way)


def vectors(features: Tensor) -> Tensor:
    """One vector a view: [n, V, d] as it is, of maps [n, V, r, d] the mean over positions."""
    return pooled(features.flatten(0, 1)).unflatten(0, features.shape[:2])


def shrunk(images: Tensor) -> Tensor:
    """uint8 [n, C, H, W] -> pixels [n, d] of at most 32 a side, for the floor."""
    size = [min(side, PIXELS) for side in images.shape[-2:]]
    return F.interpolate(images.float().div(255), size, mode="area").flatten(1)
