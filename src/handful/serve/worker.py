"""A thread computes one thing at a time; pictures that wait for it are judged together."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from typing import ParamSpec, TypeVar

import numpy as np
from numpy.typing import NDArray

from handful.model import Model, Prediction
from handful.model.model import BATCH

P = ParamSpec("P")
Made = TypeVar("Made")


class Worker:
    """Computes one thing at a time, beside the event loop: fitting and adapting change the network for a moment."""

    def __init__(self) -> None:
        self.thread = ThreadPoolExecutor(1, "model")
        self.queue: list[tuple[NDArray[np.uint8], str, asyncio.Future[Prediction]]] = []
        self.draining: asyncio.Task[None] | None = None

    async def run(self, function: Callable[P, Made], *args: P.args, **kwargs: P.kwargs) -> Made:
        """What a function gives, once it is its turn."""
        return await asyncio.wrap_future(self.thread.submit(function, *args, **kwargs))

    async def name(self, model: Model, image: NDArray[np.uint8], name: str) -> Prediction:
        """The served model's answer for one image [C, H, W], judged with all others that wait meanwhile."""
        answer: asyncio.Future[Prediction] = asyncio.get_running_loop().create_future()
        self.queue.append((image, name, answer))
        if self.draining is None or self.draining.done():
            self.draining = asyncio.create_task(self._drain(model))
        return await answer

    async def _drain(self, model: Model) -> None:
        while self.queue:
            batch = [job for job in self.queue[:BATCH] if not job[2].done()]  # done: given up meanwhile
            del self.queue[:BATCH]
            if not batch:
                continue
            images, names, waiting = zip(*batch)
            try:
                ready = await self.run(answers_to, model, images, names)
            except Exception as error:
                for answer in waiting:
                    if not answer.done():
                        answer.set_exception(error)
            else:
                for answer, prediction in zip(waiting, ready):
                    if not answer.done():
                        answer.set_result(prediction)


def answers_to(model: Model, images: Sequence[NDArray[np.uint8]], names: Sequence[str]) -> list[Prediction]:
    """The answers for images as the network takes them, [C, H, W], of pictures with these names."""
    return [replace(answer, input=name) for answer, name in zip(model.named(images, None), names)]
