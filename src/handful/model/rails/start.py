"""What a model of rail lines is fitted from: a meta-trained run, or a backbone alone."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple, Protocol

import numpy as np
import torch
from torch import Tensor, nn

from handful.backbones import BACKBONES
from handful.data.rails.store import HEIGHT, WIDTH
from handful.data.rails.targets import Pair
from handful.data.rails.view import PLACE, TONE, matrices, toned
from handful.embedders import BATCH as AT_ONCE
from handful.embedders import embedder
from handful.errors import HandfulError
from handful.methods.gradient_based import GradientBased
from handful.model.rails.model import joined
from handful.model.start import Spec, spec_of, without_path
from handful.problems import RailLines
from handful.problems.rail_lines import NAMES
from handful.problems.rail_lines.predictions import row_losses
from handful.problems.rail_lines.tasks import beside, seen
from handful.registry import build
from handful.run import Run

BACKBONE: dict[str, Any] = {"name": "efficientnet_lite0", "resolution": None}
DECODER: dict[str, Any] = {"name": "row_distributions", "channels": 32}  # half the work of 64
HALVES, FIFTHS = 2, 5
VIEWS, STEPS, RATE, BATCH = 60, 120, 4e-3, 6  # of a decoder that is trained from the start
UNMIRRORED = 0.5  # of the random numbers of a view: above it, as `matrices` has it, there is no mirror


class Support(NamedTuple):
    """Annotated frames: images float [n, 3, H, W] in [0, 1], and the lines of each in its pixels."""

    images: Tensor
    pairs: list[Pair]

    def rows(self, which: Sequence[int]) -> Tensor:
        """The targets of some frames [m, L, R, 4], with their mean line."""
        _, y = seen(self.images[which], [self.pairs[i] for i in which], None)
        return beside(y[None], y[None])[0]

    @property
    def has_two_sides(self) -> bool:
        """Whether a mirror image asks for the same: both rails are there, and the middle of most frames is between.

        It would not of the left rail alone, nor of the track on the left.
        """
        feet = [(left[0, 0], right[0, 0]) for left, right in self.pairs if left is not None and right is not None]
        between = sum(left < (WIDTH - 1) / 2 < right for left, right in feet)
        return 2 * between > len(self.pairs)


class Start(Protocol):
    """What a model is fitted from, and the support that it learns from.

    name, steps: how it learns; folds: the parts that are left out in turn to check it; backbone, seen, recipe: for the
    card.
    """

    problem: RailLines
    backbone: dict[str, Any]
    seen: str | None
    recipe: str | None
    name: str
    steps: int
    folds: int

    def learn(self, which: Sequence[int]) -> nn.Module:
        """The network for some frames of the support, in eval mode."""

    def unadapted(self) -> nn.Module | None:
        """The network that it begins with, if anything was known."""


class FromRun:
    """Adapts a meta-trained run by its own inner loop."""

    def __init__(self, run: Run, inner_steps: int | None, support: Support) -> None:
        if not isinstance(run.method.problem, RailLines) or not isinstance(run.method, GradientBased):
            raise HandfulError(
                f"{run.folder} was trained for {run.method.problem.name}, and these are annotated frames; name a run "
                "of rail lines, or none."
            )
        self.method, self.problem, self.support = run.method, run.method.problem, support
        self.backbone = without_path(run.recipe.backbone.spec())
        self.recipe: str | None = run.recipe.name
        self.seen: str | None = getattr(self.method.backbone, "seen", None)
        asked = inner_steps if inner_steps is not None else run.recipe.evaluate.inner_steps
        self.name, self.steps = run.recipe.method.name, self.method.inner_steps if asked is None else asked
        self.folds = min(FIFTHS, len(support.pairs))

    def learn(self, which: Sequence[int]) -> nn.Module:
        """As after the last inner step."""
        return self.method.fit(self.support.images[which], self.support.rows(which), self.steps)

    def unadapted(self) -> nn.Module:
        """As it was meta-trained."""
        return self.method.fit(self.support.images, self.support.rows(range(len(self.support.pairs))), 0)


class FromBackbone:
    """Trains a decoder on the maps of a frozen backbone: those of every frame as a few cameras see it.

    The maps are computed once, for the model and for its check, which is done in halves: a training takes seconds.
    """

    recipe: str | None = None
    name = "Adam"

    def __init__(self, backbone: Spec | None, support: Support) -> None:
        chosen = spec_of(backbone, BACKBONE)
        if chosen["name"] == BACKBONE["name"]:
            chosen = {**BACKBONE, **chosen}  # at the size of the pictures
        network: Any = build("backbone", BACKBONES, chosen, input_shape=(3, HEIGHT, WIDTH))
        self.backbone = without_path(chosen)
        self.seen: str | None = getattr(network, "seen", None)
        self.problem, self.steps = RailLines(DECODER), STEPS
        self.body, _ = self.problem.network(network, len(NAMES))
        self.folds = min(HALVES, len(support.pairs))
        self.features, self.targets = self.views(support)

    def views(self, support: Support) -> tuple[Tensor, Tensor]:
        """Maps [n, V, d] and rows [n, V, L, R, 2] of each frame as it is, and as V - 1 other cameras see it."""
        random, frames = np.random.default_rng(0), len(support.pairs)
        each = max(1, VIEWS // frames)
        places, tones = random.random((frames * each, PLACE)), random.random((frames * each, TONE))
        if not support.has_two_sides:
            places[:, 0] = UNMIRRORED + (1 - UNMIRRORED) * places[:, 0]
        changes = matrices(places, WIDTH, HEIGHT)
        changes[::each] = np.eye(3)
        embed = embedder(self.body)

        def parts() -> Iterator[tuple[Tensor, Tensor]]:
            for numbers in np.split(np.arange(frames * each), range(AT_ONCE, frames * each, AT_ONCE)):
                of = numbers // each
                images = toned(support.images[of], tones[numbers])
                images[numbers % each == 0] = support.images[of[numbers % each == 0]]
                x, y = seen(images, [support.pairs[i] for i in of], changes[numbers])
                yield embed(x), y

        features, targets = (torch.cat(found).unflatten(0, (frames, each)) for found in zip(*parts()))
        return features, targets

    def learn(self, which: Sequence[int]) -> nn.Module:
        """A decoder that starts at random, always from the same numbers."""
        features, targets = self.features[which].flatten(0, 1), self.targets[which].flatten(0, 1)
        random = np.random.default_rng(0)
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(0)
            _, head = self.problem.network(self.body, len(NAMES))
        optimizer = torch.optim.Adam(head.parameters(), RATE)
        schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, STEPS)
        for _ in range(STEPS):
            chosen = torch.from_numpy(random.permutation(len(features))[:BATCH])
            loss = row_losses(head(features[chosen]), targets[chosen]).mean()
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            schedule.step()
        return joined(self.body, head).eval()

    def unadapted(self) -> None:
        """Nothing was known."""
