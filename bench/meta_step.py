"""How long a meta-training step takes: Handful against a plain autograd loop, `higher` and TorchOpt.

    python bench/meta_step.py [--setting NAME | --all] [--repeats 10] [--threads 2] [--device cuda] [--json FILE]
    python bench/meta_step.py --growth [--plot FILE.png] [--json FILE]
    python bench/meta_step.py --profile [--setting NAME] [--json FILE]

The same network, weights, tasks and outer Adam for all (meta_step_contenders.py); `--setting note002` adds note 002's
own algorithm on its own network.  Before the clock starts, all contenders must agree in float64.  Each is measured in
a process of its own, and the processes take turns (meta_step_workers.py).  All of it runs twice, with the allocator as
it is ("default") and told to keep freed memory ("kept"): Handful's own setting is the second, that of everything else
the first.  The libraries are the extra [bench].
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import get_args

import torch

from handful.files import write_text
from handful.runtime import environment
from meta_step_contenders import (
    LIBRARIES,
    MODES,
    OMNIGLOT,
    SETTINGS,
    Mode,
    Setting,
    contenders,
    disagreement,
    library_versions,
    step_flops,
)
from meta_step_workers import MATRIX_PRODUCT, Allocator, Job, Row, make_row, matrix_rate, measure, on_threads

TOLERANCE = 1e-8


def main() -> int:
    options = arguments()
    if options.device == "cuda" and not torch.cuda.is_available():
        print("--device cuda: torch sees no GPU here; leave the option out to measure on the CPU.", file=sys.stderr)
        return 2
    torch.set_num_threads(options.threads)
    announce(options)
    if options.growth:
        from meta_step_growth import draw_growth, growth  # matplotlib, only now

        rows = growth(SETTINGS[options.setting], options)
        if options.plot:
            print(f"plot: {draw_growth(rows, options.plot)}")
    elif options.profile:
        from meta_step_profile import profile

        rows = profile(SETTINGS[options.setting], options.repeats, options.warmup)
    else:
        names = [name for name in SETTINGS if name != "tiny"] if options.all else [options.setting]
        rows = []
        for name in names:
            found = compare(SETTINGS[name], options)
            if found is None:
                return 1
            rows += found
        if not options.mode:
            report_goals(rows)
    if options.json:
        write_text(options.json, json.dumps(rows, indent=1))
    return 0


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--setting", choices=SETTINGS, default=OMNIGLOT.name)
    parser.add_argument("--all", action="store_true", help="every setting but tiny, one after the other")
    parser.add_argument("--mode", choices=MODES, action="append", help="only this one; may be given again")
    parser.add_argument("--growth", action="store_true", help="time and memory against tasks, ways, shots and steps")
    parser.add_argument("--profile", action="store_true", help="where the time of a step of Handful goes, on the CPU")
    parser.add_argument("--largest", type=int, default=1000, help="leave out sizes of --growth above this")
    parser.add_argument("--plot", type=Path, help="where --growth draws its picture")
    parser.add_argument("--repeats", type=int, help="10, and 3 for --growth, unless said otherwise")
    parser.add_argument("--warmup", type=int, help="3, and 1 for --growth, unless said otherwise")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--device", choices=("cpu", "cuda"), default="cpu")
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    if options.repeats is None:
        options.repeats = 3 if options.growth else 10
    if options.warmup is None:
        options.warmup = 1 if options.growth else 3
    if options.repeats < 1 or options.warmup < 0 or options.threads < 1:
        parser.error("--repeats and --threads are at least 1, --warmup at least 0")
    return options


def announce(options: argparse.Namespace) -> None:
    machine = environment()
    where = machine["gpu"] if options.device == "cuda" else f"{machine['cpu']}, {on_threads(options.threads)}"
    libraries = {name: found for name, found in library_versions().items() if found}
    versions = {"torch": machine["torch"], **libraries, "Handful": machine["commit"] or machine["handful"]}
    print(where + "; " + ", ".join(f"{name} {found}" for name, found in versions.items()))
    for name in LIBRARIES:
        if name not in libraries:
            print(f"{name} is not installed, so its rows are left out; the extra brings it: pip install handful[bench]")


def compare(setting: Setting, options: argparse.Namespace) -> list[Row] | None:
    """The rows of a setting; None if the contenders do not compute the same."""
    print(f"\n{setting}")
    rows: list[Row] = []
    for mode in options.mode or MODES:
        errors = disagreement(setting, mode, contenders(setting, mode), options.device)
        name, worst = max(errors.items(), key=lambda item: item[1])
        if not worst <= TOLERANCE:
            print(f"{mode}: {name} is {worst:.1e} from the plain loop in float64: not the same, so not timed.")
            return None
        print(f"\n{mode}: all agree in float64, to {worst:.0e} relative")
        found = mode_rows(setting, mode, options)
        rows += found
        print_table(found)
    return rows


def mode_rows(setting: Setting, mode: Mode, options: argparse.Namespace) -> list[Row]:
    """All contenders under both allocator settings, and the matrix product, in one interleaved run."""
    allocators: tuple[Allocator, ...] = get_args(Allocator) if options.device == "cpu" else ("default",)

    def job(name: str, allocator: Allocator) -> Job:
        return Job(name, mode, allocator, setting, options.threads, options.device)

    product = job(MATRIX_PRODUCT, "default")
    jobs = [job(name, allocator) for allocator in allocators for name in contenders(setting, mode)]
    results = measure([product, *jobs], options.repeats, options.warmup)
    rate = results[product]
    assert not isinstance(rate, str), rate
    rows = [make_row(job, results[job], matrix_rate(rate, options.device), step_flops(setting, mode)) for job in jobs]
    for row in rows:
        row |= ratios(row, rows)
    return rows


def ratios(row: Row, rows: Sequence[Row]) -> Row:
    """How many times as fast as the others: under the same allocator setting, and each as it is installed."""
    found: Row = {}
    for suffix, column in (("same_allocator", "allocator"), ("as_installed", "as_installed")):
        peers = {r["contender"]: r["median"] for r in rows if r[column] == row[column] and r["median"]}
        if column == "as_installed" and not row["as_installed"]:
            peers = {}
        libraries = [peers[name] for name in LIBRARIES if name in peers]
        rivals = {
            "plain": peers.get("plain loop"),
            "better_library": min(libraries, default=None),
            "higher": peers.get("higher"),
            "note002": peers.get("note 002"),
        }
        for name, seconds in rivals.items():
            found[f"times_{name}_{suffix}"] = seconds / row["median"] if seconds and row["median"] else None
    return found


def print_table(rows: Sequence[Row]) -> None:
    """One line a row; the two ratios are under the row's own allocator setting."""
    widths = f"{'contender':<36} {'allocator':<9} {'median s':>9} {'min':>8} {'max':>8} {'CPU s':>8} {'MiB':>7}"
    print(f"{widths} {'matrix rate':>11} {'x plain':>8} {'x library':>9}")
    for row in rows:
        start = f"{row['contender']:<36} {row['allocator']:<9}"
        if row["left_out"]:
            print(f"{start} left out: {row['left_out']}")
            continue
        numbers = f"{row['median']:9.4f} {row['min']:8.4f} {row['max']:8.4f} {row['cpu']:8.4f} {row['peak_mib']:7.0f}"
        share = f"{row['matrix_share']:11.0%}"
        plain, library = row["times_plain_same_allocator"], row["times_better_library_same_allocator"]
        print(f"{start} {numbers} {share} {times(plain):>8} {times(library):>9}")
    first = rows[0]
    print(f"the step needs {first['gflop']:.1f} Gflop; a matrix product reached {first['matrix_gflops']:.0f} Gflop/s")


