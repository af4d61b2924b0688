"""How time and memory of training and evaluation grow with images, classes, ways, shots and processes.

    python bench/growth.py [--json FILE] [--plot FILE.png] [--page FILE.md] [--threads 1] [--quick]
    python bench/growth.py --plan [--page FILE.md]

Stores of random pixels, uint8 [1, 28, 28], are built in a temporary folder and deleted afterwards.  Of each size, with
ProtoNet and with MAML on a small Conv-4, a process of its own opens the store and trains until the weights have moved
once, and then takes training steps and evaluates; all sizes take turns.  The slope is that of the logarithms, by least
squares: 0 does not grow, 1 grows in proportion.  Memory is the peak of the resident set beyond what the process held
before it opened the store, without pages of files; those of the store's images are told apart.  The stores are in the
system's cache.  --plan prints what a run on 8 and on 64 GPUs takes; --page writes the tables into a page.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple, get_args

import numpy as np
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter
from numpy.typing import NDArray

from growth_plan import plan
from growth_workers import (
    EVALUATED,
    MAPPED,
    OPENING,
    ROWS,
    STARTING,
    STEP,
    TASK,
    TASKS,
    Family,
    Point,
    measure,
    takes_devices,
    train_with,
)
from handful.data.folders import READER
from handful.data.library import fingerprint
from handful.data.store import write_store
from handful.episodes import Passes
from handful.errors import HandfulError
from handful.files import write_text
from handful.report.style import BLUE, GREEN, ORANGE, PINK, save, styled
from handful.runtime import environment
from workers import Failed

Row = dict[str, Any]
SHAPE = (1, 28, 28)
FAMILIES: tuple[Family, ...] = get_args(Family)
PAGE = 2**12  # bytes of memory: the least that a slope takes for something
BUILDING, ORDER, FOLDER = "building the store", "the order of a pass", "looking through a folder"
LOOKS = {OPENING: (BLUE, "o"), STARTING: (GREEN, "s"), STEP: (ORANGE, "^"), TASK: (PINK, "D")}
UNITS = {"time": "ms", "memory": "MiB"}


class Sizes(NamedTuple):
    """What is measured.  base: classes and images of the store of the other axes, and what their tasks are."""

    images: tuple[int, ...]
    classes: tuple[int, ...]
    ways: tuple[int, ...]
    shots: tuple[int, ...]
    pictures: tuple[int, ...]
    base: tuple[int, int]
    a_class: int
    query: int
    channels: int
    starts: int
    repeats: int


FULL = Sizes(
    images=(2_000, 10_000, 100_000, 1_000_000),
    classes=(100, 1_000, 5_000, 20_000),
    ways=(2, 5, 10, 20),
    shots=(1, 2, 5, 10, 20),
    pictures=(200, 2_000, 20_000),
    base=(100, 10_000),
    a_class=20,
    query=15,
    channels=32,
    starts=5,
    repeats=15,
)
QUICK = Sizes(
    images=(240, 2_400),
    classes=(20, 60),
    ways=(2, 5),
    shots=(1, 3),
    pictures=(20, 60),
    base=(20, 240),
    a_class=12,
    query=2,
    channels=4,
    starts=1,
    repeats=1,
)


def main() -> int:
    options = arguments()
    if options.plan:
        text = plan()
        print(text)
        if options.page:
            fill(options.page, "plan", text)
        return 0
    machine = environment()
    sizes = QUICK if options.quick else FULL
    print(f"{machine['cpu']}, threads: {options.threads}; torch {machine['torch']}; commit {machine['commit']}\n")
    rows: list[Row] = []
    try:
        with tempfile.TemporaryDirectory() as folder:
            for found in grown(Path(folder), sizes, options):
                with_slopes(found)
                print(tables(found), flush=True)
                rows += found
    except Failed as failure:
        print(f"growth.py: {failure}.", file=sys.stderr)
        return 1
    for row in rows:
        row |= {"machine_threads": options.threads}
        row |= {f"machine_{key}": machine[key] for key in ("cpu", "gpu", "cores", "torch", "commit")}
    if options.json:
        write_text(options.json, json.dumps(rows, indent=1))
    if options.plot:
        save(curves(rows), options.plot)
    if options.page:
        fill(options.page, "growth", "\n".join([said(options), "", picture(options), "", tables(rows)]))
    return 0


def said(options: argparse.Namespace) -> str:
    """What was run, on what, for the page."""
    machine, words = environment(), " ".join(["python bench/growth.py", *sys.argv[1:]])
    threads = "one thread" if options.threads == 1 else f"{options.threads} threads"
    return (
        f"`{words}`: {machine['cpu']}, {machine['cores']} cores, {threads} a process; torch {machine['torch']}, "
        f"commit {machine['commit']}."
    )


def picture(options: argparse.Namespace) -> str:
    """The plot, as the page shows it."""
    if not options.plot:
        return ""
    return (
        f"![Time and memory over images, classes, ways and shots]({os.path.relpath(options.plot, options.page.parent)})"
    )


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--json", type=Path)
    parser.add_argument("--plot", type=Path)
    parser.add_argument("--page", type=Path, help="write the tables between the lines of this page that are for them")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--quick", action="store_true", help="small sizes, to see that it works")
    parser.add_argument("--plan", action="store_true", help="print the plan of a run on several GPUs instead")
    options = parser.parse_args()
    if options.threads < 1:
        parser.error("--threads is at least 1")
    return options


def grown(folder: Path, sizes: Sizes, options: argparse.Namespace) -> Iterator[list[Row]]:
    """The rows of one axis after the other."""
    stores: dict[tuple[int, int], Path] = {}
    building: dict[tuple[int, int], float] = {}

    def store(classes: int, images: int) -> Path:
        key = classes, images
        if key not in stores:
            started = time.perf_counter()
            stores[key] = build_store(folder / f"{classes}-{images}", classes, images)
            building[key] = time.perf_counter() - started
        return stores[key]

    classes, images = sizes.base
    varied = {
        "images": [(size, store(classes, size), 5, 1) for size in sizes.images],
        "classes": [(size, store(size, size * sizes.a_class), 5, 1) for size in sizes.classes],
        "way": [(size, store(classes, images), size, 1) for size in sizes.ways],
        "shot": [(size, store(classes, images), 5, size) for size in sizes.shots],
    }
    for axis, points in varied.items():
        found = [
            Point(axis, size, family, path, way, shot, sizes.query, sizes.channels, options.threads)
            for size, path, way, shot in points
            for family in FAMILIES
        ]
        rows = axis_rows(found, sizes)
        if axis == "images":
            for size in sizes.images:
                rows.append(make_row(axis, size, BUILDING, None, "time", [building[classes, size]]))
                rows += order_rows(size, sizes.repeats)
        yield rows
    yield folder_rows(folder / "pictures", sizes)
    yield process_rows(folder, options.quick)


def build_store(folder: Path, classes: int, images: int) -> Path:
    """Classes of random pixels, as many images each, the same few thousand over and over."""
    pixels = np.random.default_rng(0).integers(0, 256, (4096, *SHAPE), dtype=np.uint8)
    half, quarter = classes // 2, classes // 4
    write_store(
        folder,
        images=(pixels[number % len(pixels)] for number in range(images)),
        labels=np.repeat(np.arange(classes), images // classes).tolist(),
        image_shape=SHAPE,
        class_names=[f"class{number:05}" for number in range(classes)],
        splits={
            "train": range(half),
            "val": range(half, half + quarter),
            "test": range(half + quarter, classes),
        },
        info={"name": "made"},
    )
    return folder


def axis_rows(points: Sequence[Point], sizes: Sizes) -> list[Row]:
    """Rows of time and memory of each quantity, and of the pages of the store that evaluations left mapped."""
    rows = []
    for point, quantity, samples in measure(points, sizes.starts, sizes.repeats):
        family = point.family
        if quantity in (OPENING, MAPPED) and (point.axis not in ("images", "classes") or family != FAMILIES[0]):
            continue  # it has nothing to do with them
        where = point.axis, point.size, quantity, None if quantity == OPENING else family
        if quantity != MAPPED:
            tasks = EVALUATED if quantity == TASK else 1
            rows.append(make_row(*where, "time", [sample.seconds / tasks for sample in samples]))
        rows.append(make_row(*where, "memory", [sample.peak / 2**20 for sample in samples]))
    return rows


def order_rows(images: int, repeats: int) -> list[Row]:
    """What pre-training draws once in each pass."""
    seconds = []
    for turn in range(repeats):
        started = time.perf_counter()
        Passes(images, seed=turn, stream=2).drawn(0, 1)
        seconds.append(time.perf_counter() - started)
    held: NDArray[np.int64] = np.empty(images, np.int64)
    return [
        make_row("images", images, ORDER, None, "time", seconds),
        make_row("images", images, ORDER, None, "memory", [held.nbytes / 2**20]),
    ]


def folder_rows(folder: Path, sizes: Sizes) -> list[Row]:
    """How long it takes to see that no picture of a folder has changed, which opening its store begins with."""
    rows, there = [], 0
    for size in sizes.pictures:
        for number in range(there, size):
            path = folder / f"class{number % 20}" / f"{number}.jpg"
            path.parent.mkdir(parents=True, exist_ok=True)
            path.touch()
        there = size
        seconds = []
        for _ in range(sizes.starts + 1):
            started = time.perf_counter()
            fingerprint(READER, folder)
            seconds.append(time.perf_counter() - started)
        rows.append(make_row("pictures", size, FOLDER, None, "time", seconds[1:]))
    return rows


def process_rows(folder: Path, quick: bool) -> list[Row]:
    """A step of so many tasks, shared by one and by two processes of one thread each."""
    if quick or not takes_devices():
        why = "--quick" if quick else "`handful train` has no option --devices here"
        print(f"processes: left out ({why})\n")
        return []
    seconds: dict[tuple[int, Family], list[float]] = {}
    peaks: dict[tuple[int, Family], list[float]] = {}
    for _ in range(2):
        for family in FAMILIES:
            for devices in (1, 2):
                spans, peak = train_with(devices, family, folder, 10 * ROWS)
                seconds.setdefault((devices, family), []).extend(spans)
                peaks.setdefault((devices, family), []).append(peak / 2**20)
    return [
        make_row("processes", devices, STEP, family, kind, values)
        for kind, found in (("time", seconds), ("memory", peaks))
        for (devices, family), values in found.items()
    ]


def make_row(axis: str, size: int, quantity: str, family: Family | None, kind: str, values: Sequence[float]) -> Row:
    """Time in seconds, memory in MiB."""
    return {
        "measured": ", ".join(filter(None, [f"{axis} {size}", quantity, family, kind])),
        "axis": axis,
        "size": size,
        "quantity": quantity,
        "family": family,
        "kind": kind,
        "unit": "s" if kind == "time" else "MiB",
        "repeats": len(values),
        "median": statistics.median(values),
        "min": min(values),
        "max": max(values),
    }


def with_slopes(rows: Sequence[Row]) -> None:
    """Add to each row the slope of its curve."""
    for curve in curves_of(rows):
        least = PAGE / 2**20 if curve[0]["kind"] == "memory" else 0.0
        for row in curve:
            row["slope"] = slope([r["size"] for r in curve], [max(r["median"], least) for r in curve])


def curves_of(rows: Sequence[Row]) -> list[list[Row]]:
    """The rows of each quantity and family on an axis, of time or memory, by size."""
    found: dict[tuple[Any, ...], list[Row]] = {}
    for row in rows:
        found.setdefault(tuple(row[key] for key in ("axis", "kind", "quantity", "family")), []).append(row)
    return list(found.values())


def slope(sizes: Sequence[float], values: Sequence[float]) -> float:
    """Of the logarithms, by least squares."""
    return float(np.polyfit(np.log(sizes), np.log(values), 1)[0])


def tables(rows: Sequence[Row]) -> str:
    """A table in Markdown for each axis: medians over its sizes, and the slope."""
    lines = []
    for axis in dict.fromkeys(row["axis"] for row in rows):
        found = curves_of([row for row in rows if row["axis"] == axis])
        heads = [f"{row['size']:,}" for row in max(found, key=len)]
        lines += [f"| by {axis} | {' | '.join(heads)} | slope |", "|---|" + "---|" * (len(heads) + 1)]
        for curve in sorted(found, key=lambda curve: curve[0]["kind"] == "memory"):
            first = curve[0]
            name = ", ".join(filter(None, [first["quantity"], first["family"], UNITS[first["kind"]]]))
            scale = 1e3 if first["kind"] == "time" else 1
            cells = " | ".join(figure(scale * row["median"]) for row in curve)
            lines.append(f"| {name} | {cells} | {first['slope']:.2f} |")
        lines.append("")
    return "\n".join(lines)


def figure(value: float) -> str:
    """Three digits, about."""
    return f"{value:,.0f}" if value >= 100 else f"{value:.1f}" if value >= 10 else f"{value:.2f}"


def brief(size: int) -> str:
    """`20 k`, `1 M`."""
    for unit, letter in ((10**6, "M"), (10**3, "k")):
        if size >= unit:
            return f"{size / unit:g} {letter}"
    return str(size)


def fill(page: Path, block: str, text: str) -> None:
    """Put text between the lines of a page that begin and end a block."""
    begin, end = f"<!-- bench/growth.py: {block} -->\n", f"<!-- end of {block} -->"
    before, found, rest = page.read_text(encoding="utf-8").partition(begin)
    _, closed, after = rest.partition(end)
    if not (found and closed):
        raise SystemExit(f"{page} has no lines {begin.strip()} and {end}; add them where the tables belong.")
    write_text(page, f"{before}{begin}\n{text.strip()}\n\n{end}{after}")


@styled
def curves(rows: Sequence[Row]) -> Figure:
    """Time above, memory below, a column for each axis; both axes logarithmic, whole for ProtoNet, broken for MAML."""
    names = [axis for axis in ("images", "classes", "way", "shot") if any(row["axis"] == axis for row in rows)]
    drawn = Figure(figsize=(11, 5.6))
    grid = drawn.subplots(2, len(names), sharex="col", sharey="row", squeeze=False)
    for kind, unit, line in zip(UNITS, ("seconds", "memory, MiB"), grid):
        for axis, axes in zip(names, line):
            for curve in curves_of([row for row in rows if (row["axis"], row["kind"]) == (axis, kind)]):
                first = curve[0]
                if first["quantity"] not in LOOKS:
                    continue
                color, marker = LOOKS[first["quantity"]]
                style = "--" if first["family"] == "MAML" else "-"
                values = [max(row["median"], PAGE / 2**20) if kind == "memory" else row["median"] for row in curve]
                label = ", ".join(filter(None, [first["quantity"], first["family"]]))
                axes.plot(
                    [row["size"] for row in curve], values, style, color=color, marker=marker, ms=4.5, label=label
                )
            axes.set_xscale("log")
            axes.set_yscale("log")
            axes.set_title(f"by {axis}" if kind == "time" else "")
            sizes = sorted({row["size"] for row in rows if row["axis"] == axis})
            axes.set_xticks(sizes, [brief(size) for size in sizes])
            axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
            axes.minorticks_off()
        line[0].set_ylabel(unit)
    handles, labels = grid[0][0].get_legend_handles_labels()
    drawn.legend(handles, labels, loc="outside upper left", ncols=4)
    where = f"{rows[0]['machine_cpu']}, threads: {rows[0]['machine_threads']}"
    drawn.supxlabel(
        f"{where}; medians; {TASKS} tasks a training step; 5-way 1-shot but where that grows.", fontsize=8.5
    )
    return drawn


if __name__ == "__main__":
    try:
        sys.exit(main())
    except HandfulError as error:
        print(f"growth.py: {error}", file=sys.stderr)
        sys.exit(2)
