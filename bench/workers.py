"""A process of its own for each thing that a bench measures, asked in turn.

Of its own, because settings of the allocator and the peak of memory are a whole process's.  In turn, because a
machine's speed changes over minutes and must change for all alike.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Sequence
from functools import cache
from multiprocessing import get_all_start_methods, get_context
from multiprocessing.connection import Connection
from multiprocessing.context import ForkServerContext, SpawnContext
from typing import Any, Generic, TypeVar

Job = TypeVar("Job")


class Failed(Exception):
    """A process that could not measure, and why."""


class Worker(Generic[Job]):
    """A process that answers when asked, and sleeps otherwise.

    serve(connection, job) is what it does; the text of an answer is why it failed.  preloaded: modules that it needs.
    """

    def __init__(self, job: Job, serve: Callable[[Connection, Job], None], preloaded: Sequence[str]) -> None:
        self.job = job
        context = fresh_processes(tuple(preloaded))
        self.connection, theirs = context.Pipe()
        self.process = context.Process(target=serve, args=(theirs, job), daemon=True)
        self.process.start()
        theirs.close()

    def answer(self) -> Any:
        """What it has to say."""
        try:
            said = self.connection.recv()
        except (EOFError, ConnectionError):
            self.process.join()
            raise Failed(f"the process ended with code {self.process.exitcode}, as one without memory does") from None
        if isinstance(said, str):
            raise Failed(said)
        return said

    def ask(self, what: str) -> Any:
        """Ask for something, and wait for the answer."""
        self.connection.send(what)
        return self.answer()

    def stop(self) -> None:
        with contextlib.suppress(OSError):
            self.connection.send("stop")
        self.connection.close()
        self.process.join(10)
        if self.process.is_alive():
            self.process.kill()


@cache
def fresh_processes(preloaded: tuple[str, ...]) -> SpawnContext | ForkServerContext:
    """Processes that share nothing but the modules; where there is a fork server, these are imported only once."""
    if "forkserver" not in get_all_start_methods():
        return get_context("spawn")
    context = get_context("forkserver")
    context.set_forkserver_preload([*preloaded])
    return context
