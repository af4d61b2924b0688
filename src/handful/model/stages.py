"""What pictures go through one after another, while later ones are on their way: for models that watch videos."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

from handful.errors import HandfulError

BLANK = 1.5  # of 255: a picture that deviates less from one colour, as a video's black frames do, shows nothing

Item = TypeVar("Item")


def together(items: Iterator[Item], size: int) -> Iterator[list[Item]]:
    """So many at a time; what came before an error is not lost."""
    batch: list[Item] = []
    try:
        for item in items:
            batch.append(item)
            if len(batch) == size:
                yield batch
                batch = []
    except HandfulError:
        if batch:
            yield batch
        raise
    if batch:
        yield batch


def meanwhile(items: Iterator[Item], stop: Callable[[], object] | None = None) -> Iterator[Item]:
    """The items, the next of which a thread makes while the last one is used: no more than two are held.

    stop: called when no more are wanted, also for an error or Ctrl-C: it lets go a thread that waits for its next item,
    which would be waited for.
    """
    with ThreadPoolExecutor(1) as thread:
        try:
            following = thread.submit(next, items, None)
            while (item := following.result()) is not None:
                following = thread.submit(next, items, None)
                yield item
        finally:
            if stop is not None:
                stop()


def blank(image: NDArray[np.uint8]) -> bool:
    """Whether a picture [C, H, W] is of one colour."""
    return float(image[:, ::4, ::4].std((1, 2)).max()) < BLANK
