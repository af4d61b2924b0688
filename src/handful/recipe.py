"""Recipes: a run described in one YAML file.  Every key is read; an unknown one is refused with the nearest name."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal, get_args

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError, ValidationInfo, field_validator

from handful.backbones import BACKBONES
from handful.data import DRAWN, FILMED, FRAMED, READERS
from handful.data.augment import Augment
from handful.decoders import DECODERS
from handful.errors import HandfulError, shown, unknown
from handful.inner_loop import NormStats
from handful.methods import METHODS
from handful.problems.video_anomaly.tasks import Support
from handful.reading import from_yaml
from handful.registry import check_options

SHIPPED = Path(__file__).parent / "recipes"
LARGEST_SEED = 2**43 - 1  # seed * 1,000,003 + step, which seeds a training step, has 63 bits
NO_MATTER = (  # keys that change no task of training, and no gradient but by rounding; each result says its protocol
    *("name", "data.root", "pretrain.workers", "train.workers", "train.memory_gib"),
    *("method.backprop", "method.fast_ops"),
    "evaluate.also",
)


class _Section(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)


class DataRecipe(_Section):
    """Which data, and where its source lies; what follows the name is for images."""

    name: str
    root: str | None = None
    image_size: int | None = Field(None, ge=1, le=4096)
    channels: Literal[1, 3] | None = None
    rotations: bool = False
    """Count each quarter turn of a class as a class of its own."""
    split_seed: int = Field(0, ge=0, le=LARGEST_SEED)
    """Draws the class split of a folder; apart from `seed`, so that runs with other seeds share their split."""
    fractions: tuple[float, float, float] | None = None
    """Shares of a folder's classes for train, val and test."""
    skip_bad: bool = False
    """Leave out pictures that cannot be decoded."""
    classes: int | None = Field(None, ge=1)
    """Read only the first so many classes of each split, sorted by name."""
    split: str | None = None
    """Which of the published class splits, of data that has several (`cub`)."""
    cropped: bool = False
    """Cut every picture to its bounding box (`cub`)."""
    fold: int | None = Field(None, ge=0, le=2)
    """Which third of the places is tested (`rails`)."""
    scenes: int | None = Field(None, ge=0)
    """Rendered scenes to train on (`rails`, `rail_scenes`)."""
    targets: Literal["ego", "varied"] | None = None
    """What a task asks for: the train's own rails, or one of many pairs of lines (`rails`, `rail_scenes`)."""
    window: int | None = Field(None, ge=2)
    """Frames that the next one is predicted from (clips)."""
    clips: int | None = Field(None, ge=1)
    """Rendered clips to train on (`sprites`)."""


class PartRecipe(BaseModel):
    """A registered part by name, with its options, which its constructor checks."""

    model_config = ConfigDict(extra="allow", frozen=True)
    name: str

    def spec(self) -> dict[str, Any]:
        """Name and options."""
        return self.model_dump()


class LoopRecipe(_Section):
    """What pre-training and meta-training have in common: the steps of an optimizer."""

    steps: int = Field(ge=0)
    augment: Augment = "none"
    """Vary every training image: as `drawings` (turn, scale, shear, shift) or `photos` (crop, mirror, colours); frames
    of a rail line as seen by other `cameras`; windows of `clips` mirrored."""
    optimizer: Literal["adam", "sgd"] = "adam"
    lr: float = Field(1e-3, gt=0)
    head_lr: float | None = Field(None, gt=0)
    """The rate of everything but the backbone, if it is another."""
    momentum: float = Field(0.0, ge=0, lt=1)
    """Nesterov's, for `sgd`."""
    weight_decay: float = Field(0.0, ge=0)
    schedule: Literal["constant", "cosine", "linear", "step"] = "cosine"
    min_lr: float = Field(0.0, ge=0)
    """Where `cosine` and `linear` end; `constant` stays at lr."""
    milestones: list[int] = []
    """Steps at which `step` multiplies the rate by `decay`."""
    decay: float = Field(0.1, gt=0, lt=1)
    clip: float | None = Field(None, gt=0)
    """Clamp every entry of the gradient to [-clip, clip], as MAML does on mini-ImageNet."""
    validate_every: int = Field(500, ge=1)
    validation_tasks: int = Field(200, ge=2)
    workers: int = Field(0, ge=0, le=256)
    """Processes that load tasks or images; 0 loads them in the training process, as a GPU always does."""

    @field_validator("augment", mode="before")
    @classmethod
    def _word(cls, value: Any) -> Any:
        """Runs of before there were two ways to vary an image say true or false."""
        return {True: "drawings", False: "none"}[value] if isinstance(value, bool) else value

    @field_validator("min_lr")
    @classmethod
    def _below(cls, value: float, info: ValidationInfo) -> float:
        lr = info.data.get("lr", value)  # absent if it is wrong itself
        if value > lr:
            raise ValueError(f"it should be at most lr, which is {lr:g}")
        return value


