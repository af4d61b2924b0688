"""What a model of rail lines says of itself."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, model_validator

from handful import wording

FORMAT: Literal[1] = 1

Side = Annotated[int, Field(ge=1)]


class LineFigures(BaseModel):
    """How well frames were answered, on the average."""

    model_config = ConfigDict(extra="forbid")
    path_iou: float | None
    """None where one of the rails is in no frame, so that there is no path."""
    points_20px: float
    limit_error: float

    @property
    def score(self) -> float:
        """Which of two is better: the larger."""
        return self.points_20px if self.path_iou is None else self.path_iou

    def __str__(self) -> str:
        iou = "" if self.path_iou is None else f"path IoU {self.path_iou:.3f}, "
        return f"{iou}{100 * self.points_20px:.0f} %"


class LineCheck(BaseModel):
    """How the support was answered, in parts, each by a model that was fitted on the others."""

    model_config = ConfigDict(extra="forbid")
    frames: int = Field(ge=2)
    folds: int = Field(ge=2)
    """Parts of the support that were left out in turn; as many as frames where each was one."""
    fitted: LineFigures
    """Of the model after the inner loop, or the training."""
    unadapted: LineFigures | None
    """Of the network before it was adapted, if it knew anything."""
    floor: LineFigures
    """Of the mean line of the others."""

    @property
    def helps(self) -> bool:
        """Whether fitting did no harm."""
        return self.unadapted is None or self.fitted.score >= self.unadapted.score

    def of(self, steps: int) -> str:
        """In words, of a model of so many steps."""
        parts = (
            "each left out in turn" if self.folds == self.frames else f"in {self.folds} parts, each left out in turn"
        )
        own, other = self.fitted, f"before it was adapted {self.unadapted}; " if self.unadapted else ""
        if not steps and self.unadapted and not self.helps:
            own, other = self.unadapted, f"adapted to the others {self.fitted}; "
        return (
            f"Of its own frames, {parts}, it finds {own} of the points within 20 of 1,920 pixels "
            f"({other}floor, the mean line of the others: {self.floor})."
        )


class LineCard(BaseModel):
    """What a model of rail lines is."""

    model_config = ConfigDict(extra="forbid")
    format: Literal[1] = FORMAT
    handful: str
    problem: Literal["rail_lines"]
    lines: Annotated[list[Literal["left", "right"]], Field(min_length=1)]
    """The rails that were in some frame; another is not looked for."""
    frames: int = Field(ge=1)
    """Annotated frames that it was fitted on."""
    width: int = Field(ge=32, le=1024)
    height: int = Field(ge=32, le=1024)
    """Of the pictures that the network takes: frames are resized to it, and the lines back."""
    size: tuple[Side, Side]
    """Width and height of the annotated frames."""
    mirror: bool
    """Whether it answers with the mean of what it says of a picture and of its mirror image."""
    backbone: dict[str, Any]
    decoder: dict[str, Any]
    method: str
    steps: int
    recipe: str | None = None
    """Of the run that it was fitted from, if it was from one."""
    seen: str | None = None
    """What the backbone's weights had been trained on before."""
    check: LineCheck | None = None
    notes: list[str] = []

    def __str__(self) -> str:
        """What was learned from what, and how well it does."""
        rails = "The left and the right rail" if len(self.lines) == 2 else f"The {self.lines[0]} rail alone"
        base = f"the run {self.recipe}" if self.recipe else f"{self.backbone['name']} alone"
        seen = f" (trained on {self.seen})" if self.seen else ""
        lines = [
            f"{rails}, from {wording.count(self.frames, 'annotated frame')} of {self.size[0]}x{self.size[1]} pixels.",
            f"By {wording.count(self.steps, 'step')} of {self.method} from {base}{seen}.",
        ]
        if self.check:
            lines.append(self.check.of(self.steps))
        elif self.frames == 1:
            lines.append("There is one frame, so none can be left out to see how good the model is.")
        else:
            lines.append("How good it is was not checked.")
        return "\n".join([*lines, *self.notes])

    @model_validator(mode="after")
    def _parts_have_names(self) -> LineCard:
        if not all(isinstance(part.get("name"), str) for part in (self.backbone, self.decoder)):
            raise ValueError("its backbone or its decoder has no name")
        return self
