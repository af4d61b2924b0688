"""How well `handful fit` does on photographs as it is, with no training: and what each part of it brings.

    python bench/photos.py FOLDER [--only LIST.csv] [--shots 1 5] [--way 5] [--query 10] [--tasks 600] [--images 100]
        [--json FILE]

FOLDER holds class folders; `--only` keeps the classes that the column `label` of a CSV file names; of each class the
first `--images` are used.  A task draws classes and pictures; queries are seen whole, as `predict` sees them.  Every
row is scored on the same tasks, and its difference to `fit` as it is comes with a paired 95 % interval.  Beside them
the floors: chance, and the nearest class mean of 32x32 pixels.
"""

from __future__ import annotations

import argparse
import csv
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from handful.data import class_folders
from handful.data.pictures import WHOLE, Picture, View
from handful.evaluation import interval
from handful.files import write_text
from handful.methods import METHODS, Metric
from handful.methods.protonet import Prototypes
from handful.model.fitting import shrunk
from handful.model.inputs import batches
from handful.model.start import BACKBONE, METHOD, VIEWS, WITHOUT_PHOTOS, Start, from_backbone
from handful.registry import build
from handful.runtime import environment

MEAN = {**BACKBONE, "pooling": "mean"}
PROTOTYPES = {"name": "protonet", "distance": "cosine", "scale": 10.0}
MIRRORED = tuple(view for view in VIEWS if view.share == 1)
CLOSER = (*VIEWS, *(View(0.6, view.x, view.y) for view in VIEWS if view.share < 1))
ROWS: dict[str, tuple[dict[str, Any], dict[str, Any], tuple[View, ...]]] = {
    "fit as it is": (BACKBONE, METHOD, VIEWS),
    "one view of each picture": (BACKBONE, METHOD, (WHOLE,)),
    "two views, one mirrored": (BACKBONE, METHOD, MIRRORED),
    "twelve views, five closer": (BACKBONE, METHOD, CLOSER),
    "features averaged over all places": (MEAN, METHOD, VIEWS),
    "class means by cosine": (BACKBONE, PROTOTYPES, VIEWS),
    "class means, one view, averaged": (MEAN, PROTOTYPES, (WHOLE,)),
    "without [photos]": (WITHOUT_PHOTOS, METHOD, VIEWS),
}


def main() -> None:
    options = arguments()
    found = chosen(class_folders(options.folder), options.only, options.images)
    pictures = [Picture(str(path), "", name, path.read_bytes) for name, paths in found.items() for path in paths]
    backbones = {str(backbone): backbone for backbone, _, _ in ROWS.values()}
    networks = {key: from_backbone(backbone, None, images=1) for key, backbone in backbones.items()}
    features = {key: embedded(start, pictures) for key, start in networks.items()}
    rows = []
    for shot in options.shots:
        support, query = tasks(found, options.way, shot, options.query, options.tasks)
        scores = {
            name: accuracy(
                build("method", METHODS, method, backbone=networks[str(backbone)].method.backbone).head,
                features[str(backbone)][0][:, [CLOSER.index(view) for view in views]],
                support,
                query,
            )
            for name, (backbone, method, views) in ROWS.items()
        }
        small = features[str(BACKBONE)][1]
        scores["floor: class mean in pixels"] = accuracy(Prototypes(), small[:, None], support, query)
        scores["floor: chance"] = np.full(options.tasks, 1 / options.way)
        rows += show(scores, shot, options)
    if options.json:
        write_text(options.json, json.dumps(rows, indent=1))


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--only", type=Path, help="a CSV file with a column `label`")
    parser.add_argument("--images", type=int, default=100, help="of a class")
    parser.add_argument("--shots", type=int, nargs="+", default=[1, 5])
    parser.add_argument("--way", type=int, default=5)
    parser.add_argument("--query", type=int, default=10)
    parser.add_argument("--tasks", type=int, default=600)
    parser.add_argument("--json", type=Path)
    return parser.parse_args()