class PretrainRecipe(LoopRecipe):
    """Ordinary training on single images, before the episodes; validated on episodes all the same."""

    head: Literal["linear", "cosine", "frn"] = "linear"
    batch: int = Field(128, ge=2)
    """Images a step."""


class TrainRecipe(LoopRecipe):
    """The outer loop."""

    way: int = Field(5, ge=1)
    shot: int = Field(1, ge=1)
    query: int = Field(15, ge=1)
    """Queries a class."""
    tasks_per_step: int = Field(16, ge=1)
    memory_gib: float | None = Field(None, gt=0)
    """Memory that a step may take; the tasks whose graph is held at a time are chosen by it. Most of what is free if
    absent. The gradient is the same."""


class Protocol(_Section):
    """How the tasks of an evaluation are drawn and predicted; absent inner steps and statistics are the method's."""

    way: int = Field(ge=1)
    shot: int = Field(ge=1)
    query: int = Field(ge=1)
    tasks: int = Field(600, ge=2)
    inner_steps: int | None = Field(None, ge=0, le=10_000)
    norm_stats: NormStats | None = None
    support: Support = "normal"
    """Of labelled clips: whether the support is drawn from the scene's `normal` footage, or is the `clip_start`."""


class ProtocolRecipe(_Section):
    """The changes from the training's way, shot and query, and from a protocol's defaults."""

    way: int | None = Field(None, ge=1)
    shot: int | None = Field(None, ge=1)
    query: int | None = Field(None, ge=1)
    tasks: int | None = Field(None, ge=2)
    inner_steps: int | None = Field(None, ge=0, le=10_000)
    norm_stats: NormStats | None = None
    support: Support | None = None

    def said(self) -> dict[str, Any]:
        """What is set."""
        return self.model_dump(exclude_none=True, exclude={"also"})


class EvaluateRecipe(ProtocolRecipe):
    """The evaluations at the end of training: a main one, and further ones, each a change of it."""

    also: list[ProtocolRecipe] = []


class Recipe(_Section):
    """A whole run."""

    name: str
    seed: int = Field(0, ge=0, le=LARGEST_SEED)
    data: DataRecipe
    backbone: PartRecipe
    decoder: PartRecipe | None = None
    """What turns the backbone's maps into lines or into a frame, for rail lines and video anomalies."""
    method: PartRecipe
    pretrain: PretrainRecipe | None = None
    train: TrainRecipe
    evaluate: EvaluateRecipe = EvaluateRecipe()

    def protocols(self) -> list[Protocol]:
        """The evaluations at the end, the main one first; way, shot and query as in training where not said."""
        training = {key: getattr(self.train, key) for key in ("way", "shot", "query")}
        main = {**training, **self.evaluate.said()}
        return [Protocol(**main), *(Protocol(**{**main, **other.said()}) for other in self.evaluate.also)]

    def resolved(self) -> Recipe:
        """The recipe with the defaults of its parts written out; refuses parts and options that do not exist."""
        parts = {"backbone": (self.backbone, BACKBONES), "method": (self.method, METHODS)}
        if self.decoder:
            parts["decoder"] = self.decoder, DECODERS
        found = {
            kind: PartRecipe(name=part.name, **check_options(kind, registry, part.spec()))
            for kind, (part, registry) in parts.items()
        }
        return self.model_copy(update=found)

    def to_yaml(self) -> str:
        """The recipe with every default written out."""
        return yaml.safe_dump(self.model_dump(), sort_keys=False, allow_unicode=True)

    def hash(self) -> str:
        """What names a resolved recipe: 16 hex digits that change with every key but those of `NO_MATTER`."""
        text = json.dumps(_mattering(self.model_dump(mode="json")), sort_keys=True)
        return hashlib.sha256(text.encode()).hexdigest()[:16]


def parse(text: str, source: str, changes: Sequence[str] = ()) -> Recipe:
    """Read a recipe from YAML text; `changes` are `a.b=value` settings on top of it."""
    try:
        content = from_yaml(text)
    except ValueError as error:
        raise HandfulError(f"{source} is {error}.") from error
    if not isinstance(content, dict) or not all(isinstance(key, str) for key in content):
        raise HandfulError(
            f"{source} is not a recipe: it should be a mapping with name, data, backbone, method, train."
        )
    for change in changes:
        _set(content, change)
    return make_recipe(content, source)


def make_recipe(content: dict[str, Any], source: str = "recipe") -> Recipe:
    """A recipe from its sections; raises one sentence for the first thing that is wrong."""
    try:
        return Recipe(**content)
    except ValidationError as error:
        raise HandfulError(f"{source}: {_sentence(error)}") from error


