"""How long an evaluation takes when each image is embedded once, against embedding the images of every task anew.

    python bench/evaluation.py [--method protonet --method frn] [--backbone resnet12] [--tasks 10000] [--reference 20]
        [--data mini_imagenet] [--device cuda] [--json FILE]

5-way 5-shot 15-query tasks of the test split; weights are random, which cost as much as trained ones.  The path that
embeds anew is measured on the first `--reference` tasks and scaled to all of them; on these tasks both must give the
same accuracies.  `--data random` is of the size of mini-ImageNet's test split, for a machine without it.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

import numpy as np
import torch

from handful.backbones import BACKBONES
from handful.data import ImageStore, load
from handful.data.store import ClassSplit
from handful.evaluation import evaluate_method
from handful.methods import METHODS
from handful.recipe import Protocol
from handful.registry import build
from handful.runtime import environment


def main() -> None:
    options = arguments()
    torch.set_num_threads(options.threads)
    split = random_images(options.classes).test if options.data == "random" else load(options.data).test
    assert isinstance(split, ClassSplit)
    machine = environment()
    where = machine["gpu"] if options.device == "cuda" else f"{machine['cpu']}, {options.threads} threads"
    print(f"{where}, torch {machine['torch']}; {split.data.name}, {len(split.ids)} images; {options.backbone}")
    print(f"{'method':<12} {'path':<16} {'tasks':>7} {'seconds':>9} {'of anew':>8}")
    rows: list[dict[str, Any]] = []
    for name in options.method or ["protonet", "frn"]:
        rows += compare(name, split, options)
    for row in rows:
        row |= {f"machine_{key}": machine[key] for key in ("cpu", "gpu", "cores", "torch", "commit")}
    if options.json:
        options.json.write_text(json.dumps(rows, indent=1), encoding="utf-8")


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--method", action="append", choices=sorted(METHODS), help="may be given again")
    parser.add_argument("--backbone", choices=sorted(BACKBONES), default="resnet12")
    parser.add_argument("--data", default="mini_imagenet", help="a data set by name, or `random`")
    parser.add_argument("--classes", type=int, default=20, help="of random images, 600 each")
    parser.add_argument("--tasks", type=int, default=10_000)
    parser.add_argument("--reference", type=int, default=20, help="tasks whose images are embedded anew")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--device", choices=("cpu", "cuda"), default="cpu")
    parser.add_argument("--json", type=Path)
    return parser.parse_args()


def compare(name: str, split: ClassSplit, options: argparse.Namespace) -> list[dict[str, Any]]:
    """Both paths of a method, as rows."""
    torch.manual_seed(0)
    backbone = build("backbone", BACKBONES, {"name": options.backbone}, input_shape=split.data.input_shape)
    method = build("method", METHODS, {"name": name}, backbone=backbone).to(options.device)

    def scored(tasks: int, embed_once: bool) -> Any:
        protocol = Protocol(way=5, shot=5, query=15, tasks=tasks)
        return evaluate_method(method, split, protocol, embed_once=embed_once)

    scored(2, False)  # warm-up
    anew = scored(options.reference, False)
    once = scored(options.tasks, True)
    if once.per_task[: options.reference] != anew.per_task:
        raise SystemExit(f"{name}: the paths do not give the same accuracies, so their times say nothing.")
    whole = anew.seconds * options.tasks / options.reference
    rows = []
    for path, tasks, seconds in (
        ("embedded once", options.tasks, once.seconds),
        ("embedded anew", options.reference, whole),
    ):
        print(f"{name:<12} {path:<16} {tasks:>7} {seconds:>9.1f} {seconds / whole:>8.4f}")
        rows.append(
            {
                "measured": f"{name}, {options.tasks} tasks, {path}",
                "unit": "s",
                "repeats": 1,
                "median": seconds,
                "min": seconds,
                "max": seconds,
                "scaled_from_tasks": tasks,
                "speed_up": whole / seconds,
            }
        )
    return rows


def random_images(classes: int) -> ImageStore:
    """Classes of 600 images, uint8 [3, 84, 84]: a coarse random picture of the class under noise.

    Pure noise would look alike to a random network, and rounding would decide which class is nearest.
    """
    rng = np.random.default_rng(0)
    coarse = rng.integers(0, 192, (classes, 3, 7, 7), dtype=np.uint8).repeat(12, 2).repeat(12, 3)
    noise = rng.integers(0, 64, (600 * classes, 3, 84, 84), dtype=np.uint8)
    return ImageStore(
        images=coarse.repeat(600, 0) + noise,
        labels=np.repeat(np.arange(classes), 600),
        class_names=tuple(map(str, range(classes))),
        splits={"test": np.arange(classes)},
        digest="random",
        info={"name": "random images"},
    )


if __name__ == "__main__":
    main()
