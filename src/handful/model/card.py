"""What a model says of itself: its classes, what it does to a picture first, where it comes from, how good it is."""

from __future__ import annotations

from typing import Annotated, Any, Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, Field, model_validator
from typing_extensions import TypedDict  # pydantic takes that of typing from Python 3.12 on

from handful import wording
from handful.data.pictures import WHOLE, Picture, View, decode_views

FORMAT: Literal[1] = 1
NONE_OF_THESE = "none of these"
MEND = "mend it or leave it out"


class Preprocessing(BaseModel):
    """From a picture to the network's input: resize to fill, crop, scale to [0, 1], invert."""

    model_config = ConfigDict(extra="forbid")
    channels: int = Field(ge=1, le=3)
    height: int = Field(ge=1, le=4096)
    width: int = Field(ge=1, le=4096)
    invert: bool
    """Turn dark ink on light paper into bright ink on black, as the training images were."""

    @property
    def size(self) -> tuple[int, int]:
        """Height and width."""
        return self.height, self.width

    def __call__(self, picture: Picture, views: tuple[View, ...] = (WHOLE,)) -> NDArray[np.uint8]:
        """uint8 [V, C, H, W] of views of a picture."""
        seen = decode_views(picture, (self.channels, self.height, self.width), MEND, views)
        return 255 - seen if self.invert else seen


class Judged(TypedDict):
    """A picture of the support, its class, what it was named, and the probability of its class."""

    picture: str
    label: str
    named: str
    probability: float


class Check(BaseModel):
    """How a model did on its own support: each picture judged by what the others teach (`leave_one_out`)."""

    model_config = ConfigDict(extra="forbid", allow_inf_nan=False)
    accuracy: float
    low: float
    high: float
    """The ends of the 95 % interval over pictures, by Wilson's formula."""
    pictures: int
    """Judged: those of classes that have another picture."""
    folds: int
    """Parts of the support that were left out in turn."""
    alone: bool
    """Whether each of these was one picture, and its copies."""
    floors: dict[str, float]
    worst: list[Judged]
    """The pictures that were named wrong, or with most doubt: picture, label, named, probability (of its label).

    A picture is CLASS/FILE, without the rest of its path.  None of a model that pictures were added to: it does not
    know what they were called.
    """

    def lines(self) -> list[str]:
        """For the screen."""
        out = "each left out in turn" if self.alone else f"in {self.folds} parts, each left out in turn"
        floors = ", ".join(f"{name} {wording.measured(value)}" for name, value in self.floors.items())
        lines = [
            f"Of its own pictures, {out}, it names {wording.measured(self.accuracy)} right "
            f"(95 % over {wording.count(self.pictures, 'picture')}: {100 * self.low:.1f} to {100 * self.high:.1f} %; "
            f"floors: {floors})."
        ]
        wrong = [found for found in self.worst if found["named"] != found["label"]]
        lines += [
            f"  {found['picture']}: named {found['named']}, with {100 * found['probability']:.0f} % for its own class"
            for found in wrong
        ]
        if self.worst and (more := round((1 - self.accuracy) * self.pictures) - len(wrong)) > 0:
            lines.append(f"  and {wording.count(more, 'other')}")
        return lines


class Reached(TypedDict):
    """What models reach on test tasks, with whatever else an evaluation says."""

    __pydantic_config__ = ConfigDict(extra="allow")  # type: ignore[misc]
    mean: float
    ci95: float | None
    tasks: int
    way: int
    shot: int
    data: str


class Card(BaseModel):
    """What a model is."""

    model_config = ConfigDict(extra="forbid")
    format: Literal[1] = FORMAT
    handful: str
    problem: Literal["classification"]
    classes: Annotated[list[str], Field(min_length=1)]
    support: dict[str, Annotated[int, Field(ge=1)]]
    """Images a class that it was fitted on."""
    views: int = Field(1, ge=1)
    """Views of each of these images: parts of it, and its mirror image, that count as further images."""
    preprocessing: Preprocessing
    backbone: dict[str, Any]
    method: dict[str, Any]
    inner_steps: int
    norm_stats: str
    recipe: str | None
    """Of the run that it was fitted from, if it was from one."""
    trained_on: str
    seen: str | None = None
    """What the backbone's weights had been trained on before."""
    temperature: float = Field(1.0, gt=0, le=1e6, allow_inf_nan=False)
    """Logits are multiplied by it, so that probabilities are right on the support, each picture left out."""
    threshold: float | None = Field(None, ge=0, le=1, allow_inf_nan=False)
    """The least likeness to a class; below it a picture is none of these."""
    none_of_own: float | None = Field(None, ge=0, le=1, allow_inf_nan=False)
    """Share of its own pictures that would be none of these, compared with the others."""
    none_of_others: float | None = Field(None, ge=0, le=1, allow_inf_nan=False)
    """Share that would be if their own class were not there: what the threshold is for."""
    check: Check | None = None
    notes: list[str] = []
    """What a person should know of the support: pictures that were left out, or are there twice."""
    accuracy: Reached | None = None
    """What such models reach on test tasks of their training data: mean, ci95, tasks, way, shot, task_hash, floors."""

    def __str__(self) -> str:
        """What was learned from what, how well it does, and which pictures to look at."""
        counts = ", ".join(f"{name} ({count})" for name, count in self.support.items())
        lines = [f"{wording.count(len(self.classes), 'class')}: {counts}"]
        seen = f", trained on {self.seen}" if self.seen else ""
        views = f", {self.views} views of each picture" if self.views > 1 else ""
        base = f"the run {self.recipe}" if self.recipe else "no training"
        if not (self.recipe or self.seen):
            seen = ", which has seen nothing that is known"
        lines.append(f"By {self.method['name']} on {self.backbone['name']}{seen}; {base}{views}.")
        if self.check:
            lines += self.check.lines()
            if single := [name for name, count in self.support.items() if count == 1]:
                lines.append(f"Classes of one picture are not checked: {wording.named(single)}.")
        elif max(self.support.values()) > 1:
            lines.append("How good it is was not checked.")
        else:
            lines.append("Each class has one picture, so none can be left out to see how good the model is.")
        if found := self.accuracy:
            lines.append(
                f"Such models score {wording.measured(found['mean'], found['ci95'])} on {found['tasks']} "
                f"{found['way']}-way {found['shot']}-shot test tasks of {found['data']} (inductive: each picture "
                "judged by itself)."
            )
        if self.threshold is not None:
            lines.append(f"A picture whose likeness is below {self.threshold:.3f} is {NONE_OF_THESE}{self._told()}.")
        elif len(self.classes) == 1:
            lines.append(
                f"There is one class, so every picture is named {self.classes[0]}; give another class, or fit with "
                "--open-set."
            )
        return "\n".join([*lines, *self.notes])

    def _told(self) -> str:
        """What the threshold does to the support's own pictures, if the card says."""
        if self.none_of_own is None or self.none_of_others is None:
            return ""
        return (
            f": of its own pictures, compared with the others, {wording.measured(self.none_of_own)}; and "
            f"{wording.measured(self.none_of_others)} where their own class is left out"
        )

    @model_validator(mode="after")
    def _parts_have_names(self) -> Card:
        if not all(isinstance(part.get("name"), str) for part in (self.backbone, self.method)):
            raise ValueError("its backbone or its method has no name")
        return self

    @model_validator(mode="after")
    def _every_class_has_its_support(self) -> Card:
        if sorted(self.classes) != sorted(self.support):
            raise ValueError("its classes are not those of its support")
        return self