def times(ratio: float | None) -> str:
    return "-" if ratio is None else f"{ratio:.2f}"


def report_goals(rows: list[Row]) -> None:
    """A line for each goal; a row of figures for each is added to the rows."""
    print("\ngoals")
    for setting in dict.fromkeys(row["setting"] for row in rows):
        for name, figure, least, base in goals(setting, rows):
            verdict = "not measured" if figure is None else "reached" if figure >= least else "missed"
            print(f"{verdict:<12} {setting}: {name}: {times(figure)}, goal {least:g}")
            rows.append(
                {
                    "measured": f"goal: {setting}, {name}",
                    "setting": setting,
                    "unit": "x",
                    "repeats": base["repeats"],
                    **dict.fromkeys(("median", "min", "max"), figure),
                    "goal": least,
                    "reached": None if figure is None else figure >= least,
                    **{key: value for key, value in base.items() if key.startswith("machine_") or key == "device"},
                }
            )


def goals(setting: str, rows: Sequence[Row]) -> Iterator[tuple[str, float | None, float, Row]]:
    """What is asked of Handful in a setting: its name, the figure (times better), the least, Handful's row."""

    def installed(mode: Mode, contender: str = "Handful") -> Row:
        key = (setting, mode, contender, True)
        return next(r for r in rows if (r["setting"], r["mode"], r["contender"], r["as_installed"]) == key)

    second, first = installed("second order"), installed("first order")
    if setting == "note002":
        yield "first order, times as fast as note 002, same allocator", first["times_note002_same_allocator"], 2, first
        note = installed_note(rows)
        figure = note["median"] / second["median"] if note["median"] and second["median"] else None
        yield "second order, times as fast as note 002 (first order), same allocator", figure, 1, second
        return
    if second["device"] == "cuda":
        name = "second order, times as fast as the better library"
        yield name, second["times_better_library_as_installed"], 20, second
    elif setting == "84x84":
        name = "second order, times as fast as higher"
        yield f"{name}, as installed", second["times_higher_as_installed"], 3, second
        yield f"{name}, same allocator", second["times_higher_same_allocator"], 2, second
    else:
        name = "second order, times as fast as the better library, as installed"
        yield name, second["times_better_library_as_installed"], 2, second
    plain = installed("second order", "plain loop")
    memory = plain["peak_mib"] / second["peak_mib"] if plain["peak_mib"] and second["peak_mib"] else None
    yield "second order, peak memory of the plain loop over Handful's, as installed", memory, 1, second
    yield "first order, times as fast as the plain loop, as installed", first["times_plain_as_installed"], 1.5, first
    for mode in MODES[2:]:
        name = f"{mode}, times as fast as the plain loop, as installed"
        test = installed(mode)
        yield name, test["times_plain_as_installed"], 1.5, test


def installed_note(rows: Sequence[Row]) -> Row:
    """Note 002's row with the allocator set as Handful sets it, as docs/results.md compares them."""
    found = [row for row in rows if row.get("contender") == "note 002"]
    return next((row for row in found if row["allocator"] == "kept"), found[0])


if __name__ == "__main__":
    sys.exit(main())
