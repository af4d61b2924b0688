"""Splits and seeds of rendered scenes share nothing."""

import numpy as np

from handful.data.functions import SPLITS
from handful.data.scenes import render_frame


def test_splits_are_streams_of_their_own() -> None:
    frames = [render_frame(stream, index) for stream in range(len(SPLITS)) for index in (0, 1)]
    pixels = [frame.pixels() for frame in frames]
    assert not any(np.array_equal(pixels[i], pixels[j]) for i in range(6) for j in range(i))
    assert len({frame.picture.name for frame in frames}) == 6
