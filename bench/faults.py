"""What interruptions do to a training: it is struck in many ways, the same command is given again, the ends compared.

    python bench/faults.py [--kills 100] [--stops 20] [--seed 0] [--recipe FILE] [--only KIND]... [--json FILE]

A small recipe with both stages trains through the real command line.  An undisturbed run comes first.  Then runs are
struck; after each fault the same command is given again, often to be struck itself, until it ends well.  Its weights,
checkpoints, metrics and evaluations must then be those of the undisturbed run to the last bit, but for what tells the
time, and no file may be there that the undisturbed run has not.  A process that neither ends nor moves is a finding,
as is all else that should not be; with any the exit code is 1.
"""

from __future__ import annotations

import argparse
import inspect
import json
import os
import re
import shutil
import signal
import sys
import tempfile
from collections import Counter
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from faults_disks import PAGE, ROOM, LeftOut, disk, fill, freeze
from faults_ends import damaged, differences, unsaved, untimed
from faults_training import PROMPT, RUN, Bench, Ended, Finding, Training
from handful.cli.training import train
from handful.files import write_text
from handful.recipe import Recipe, load_recipe, parse
from handful.runtime import environment

RECIPE = """
name: faults
data: {name: glyphs}
backbone: {name: conv4, channels: 8, downsample: stride, pooling: mean}
method: {name: maml, inner_lr: 0.4, inner_steps: 1}
pretrain: {steps: 400, batch: 32, lr: 0.01, validate_every: 10, validation_tasks: 20}
train: {way: 3, shot: 1, query: 5, tasks_per_step: 4, steps: 500, lr: 0.01, validate_every: 10, validation_tasks: 20}
evaluate: {tasks: 40, also: [{norm_stats: support}]}
"""
LONG_VALIDATION = (  # some 10 s each, of which there are three
    *("pretrain.steps=2", "pretrain.validation_tasks=4000"),
    *("train.steps=2", "train.validation_tasks=4000"),
)
WORKERS = ("--set", "pretrain.workers=1", "--set", "train.workers=1")
STOPPED = 130  # exit code of a training that was told to stop, and saved
MOMENTS = ("half", "written", "renamed")


@dataclass
class Row:
    """What a kind of fault did to how many runs."""

    fault: str
    struck: int = 0
    stuck: int = 0
    """Faults after which the same command did not go on."""
    runs: int = 0
    identical: int = 0
    longest: float | None = None
    """Seconds from a signal to the end of the process."""
    notes: Counter[str] = field(default_factory=Counter)
    findings: list[str] = field(default_factory=list)

    @property
    def clean(self) -> bool:
        return not self.findings and self.identical == self.runs

    def took(self, seconds: float) -> None:
        self.longest = max(self.longest or 0.0, seconds)


# Striking


def strike_runs(
    bench: Bench, row: Row, wanted: Callable[[], bool], strike: Callable[[Path], bool], place: Path | None = None
) -> None:
    """Strike runs again and again while faults are wanted, each run until its end, and compare it then.

    strike: start the command and strike it: whether it was struck, and not at its end before that; place: where runs
    lie, if elsewhere.
    """
    while wanted():
        run, going = bench.new_run(place), True
        row.runs += 1
        struck = row.struck
        try:
            while going and wanted():
                going = strike(run)
                row.notes["temporary files left"] = max(row.notes["temporary files left"], len(temporary(run)))
            if going:
                ends_well(Training(bench, run).end())
            judge(row, bench.whole, run)
        except Finding as finding:  # a fault after which there was no going on
            row.findings.append(str(finding))
            row.struck = max(row.struck, struck + 1)
            row.stuck += 1
        shutil.rmtree(run, ignore_errors=True)


def temporary(run: Path) -> list[Path]:
    """Files under their temporary names."""
    return list(run.rglob(".*.tmp"))


def ends_well(ended: Ended) -> None:
    if ended.code:
        raise Finding(f"the same command did not go on: {ended}")