def read_section(text: str) -> dict[str, Any]:
    """A section of a recipe from its name, or from YAML such as `{name: protonet, distance: cosine}`."""
    try:
        content = from_yaml(text)
    except ValueError as error:
        raise HandfulError(f"{shown(text)} is neither a name nor a section in YAML.") from error
    if isinstance(content, str):
        return {"name": content}
    if isinstance(content, dict) and isinstance(content.get("name"), str) and all(isinstance(k, str) for k in content):
        return content
    raise HandfulError(f"{shown(text)} is neither a name nor a section in YAML with a name.")


def read_data_recipe(text: str) -> DataRecipe:
    """A `data` section from a name, or from YAML such as `{name: folder, root: photos}`."""
    section = read_section(text)
    if (name := section["name"]) not in {**READERS, **DRAWN, **FRAMED, **FILMED} and os.path.isdir(name):
        raise HandfulError(f"{name} is a folder; to read it as a data set, say '{{name: folder, root: {name}}}'.")
    try:
        return DataRecipe(**section)
    except ValidationError as error:
        raise HandfulError(_sentence(error, DataRecipe)) from error


def find_recipe(name: str) -> Path:
    """The file of a recipe by file name, or by the name of a shipped one (`handful list recipes`)."""
    path = Path(name)
    if not os.path.isfile(path) and (path.parent == Path() or name == f"recipes/{path.name}"):
        path = SHIPPED / f"{path.name.removesuffix('.yaml')}.yaml"
    if not os.path.isfile(path):
        raise unknown("recipe file, or shipped recipe,", name, shipped_recipes(), "`handful list recipes`")
    return path


def load_recipe(name: str, changes: Sequence[str] = ()) -> Recipe:
    """The recipe that `find_recipe` finds; `changes` are `a.b=value` settings on top of it."""
    return parse(read_text(find_recipe(name)), str(name), changes).resolved()


def read_text(path: Path) -> str:
    """The text of a recipe's file."""
    try:
        return path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise HandfulError(f"{path} cannot be read as a recipe: {error}.") from error


def shipped_recipes() -> list[str]:
    """Names of the recipes in the package."""
    return sorted(path.stem for path in SHIPPED.glob("*.yaml"))


def _mattering(value: Any, key: str = "") -> Any:
    """A recipe without the keys of `NO_MATTER`; 1 and 1.0 are one number."""
    if isinstance(value, dict):
        inner = {name: f"{key}.{name}" if key else name for name in value}
        return {name: _mattering(value[name], inner[name]) for name in value if inner[name] not in NO_MATTER}
    if isinstance(value, list):
        return [_mattering(item, key) for item in value]
    return int(value) if isinstance(value, float) and value.is_integer() else value


def _set(content: dict[str, Any], change: str) -> None:
    """Apply one `a.b=value` change."""
    key, equals, value = change.partition("=")
    if not equals or not key:
        raise HandfulError(f"--set takes key=value, such as train.steps=1000, not {shown(change)}.")
    *sections, last = key.split(".")
    for section in sections:
        content = content.setdefault(section, {})
        if not isinstance(content, dict):
            raise HandfulError(f"--set {change}: {section!r} is a value, not a section.")
    try:
        content[last] = from_yaml(value)
    except ValueError as error:
        raise HandfulError(f"--set {key}: {shown(value)} is {error}.") from error


def _section(model: Any, key: str) -> Any:
    found: Any = model.model_fields[key].annotation if hasattr(model, "model_fields") else model
    return next((part for part in get_args(found) if hasattr(part, "model_fields")), found)  # of `Section | None`


def _sentence(error: ValidationError, whole: Any = Recipe) -> str:
    """The first problem of a recipe, in one sentence; a misspelt key before all that it may be the cause of."""
    first = min(error.errors(), key=lambda found: found["type"] != "extra_forbidden")
    where = ".".join(str(step) for step in first["loc"])
    if first["type"] == "extra_forbidden":
        model = whole
        for step in first["loc"][:-1]:  # a number is the place in the list `evaluate.also`
            model = ProtocolRecipe if isinstance(step, int) else _section(model, step)
        section = [str(step) for step in first["loc"][:-1]]
        known = [".".join([*section, key]) for key in model.model_fields]
        if not section:  # where the key of a section stands alone, the nearest name is the one in its section
            known += [f"{key}.{inner}" for key in known for inner in getattr(_section(whole, key), "model_fields", ())]
        return str(unknown("recipe key", where, known))
    if first["type"] == "missing":
        absent = [".".join(map(str, e["loc"])) for e in error.errors() if e["type"] == "missing"]
        keys = f"the key {absent[0]!r} is" if len(absent) == 1 else f"the keys {', '.join(absent)} are"
        return f"{keys} missing; recipes/ has examples, and `handful list recipes` names them."
    wrong = first["msg"].removeprefix("Value error, ")
    return f"{where} is {shown(first['input'])}: {wrong[0].lower()}{wrong[1:]}."
