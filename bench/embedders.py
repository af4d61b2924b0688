"""How many images a second EfficientNet-Lite0 embeds on the CPU: eager torch, channels-last, and onnxruntime.

    python bench/embedders.py [--sizes 112 160 224] [--batch 32] [--repeats 9] [--threads 2] [--json FILE]

Pixels of the given size, not resized inside; a batch of each way in turn, after a warm-up round.  "channels-last" is
what `handful.embedders.TorchEmbedder` does, "onnxruntime" what `OnnxEmbedder` does, which is left out where the extra
[onnx] is not installed.
"""

from __future__ import annotations

import argparse
import json
import statistics
import time
from pathlib import Path
from typing import Any

import torch

from handful.backbones import efficientnet_lite0
from handful.embedders import Embed, OnnxEmbedder, TorchEmbedder, difference
from handful.errors import HandfulError
from handful.files import write_text
from handful.runtime import environment, keep_freed_memory

Rows = list[dict[str, Any]]


def main() -> None:
    options = arguments()
    torch.set_num_threads(options.threads)
    kept = keep_freed_memory()
    torch.manual_seed(0)
    cases: dict[tuple[int, str], tuple[Embed, torch.Tensor]] = {}
    for size in options.sizes:
        images = torch.rand(options.batch, 3, size, size)
        cases |= {(size, way): (embed, images) for way, embed in ways(size, options.weights).items()}
    rates: dict[tuple[int, str], list[float]] = {case: [] for case in cases}
    for repeat in range(options.repeats + 1):
        for case, (embed, images) in cases.items():
            started = time.perf_counter()
            with torch.no_grad():
                embed(images)
            if repeat:  # the first is the warm-up
                rates[case].append(options.batch / (time.perf_counter() - started))
    rows = table(rates, options)
    for row in rows:
        embed, images = cases[row["pixels"], row["way"]]
        with torch.no_grad():
            row["difference_from_eager"] = difference(embed(images), cases[row["pixels"], "eager"][0](images))
        row["machine_freed_memory_kept"] = kept
    print(
        f"largest difference from eager: {max(row['difference_from_eager'] for row in rows):.0e} of the largest value"
    )
    if options.json:
        write_text(options.json, json.dumps(rows, indent=1))


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--sizes", type=int, nargs="+", default=[112, 160, 224], help="pixels of a side")
    parser.add_argument("--batch", type=int, default=32)
    parser.add_argument("--repeats", type=int, default=9)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument(
        "--weights", default="imagenet", help="`none` times the network where [photos] is not installed"
    )
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    if min(options.repeats, options.threads, options.batch, *options.sizes) < 1:
        parser.error("--sizes, --batch, --repeats and --threads are at least 1")
    return options


def ways(size: int, weights: str) -> dict[str, Embed]:
    """The ways to embed images of a size."""
    backbone = efficientnet_lite0(weights=weights, resolution=None, input_shape=(3, size, size))
    found: dict[str, Embed] = {"eager": backbone, "channels-last": TorchEmbedder(backbone)}
    try:
        found["onnxruntime"] = OnnxEmbedder(backbone)
    except HandfulError as error:
        print(f"onnxruntime is left out: {error}")
    return found


def table(rates: dict[tuple[int, str], list[float]], options: argparse.Namespace) -> Rows:
    """Print the rates, and give them as rows."""
    machine = environment()
    print(f"{machine['cpu']}, threads: {options.threads}, batch {options.batch}, torch {machine['torch']}")
    print(f"{'pixels':>6} {'way':<14} {'images/s':>9} {'min':>9} {'max':>9} {'x eager':>8}")
    rows: Rows = []
    for (size, way), found in rates.items():
        median = statistics.median(found)
        times = median / statistics.median(rates[size, "eager"])
        print(f"{size:>6} {way:<14} {median:9.1f} {min(found):9.1f} {max(found):9.1f} {times:8.2f}")
        rows.append(
            {
                "measured": f"efficientnet_lite0 at {size} px, {way}",
                "pixels": size,
                "way": way,
                "batch": options.batch,
                "unit": "images/s",
                "repeats": options.repeats,
                "median": median,
                "min": min(found),
                "max": max(found),
                "times_eager": times,
                "threads": options.threads,
                **{f"machine_{key}": machine[key] for key in ("cpu", "cores", "torch", "commit")},
            }
        )
    return rows


if __name__ == "__main__":
    main()
