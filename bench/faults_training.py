"""A training that can be struck: a process of the real command line, where it is, how it ends; the undisturbed one."""

from __future__ import annotations

import os
import random
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from handful.files import write_text
from handful.recipe import Recipe

CHILD = Path(__file__).with_name("faults_child.py")
PHASES = {  # a function that is running -> what training is at; the first that is found says it
    "write_atomically": "a write",
    "validate": "validation",
    "conclude": "the final evaluation and report",
    "first_stage": "pre-training",
    "fit": "the episodes",
}
PROMPT = 10.0  # seconds in which a process that is told to stop should end
START = "the start"
RUN = "RUN"  # the folder of a run in what processes said


class Finding(Exception):
    """Something that should not be."""


@dataclass
class Ended:
    """How a process ended: its exit code (minus the signal's number), after how long, and what it said."""

    code: int
    seconds: float
    said: str

    def __str__(self) -> str:
        last = self.said.strip().splitlines()[-1:] or ["nothing"]
        return f"exit code {self.code}, saying: {last[0]}"


class Training:
    """One process of `handful train` into a folder, in a session of its own."""

    def __init__(self, bench: Bench, run: Path, words: Sequence[str] = (), die: str = "") -> None:
        self.run, self.notes, self.limit, self.read = run, bench.notes(), bench.limit, 0
        self.fresh = not run.exists()
        told = {"FAULTS_NOTES": str(self.notes), "FAULTS_RUN": str(run), **({"FAULTS_DIE": die} if die else {})}
        self.started = time.perf_counter()
        with (self.notes / "stderr.txt").open("w", encoding="utf-8") as errors:
            self.process = subprocess.Popen(
                [sys.executable, str(CHILD), "train", str(bench.recipe), "--out", str(run), *bench.words, *words],
                env={**os.environ, "CUDA_VISIBLE_DEVICES": "", **told},  # bit for bit is promised for the CPU
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                stderr=errors,
                start_new_session=True,
            )

    @property
    def age(self) -> float:
        """Seconds since its start."""
        return time.perf_counter() - self.started

    def lives_for(self, seconds: float) -> bool:
        """Wait; whether it runs on after so long."""
        with suppress(subprocess.TimeoutExpired):
            self.process.wait(seconds)
        return self.process.poll() is None

    def functions(self) -> list[str]:
        """Handful's own functions that it is in; none before there are any."""
        stack = self.notes / "stack.txt"
        if not stack.exists():
            return []
        self.process.send_signal(signal.SIGURG)
        text, deadline = "", time.perf_counter() + 0.2
        while not text.endswith("in <module>\n") and time.perf_counter() < deadline:
            time.sleep(0.002)
            text = stack.read_text(encoding="utf-8")[self.read :]
        self.read += len(text)
        return re.findall(r'handful/[^"]*", line \d+ in (\w+)', text)

    def phase(self) -> str:
        """What training is at."""
        found = self.functions()
        return next((said for name, said in PHASES.items() if name in found), START)

    def comes_to(self, wanted: Callable[[list[str]], bool]) -> None:
        """Wait until it is in functions that are wanted."""
        while self.lives_for(0.5) and self.age < self.limit:
            if wanted(self.functions()):
                return
        raise Finding(f"it never came to where it was to be struck: {self.end()}")

    def end(self) -> Ended:
        """Wait for its end; one that does not come, or leaves a process behind, is a finding."""
        began = time.perf_counter()
        if self.lives_for(self.limit):
            phase = self.phase()
            self.sweep()
            raise Finding(f"it hung for {self.limit:.0f} s in {phase}")
        seconds = time.perf_counter() - began
        left = self.others(PROMPT)
        self.sweep()
        if left:
            raise Finding(f"it ended, but left a process of its own running for {PROMPT:.0f} s")
        said = (self.notes / "stderr.txt").read_text(encoding="utf-8", errors="replace")
        return Ended(self.process.returncode, seconds, said.replace(str(self.run), RUN))

    def kill(self) -> None:
        """SIGKILL to the process alone: what it has started is left to itself."""
        self.process.kill()
        self.process.wait()

    def sweep(self) -> None:
        """Nothing of the session lives after this."""
        with suppress(ProcessLookupError):
            os.killpg(self.process.pid, signal.SIGKILL)
        self.process.wait()

    def others(self, wait: float = 0.0) -> list[int]:
        """Further processes of its session, those that still live after so many seconds."""
        deadline = time.perf_counter() + wait
        while found := [number for number in session(self.process.pid) if number != self.process.pid]:
            if time.perf_counter() >= deadline:
                break
            time.sleep(0.1)
        return found


def session(number: int) -> list[int]:
    """The living processes of a session."""
    found = []
    for path in Path("/proc").glob("[0-9]*/stat"):
        with suppress(OSError):
            state, _, _, own = path.read_text().rpartition(")")[2].split()[:4]
            if int(own) == number and state != "Z":
                found.append(int(path.parent.name))
    return found


class Bench:
    """A recipe, further words of the command, a folder to work in, and the undisturbed run."""

    def __init__(self, recipe: Recipe, work: Path, limit: float, seed: int, words: Sequence[str] = ()) -> None:
        self.work, self.limit, self.words, self.made = work, limit, words, 0
        self.random = random.Random(seed)
        self.recipe = work / "recipe.yaml"
        write_text(self.recipe, recipe.to_yaml())
        self.whole = work / "undisturbed"
        began = time.time()
        training = Training(self, self.whole)
        ended = training.end()
        if ended.code:
            raise SystemExit(f"the undisturbed run failed: {ended}")
        self.seconds = training.age
        self.first = (self.whole / "environment.json").stat().st_mtime - began  # seconds until the first file
        self.writes = (training.notes / "writes.txt").read_text(encoding="utf-8").split()

    def notes(self) -> Path:
        """A folder for what a process notes."""
        self.made += 1
        folder = self.work / "notes" / str(self.made)
        folder.mkdir(parents=True)
        return folder

    def new_run(self, place: Path | None = None) -> Path:
        """The folder of a run that is to be struck."""
        self.made += 1
        return (place or self.work) / f"run{self.made}"

    def meets(self, training: Training) -> bool:
        """Wait for a random moment, any from an undisturbed run's first file to its end: whether training goes on."""
        if training.lives_for(self.random.uniform(min(self.first, self.seconds), self.seconds)):
            return True
        if training.fresh:  # that is how long a run takes now
            self.seconds = min(self.seconds, training.age)
        return False
