"""How long a training step waits for its data: the step with its batch drawn, against the same step on a batch kept.

    python bench/data_path.py [--recipe NAME]... [--repeats 7] [--threads 2] [--json FILE]

On the device that training would use, the stages of a recipe on random pixels, with its network, optimizer and
augmentation.  On a CPU batches are drawn by the step itself and by one and two worker processes; the wait is then also
what their work takes from the step's cores.  On a GPU they are drawn there, in float32 and in bf16-mixed.  The float32
step is timed without channels-last too, which on a CPU concerns large images only.  All cases of a stage take turns of
a few steps, of which the first, for which workers had the others' turns to draw ahead, are not timed.  A case waits for
its data in the share of a step by which it is longer than the kept batch's, the median over turns.
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, closing, contextmanager
from itertools import count, repeat
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from lightning_fabric import Fabric
from torch import Tensor
from torch.utils.flop_counter import FlopCounterMode

from handful import layout
from handful.backbones import BACKBONES
from handful.batches import Batches, loaded
from handful.data import ImageStore
from handful.episodes import EpisodeSampler, ImageSampler
from handful.files import write_text
from handful.methods import METHODS, Method, Pretraining
from handful.recipe import LoopRecipe, Recipe, load_recipe
from handful.registry import build
from handful.runtime import Precision, device, environment, keep_freed_memory
from handful.training import descend, outer_optimizer

Row = dict[str, Any]
BOUND = 0.05  # of a step: what it may wait
STEPS = 8  # that a turn times
ENDLESS = range(2**31)
IMAGES = {"omniglot": (1, 28, 28), "mini_imagenet": (3, 84, 84)}
CLASSES, OF_EACH = 64, 40
RECIPES = {
    "cpu": ("omniglot-protonet-5w1s", "miniimagenet-protonet-conv4-small"),
    "cuda": ("omniglot-protonet-5w1s", "miniimagenet-frn-resnet12-5w5s"),
}
PRODUCT = {"cpu": (2048, torch.float32), "cuda": (8192, torch.bfloat16)}


class Stage(NamedTuple):
    """A loop of a training: what learns, from which batches of how many images, and the recipe's section of it."""

    name: str
    learner: Method | Pretraining
    backbone: torch.nn.Module
    batches: Batches
    images: int
    settings: LoopRecipe


class Case(NamedTuple):
    """A way to take the steps of a stage; workers: None for a batch that is kept."""

    name: str
    workers: int | None = None
    precision: Precision = "32-true"
    channels_last: bool = True


def main() -> int:
    options = arguments()
    where, machine = device(), environment()
    recipes = {name: load_recipe(name) for name in options.recipe or RECIPES[where.type]}
    for name, recipe in recipes.items():
        if recipe.data.name not in IMAGES:
            print(f"{name} is of {recipe.data.name}; known are recipes of {' and '.join(IMAGES)}.", file=sys.stderr)
            return 2
    torch.set_num_threads(options.threads)
    keep_freed_memory()
    named = machine["gpu"] if where.type == "cuda" else f"{machine['cpu']}, threads: {options.threads}"
    rate = matrix_rate(where)
    size, dtype = PRODUCT[where.type]
    kind = str(dtype).removeprefix("torch.")
    print(f"{named}; torch {machine['torch']}; {size} x {size} products in {kind}: {rate / 1e12:.2f} Tflop/s")
    rows: list[Row] = []
    for recipe in recipes.values():
        rows += [row for place in range(len(stages(recipe))) for row in measure(recipe, place, rate, options.repeats)]
    for row in rows:
        row |= {"device": str(where), "matrix_tflops": rate / 1e12, "machine_threads": options.threads}
        row |= {f"machine_{key}": machine[key] for key in ("cpu", "gpu", "cores", "torch", "commit")}
    if options.json:
        write_text(options.json, json.dumps(rows, indent=1))
    return 0


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--recipe", action="append", help="a name or a file, of Omniglot or mini-ImageNet")
    parser.add_argument("--repeats", type=int, default=7, help=f"turns, of {STEPS} timed steps each")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    if min(options.repeats, options.threads) < 1:
        parser.error("--repeats and --threads are at least 1")
    return options


