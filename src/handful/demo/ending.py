"""What a demo says at its end."""

from __future__ import annotations

import csv
import time
from pathlib import Path

from handful.run import Run


def show_end(run: Run, out: Path, started: float) -> None:
    """Where the report is, how long all took, and whether training was cut short."""
    folder, steps, stage = run.folder, run.recipe.train.steps, ""
    if run.recipe.pretrain is not None and not (folder / "metrics.csv").is_file():
        folder, steps, stage = folder / "pretrain", run.recipe.pretrain.steps, " of its first stage"
    with (folder / "metrics.csv").open(encoding="utf-8", newline="") as file:
        reached = max((int(row["step"]) for row in csv.DictReader(file)), default=0)
    if reached < steps:
        print(
            f"Training was cut short by --max-minutes at step {reached} of {steps}{stage}: these figures are those of "
            f"a beginning, and the same command goes on with --out {out} --max-minutes 60."
        )
    print(f"See:  {out / 'run' / 'report.html'}   (all in {(time.perf_counter() - started) / 60:.1f} minutes)")
