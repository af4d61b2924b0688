"""What a model that watches a camera says of itself."""

from __future__ import annotations

import math
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, model_validator

from handful import wording

FORMAT: Literal[1] = 1

Side = Annotated[int, Field(ge=1)]
HOUR = 3600


class VideoCheck(BaseModel):
    """How well the held-out frames are predicted: mean PSNR in decibels, more is better."""

    model_config = ConfigDict(extra="forbid")
    psnr: float
    unadapted: float | None
    """Of the network before it was adapted, if there is one."""
    floors: dict[str, float]
    """Of predictors that learned nothing, by name."""
    crossed: float | None
    """Share of alarms in either half of the held-out frames at the threshold of the other; None of too few frames."""


class VideoCard(BaseModel):
    """What a model that watches a camera is."""

    model_config = ConfigDict(extra="forbid", allow_inf_nan=False)
    format: Literal[1] = FORMAT
    handful: str
    problem: Literal["video_anomaly"]
    window: int = Field(ge=2, le=64)
    """Frames that the next one is predicted from."""
    channels: Literal[1, 3]
    """1: frames are seen in grey; 3: in colour."""
    size: int = Field(ge=8, le=1024)
    """Pixels of a side of the frames that the network takes, to which others are stretched."""
    frame_size: tuple[Side, Side]
    """Width and height of the normal footage."""
    frame_rate: float | None = Field(gt=0)
    """Frames a second of it, if it says."""
    frames: Side
    """Of the normal footage."""
    support: int = Field(ge=0)
    """Windows of it that the network was adapted to."""
    held_out_frames: Side
    """Frames of it that it was not adapted to, which mean, deviation and threshold are from."""
    mean: float
    """Of their levels, in decibels."""
    deviation: float = Field(gt=0)
    threshold: float
    """Above this score is an alarm."""
    false_alarms: float = Field(gt=0, lt=1)
    """Share of normal frames that may be above it, as asked for."""
    promised: bool
    """Whether there are enough held-out frames for that share to be told."""
    backbone: dict[str, Any] | None
    """None of a model without a network."""
    decoder: dict[str, Any] | None
    method: str
    steps: int = Field(ge=0)
    recipe: str | None = None
    """Of the run that it was fitted from, if it was from one."""
    seen: str | None = None
    """What the backbone's weights had been trained on before."""
    check: VideoCheck | None = None
    notes: list[str] = []

    def __str__(self) -> str:
        """What was learned from what, how good it is, and when it gives an alarm."""
        width, height = self.frame_size
        duration = f" ({wording.duration(self.frames / self.frame_rate)})" if self.frame_rate else ""
        footage = f"{wording.count(self.frames, 'frame')} of normal footage{duration} of {width}x{height} pixels"
        if self.recipe:
            windows = wording.count(self.support, "window")
            lines = [
                f"From {footage}, by {wording.count(self.steps, 'step')} of {self.method} from the run {self.recipe} "
                f"on {windows} of its first half."
            ]
        else:
            lines = [f"From {footage}. No network: what moves is expected to go on as it did (--from RUN adds one)."]
        lines += [self.predicts()] if self.check else []
        return "\n".join([*lines, self.alarms(), *self.notes])

    def predicts(self) -> str:
        """How well it predicts, beside what learned nothing."""
        assert self.check
        floors = ", ".join(f"{name} {psnr:.1f}" for name, psnr in self.check.floors.items())
        before = "" if self.check.unadapted is None else f"{self.check.unadapted:.1f} before it was adapted; "
        frames = wording.count(self.held_out_frames, "held-out frame")
        return f"It predicts {frames} with a PSNR of {self.check.psnr:.1f} dB ({before}floors: {floors})."

    def alarms(self) -> str:
        """When there is an alarm, and how often by mistake."""
        said = f"Alarm above a score of {self.threshold:.2f}: "
        if not self.promised:
            frames, least = wording.count(self.held_out_frames, "held-out frame"), math.ceil(1 / self.false_alarms) - 1
            return (
                f"{said}the highest of {frames}, which are too few to tell {percent(self.false_alarms)} of false "
                f"alarms; that takes {least:,}."
            )
        hourly = wording.duration(self.false_alarms * HOUR)
        said += f"{percent(self.false_alarms)} of normal frames ({hourly} an hour), as the held-out ones tell."
        if self.check and self.check.crossed is not None:
            said += f" Half of those judged by the other half: {percent(self.check.crossed)}."
        return said

    @model_validator(mode="after")
    def _parts_have_names(self) -> VideoCard:
        if (self.backbone is None) != (self.decoder is None):
            raise ValueError("it has a backbone without a decoder, or a decoder without a backbone")
        if (
            self.backbone is not None
            and self.decoder is not None
            and not all(isinstance(part.get("name"), str) for part in (self.backbone, self.decoder))
        ):
            raise ValueError("its backbone or its decoder has no name")
        return self


def percent(share: float) -> str:
    """`1 %`, `0.25 %`."""
    return f"{100 * share:.3g} %"
