"""What a model of rail lines says of itself."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field

from handful import wording

FORMAT: Literal[1] = 1


class LineCheck(BaseModel):
    """How the support was answered, each frame by a model that was fitted on the others."""

    model_config = ConfigDict(extra="forbid")
    frames: int = Field(ge=2)
    path_iou: float
    points_20px: float
    limit_error: float
    unadapted: dict[str, float] | None
    """The same of the network before it was adapted, if it knew anything."""
    floor: dict[str, float]
    """The same of the mean line of the others."""

    def __str__(self) -> str:
        before = f"before it was adapted {said(self.unadapted)}; " if self.unadapted else ""
        own = said({"path_iou": self.path_iou, "points_20px": self.points_20px})
        return (
            f"Of each frame, fitted on the others, it finds {own} of the points within 20 of 1,920 pixels "
            f"({before}floor, the mean line of the others: {said(self.floor)})."
        )


def said(found: dict[str, float]) -> str:
    """`path IoU 0.912, 94 %`."""
    return f"path IoU {found['path_iou']:.3f}, {100 * found['points_20px']:.0f} %"


class LineCard(BaseModel):
    """What a model of rail lines is."""

    model_config = ConfigDict(extra="forbid")
    format: Literal[1] = FORMAT
    handful: str
    problem: Literal["rail_lines"]
    frames: int = Field(ge=1)
    """Annotated frames that it was fitted on."""
    width: int = Field(ge=32, le=4096)
    height: int = Field(ge=32, le=4096)
    """Of the pictures that the network takes: frames are resized to it, and the lines back."""
    size: tuple[int, int]
    """Width and height of the annotated frames."""
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
        base = f"the run {self.recipe}" if self.recipe else f"{self.backbone['name']} alone"
        seen = f" (trained on {self.seen})" if self.seen else ""
        lines = [
            f"The left and the right rail, from {wording.count(self.frames, 'annotated frame')} of {self.size[0]}x"
            f"{self.size[1]} pixels.",
            f"By {wording.count(self.steps, 'step')} of {self.method} from {base}{seen}.",
        ]
        if self.check:
            lines.append(str(self.check))
        elif self.frames == 1:
            lines.append("There is one frame, so none can be left out to see how good the model is.")
        return "\n".join([*lines, *self.notes])
