"""`fit`: a model from a handful of labelled pictures, on a meta-trained run or on a backbone as it is."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any, NamedTuple, TypeAlias

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from handful.backbones import BACKBONES
from handful.data import class_folders
from handful.data.folders import split_folders, unwrapped
from handful.data.pictures import WHOLE, Picture, View
from handful.episodes import Episode
from handful.errors import HandfulError
from handful.methods import METHODS, Method, Metric
from handful.methods.metric import Fitted
from handful.methods.protonet import Prototypes
from handful.model.card import Card, Check, Preprocessing
from handful.model.inputs import Input, batches, pictures
from handful.model.leave_one_out import Judge, folds_of, leave_one_out, open_set_threshold, temperature, wilson
from handful.model.model import BATCH, Model, pooled
from handful.registry import build
from handful.run import Run

Support: TypeAlias = "str | Path | Mapping[str, Input | Sequence[Input]]"
Spec = str | Mapping[str, Any]

BACKBONE: dict[str, Any] = {"name": "efficientnet_lite0", "resolution": None, "pooling": "centre"}
METHOD: dict[str, Any] = {"name": "ridge"}
SIDE = 224
CORNERS = ((0.0, 0.0), (1.0, 0.0), (0.0, 1.0), (1.0, 1.0), (0.5, 0.5))
VIEWS = (WHOLE, View(mirrored=True), *(View(0.8, x, y) for x, y in CORNERS))  # bench/photos.py
FEW = 500  # pictures; of more only the whole is embedded, for the time it takes
WORST = 10
PIXELS = 32  # of a side, for the floor
REPORTED = (
    *("mean", "ci95", "tasks", "way", "shot", "query", "task_hash", "norm_stats", "inner_steps"),
    *("floors", "data", "split", "note"),
)


@dataclass(frozen=True)
class Start:
    """What a model is fitted from: a method, what it does to pictures, and where both come from.

    views: of a support picture, each of which counts as a further one.
    """

    method: Method
    preprocessing: Preprocessing
    backbone: dict[str, Any]
    trained_on: str
    inner_steps: int = 0
    recipe: str | None = None
    views: tuple[View, ...] = (WHOLE,)
    accuracy: Callable[[int, int], dict[str, Any] | None] = lambda way, shot: None


def fit(
    support: Support,
    run: Run | None = None,
    inner_steps: int | None = None,
    *,
    backbone: Spec | nn.Module | None = None,
    method: Spec | None = None,
    open_set: bool = False,
) -> Model:
    """Learn named classes from a handful of labelled pictures: class folders, or class name -> pictures.

    run: the meta-trained run to adapt; without it nothing is trained: a frozen backbone, EfficientNet-Lite0 with its
    ImageNet weights unless another is given, and a head on its features, ridge regression unless another `method` is
    named.  Supports need not be balanced; one picture of a class will do.  open_set: say `none of these` of pictures
    that are less like the support than its own pictures are.

    Raises HandfulError: no or unreadable pictures; a run whose head has another number of ways; open_set where the
    model cannot tell.
    """
    if run is None:
        found = found_in(support)
        return fitted(found, from_backbone(backbone, method, sum(map(len, found.values()))), open_set)
    if backbone is not None or method is not None:
        raise HandfulError("A run has its backbone and its method; leave them out, or leave out the run.")
    start = from_run(run, inner_steps)
    return fitted(found_in(support), start, open_set)


def found_in(support: Support) -> dict[str, list[Picture]]:
    """Class name -> its pictures; at least one of each, and one class."""
    folders = support if isinstance(support, Mapping) else class_folders(Path(support))
    if not isinstance(support, Mapping) and (parts := split_folders(unwrapped(Path(support)))):
        raise HandfulError(
            f"{support} holds the splits {', '.join(parts)} and not classes; name one of them: {parts['train']}."
        )
    found = {str(name): pictures(given) for name, given in folders.items()}
    if empty := [name for name, given in found.items() if not given]:
        raise HandfulError(f"The class {empty[0]!r} has no picture to learn from; give it one, or leave it out.")
    if not found:
        raise HandfulError("There are no classes to learn; give at least one, with a picture.")
    return found


def from_run(run: Run, inner_steps: int | None = None) -> Start:
    """Start from a meta-trained run."""
    if run.method.problem.name != "classification":
        raise HandfulError(
            f"fit takes labelled pictures, and the run {run.folder} does {run.method.problem.name}; in Python, "
            "`network = run.method.fit(x, y)` adapts it to tensors x [n, ...] and y [n, 1]."
        )
    channels, height, width = run.data.input_shape
    inverted = bool(run.data.info.get("inverted", False))
    steps = inner_steps if inner_steps is not None else run.recipe.evaluate.inner_steps
    steps = run.method.inner_steps if steps is None else steps
    return Start(
        run.method,
        Preprocessing(channels=channels, height=height, width=width, invert=inverted),
        run.recipe.backbone.spec(),
        trained_on=run.data.name,
        inner_steps=steps,
        recipe=run.recipe.name,
        accuracy=lambda way, shot: expected_accuracy(run, way, shot, steps),
    )


def from_backbone(backbone: Spec | nn.Module | None, method: Spec | None, images: int) -> Start:
    """Start from a backbone as it is; it may be a module with `input_shape` and `out_features`."""
    network: Any = backbone
    if not isinstance(backbone, nn.Module):
        network = build("backbone", BACKBONES, spec_of(backbone, BACKBONE), input_shape=(3, SIDE, SIDE))
    chosen = spec_of(method, METHOD)
    made: Method = build("method", METHODS, chosen, backbone=network)
    if not isinstance(made, Metric):
        raise HandfulError(
            f"{chosen['name']} adapts a meta-trained network; train one first and name its run, or use a method that "
            "compares features, such as ridge or protonet."
        )
    if any(parameter.dim() for parameter in made.head.parameters()):  # numbers alone, such as a scale, will do
        raise HandfulError(
            f"{chosen['name']} has a head that must be trained; train a run with it first, or use ridge or protonet."
        )
    channels, height, width = getattr(network, "input_shape", (3, SIDE, SIDE))
    return Start(
        made,
        Preprocessing(channels=channels, height=height, width=width, invert=False),
        getattr(network, "spec", {"name": type(network).__name__}),
        trained_on="nothing further",
        views=VIEWS if images <= FEW else (WHOLE,),
    )


def from_model(model: Model) -> Start:
    """Start from what a fitted model was fitted from: its backbone, and its way to compare features."""
    card, network = model.card, model.network
    if not isinstance(network, Fitted):
        raise HandfulError(
            f"This model holds a network that {card.method['name']} adapted to its classes, and not the one that it "
            "started from; to learn other classes, name the run instead."
        )
    method: Method = build("method", METHODS, card.method, backbone=network.backbone)
    method.network.add_module("head", network.head)  # with what it learned
    return Start(
        method,
        card.preprocessing,
        card.backbone,
        card.trained_on,
        recipe=card.recipe,
        views=VIEWS if card.views == len(VIEWS) else (WHOLE,),
    )


def spec_of(part: Spec | None, default: dict[str, Any]) -> dict[str, Any]:
    """The options of a part that is given by its name, by its options, or not at all."""
    return default if part is None else {"name": part} if isinstance(part, str) else dict(part)


class Learned(NamedTuple):
    """What was learned from support pictures.

    network: images -> logits; judge: pictures to learn from and pictures to judge, by index -> logits of the latter;
    features: of each view of each picture, [n, V, d], where the method compares features; small: the pictures, shrunk.
    """

    network: nn.Module
    judge: Judge
    features: Tensor | None
    small: Tensor


def fitted(found: Mapping[str, Sequence[Picture]], start: Start, open_set: bool = False) -> Model:
    """Learn the classes of these pictures, and check what was learned by leaving pictures out."""
    method, counts = start.method, [len(given) for given in found.values()]
    method.attach_head(len(found))
    labels = torch.arange(len(found)).repeat_interleave(torch.tensor(counts))
    listed = [picture for given in found.values() for picture in given]
    prepared = (
        torch.from_numpy(np.stack(batch))
        for batch in batches(listed, lambda picture: start.preprocessing(picture, start.views), BATCH)
    )
    learned = (by_features if isinstance(method, Metric) else by_adaptation)(start, prepared, labels)
    if open_set and learned.features is None:
        raise HandfulError(
            "open_set needs a method that compares features; a network that was adapted by gradients knows no likeness."
        )
    which, logits = leave_one_out(learned.judge, labels, len(found))
    card = Card(
        handful=version("handful"),
        problem=method.problem.name,
        classes=list(found),
        support=dict(zip(found, counts)),
        views=len(start.views),
        preprocessing=start.preprocessing,
        backbone=start.backbone,
        method=method.spec,
        inner_steps=start.inner_steps,
        norm_stats=method.inductive,
        recipe=start.recipe,
        trained_on=start.trained_on,
        seen=getattr(method.backbone, "seen", None),
        temperature=temperature(logits, labels[which]),
        threshold=open_set_threshold(learned.features, labels) if open_set and learned.features is not None else None,
        accuracy=start.accuracy(len(found), min(counts)),
    )
    if len(which):
        card.check = checked(card, logits, labels, which, listed, learned.small)
    return Model(learned.network, card)


def by_features(start: Start, prepared: Iterable[Tensor], labels: Tensor) -> Learned:
    """With a method that compares features: each view is embedded once, here."""
    method = start.method
    assert isinstance(method, Metric)
    embed, views = method.embedder(), len(start.views)
    small, parts = [], []
    for batch in prepared:
        small.append(shrunk(batch[:, 0]))
        parts.append(embed(batch.flatten(0, 1)).unflatten(0, batch.shape[:2]).cpu())
    features = torch.cat(parts)
    network = method.fitted(features.flatten(0, 1), labels.repeat_interleave(views))

    def judge(learn: Tensor, out: Tensor) -> Tensor:
        support, classes = features[learn].flatten(0, 1), labels[learn].repeat_interleave(views)
        with torch.no_grad():
            logits: Tensor = network.head(support[None], classes[None], features[out, 0][None], network.way)
        return logits[0]

    return Learned(network, judge, pooled(features.flatten(0, 1)).unflatten(0, features.shape[:2]), torch.cat(small))


def by_adaptation(start: Start, prepared: Iterable[Tensor], labels: Tensor) -> Learned:
    """With a method that adapts its network by gradient steps."""
    method, pixels = start.method, torch.cat([batch[:, 0] for batch in prepared])
    images = pixels.float().div(255)

    def judge(learn: Tensor, out: Tensor) -> Tensor:
        unknown = labels.new_zeros(1, len(out))
        episode = Episode(images[learn][None], labels[learn][None], images[out][None], unknown).to(method.device)
        return method.predict(episode, start.inner_steps, method.inductive, every_step=False)[-1, 0].cpu()

    return Learned(method.fit(images, labels, start.inner_steps), judge, None, shrunk(pixels))


def checked(
    card: Card, logits: Tensor, labels: Tensor, which: Tensor, named: Sequence[Picture], small: Tensor
) -> Check:
    """How the pictures `which` were judged by the others, logits [m, N]; and by their pixels."""
    right = labels[which]
    probabilities = (logits.double() * card.temperature).softmax(-1)
    of_label = probabilities.gather(1, right[:, None]).squeeze(1)
    hits, best = int((logits.argmax(-1) == right).sum()), logits.argmax(-1)
    low, high = wilson(hits, len(which))
    most = int(torch.bincount(right).max())
    nearest, way = Prototypes(), len(card.classes)

    def by_pixels(learn: Tensor, out: Tensor) -> Tensor:
        with torch.no_grad():
            found: Tensor = nearest(small[learn][None], labels[learn][None], small[out][None], way)
        return found[0]

    floor = leave_one_out(by_pixels, labels, way)[1].argmax(-1) == right
    doubted = of_label.argsort()[:WORST]
    return Check(
        accuracy=hits / len(which),
        low=low,
        high=high,
        pictures=len(which),
        folds=folds_of(len(labels)),
        floors={
            "chance": 1 / way,
            "largest class": most / len(which),
            "pixel class mean": float(floor.double().mean()),
        },
        worst=[
            {
                "picture": named[int(which[row])].name,
                "label": card.classes[int(right[row])],
                "named": card.classes[int(best[row])],
                "probability": float(of_label[row]),
            }
            for row in doubted
        ],
    )


def shrunk(images: Tensor) -> Tensor:
    """uint8 [n, C, H, W] -> pixels [n, d] of at most 32 a side, for the floor."""
    size = [min(side, PIXELS) for side in images.shape[-2:]]
    return F.interpolate(images.float().div(255), size, mode="area").flatten(1)


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
