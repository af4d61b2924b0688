"""What a model of rail lines is fitted from: a meta-trained run, or a backbone alone."""

from __future__ import annotations

from typing import Any, NamedTuple, Protocol

import numpy as np
import torch
from torch import Tensor, nn

from handful.backbones import BACKBONES
from handful.data.rails.store import HEIGHT, WIDTH
from handful.data.rails.targets import Pair
from handful.data.rails.view import PLACE, TONE, matrices, toned
from handful.embedders import embedder
from handful.errors import HandfulError
from handful.model.rails.model import joined
from handful.problems import RailLines
from handful.problems.rail_lines import NAMES
from handful.problems.rail_lines.tasks import beside, seen
from handful.registry import build
from handful.run import Run

BACKBONE = {"name": "efficientnet_lite0", "resolution": None}
VIEWS, STEPS, RATE, BATCH = 12, 120, 2e-3, 6  # of a decoder that is trained from the start


class Support(NamedTuple):
    """Annotated frames: images float [n, 3, H, W] in [0, 1], and the lines of each in its pixels."""

    images: Tensor
    pairs: list[Pair]

    def without(self, number: int) -> Support:
        """All but one."""
        others = [i for i in range(len(self.pairs)) if i != number]
        return Support(self.images[others], [self.pairs[i] for i in others])

    def rows(self) -> Tensor:
        """Their targets [1, n, L, R, 4]."""
        _, y = seen(self.images, self.pairs, None)
        return beside(y[None], y[None])


class Start(Protocol):
    """What a model is fitted from.

    name, steps: how it learns; backbone, seen, recipe: for the card.
    """

    problem: RailLines
    backbone: dict[str, Any]
    seen: str | None
    recipe: str | None
    name: str
    steps: int

    def learn(self, support: Support) -> nn.Module:
        """The network for a support, in eval mode."""

    def unadapted(self, support: Support) -> nn.Module | None:
        """The network that it begins with, if anything was known."""


class FromRun:
    """Adapts a meta-trained run by its own inner loop."""

    def __init__(self, run: Run, inner_steps: int | None) -> None:
        if not isinstance(run.method.problem, RailLines):
            raise HandfulError(
                f"{run.folder} was trained for {run.method.problem.name}, and these are annotated frames; name a run "
                "of rail lines, or none."
            )
        self.method, self.problem = run.method, run.method.problem
        self.backbone, self.recipe = run.recipe.backbone.spec(), run.recipe.name
        self.seen = getattr(self.method.backbone, "seen", None)
        asked = inner_steps if inner_steps is not None else run.recipe.evaluate.inner_steps
        self.name, self.steps = run.recipe.method.name, self.method.inner_steps if asked is None else asked

    def learn(self, support: Support) -> nn.Module:
        """As after the last inner step."""
        return self.method.fit(support.images, support.rows()[0], self.steps)

    def unadapted(self, support: Support) -> nn.Module:
        """As it was meta-trained."""
        return self.method.fit(support.images, support.rows()[0], 0)


class FromBackbone:
    """Trains a decoder on the maps of a frozen backbone: those of every frame as a few cameras see it."""

    recipe = None
    name, steps = "Adam", STEPS

    def __init__(self) -> None:
        self.backbone = BACKBONE
        self.problem = RailLines()
        network: Any = build("backbone", BACKBONES, BACKBONE, input_shape=(3, HEIGHT, WIDTH))
        self.seen = network.seen
        self.body, _ = self.problem.network(network, len(NAMES))
        self.embed = embedder(self.body)

    def learn(self, support: Support) -> nn.Module:
        """A decoder that starts at random."""
        random = np.random.default_rng(0)
        seeds = torch.random.get_rng_state()
        torch.manual_seed(0)
        _, head = self.problem.network(self.body, len(NAMES))
        torch.random.set_rng_state(seeds)
        features, targets = self.views(support, random)
        optimizer = torch.optim.Adam(head.parameters(), RATE)
        schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, STEPS)
        for _ in range(STEPS):
            chosen = torch.from_numpy(random.permutation(len(features))[:BATCH])
            loss = self.problem.loss(head(features[chosen])[None], targets[chosen][None]).mean()
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            schedule.step()
        return joined(self.body, head).eval()

    def views(self, support: Support, random: np.random.Generator) -> tuple[Tensor, Tensor]:
        """Features and targets of the frames as they are, and as other cameras see them."""
        times = max(1, VIEWS // len(support.pairs)) if len(support.pairs) > VIEWS else VIEWS
        count = times * len(support.pairs)
        changes = matrices(random.random((count, PLACE)), WIDTH, HEIGHT)
        changes[: len(support.pairs)] = np.eye(3)
        images = toned(support.images.repeat(times, 1, 1, 1), random.random((count, TONE)))
        x, y = seen(images, support.pairs * times, changes)
        return self.embed(x), beside(y[None], y[None])[0]

    def unadapted(self, support: Support) -> None:
        """Nothing was known."""
