"""How time and memory of a second-order step grow with the number of tasks, ways, shots and inner steps."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, LogLocator, NullLocator

from handful.report.style import BLUE, GREEN, INK, ORANGE, save, styled
from meta_step_contenders import Mode, Setting, contenders, step_flops
from meta_step_workers import MATRIX_PRODUCT, Job, Row, make_row, matrix_rate, measure, on_threads

SIZES = {
    "tasks": (1, 2, 4, 8, 16, 32, 64),
    "way": (2, 5, 10, 20, 40),
    "shot": (1, 2, 5, 10, 20),
    "steps": (1, 2, 5, 10, 20, 50, 100, 200),
}
TITLES = {"tasks": "tasks", "way": "ways", "shot": "shots", "steps": "inner steps"}
LONGEST, MOST = 20.0, 8 * 1024.0  # seconds and MiB of a step above which larger sizes are left out
LOOKS = {"Handful": (BLUE, "o"), "Handful, recompute": (GREEN, "s"), "plain loop": (INK, "^"), "higher": (ORANGE, "D")}
PANELS = {"median": "seconds a step", "peak_mib": "peak memory, MiB"}  # key in the rows -> label
MODE: Mode = "second order"


def growth(base: Setting, options: argparse.Namespace) -> list[Row]:
    """Each contender as it is installed, one number varied at a time; all contenders of a size take turns."""
    print(f"\n{base}\n{MODE}, as installed, one number varied at a time")
    rows: list[Row] = []
    for axis, sizes in SIZES.items():
        over: dict[str, str] = {}  # contender -> why it goes no further on this axis
        for size in sizes:
            if size > options.largest:
                break
            varied: Any = {axis: size}
            found = size_rows(replace(base, **varied), over, options)
            for row in found:
                row |= {"axis": axis, "size": size, "measured": f"growth, {axis} {size}, {row['contender']}"}
                print_row(row)
                reason = limit(row)
                if reason:
                    over.setdefault(row["contender"], reason)
            rows += found
    return rows


def size_rows(setting: Setting, over: dict[str, str], options: argparse.Namespace) -> list[Row]:
    names = [name for name in contenders(setting, MODE) if name in LOOKS]
    jobs = {name: job for name in names for job in candidates(name, setting, options) if job.as_installed}
    product = Job(MATRIX_PRODUCT, MODE, "default", setting, options.threads, options.device)
    running = [job for name, job in jobs.items() if name not in over]
    results = measure([product, *running], options.repeats, options.warmup)
    product_samples = results[product]
    assert not isinstance(product_samples, str), product_samples
    rate, flops = matrix_rate(product_samples, options.device), step_flops(setting, MODE)
    return [make_row(job, over[name] if name in over else results[job], rate, flops) for name, job in jobs.items()]


def candidates(name: str, setting: Setting, options: argparse.Namespace) -> list[Job]:
    """With either allocator setting; on a GPU the system's does not matter."""
    default = Job(name, MODE, "default", setting, options.threads, options.device)
    return [default] if options.device == "cuda" else [default, replace(default, allocator="kept")]


def limit(row: Row) -> str | None:
    """Why this contender should not try the next size."""
    if row["left_out"]:
        return str(row["left_out"])
    if row["median"] > LONGEST:
        return f"a step took {row['median']:.0f} s at {row['size']}, the limit is {LONGEST:g} s"
    if row["peak_mib"] > MOST:
        return f"a step took {row['peak_mib'] / 1024:.1f} GiB at {row['size']}, the limit is {MOST / 1024:g} GiB"
    return None


def print_row(row: Row) -> None:
    start = f"{row['axis']:<6} {row['size']:>4} {row['contender']:<20}"
    if row["left_out"]:
        print(f"{start} left out: {row['left_out']}")
    else:
        print(f"{start} {row['median']:9.4f} s {row['cpu']:9.4f} CPU s {row['peak_mib']:8.0f} MiB", flush=True)


def draw_growth(rows: Sequence[Row], path: Path) -> Path:
    """Write the picture."""
    return save(growth_figure(rows), path)


@styled
def growth_figure(rows: Sequence[Row]) -> Figure:
    """Time above, memory below, a column for each number that grows; both axes logarithmic."""
    axes_names = [name for name in SIZES if any(row["axis"] == name for row in rows)]
    figure = Figure(figsize=(11, 5.6))
    grid = figure.subplots(len(PANELS), len(axes_names), sharey="row", sharex="col", squeeze=False)
    for (key, label), line in zip(PANELS.items(), grid):
        for name, axes in zip(axes_names, line):
            draw_panel(axes, [row for row in rows if row["axis"] == name and row[key]], key)
        line[0].set_ylabel(label)
    for name, top, bottom in zip(axes_names, grid[0], grid[-1]):
        top.set_title(f"by {TITLES[name]}")
        bottom.set_xlabel(TITLES[name])
        sizes = sorted({row["size"] for row in rows if row["axis"] == name})
        bottom.set_xticks(sizes, [str(size) for size in sizes])
        bottom.minorticks_off()
    handles, labels = grid[0][0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside upper left", ncols=len(labels))
    figure.supxlabel(caption(rows), fontsize=8.5)
    return figure


def draw_panel(axes: Axes, rows: Sequence[Row], key: str) -> None:
    for name, (color, marker) in LOOKS.items():
        points = [(row["size"], row[key]) for row in rows if row["contender"] == name]
        if points:
            axes.plot(*zip(*points), color=color, marker=marker, markersize=4.5, label=name)
    axes.set_xscale("log")
    axes.set_yscale("log")
    axes.yaxis.set_major_locator(LogLocator(subs=(1.0, 2.0, 5.0), numticks=12))
    axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
    axes.yaxis.set_minor_locator(NullLocator())


def caption(rows: Sequence[Row]) -> str:
    first = rows[0]
    where = first["machine_gpu"] if first["device"] == "cuda" else on_threads(first["machine_threads"])
    ends = f" A line ends where a step passed {LONGEST:g} s or {MOST / 1024:g} GiB." if any_left_out(rows) else ""
    return f"Second-order meta-training step, {where}, median of {first['repeats']}, each as installed.{ends}"


def any_left_out(rows: Sequence[Row]) -> bool:
    return any(row["left_out"] for row in rows)