def stages(recipe: Recipe) -> list[Stage]:
    """The loops of a recipe, on random pixels, as `handful.training` sets them up."""
    data, settings = random_images(IMAGES[recipe.data.name]), recipe.train
    torch.manual_seed(recipe.seed)
    backbone = build("backbone", BACKBONES, recipe.backbone.spec(), input_shape=data.input_shape)
    method = build("method", METHODS, recipe.method.spec(), backbone=backbone)
    method.attach_head(settings.way)
    found = []
    if first := recipe.pretrain:
        images = ImageSampler(data.train, recipe.seed, first.augment).images
        learner = Pretraining(method, first.head, CLASSES)
        batches = Batches("images", images, first.batch)
        found.append(Stage("pre-training", learner, backbone, batches, first.batch, first))
    if settings.steps:
        sampler = EpisodeSampler(
            data.train, settings.way, settings.shot, settings.query, recipe.seed, augment=settings.augment
        )
        number = settings.tasks_per_step * settings.way * (settings.shot + settings.query)
        batches = Batches("tasks", sampler.episodes, settings.tasks_per_step)
        found.append(Stage("episodes", method, backbone, batches, number, settings))
    return found


def random_images(shape: tuple[int, int, int]) -> ImageStore:
    """As many classes as mini-ImageNet trains on, of random bytes."""
    return ImageStore(
        images=np.random.default_rng(0).integers(0, 256, (CLASSES * OF_EACH, *shape), dtype=np.uint8),
        labels=np.repeat(np.arange(CLASSES), OF_EACH),
        class_names=tuple(map(str, range(CLASSES))),
        splits={"train": np.arange(CLASSES)},
        digest="random",
        info={"name": "random images"},
    )


def cases(kind: str) -> list[Case]:
    """What is compared on a kind of device; the kept batch of a precision comes before the drawn ones."""
    if kind == "cpu":
        named = ((0, "no workers"), (1, "1 worker"), (2, "2 workers"))
        plain = Case("not channels-last, kept", channels_last=False)
        return [plain, Case("kept"), *(Case(f"drawn, {name}", workers) for workers, name in named)]
    return [
        Case("float32, not channels-last, kept", channels_last=False),
        Case("float32, kept"),
        Case("float32, drawn", 0),
        Case("bf16-mixed, kept", precision="bf16-mixed"),
        Case("bf16-mixed, drawn", 0, "bf16-mixed"),
    ]


class Steps:
    """The steps of one case, as training takes them; loading: when it ends, so do its processes."""

    def __init__(self, stage: Stage, case: Case, where: torch.device, loading: ExitStack) -> None:
        self.stage, self.case, self.where = stage, case, where
        self.fabric = Fabric(accelerator=where.type, devices=1, precision=case.precision)
        optimizer = outer_optimizer(stage.learner, stage.backbone, stage.settings)
        self.module, self.optimizer = self.fabric.setup(stage.learner.train(), optimizer)
        drawn = loading.enter_context(closing(loaded(stage.batches, ENDLESS, case.workers or 0, where)))
        self.batches: Iterator[Any] = drawn if case.workers is not None else repeat(next(drawn))
        with FlopCounterMode(display=False) as counter:
            self.step()
        self.flops = counter.get_total_flops()

    def step(self) -> None:
        batch = self.fabric.to_device(next(self.batches))
        descend(self.fabric, self.module, self.optimizer, batch, self.stage.settings.clip)
        self.optimizer.step()

    def turn(self) -> float:
        """Seconds a step, after as many steps as may be drawn already."""
        with laid_out(self.case.channels_last):
            for _ in range(1 + 2 * (self.case.workers or 0)):
                self.step()
            synchronize(self.where)
            started = time.perf_counter()
            for _ in range(STEPS):
                self.step()
            synchronize(self.where)
        return (time.perf_counter() - started) / STEPS


