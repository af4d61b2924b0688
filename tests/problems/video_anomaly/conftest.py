"""Made clips: frames whose pixels say which clip and frame they are."""

from __future__ import annotations

from collections.abc import Callable
from itertools import pairwise

import numpy as np
import pytest

from handful.data.video.store import Masks, VideoClips

SIZE = 16
Make = Callable[..., VideoClips]


def clips(lengths: tuple[int, ...] = (40, 30, 30, 30, 24), *, labels: bool = True, window: int = 4) -> VideoClips:
    """Three clips of normal footage, of scenes a, a, b; then two that are tested, of a and b.

    A bright square goes over a dim ground; in the second half of a tested clip it jumps about.
    """
    random = np.random.default_rng(0)
    starts = np.cumsum([0, *lengths])
    frames = random.integers(90, 110, (starts[-1], 1, SIZE, SIZE)).astype(np.uint8)
    abnormal = np.zeros(starts[-1], np.uint8)
    marks = np.zeros((starts[-1], SIZE, SIZE), bool)
    for clip, (begin, end) in enumerate(pairwise(starts)):
        for number, frame in enumerate(range(begin, end)):
            odd = clip >= 3 and number >= (end - begin) // 2
            x = int(random.integers(0, SIZE - 4)) if odd else (number + 3 * clip) % (SIZE - 4)
            frames[frame, 0, 4:8, x : x + 4] = 220
            abnormal[frame], marks[frame, 4:8, x : x + 4] = odd, odd
    tested = starts[3]
    bits = np.packbits(marks[tested:].reshape(-1, SIZE * SIZE), axis=1)
    return VideoClips(
        name="made",
        frames=frames,
        starts=starts,
        names=["n1", "n2", "n3", "t1", "t2"],
        scenes=["a", "a", "b", "a", "b"],
        splits={
            "train": np.array([0, 2]),
            "val": np.array([1]),
            "test": np.array([3, 4]),
            "normal": np.array([0, 1, 2]),
        },
        abnormal=abnormal if labels else None,
        masks=Masks(bits, (SIZE, SIZE), int(tested)) if labels else None,
        info={},
        digest="made",
        window=window,
    )


@pytest.fixture
def make() -> Make:
    return clips