def judge(row: Row, whole: Path, run: Path) -> None:
    """Compare a run that has ended."""
    found = differences(whole, run)
    row.identical += not found
    if found:
        row.findings.append(f"{len(found)} differences, of which the first: {found[0]}")


def one_sentence(row: Row, ended: Ended, *reasons: str) -> None:
    """Whether a process ended with exit code 2 and one sentence that says why."""
    lines = [line for line in ended.said.splitlines() if line.startswith("handful: ")]
    last = ended.said.rstrip().splitlines()[-1:]
    if ended.code != 2 or len(lines) != 1 or lines != last or "Traceback" in ended.said:
        row.findings.append(f"not one sentence and exit code 2, but {ended}")
    elif not any(reason in lines[0] for reason in reasons):
        raise Finding(f"the same command did not go on: {ended}")
    elif found := re.search(r"([\w.-]+) cannot be written", lines[0]):
        row.notes[f"at {'the folder itself' if found[1] == RUN else found[1]}"] += 1


# The kinds of faults


def killed(bench: Bench, row: Row, options: argparse.Namespace) -> None:
    """At random moments."""
    killed_with(bench, row, options.kills)


def killed_with_workers(bench: Bench, row: Row, options: argparse.Namespace) -> None:
    """The same while another process loads the tasks, which then is left alone with the folder."""
    killed_with(bench, row, options.kills // 10, WORKERS)


def killed_with(bench: Bench, row: Row, count: int, words: Sequence[str] = ()) -> None:
    """SIGKILL so many times."""
    strike_runs(bench, row, lambda: row.struck < count, lambda run: kill(bench, row, run, words))


def kill(bench: Bench, row: Row, run: Path, words: Sequence[str] = ()) -> bool:
    """SIGKILL at a random moment: whether training was not at its end before."""
    training = Training(bench, run, words)
    if not bench.meets(training):
        ends_well(training.end())
        return False
    row.notes[f"in {training.phase()}"] += 1
    training.kill()
    row.struck += 1
    return True


def killed_in_writes(bench: Bench, row: Row, options: argparse.Namespace) -> None:
    """At each file that a run writes, the first and the second time: half written, written, and just renamed."""
    times = Counter(bench.writes)
    targets = [
        f"{moment} {number} {name}"
        for number in (1, 2)
        for name in times
        if times[name] >= number
        for moment in MOMENTS
    ]
    if options.writes is not None:
        targets = targets[: options.writes]

    def strike(run: Path) -> bool:
        fresh, target = not run.exists(), targets.pop(0)
        struck = kill_in_write(bench, row, run, target)
        if not struck and not fresh:  # the run was past it: the next one comes by there
            targets.insert(0, target)
        else:
            row.notes[f"{'at a file' if struck else 'never at'} {target.split()[0]}"] += 1
        return struck

    strike_runs(bench, row, lambda: bool(targets), strike)


def kill_in_write(bench: Bench, row: Row, run: Path, target: str) -> bool:
    """SIGKILL at a moment of a write, as FAULTS_DIE says it: whether training came there."""
    ended = Training(bench, run, die=target).end()
    if ended.code == -signal.SIGKILL:
        row.struck += 1
        return True
    ends_well(ended)
    return False


def loader_killed(bench: Bench, row: Row, options: argparse.Namespace) -> None:
    """The process that loads tasks or images, as the system does it for want of memory."""

    def strike(run: Path) -> bool:
        training = Training(bench, run, WORKERS)
        if bench.meets(training):
            phase, loading = training.phase(), training.others()
            if loading:
                with suppress(ProcessLookupError):
                    os.kill(loading[0], signal.SIGKILL)
                ended = training.end()
                if ended.code == 0:  # it had loaded all that was wanted
                    return False
                row.struck += 1
                row.notes[f"in {phase}"] += 1
                one_sentence(row, ended, "was ended from outside")
                return True
        ends_well(training.end())
        return False

    strike_runs(bench, row, lambda: row.struck < options.stops // 2, strike)


def told_to_stop(bench: Bench, row: Row, options: argparse.Namespace) -> None:
    """At random moments."""
    told_with(bench, row, options.stops)


def told_with_workers(bench: Bench, row: Row, options: argparse.Namespace) -> None:
    """To all processes of a training whose tasks another process loads, as schedulers do it."""
    told_with(bench, row, options.stops // 2, WORKERS)


def told_with(bench: Bench, row: Row, count: int, words: Sequence[str] = ()) -> None:
    """SIGTERM so many times."""
    strike_runs(bench, row, lambda: row.struck < count, lambda run: stop(bench, row, run, words))


def stop(bench: Bench, row: Row, run: Path, words: Sequence[str] = ()) -> bool:
    """SIGTERM at a random moment: whether training was not at its end before."""
    training = Training(bench, run, words)
    if bench.meets(training) and stopped(row, training):
        return True
    ends_well(training.end())
    return False


def stopped(row: Row, training: Training) -> bool:
    """Tell all of a training to stop: whether it did, and was not at its end anyway."""
    phase = training.phase()
    os.killpg(training.process.pid, signal.SIGTERM)
    ended = training.end()
    if ended.code == 0:
        return False
    row.struck += 1
    row.took(ended.seconds)
    row.notes[f"in {phase}"] += 1
    if ended.code not in (STOPPED, -signal.SIGTERM):
        row.findings.append(f"told to stop in {phase}: {ended}")
    if ended.seconds > PROMPT:
        row.findings.append(f"told to stop in {phase}, it took {ended.seconds:.1f} s")
    if lost := unsaved(training.run):
        row.findings.append(f"told to stop in {phase}, it lost {lost} steps")
    return True


def told_in_validation(bench: Bench, row: Row, options: argparse.Namespace) -> None:
    """In each of three validations that take long: of pre-training, before the episodes, and after them."""
    recipe = load_recipe(str(bench.recipe), LONG_VALIDATION)
    (bench.work / "long").mkdir()
    long = Bench(recipe, bench.work / "long", bench.limit, options.seed)
    places: list[Callable[[Path, list[str]], bool]] = [
        lambda run, functions: "first_stage" in functions,
        lambda run, functions: "first_stage" not in functions,
        lambda run, functions: "first_stage" not in functions and bool(untimed(run / "metrics.csv")),
    ]

    def strike(run: Path) -> bool:
        wanted = places.pop(0)
        training = Training(long, run)
        training.comes_to(lambda functions: "validate" in functions and wanted(run, functions))
        if not stopped(row, training):
            raise Finding("told to stop in a validation, it went on to the end")
        return True

    strike_runs(long, row, lambda: bool(places), strike)
    row.notes["seconds of the undisturbed run"] = round(long.seconds)


def disk_full(bench: Bench, row: Row, options: argparse.Namespace) -> None:
    """The run folder is on a disk that is too small, and gets a little larger each time."""
    for _ in range(options.disks):
        sizes = [PAGE]
        while sizes[-1] < ROOM:
            sizes.append(sizes[-1] + PAGE * bench.random.randint(1, max(3, sizes[-1] // PAGE // 4)))
        on_disks(bench, row, sizes)


def on_disks(bench: Bench, row: Row, sizes: list[int]) -> None:
    """Train where there are so many bytes, and then so many; the last are enough."""
    place = bench.new_run()
    with disk(place) as resize:

        def strike(run: Path) -> bool:
            resize(sizes.pop(0))
            ended = Training(bench, run).end()
            if ended.code == 0:
                sizes.clear()
                return False
            row.struck += 1
            one_sentence(row, ended, "No space left")
            row.findings += damaged(run)
            return True

        strike_runs(bench, row, lambda: bool(sizes), strike, place)


def disk_fills(bench: Bench, row: Row, options: argparse.Namespace) -> None:
    """The disk is large enough until something else fills it, at a random moment; later that is gone."""
    place = bench.new_run()
    with disk(place) as resize:
        resize(ROOM)

        def strike(run: Path) -> bool:
            training = Training(bench, run)
            if bench.meets(training):
                phase = training.phase()
                fill(place / "ballast")
                ended = training.end()
                (place / "ballast").unlink()
                if ended.code:
                    row.struck += 1
                    row.notes[f"in {phase}"] += 1
                    one_sentence(row, ended, "No space left")
                    row.findings += damaged(run)
                    return True
            ends_well(training.end())
            return False

        strike_runs(bench, row, lambda: row.struck < options.stops // 2, strike, place)


def read_only(bench: Bench, row: Row, options: argparse.Namespace) -> None:
    """The folder is read-only when the command is given: before the first start, and after a kill."""
    place = bench.new_run()
    with disk(place) as resize:

        def strike(run: Path) -> bool:
            resize(ROOM, "ro")
            ended = Training(bench, run).end()
            row.struck += 1
            one_sentence(row, ended, "Read-only")
            resize(ROOM, "rw")
            training = Training(bench, run)
            if bench.meets(training):
                training.kill()
                return True
            ends_well(training.end())
            return False

        strike_runs(bench, row, lambda: row.struck < options.stops // 4, strike, place)


def turned_read_only(bench: Bench, row: Row, options: argparse.Namespace) -> None:
    """All that is in the folder can no longer be changed, from a random moment of training on."""
    freeze(bench.work / "notes", False)  # whether that can be done here

    def strike(run: Path) -> bool:
        training = Training(bench, run)
        if bench.meets(training) and run.exists():
            phase = training.phase()
            freeze(run, True)
            try:
                ended = training.end()
            finally:
                freeze(run, False)
            if ended.code:
                row.struck += 1
                row.notes[f"in {phase}"] += 1
                one_sentence(row, ended, "Operation not permitted", "Permission denied")
                row.findings += damaged(run)
                return True
        ends_well(training.end())
        return False

    strike_runs(bench, row, lambda: row.struck < options.stops // 2, strike)


def rank_killed(bench: Bench, row: Row, options: argparse.Namespace) -> None:
    """One of two ranks, in turn the one that the command started and the command itself; the other must end too."""
    if "devices" not in inspect.signature(train).parameters:
        raise LeftOut("`handful train` has no --devices yet")
    (bench.work / "ranks").mkdir()
    two = Bench(load_recipe(str(bench.recipe), ()), bench.work / "ranks", bench.limit, options.seed, ["--devices", "2"])

    def strike(run: Path) -> bool:
        training = Training(two, run)
        if two.meets(training):
            phase, ranks = training.phase(), [number for number in training.others() if is_rank(number)]
            child = row.struck % 2 == 0
            if ranks and training.process.poll() is None:
                os.kill(ranks[0] if child else training.process.pid, signal.SIGKILL)
                ended = training.end()
                if ended.code == 0:
                    return False
                row.struck += 1
                row.took(ended.seconds)
                row.notes[f"{'the started rank' if child else 'the command'} in {phase}"] += 1
                if child:
                    one_sentence(row, ended, "Another of the 2 processes has ended")
                return True
        ends_well(training.end())
        return False

    strike_runs(two, row, lambda: row.struck < options.ranks, strike)


def is_rank(number: int) -> bool:
    """Whether a process is a rank that another one started."""
    with suppress(OSError):
        return b"LOCAL_RANK=" in Path(f"/proc/{number}/environ").read_bytes()
    return False


KINDS: dict[str, tuple[str, Callable[[Bench, Row, argparse.Namespace], None]]] = {
    "kill": ("SIGKILL", killed),
    "kill-workers": ("SIGKILL, a process loads", killed_with_workers),
    "kill-writes": ("SIGKILL in a write", killed_in_writes),
    "kill-loader": ("the process that loads killed", loader_killed),
    "stop": ("SIGTERM", told_to_stop),
    "stop-workers": ("SIGTERM, a process loads", told_with_workers),
    "stop-validation": ("SIGTERM in a long validation", told_in_validation),
    "disk-full": ("disk too small", disk_full),
    "disk-fills": ("disk fills up", disk_fills),
    "read-only": ("folder read-only", read_only),
    "turned-read-only": ("folder turned read-only", turned_read_only),
    "rank": ("one of two ranks killed", rank_killed),
}


def main() -> int:
    options = arguments()
    machine = environment()
    print(f"{machine['cpu']}; torch {machine['torch']}; Handful {machine['commit']}")
    rows: list[dict[str, Any]] = []
    left_out: list[str] = []
    clean = True
    with tempfile.TemporaryDirectory() as made:
        work = Path(made)
        bench = Bench(recipe(options), work, options.limit, options.seed)
        print(f"undisturbed: {bench.seconds:.1f} s, {len(bench.writes)} files written\n")
        print(f"{'fault':<30} {'struck':>6} {'went on':>8} {'runs':>5} {'identical':>10} {'longest s':>10}")
        for name in options.only or KINDS:
            fault, inflict = KINDS[name]
            row = Row(fault)
            try:
                inflict(bench, row, options)
            except LeftOut as reason:
                print(f"{fault:<30} left out: {reason}", flush=True)
                left_out.append(fault)
                continue
            show(row)
            clean &= row.clean
            rows.append(flat(row, options, machine))
    untried = f"; not tried: {', '.join(left_out)}" if left_out else ""
    print(f"\n{'nothing that should not be' if clean else 'there are findings'}{untried}")
    if options.json:
        write_text(options.json, json.dumps(rows, indent=1))
    return 0 if clean else 1


def recipe(options: argparse.Namespace) -> Recipe:
    """The built-in recipe, or another; both with changes."""
    if options.recipe:
        return load_recipe(options.recipe, options.set)
    return parse(RECIPE, "the built-in recipe", options.set)


def show(row: Row) -> None:
    """A line of the table, and what is to be said below it."""
    longest = "" if row.longest is None else f"{row.longest:.1f}"
    figures = f"{row.struck:>6} {row.struck - row.stuck:>8} {row.runs:>5} {row.identical:>10} {longest:>10}"
    print(f"{row.fault:<30} {figures}")
    if notes := [f"{name} {count}" for name, count in row.notes.most_common() if count]:
        print(f"    {', '.join(notes)}")
    for finding, count in Counter(row.findings).items():
        print(f"    FINDING: {finding}{f' ({count} times)' if count > 1 else ''}")
    sys.stdout.flush()


def flat(row: Row, options: argparse.Namespace, machine: dict[str, Any]) -> dict[str, Any]:
    """A row for the file."""
    return {
        "measured": row.fault,
        "unit": "faults",
        "repeats": row.struck,
        "went_on": row.struck - row.stuck,
        "runs": row.runs,
        "identical": row.identical,
        "longest_s": row.longest,
        "notes": ", ".join(f"{name} {count}" for name, count in row.notes.most_common() if count),
        "findings": "; ".join(row.findings),
        "seed": options.seed,
        **{f"machine_{key}": machine[key] for key in ("cpu", "cores", "torch", "python", "commit", "threads")},
    }


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kills", type=int, default=100, help="SIGKILLs at random moments")
    parser.add_argument("--writes", type=int, help="SIGKILLs in writes; at most so many instead of all")
    parser.add_argument("--stops", type=int, default=20, help="SIGTERMs at random moments")
    parser.add_argument("--disks", type=int, default=2, help="disks that are too small again and again")
    parser.add_argument("--ranks", type=int, default=10, help="ranks to kill")
    parser.add_argument("--seed", type=int, default=0, help="draws the moments")
    parser.add_argument("--limit", type=float, default=300.0, help="seconds after which a process hangs")
    parser.add_argument("--recipe", help="another recipe: a file, or a shipped name")
    parser.add_argument("--set", action="append", default=[], help="change a key of the recipe: a.b=value")
    parser.add_argument("--only", choices=KINDS, action="append", help="only this kind of fault; may be given again")
    parser.add_argument("--json", type=Path)
    return parser.parse_args()


if __name__ == "__main__":
    sys.exit(main())
