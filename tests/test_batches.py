"""Batches made ahead: the same ones in the same order, the next while the last is used, and errors in their place."""

from __future__ import annotations

import threading
from typing import Any

import pytest
import torch

from handful.batches import Batches, ahead, loaded

NUMBERS = torch.arange(40)


def numbers(start: int, stop: int, device: torch.device) -> tuple[torch.Tensor]:
    return (NUMBERS[start:stop].to(device),)


@pytest.mark.parametrize("workers", [0, 1])
def test_loaded_are_the_batches_of_the_steps(workers: int) -> None:
    batches = Batches("numbers", numbers, 4)
    found = [batch.tolist() for (batch,) in loaded(batches, range(3, 7), workers, torch.device("cpu"))]
    assert found == [list(range(4 * step, 4 * step + 4)) for step in range(3, 7)]
    assert batches.name(3) == "numbers 12 to 15"


def test_the_next_batch_is_made_while_the_last_is_used() -> None:
    """And no other one before that is taken."""
    made = [threading.Event() for _ in range(5)]

    def make(step: int) -> int:
        made[step].set()
        return 10 * step

    for step, batch in enumerate(ahead(make, range(5))):
        assert batch == 10 * step
        assert step == 4 or made[step + 1].wait(10)
        assert not any(event.is_set() for event in made[step + 2 :])
    assert step == 4


def test_nothing_to_make() -> None:
    assert list(ahead(lambda step: step, range(2, 2))) == []


def test_an_error_comes_in_its_place_and_stopping_leaves_no_thread() -> None:
    def make(step: int) -> int:
        if step == 2:
            raise ValueError("step 2")
        return step

    before = threading.active_count()
    batches = ahead(make, range(5))
    assert [next(batches), next(batches)] == [0, 1]
    with pytest.raises(ValueError, match="step 2"):
        next(batches)
    stopped: Any = ahead(make, range(5))
    next(stopped)
    stopped.close()
    assert threading.active_count() == before


class Stream:
    """Stands in for a CUDA stream: says what is asked of it, in order."""

    device = "cuda:0"

    def __init__(self, name: str, said: list[str]) -> None:
        self.name, self.said = name, said

    def wait_stream(self, other: Stream) -> None:
        self.said.append(f"{self.name} waits for {other.name}")

    def __enter__(self) -> None:
        self.said.append("on its own stream")

    def __exit__(self, *_: Any) -> None:
        pass


class Value:
    def __init__(self, number: int, said: list[str]) -> None:
        self.number, self.said = number, said

    def record_stream(self, stream: Stream) -> None:
        self.said.append(f"{self.number} kept for {stream.name}")


def test_streams_wait_for_each_other(monkeypatch: pytest.MonkeyPatch) -> None:
    """What computes waits for a batch before the next is begun, or it would wait for that one too."""
    said: list[str] = []
    drawing, computing = Stream("drawing", said), Stream("computing", said)
    monkeypatch.setattr(torch.cuda, "Stream", lambda device: drawing)
    monkeypatch.setattr(torch.cuda, "stream", lambda stream: stream)
    monkeypatch.setattr(torch.cuda, "current_stream", lambda device: computing)
    asked: list[tuple[int, torch.device]] = []

    def draw(start: int, stop: int, device: torch.device) -> list[Value]:
        asked.append((start, device))
        said.append(f"drawn {start}")
        return [Value(start, said)]

    gpu = torch.device("cuda", 0)
    for _ in loaded(Batches("numbers", draw, 1), range(2), 3, gpu):
        pass
    assert asked == [(0, gpu), (1, gpu)]
    assert said == [
        "drawing waits for computing",
        *("on its own stream", "drawn 0", "computing waits for drawing", "0 kept for computing"),
        *("on its own stream", "drawn 1", "computing waits for drawing", "1 kept for computing"),
    ]
