"""How many tasks a second the sampler draws on one core: 5-way 1-shot 15-query, as indices and as tensors.

    python bench/episodes.py [--json FILE]

On a store of random pixels in the shape of Omniglot, in batches of 8 tasks (a training step) and of 100.
"""

from __future__ import annotations

import argparse
import json
import statistics
import time
from pathlib import Path

import torch

from handful.data import load
from handful.episodes import EpisodeSampler
from handful.runtime import environment

REPEATS, TASKS = 9, 4000


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    torch.set_num_threads(1)
    sampler = EpisodeSampler(load("random", rotations=4).train, way=5, shot=1, query=15)
    draws = {"indices": sampler.indices, "tensors": sampler.episodes}
    cases = [(kind, batch) for kind in draws for batch in (8, 100)]
    rates: dict[tuple[str, int], list[float]] = {case: [] for case in cases}
    for repeat in range(REPEATS + 1):
        for kind, batch in cases:
            started = time.perf_counter()
            for start in range(0, TASKS, batch):
                draws[kind](start, start + batch)
            if repeat:  # the first is the warm-up
                rates[kind, batch].append(TASKS / (time.perf_counter() - started))
    machine = environment()
    rows = []
    print(f"{machine['cpu']}, 1 thread\n{'drawn':<10} {'batch':>6} {'tasks/s':>10} {'min':>10} {'max':>10}")
    for (kind, batch), found in rates.items():
        median = statistics.median(found)
        print(f"{kind:<10} {batch:>6} {median:10.0f} {min(found):10.0f} {max(found):10.0f}")
        rows.append(
            {
                "measured": f"{kind}, batches of {batch}",
                "unit": "tasks/s",
                "repeats": REPEATS,
                "median": median,
                "min": min(found),
                "max": max(found),
                **{f"machine_{key}": machine[key] for key in ("cpu", "cores", "torch", "commit")},
            }
        )
    if options.json:
        options.json.write_text(json.dumps(rows, indent=1), encoding="utf-8")


if __name__ == "__main__":
    main()
