"""The data set of rendered scenes: known by its name, three splits that share nothing."""

import numpy as np
import pytest

from handful.data import DRAWN, build, load
from handful.data.scenes import SCENES, render_frame
from handful.errors import HandfulError
from tests.conftest import Command, ok


def test_it_is_a_data_set_that_needs_no_source(handful: Command) -> None:
    scenes = load("rail_scenes")
    assert scenes is SCENES
    assert (scenes.problem, scenes.input_shape, scenes.recipe()) == (
        "rail_lines",
        (3, 288, 512),
        {"name": "rail_scenes"},
    )
    assert list(DRAWN) == ["sinusoid", "lines", "rail_scenes"]
    assert "rail_scenes" in ok(handful("data", "list")).out
    assert scenes.describe()["hash"] == scenes.split_hash
    assert len(scenes.describe()["classes"]) == 3
    assert "rendered" in scenes.info["note"]


def test_what_it_does_not_take() -> None:
    with pytest.raises(HandfulError, match="'rail_scenes' does not take image_size; leave it out"):
        load("rail_scenes", image_size=84)
    with pytest.raises(HandfulError, match="there is nothing to build"):
        build("rail_scenes")
    with pytest.raises(HandfulError, match="There is no split 'tset'; did you mean 'test'"):
        SCENES.split("tset")


def test_splits_and_seeds_are_streams_of_their_own() -> None:
    frames = [split.frame(0, seed) for split in (SCENES.train, SCENES.val, SCENES.test) for seed in (0, 1)]
    pixels = [frame.pixels() for frame in frames]
    assert not any(np.array_equal(pixels[i], pixels[j]) for i in range(6) for j in range(i))
    again = SCENES.val.frame(0, 1)
    np.testing.assert_array_equal(again.pixels(), pixels[3])
    assert again.picture.name == render_frame(4, 0).picture.name
