"""Progress of a training run: a live bar on a terminal, a line a validation elsewhere."""

from __future__ import annotations

import sys
import time
from types import TracebackType
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeElapsedColumn, TimeRemainingColumn
from rich.progress import Progress as Bar

from handful import wording

SILENCE = 15  # seconds without a line, where there is no terminal for a bar


class Progress:
    """Shows step, rate, time left, loss, and the validation score with its interval."""

    def __init__(self, name: str, steps: int, metric: str = "accuracy", quiet: bool = False) -> None:
        self.console = Console(file=sys.stderr, quiet=quiet)
        self.bar = Bar(
            TextColumn("[bold]{task.description}"),
            BarColumn(),
            MofNCompleteColumn(),
            TextColumn("{task.fields[rate]}"),
            TimeElapsedColumn(),
            TimeRemainingColumn(),
            TextColumn("{task.fields[state]}"),
            console=self.console,
            disable=quiet or not self.console.is_terminal,
        )
        self.task = self.bar.add_task(name, total=steps, rate="", state="")
        self.steps = steps
        self.metric = metric
        self.began = 0, time.perf_counter()
        self.printed = time.perf_counter()
        self.validation = ""

    def __enter__(self) -> Progress:
        self.bar.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.bar.stop()

    def start(self, step: int) -> None:
        """The run begins, or goes on, at a step."""
        self.began = step, time.perf_counter()
        if step:
            self.say(
                f"going on from step {step} of {self.steps}" if step < self.steps else "already trained to its end"
            )

    def say(self, text: str) -> None:
        """Print a line above the bar."""
        self.console.print(text, highlight=False)

    def update(self, step: int, row: dict[str, Any]) -> None:
        """Show a row of the metrics."""
        now = time.perf_counter()
        rate = (step - self.began[0]) / max(now - self.began[1], 1e-9)
        if "val_mean" in row:
            self.validation = f"val {wording.measured(row['val_mean'], row['val_ci95'], self.metric)}"
        state = f"loss {row['loss']:.3f}  {self.validation}"
        self.bar.update(self.task, completed=step, rate=f"{rate:.1f} steps/s", state=state)
        if not self.console.is_terminal and ("val_mean" in row or now - self.printed > SILENCE):
            self.printed = now
            left = (self.steps - step) / rate / 60
            self.say(f"step {step}/{self.steps}  {rate:.1f} steps/s, {left:.1f} min left  {state}")
