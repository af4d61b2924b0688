"""How many 15-query tasks a second the sampler draws: as indices, as drawings, and as photographs varied on a device.

    python bench/episodes.py [--device cuda] [--tasks N] [--json FILE]

Drawings: 5-way 1-shot of random pixels in the shape of Omniglot, on one core, in batches of 8 tasks (a training step)
and of 100.  Photographs: 5-way 5-shot of random pixels at 84x84, plain and varied as `train.augment: photos` does, with
the store on the device.
"""

from __future__ import annotations

import argparse
import json
import statistics
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch

from handful.data import ImageStore, load
from handful.data.augment import Augment
from handful.episodes import EpisodeSampler
from handful.runtime import environment

REPEATS = 9


def photographs() -> ImageStore:
    """40 classes of 40 images of random bytes, uint8 [3, 84, 84]."""
    return ImageStore(
        images=np.random.default_rng(0).integers(0, 256, (1600, 3, 84, 84), dtype=np.uint8),
        labels=np.repeat(np.arange(40), 40),
        class_names=tuple(map(str, range(40))),
        splits={"train": np.arange(40)},
        digest="random",
        info={"name": "random photographs"},
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--device", type=torch.device, default=torch.device("cpu"))
    parser.add_argument("--tasks", type=int, default=4000, help="tasks of a repeat; of photographs a hundredth")
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    torch.set_num_threads(1)
    drawings, colour, device = load("random", rotations=4).train, photographs().train, options.device
    plain = EpisodeSampler(drawings, way=5, shot=1, query=15)

    def varied(augment: Augment) -> Callable[[int, int], object]:
        sampler = EpisodeSampler(colour, way=5, shot=5, query=15, augment=augment)
        return lambda start, stop: sampler.episodes(start, stop, device=device)

    few = max(options.tasks // 100, 8)
    cases: dict[tuple[str, int], tuple[Callable[[int, int], object], int]] = {
        **{("indices", batch): (plain.indices, options.tasks) for batch in (8, 100)},
        **{("tensors", batch): (plain.episodes, options.tasks) for batch in (8, 100)},
        ("photographs", 8): (varied("none"), few),
        ("photographs, varied", 8): (varied("photos"), few),
    }
    rates: dict[tuple[str, int], list[float]] = {case: [] for case in cases}
    for repeat in range(REPEATS + 1):
        for (kind, batch), (draw, tasks) in cases.items():
            started = time.perf_counter()
            for start in range(0, tasks, batch):
                draw(start, start + batch)
            if device.type == "cuda":
                torch.cuda.synchronize(device)
            if repeat:  # the first is the warm-up
                rates[kind, batch].append(tasks / (time.perf_counter() - started))
    machine = environment()
    rows = []
    print(f"{machine['cpu']}, 1 thread; photographs on {machine['gpu'] if device.type == 'cuda' else device}")
    print(f"{'drawn':<20} {'batch':>6} {'tasks/s':>10} {'min':>10} {'max':>10}")
    for (kind, batch), found in rates.items():
        median = statistics.median(found)
        print(f"{kind:<20} {batch:>6} {median:10.0f} {min(found):10.0f} {max(found):10.0f}")
        rows.append(
            {
                "measured": f"{kind}, batches of {batch}",
                "unit": "tasks/s",
                "repeats": REPEATS,
                "median": median,
                "min": min(found),
                "max": max(found),
                "device": str(device),
                **{f"machine_{key}": machine[key] for key in ("cpu", "gpu", "cores", "torch", "commit")},
            }
        )
    if options.json:
        options.json.write_text(json.dumps(rows, indent=1), encoding="utf-8")


if __name__ == "__main__":
    main()