@contextmanager
def laid_out(channels_last: bool) -> Iterator[None]:
    """Pass images as they are, if not channels-last."""
    before = layout.channels_last
    layout.channels_last = before if channels_last else as_it_is
    try:
        yield
    finally:
        layout.channels_last = before


def as_it_is(value: Tensor) -> Tensor:
    return value


def synchronize(where: torch.device) -> None:
    if where.type == "cuda":
        torch.cuda.synchronize(where)


def matrix_rate(where: torch.device) -> float:
    """Floating-point operations a second of a matrix product: bfloat16 on a GPU, float32 on a CPU."""
    size, dtype = PRODUCT[where.type]
    matrix = torch.rand(size, size, device=where, dtype=dtype)
    seconds = []
    for turn in count():
        synchronize(where)
        started = time.perf_counter()
        matrix @ matrix
        synchronize(where)
        seconds.append(time.perf_counter() - started)
        if turn >= 4 and sum(seconds) > 0.5:
            return 2 * size**3 / statistics.median(seconds[1:])
    raise AssertionError


def measure(recipe: Recipe, place: int, rate: float, repeats: int) -> list[Row]:
    """A row for each case of a stage, all measured in turns; prints their table."""
    where = device()
    with ExitStack() as loading:
        taken = [
            Steps(stages(recipe)[place], case, where, loading) for case in cases(where.type)
        ]  # networks of their own
        seconds: list[list[float]] = [[] for _ in taken]
        for turn in range(repeats):
            first = turn % len(taken)  # nobody always follows the same neighbour
            for index in [*range(first, len(taken)), *range(first)]:
                seconds[index].append(taken[index].turn())
    stage = taken[0].stage
    varied = stage.settings.augment
    print(f"\n{recipe.name}, {stage.name}: {stage.images} images a step, augment: {varied}")
    print(f"{'batch':<33} {'median ms':>10} {'min':>9} {'max':>9} {'images/s':>9} {'matrix rate':>12}  waits for data")
    rows = []
    for steps, found in zip(taken, seconds):
        case, median = steps.case, statistics.median(found)
        kept = next(
            other
            for other, of_it in zip(seconds, taken)
            if of_it.case.workers is None and of_it.case[2:] == case[2:]  # same precision and layout
        )
        share = None if case.workers is None else waits(found, kept)
        row = {
            "measured": f"{recipe.name}, {stage.name}, {case.name}",
            "recipe": recipe.name,
            "stage": stage.name,
            "case": case.name,
            "augment": varied,
            "workers": case.workers,
            "precision": case.precision,
            "unit": "s",
            "repeats": len(found),
            "median": median,
            "min": min(found),
            "max": max(found),
            "images_per_second": stage.images / median,
            "gflop": steps.flops / 1e9,
            "matrix_share": steps.flops / median / rate,
            "steps": stage.settings.steps,
            "projected_minutes": stage.settings.steps * median / 60,
            "waits": share,
            "bound": BOUND,
            "below_bound": None if share is None else share < BOUND,
        }
        figures = " ".join(
            f"{1e3 * value:{width}.2f}" for value, width in ((median, 10), (min(found), 9), (max(found), 9))
        )
        said = "" if share is None else f"{share:.1%}, {'below' if share < BOUND else 'above'} the bound of {BOUND:.0%}"
        print(f"{case.name:<33} {figures} {stage.images / median:9.0f} {row['matrix_share']:12.1%}  {said}".rstrip())
        rows.append(row)
    best = min((row for row in rows if row["workers"] is not None), key=lambda row: row["median"])
    print(f"all {stage.settings.steps} steps of the stage, {best['case']}: {best['projected_minutes']:.1f} minutes")
    return rows


def waits(drawn: Sequence[float], kept: Sequence[float]) -> float:
    """The share of a drawn step that the kept one does without: the median over turns."""
    return statistics.median(1 - without / whole for whole, without in zip(drawn, kept, strict=True))


if __name__ == "__main__":
    sys.exit(main())
