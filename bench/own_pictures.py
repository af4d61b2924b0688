"""What a folder of pictures costs: `handful fit` and `handful predict`, as whole processes and in a running one.

    python bench/own_pictures.py [--pictures 1000] [--many 10000] [--classes 100] [--repeats 5] [--json FILE]

Pictures are made: soft random colours with noise, JPEG.  `fit` on 5 classes x 5 of 500x375 pixels, with an empty cache
(once) and with a filled one; on half of `--many` in `--classes`, and on `--many` of 84x84 in a tenth of them, one
process each, with its peak memory.  `predict` on `--pictures` of 500x375 and of 84x84, by a model in this process, and
as a command.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from handful.files import write_text
from handful.model import Model
from handful.runtime import environment

PHOTO, SMALL = (500, 375), (84, 84)
Rows = list[dict[str, Any]]


def main() -> None:
    options = arguments()
    half, tenth = options.many // 2, options.classes // 10
    rows: Rows = []
    with tempfile.TemporaryDirectory() as made:
        work = Path(made)
        few = folder(work / "few", 5, 5, PHOTO)
        rest = folder(work / "rest", 1, options.pictures, PHOTO)
        small = folder(work / "small", 1, options.pictures, SMALL)
        warm = work / "cache"
        first = handful("fit", few, "--out", work / "first", cache=warm)
        rows.append(row("fit 5 x 5, empty cache", "s", [first[0]], peak=first[1]))
        again = [handful("fit", few, "--out", work / f"m{i}", cache=warm) for i in range(options.repeats)]
        rows.append(row("fit 5 x 5", "s", [seconds for seconds, _ in again], peak=max(peak for _, peak in again)))
        for name, classes, shots, size in (
            (f"fit {options.classes} x {half // options.classes}", options.classes, half // options.classes, PHOTO),
            (f"fit {options.many} pictures of 84x84", tenth, options.many // tenth, SMALL),
        ):
            seconds, peak = handful("fit", folder(work / name, classes, shots, size), "--out", work / "m", cache=warm)
            rows.append(row(name, "s", [seconds], peak=peak))
        os.environ["HANDFUL_CACHE"] = str(warm)
        model = Model.load(work / "m0")
        for name, source in (("500x375", rest), ("84x84", small)):
            rates = [rate(model, source, options.pictures) for _ in range(options.repeats + 1)][1:]
            rows.append(row(f"predict {options.pictures} of {name}", "images/s", rates))
            seconds, peak = handful("predict", work / "m0", source, "--json", cache=warm)
            rows.append(row(f"predict {options.pictures} of {name}, the command", "s", [seconds], peak=peak))
    if options.json:
        write_text(options.json, json.dumps(rows, indent=1))


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--pictures", type=int, default=1000, help="to predict")
    parser.add_argument("--many", type=int, default=10_000, help="to fit, for the memory; half as many in --classes")
    parser.add_argument("--classes", type=int, default=100, help="at least 10")
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--json", type=Path)
    return parser.parse_args()


def folder(path: Path, classes: int, shots: int, size: tuple[int, int]) -> Path:
    """Class folders of made pictures."""

    def draw(item: tuple[int, int]) -> None:
        label, number = item
        rng = np.random.default_rng([label, number])
        soft = Image.fromarray(rng.integers(0, 256, (9, 12, 3), dtype=np.uint8)).resize(size, Image.Resampling.BICUBIC)
        noisy = np.asarray(soft).astype(np.int16) + rng.integers(-9, 10, (size[1], size[0], 3), dtype=np.int16)
        picture = Image.fromarray(noisy.clip(0, 255).astype(np.uint8))
        picture.save(path / f"class{label:03}" / f"{number:05}.jpg", quality=90)

    for label in range(classes):
        (path / f"class{label:03}").mkdir(parents=True)
    with ThreadPoolExecutor() as pool:
        list(pool.map(draw, [(label, number) for label in range(classes) for number in range(shots)]))
    return path


def handful(*arguments: object, cache: Path) -> tuple[float, float]:
    """Seconds and peak MiB of a command, from its start to its end."""
    command = [sys.executable, "-c", "from handful.cli import main; main()", *map(str, arguments)]
    started = time.perf_counter()
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, env={**os.environ, "HANDFUL_CACHE": str(cache)})
    _, status, usage = os.wait4(process.pid, 0)
    seconds = time.perf_counter() - started
    process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode:
        raise SystemExit(f"handful {' '.join(map(str, arguments))} ended with {process.returncode}.")
    return seconds, usage.ru_maxrss / 1024


def rate(model: Model, source: Path, pictures: int) -> float:
    """Images a second that a model in this process names."""
    started = time.perf_counter()
    model.predict(source)
    return pictures / (time.perf_counter() - started)


def row(measured: str, unit: str, values: list[float], peak: float | None = None) -> dict[str, Any]:
    """Print a row, and give it back."""
    median = statistics.median(values)
    memory = "" if peak is None else f"   peak {peak:6.0f} MiB"
    print(f"{measured:36} {median:8.2f} {unit:9} ({min(values):.2f} to {max(values):.2f}){memory}", flush=True)
    return {
        "measured": measured,
        "unit": unit,
        "repeats": len(values),
        "median": median,
        "min": min(values),
        "max": max(values),
        "peak_mib": peak,
        **{f"machine_{key}": value for key, value in environment().items()},
    }


if __name__ == "__main__":
    main()
