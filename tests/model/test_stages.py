"""Stages that work at the same time, on a few items each."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator

import numpy as np
import pytest

from handful.errors import HandfulError
from handful.model.stages import blank, meanwhile, together


def test_what_follows_is_made_while_the_last_one_is_used_and_no_more() -> None:
    made: list[int] = []

    def items() -> Iterator[int]:
        for number in range(1, 6):
            made.append(number)
            yield number

    taken = meanwhile(items())
    assert made == []
    assert next(taken) == 1
    wait_for(lambda: made == [1, 2])
    time.sleep(0.05)
    assert made == [1, 2]  # two are held
    assert list(taken) == [2, 3, 4, 5]


def test_an_error_comes_after_what_was_made_before_it() -> None:
    def items() -> Iterator[int]:
        yield 1
        raise HandfulError("broken")

    taken = meanwhile(items())
    assert next(taken) == 1
    with pytest.raises(HandfulError, match="broken"):
        next(taken)


def wait_for(condition: Callable[[], bool]) -> None:
    """Until it holds, for ten seconds at most."""
    until = time.monotonic() + 10
    while not condition() and time.monotonic() < until:
        time.sleep(0.001)
    assert condition()


def test_whoever_wants_no_more_lets_go_a_thread_that_waits() -> None:
    enough = threading.Event()

    def items() -> Iterator[int]:
        yield 1
        enough.wait(10)

    taken = meanwhile(items(), enough.set)
    assert next(taken) == 1
    started = time.monotonic()
    taken.close()  # type: ignore[attr-defined]  # it is a generator
    assert time.monotonic() - started < 5
    assert enough.is_set()


def test_so_many_at_a_time_and_what_came_before_an_error() -> None:
    def items() -> Iterator[int]:
        yield from range(5)
        raise HandfulError("broken")

    assert list(together(iter(range(5)), 2)) == [[0, 1], [2, 3], [4]]
    taken = together(items(), 2)
    assert [next(taken) for _ in range(3)] == [[0, 1], [2, 3], [4]]
    with pytest.raises(HandfulError, match="broken"):
        next(taken)


def test_what_shows_nothing() -> None:
    noise = np.random.default_rng(0).integers(0, 4, (1, 32, 32)).astype(np.uint8)
    assert blank(noise)
    assert blank(noise + 200)
    noise[0, 8:] += 20
    assert not blank(noise)
