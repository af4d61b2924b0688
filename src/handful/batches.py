"""The batches of a training, made ahead of the steps that want them."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
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


@contextmanager
def loaded(batches: Batches, steps: range, workers: int, device: torch.device) -> Iterator[Iterator[Any]]:
    """The batches of these steps, in order, for a step that computes on `device`.

    On a CPU `workers` processes make them ahead; without any, the step waits for each.  On a GPU they are made where
    the store is, which no other process could hold too: by a thread.  Raises HandfulError if one of the processes was
    ended from outside, of which torch may tell in the midst of whatever is computed.
    """
    if device.type == "cuda":
        yield ahead(lambda step: batches.make(step, device), steps, torch.cuda.Stream(device))
        return
    loader = DataLoader(
        batches,
        batch_size=None,
        sampler=steps,
        num_workers=workers,
        worker_init_fn=left_to_training if workers else None,
    )
    ready: Any = iter(loader)
    try:
        yield ready
    except (RuntimeError, OSError, EOFError) as error:
        if not workers or not any(gone(process) for process in ready._workers):
            raise
        raise HandfulError(
            f"A process that loads {batches.what} was ended from outside, most often for want of memory; then lower "
            "workers. The same command, without --fresh, goes on from where the run was saved last."
        ) from error
    finally:
        if (
            workers
        ):  # else they live until the last frame of an error is freed, and Python's end may wait for them for ever
            ready._shutdown_workers()


def gone(process: BaseProcess) -> bool:
    """Whether a process has not ended by itself, which the system may tell a moment later."""
    with suppress(RuntimeError):  # torch tells of each that ends, wherever Python is
        process.join(0.5)
    return process.exitcode not in (None, 0)


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
