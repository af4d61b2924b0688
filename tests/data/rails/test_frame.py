"""Frames: lines bottom to top, the picture only when asked, what is wrong with either."""

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from handful.data.pictures import Picture, Pixels
from handful.data.rails import Frame, line_of, pairs
from handful.data.rails.frame import climbing
from handful.errors import HandfulError

LEFT, RIGHT = np.array([[10.0, 38], [28, 12]]), np.array([[50.0, 38], [32, 12]])


def frame(content: Callable[[], Any] = bytes, **lines: Any) -> Frame:
    return Frame(
        Picture("a.png", "", "", content), 64, 40, {name.replace("_", " "): line_of(lines[name]) for name in lines}
    )


def test_lines_run_from_bottom_to_top_in_the_order_given() -> None:
    points = [[3, 9], [4, 9.5], [7, 2]]
    assert line_of(points).tolist() == points
    assert line_of(points).dtype == np.float64
    assert line_of(points[::-1]).tolist() == points
    assert climbing(line_of(points)).tolist() == [[3, 9], [7, 2]]  # the second turns down


@pytest.mark.parametrize(
    ("points", "words"),
    [
        ([[1, 2]], "has one point, and a line takes two at least"),
        ([[1, 2], [3]], "is no list of points"),
        ("left", "is no list of points"),
        ([[1, 2, 3], [1, 2, 3]], "is no list of points"),
        ([[1, 2], [3, float("nan")]], "has a point that is no number"),
    ],
)
def test_what_is_no_line(points: Any, words: str) -> None:
    with pytest.raises(ValueError, match=words):
        line_of(points)


def test_a_sound_frame_has_no_fault() -> None:
    assert frame(left=LEFT, right=RIGHT).faults() == []
    assert frame(left=LEFT).faults() == frame().faults() == []
    assert frame(left=[[-1, 39], [20, 10]]).faults() == []  # half a pixel is the border, and a click is not exact


def test_points_outside_the_picture() -> None:
    (fault,) = frame(left=[[10, 41], [70, 30], [20, 10]]).faults()
    assert fault == (
        "The line 'left' of a.png has 2 points outside its 64x40 pixels, (10, 41) the first; cut it off at the border."
    )


def test_rails_that_cross_and_rails_that_are_swapped() -> None:
    bent = [[10, 38], [45, 20], [28, 12]]
    (fault,) = frame(left=bent, right=RIGHT).faults()
    assert "The line 'left' of a.png lies right of 'right' in" in fault
    assert "of the 27 rows that both have; draw them again where they cross." in fault
    (fault,) = frame(left=RIGHT, right=LEFT).faults()
    assert fault.endswith("in 27 of the 27 rows that both have; name them the other way round.")
    (fault,) = frame(next_left=RIGHT, next_right=LEFT, left=LEFT).faults()
    assert "'next left'" in fault
    assert frame(left=RIGHT, next_right=LEFT).faults() == []  # of two tracks


def test_pairs_are_the_tracks_with_both_rails() -> None:
    lines = dict.fromkeys(["right", "left", "x left", "x right", "y left", "cleft", "cright"], LEFT)
    assert pairs(lines) == [("left", "right"), ("x left", "x right")]


def test_the_picture_is_decoded_when_asked_for() -> None:
    asked = []

    def content() -> Pixels:
        asked.append(1)
        return np.full((40, 64, 1), 7, np.uint8)

    found = frame(content, left=LEFT)
    assert not asked
    assert found.pixels().shape == (40, 64, 3)
    assert found.pixels()[0, 0].tolist() == [7, 7, 7]


def test_pictures_that_do_not_fit() -> None:
    with pytest.raises(
        HandfulError, match=r"a\.png has 6x4 pixels, but its lines were drawn in 64x40; give the picture"
    ):
        frame(lambda: np.zeros((4, 6, 3), np.uint8)).pixels()
    with pytest.raises(HandfulError, match=r"a\.png is no readable picture \(.*\); mend it, or take its record"):
        frame(lambda: b"no picture").pixels()
