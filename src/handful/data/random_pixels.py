"""random: note 002's stand-in for Omniglot, random pixels in its shape, to try a loop without any data."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

from handful.data.reader import Reader
from handful.data.store import Contents

CLASSES, DRAWINGS, SHAPE = 1623, 20, (1, 28, 28)
NOTE = "The pixels are random, so nothing can be learned: a result on them can only be chance."


def read(seed: int = 0) -> Contents:
    """1623 classes of 20 images of random bytes, uint8 [1, 28, 28]; 1028, 172 and 423 classes a split."""
    return Contents(
        images=images(seed),
        labels=np.repeat(np.arange(CLASSES), DRAWINGS).tolist(),
        image_shape=SHAPE,
        class_names=[f"noise{index:04d}" for index in range(CLASSES)],
        splits={"train": range(0, 1028), "val": range(1028, 1200), "test": range(1200, CLASSES)},
        info={"name": "random", "seed": seed, "note": NOTE},
    )


def images(seed: int) -> Iterator[NDArray[np.uint8]]:
    """The images, one by one."""
    random = np.random.Generator(np.random.Philox(key=seed))
    for _ in range(CLASSES * DRAWINGS):
        yield np.frombuffer(random.bytes(int(np.prod(SHAPE))), dtype=np.uint8).reshape(SHAPE)


READER = Reader(
    read,
    about="random pixels in the shape of Omniglot: a result on them is chance",
    options=("rotations", "seed"),
)
