"""The batches of a training, made ahead of the steps that want them."""

from __future__ import annotations

import signal
import sys
import threading
from collections.abc import Callable, Generator, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from multiprocessing.connection import wait
from multiprocessing.process import BaseProcess
from typing import Any

import torch
from torch.utils.data import DataLoader, Dataset

from handful.data.store import CPU
from handful.errors import HandfulError
from handful.interruption import left_to_training


class Batches(Dataset[Any]):
    """Item i is the batch of step i, so any number of loading processes yields the same batches.

    draw: numbers start to stop and a device -> those tasks or images, made there; size: of a step; part: which of a
    step this process takes, consecutive ones, all if None.
    """

    def __init__(self, what: str, draw: Callable[..., Any], size: int, part: range | None = None) -> None:
        self.what, self.draw, self.size = what, draw, size
        self.part = range(size) if part is None else part

    def __getitem__(self, step: int) -> Any:
        return self.make(step, CPU)

    def make(self, step: int, device: torch.device) -> Any:
        """This process's part of the batch of a step, made on a device."""
        return self.draw(step * self.size + self.part.start, step * self.size + self.part.stop, device=device)

    def name(self, step: int) -> str:
        """`tasks 24 to 27`: what step number `step` is made of."""
        return f"{self.what} {step * self.size} to {(step + 1) * self.size - 1}"


def loaded(batches: Batches, steps: range, workers: int, device: torch.device) -> Generator[Any]:
    """The batches of these steps, in order, for a step that computes on `device`; a generator, to be closed at the end.

    On a CPU `workers` processes make them ahead; without any, the step waits for each.  On a GPU they are made where
    the store is, which no other process could hold too: by a thread.  Raises HandfulError if one of the processes was
    ended from outside.
    """
    if device.type == "cuda":
        yield from ahead(lambda step: batches.make(step, device), steps, torch.cuda.Stream(device))
        return
    loader = DataLoader(
        batches,
        batch_size=None,
        sampler=steps,
        num_workers=workers,
        worker_init_fn=left_to_training if workers else None,
    )
    with ends_untold():
        ready: Any = iter(loader)
    processes: list[BaseProcess] = ready._workers if workers else []
    try:
        yield from ready
    except (RuntimeError, OSError, EOFError) as error:
        ending = wait([process.sentinel for process in processes], 0.5)  # one that was killed is seen a moment later
        for process in processes:
            if process.sentinel in ending:
                process.join()
        if not any((process.exitcode or 0) < 0 for process in processes):
            raise
        raise HandfulError(
            f"A process that loads {batches.what} was ended from outside, most often for want of memory; then lower "
            "workers. The same command, without --fresh, goes on from where the run was saved last."
        ) from error
    finally:
        # Left to themselves they live until the last frame of an error is freed, and for as long as a batch takes.
        for process in processes:
            process.kill()
        if processes:
            ready._shutdown_workers()


@contextmanager
def ends_untold() -> Iterator[None]:
    """Within it torch begins to watch processes, but not by a signal handler that raises in the midst of any step.

    One that has ended is seen when the next batch is asked of it.
    """
    if sys.platform == "win32" or threading.current_thread() is not threading.main_thread():
        yield
        return
    before = signal.getsignal(signal.SIGCHLD)
    try:
        yield
    finally:
        signal.signal(signal.SIGCHLD, before)


def ahead(make: Callable[[int], Any], steps: range, stream: torch.cuda.Stream | None = None) -> Iterator[Any]:
    """make(step) of each step, the next of which a thread makes while the last one is used.

    stream: of the thread's own, without which a GPU would begin to make a batch only when the step before it is done.
    """

    def made(step: int) -> Any:
        with torch.cuda.stream(stream):
            return make(step)

    if stream is not None:
        stream.wait_stream(torch.cuda.current_stream(stream.device))  # which may have taken the store to the device
    with ThreadPoolExecutor(1) as thread:
        asked = (thread.submit(made, step) for step in steps)  # each when it is taken
        following = next(asked, None)
        while following is not None:
            batch = following.result()
            if stream is not None:
                hand_over(batch, stream)
            following = next(asked, None)
            yield batch


def hand_over(batch: Iterable[torch.Tensor], stream: torch.cuda.Stream) -> None:
    """Let what is computed from now on wait for what `stream` was given, and keep the batch's memory until it is."""
    computing = torch.cuda.current_stream(stream.device)
    computing.wait_stream(stream)
    for tensor in batch:
        tensor.record_stream(computing)
