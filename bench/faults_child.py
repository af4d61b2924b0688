"""The command line of Handful as `bench/faults.py` starts it: it lists its writes, says where it is, and can die there.

FAULTS_NOTES: a folder; `writes.txt` in it gets the name of every file that is renamed to its place in FAULTS_RUN, and
`stack.txt` the stack, whenever SIGURG comes (which a process that does not know it ignores).
FAULTS_DIE: `MOMENT NUMBER NAME`; the process kills itself at the so-many-th write of the file NAME, of which half is
under its temporary name (`half`), or all (`written`), or which has just got its own (`renamed`).
"""

from __future__ import annotations

import faulthandler
import os
import signal
from pathlib import Path
from typing import Any

NOTES, RUN = Path(os.environ["FAULTS_NOTES"]), Path(os.environ["FAULTS_RUN"])
MOMENT, NUMBER, NAME = os.environ.get("FAULTS_DIE", "never 0 none").split()

rename = os.replace
written = 0


def die() -> None:
    """As if someone had sent the signal just now."""
    os.kill(os.getpid(), signal.SIGKILL)


def watched(source: Any, target: Any) -> None:
    """os.replace, by which `handful.files` gives every file its name."""
    global written
    if not Path(target).is_relative_to(RUN):
        return rename(source, target)
    name = Path(target).relative_to(RUN).as_posix()
    with (NOTES / "writes.txt").open("a", encoding="utf-8") as file:
        file.write(f"{name}\n")
    written += name == NAME
    now = name == NAME and written == int(NUMBER)
    if now and MOMENT == "half":
        os.truncate(source, os.path.getsize(source) // 2)
        die()
    if now and MOMENT == "written":
        die()
    rename(source, target)
    if now and MOMENT == "renamed":
        die()


if __name__ == "__main__":
    started_by_rank = "LOCAL_RANK" in os.environ  # by the command, which is the one that is asked
    with (NOTES / f"stack{'-of-rank' if started_by_rank else ''}.txt").open("w", encoding="utf-8") as stack:
        faulthandler.register(signal.SIGURG, stack)
        os.replace = watched  # type: ignore[assignment]
        from handful.cli import main

        main()
