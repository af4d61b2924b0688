"""What a model that watches a camera is fitted from: a meta-trained run, or nothing."""

from __future__ import annotations

from typing import Any, Protocol

from torch import Tensor, nn

from handful.data.video.library import SIZE
from handful.data.video.store import WINDOW
from handful.errors import HandfulError
from handful.methods.gradient_based import GradientBased
from handful.model.start import without_path
from handful.model.video.network import LINEAR, Extrapolation
from handful.problems import VideoAnomaly
from handful.run import Run


class Start(Protocol):
    """What a model is fitted from.

    size, channels, window: of the frames that it takes; shot: windows to adapt to, none if there is nothing to adapt;
    name, steps: how it learns; backbone, decoder, seen, recipe: for the card.
    """

    size: int
    channels: int
    window: int
    shot: int
    name: str
    steps: int
    backbone: dict[str, Any] | None
    decoder: dict[str, Any] | None
    seen: str | None
    recipe: str | None

    def learn(self, x: Tensor, y: Tensor) -> nn.Module:
        """The network adapted to windows [n, T*C, H, W] and the frames after them [n, C, H, W]."""

    def unadapted(self, x: Tensor, y: Tensor) -> nn.Module | None:
        """The network as it was before, if there is one; its batch norms know the same windows."""


class FromRun:
    """Adapts a meta-trained run by its own inner loop."""

    def __init__(self, run: Run, inner_steps: int | None) -> None:
        if not isinstance(run.method.problem, VideoAnomaly) or not isinstance(run.method, GradientBased):
            raise HandfulError(
                f"{run.folder} was trained for {run.method.problem.name}, and this is video; name a run of video "
                "anomalies, or none."
            )
        self.method, recipe = run.method, run.recipe
        frame: Any = self.method.backbone.frame
        self.channels, self.size = int(frame[0]), int(frame[1])
        self.window = run.data.input_shape[0] // self.channels
        self.shot = recipe.train.shot
        asked = inner_steps if inner_steps is not None else recipe.evaluate.inner_steps
        self.name, self.steps = recipe.method.name, self.method.inner_steps if asked is None else asked
        self.backbone: dict[str, Any] | None = without_path(recipe.backbone.spec())
        self.decoder: dict[str, Any] | None = run.method.problem.decoder
        self.seen: str | None = getattr(self.method.backbone, "seen", None)
        self.recipe: str | None = recipe.name

    def learn(self, x: Tensor, y: Tensor) -> nn.Module:
        """As after the last inner step."""
        return self.method.fit(x, y, self.steps)

    def unadapted(self, x: Tensor, y: Tensor) -> nn.Module:
        """As it was meta-trained."""
        return self.method.fit(x, y, 0)


class FromNothing:
    """The linear extrapolation alone, which learns nothing."""

    size, channels, window, shot, steps = SIZE, 1, WINDOW, 0, 0
    name = LINEAR
    backbone: dict[str, Any] | None = None
    decoder: dict[str, Any] | None = None
    seen: str | None = None
    recipe: str | None = None

    def learn(self, x: Tensor, y: Tensor) -> nn.Module:
        """As it is."""
        return Extrapolation(self.channels)

    def unadapted(self, x: Tensor, y: Tensor) -> None:
        """There is none."""
