"""What a run on several GPUs takes, from what can be counted and a few assumptions: bench/growth.py --plan."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import torch
from torch.utils.flop_counter import FlopCounterMode

from handful.backbones import BACKBONES, weights_to_follow
from handful.data.described import DescribedData
from handful.methods import METHODS, Method, Metric
from handful.problems import problem_of
from handful.recipe import Recipe, load_recipe
from handful.registry import build

# Assumed, none of it measured: bytes and operations a second, and seconds that a message takes from one to the next.
INSIDE, SLOW, FAST = 300e9, 25e9, 50e9  # NVLink inside a node; 200 and 400 Gbit/s between nodes
OPERATIONS = 20e12
LATENCY = 10e-6
FEW = 4  # sums of any step: of the gradient, of loss and score, of running statistics, and whether to stop
ENOUGH = 0.95  # efficiency

RECIPES: dict[str, tuple[str, tuple[int, ...]]] = {  # recipe -> problem and shape of an input
    "omniglot-maml-5w1s": ("classification", (1, 28, 28)),
    "omniglot-protonet-5w1s": ("classification", (1, 28, 28)),
    "miniimagenet-frn-resnet12-5w5s": ("classification", (3, 84, 84)),
    "ped2-mpn": ("video_anomaly", (12, 256, 256)),
    "rails-maml": ("rail_lines", (3, 288, 512)),
}
STORES = {  # images and their shape
    "Omniglot": (32_460, (1, 28, 28)),
    "mini-ImageNet": (60_000, (3, 84, 84)),
    "a million of 28x28, grey": (1_000_000, (1, 28, 28)),
    "a million of 84x84, colour": (1_000_000, (3, 84, 84)),
    "a million of 224x224, colour": (1_000_000, (3, 224, 224)),
}


@dataclass(frozen=True)
class Link:
    """How many GPUs, and how fast the slowest link of the ring is, in bytes a second."""

    name: str
    gpus: int
    rate: float


LINKS = (Link("8", 8, INSIDE), Link("64, 400 Gb/s", 64, FAST), Link("64, 200 Gb/s", 64, SLOW))


@dataclass(frozen=True)
class Stage:
    """A step of a stage of a recipe on one GPU: what is learned, and from how many inputs.

    normed: channels of each batch norm that sees the tasks of all processes together, as in metric methods and in
    pre-training; operations: at the least, a forward and a backward pass of the backbone.
    """

    recipe: str
    name: str
    backbone: str
    parameters: int
    normed: tuple[int, ...]
    inputs: int
    operations: float

    @property
    def gradient(self) -> int:
        """Bytes, in float32."""
        return 4 * self.parameters

    @property
    def sums(self) -> int:
        """Sums over all processes: a few, and two for each batch norm, on the way to the loss and on the way back."""
        return FEW + 2 * len(self.normed)

    @property
    def step(self) -> float:
        """Seconds that a step takes at the least, if nothing but the operations counts: an estimate."""
        return self.operations / OPERATIONS

    def communication(self, link: Link) -> float:
        """Seconds: what is summed goes twice around a ring, but for a process's own part, and each sum has its way.

        Beside the gradient these are a batch norm's two moments from every process.  The way of a sum is along a tree,
        there and back, so that it grows with the logarithm.
        """
        moments = 2 * link.gpus * 2 * 4 * sum(self.normed)
        moved = 2 * (link.gpus - 1) / link.gpus * (self.gradient + moments)
        return moved / link.rate + self.sums * 2 * math.ceil(math.log2(link.gpus)) * LATENCY

    def efficiency(self, link: Link) -> float:
        """The share of the time that is not spent on communication, none of which is hidden behind the step."""
        return self.step / (self.step + self.communication(link))

    def enough(self, link: Link) -> float:
        """Seconds of a step with which efficiency reaches `ENOUGH`."""
        return self.communication(link) * ENOUGH / (1 - ENOUGH)


def stages(name: str) -> list[Stage]:
    """Of a shipped recipe: pre-training where it has it, and episodes."""
    problem, shape = RECIPES[name]
    recipe, method = made(name, problem, shape)
    forward = operations(method.backbone, shape)
    norms = [module for module in method.modules() if isinstance(module, torch.nn.modules.batchnorm._BatchNorm)]
    learned = sum(p.numel() for p in method.parameters() if p.requires_grad)

    def stage(label: str, inputs: int, together: bool) -> Stage:
        normed = tuple(norm.num_features for norm in norms) if together else ()
        return Stage(name, label, recipe.backbone.name, learned, normed, inputs, 3 * forward * inputs)

    train, found = recipe.train, []
    if recipe.pretrain:
        found.append(stage("pre-training", recipe.pretrain.batch, True))
    inputs = train.tasks_per_step * train.way * (train.shot + train.query)
    return [*found, stage("episodes", inputs, isinstance(method, Metric))]


def made(name: str, problem: str, shape: tuple[int, ...]) -> tuple[Recipe, Method]:
    """A recipe and its method with its heads, without data and without pre-trained weights."""
    recipe = load_recipe(name)
    data: Any = DescribedData(recipe.data.name, problem, shape, {}, {})
    with weights_to_follow():
        backbone = build("backbone", BACKBONES, recipe.backbone.spec(), input_shape=shape)
    method = build("method", METHODS, recipe.method.spec(), backbone=backbone)
    method.problem = problem_of(data, recipe.decoder.spec() if recipe.decoder else None)
    method.attach_head(method.problem.outputs(recipe.train.way))
    return recipe, method


def operations(backbone: torch.nn.Module, shape: tuple[int, ...]) -> float:
    """Floating-point operations of one input's forward pass, counted without computing."""
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        backbone.to("meta").eval()(torch.rand(1, *shape, device="meta"))
    return counter.get_total_flops()


def plan() -> str:
    """The tables in Markdown."""
    heads = ["recipe, stage", "backbone", "learned", "gradient, MB", "sums", "inputs", "step, ms"]
    for link in LINKS:
        heads += [f"{link.name}: ms", "efficiency", f"step for {ENOUGH:.0%}, ms"]
    between = f"{FAST / 1e9:g} or {SLOW / 1e9:g} GB/s a node between nodes (400 or 200 Gb/s)"
    lines = [
        f"Assumed, not measured: {INSIDE / 1e9:g} GB/s inside a node; {between}; "
        f"{LATENCY * 1e6:g} µs from one GPU to the next; {OPERATIONS / 1e12:g} Tflop/s.",
        "",
        f"| {' | '.join(heads)} |",
        "|---|---|" + "---|" * (len(heads) - 2),
    ]
    for stage in (stage for name in RECIPES for stage in stages(name)):
        cells = [f"`{stage.recipe}`, {stage.name}", stage.backbone, f"{stage.parameters:,}"]
        cells += [f"{stage.gradient / 1e6:.2f}", str(stage.sums), str(stage.inputs), f"{1e3 * stage.step:.1f}"]
        for link in LINKS:
            cells += [f"{1e3 * stage.communication(link):.2f}", f"{stage.efficiency(link):.0%}"]
            cells.append(f"{1e3 * stage.enough(link):.0f}")
        lines.append(f"| {' | '.join(cells)} |")
    lines += ["", "| store | on each node |", "|---|---|"]
    for name, (images, shape) in STORES.items():
        lines.append(f"| {name} | {images * (math.prod(shape) + 8) / 1e9:,.2f} GB |")
    return "\n".join(lines)
