"""Being told to stop: Ctrl-C, or a scheduler's SIGTERM."""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager


class Told:
    """Whether this process was told to stop."""

    def __init__(self) -> None:
        self.stop = False
        self.raises = False

    @contextmanager
    def at_once(self) -> Iterator[None]:
        """Within it being told to stop raises KeyboardInterrupt, for work that leaves nothing half done."""
        self.raises = True
        try:
            if self.stop:
                raise KeyboardInterrupt
            yield
        finally:
            self.raises = False


@contextmanager
def noted() -> Iterator[Told]:
    """Within it the first signal to stop is only noted, so that a step can be finished and saved; a second one stops.

    Outside the main thread, where signals cannot be caught, nothing is noted.
    """
    told = Told()
    if threading.current_thread() is not threading.main_thread():
        yield told
        return
    signals = (signal.SIGINT, signal.SIGTERM)
    before = {number: signal.getsignal(number) for number in signals}

    def note(number: int, frame: object) -> None:
        told.stop = True
        for each in signals:
            signal.signal(each, before[each])
        if told.raises:
            raise KeyboardInterrupt

    for number in signals:
        if before[number] is not signal.SIG_IGN:  # whoever started this process wanted it so
            signal.signal(number, note)
    try:
        yield told
    finally:
        for number in signals:
            signal.signal(number, before[number])


def left_to_training(worker: int) -> None:
    """In a process that loads batches: pass over the first signal to stop, which a scheduler sends to every process.

    Training finishes its step, for which it may need the next batch, and then ends its processes itself.
    """

    def once(number: int, frame: object) -> None:
        signal.signal(number, signal.SIG_DFL)

    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, once)