def chosen(folders: Mapping[str, list[Path]], only: Path | None, images: int) -> dict[str, list[Path]]:
    """Class name -> its pictures."""
    wanted = set(folders)
    if only:
        with only.open(encoding="utf-8", newline="") as file:
            wanted = {row["label"] for row in csv.DictReader(file)}
    return {name: paths[:images] for name, paths in folders.items() if name in wanted}


def embedded(start: Start, pictures: list[Picture]) -> tuple[Tensor, Tensor]:
    """Features of all views of the pictures [n, V, d], and the pictures, shrunk [n, p]."""
    assert isinstance(start.method, Metric)
    embed, features, small = start.method.embedder(), [], []
    for batch in batches(pictures, lambda picture: start.preprocessing(picture, CLOSER), 16):
        images = torch.from_numpy(np.stack(batch))
        features.append(embed(images.flatten(0, 1)).unflatten(0, images.shape[:2]))
        small.append(shrunk(images[:, 0]))
    return torch.cat(features), torch.cat(small)


def tasks(
    found: Mapping[str, list[Path]], way: int, shot: int, query: int, count: int
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Picture numbers of the supports [T, N, K] and the queries [T, N, Q] of tasks drawn from seed 0."""
    drawn, sizes = np.random.default_rng(0), [len(paths) for paths in found.values()]
    starts = np.cumsum([0, *sizes[:-1]])
    picked = np.stack(
        [
            [starts[c] + drawn.permutation(sizes[c])[: shot + query] for c in drawn.permutation(len(sizes))[:way]]
            for _ in range(count)
        ]
    )
    return picked[..., :shot], picked[..., shot:]


def accuracy(head: Any, features: Tensor, support: NDArray[np.int64], query: NDArray[np.int64]) -> NDArray[np.float64]:
    """Accuracy of each task: features of views [n, V, d], picture numbers [T, N, K] and [T, N, Q] -> [T]."""
    way, found = support.shape[1], []
    labels = torch.arange(way).repeat_interleave(support.shape[2] * features.shape[1])
    right = torch.arange(way).repeat_interleave(query.shape[2])
    for learn, judge in zip(support, query):
        shots = features[torch.from_numpy(learn.ravel())].flatten(0, 1)
        with torch.no_grad():
            logits = head(shots[None], labels[None], features[torch.from_numpy(judge.ravel()), 0][None], way)[0]
        found.append((logits.argmax(-1) == right).double().mean())
    return torch.stack(found).numpy()


def show(scores: dict[str, NDArray[np.float64]], shot: int, options: argparse.Namespace) -> list[dict[str, Any]]:
    """Print a table, and return its rows."""
    first = next(iter(scores.values()))
    rows: list[dict[str, Any]] = []
    print(f"\n{options.way}-way {shot}-shot, {options.query} queries a class, {options.tasks} tasks")
    for name, values in scores.items():
        difference = values - first
        mean, ci95 = 100 * values.mean(), 100 * interval(values)
        less, less_ci95 = 100 * difference.mean(), 100 * interval(difference)
        print(f"{name:36} {mean:6.2f} ± {ci95:.2f}" + (f"   {less:+.2f} ± {less_ci95:.2f}" if rows else ""))
        rows.append(
            {
                "measured": f"accuracy, {options.way}-way {shot}-shot, {name}",
                "unit": "fraction",
                "repeats": len(values),
                "median": float(np.median(values)),
                "min": float(values.min()),
                "max": float(values.max()),
                "mean": mean / 100,
                "ci95": ci95 / 100,
                "difference": less / 100,
                "difference_ci95": less_ci95 / 100,
                "folder": options.folder.name,
                **{f"machine_{key}": value for key, value in environment().items()},
            }
        )
    return rows


if __name__ == "__main__":
    main()
