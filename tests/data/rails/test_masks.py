"""The track of a mask: lines painted as masks of RailSem19 are found again."""

from typing import Any

import numpy as np
from numpy.typing import NDArray

from handful.data.rails.masks import ego_track

H, W = 540, 960


def paint(*tracks: tuple[float, float, int]) -> NDArray[np.uint8]:
    """Straight tracks (x of the foot, x of the top, lowest row) that narrow to a tenth at row 200."""
    mask = np.full((H, W), 9, np.uint8)
    for foot, top, lowest in tracks:
        for y in range(200, lowest):
            x, half = track(foot, top, y)
            thick = max(1, round(half / 12))
            mask[y, max(0, round(x - half)) : max(0, round(x + half) + 1)] = 12
            for rail in (x - half, x + half):
                mask[y, max(0, round(rail) - thick) : max(0, round(rail) + thick + 1)] = 17
    return mask


def track(foot: float, top: float, y: Any) -> tuple[Any, Any]:
    share = (np.asarray(y) - 200) / (H - 1 - 200)
    return top + (foot - top) * share, 10 + 90 * share


def test_the_track_at_the_foot_of_the_picture_is_found_again() -> None:
    lines = ego_track(paint((500, 450, H), (900, 520, H)))
    for name, sign in (("left", -1), ("right", 1)):
        x, y = lines[name].T
        middle, half = track(500, 450, y)
        assert (y[0], y[-1]) == (H - 1, 200)
        np.testing.assert_allclose(x, middle + sign * half, atol=1)


def test_a_hidden_foot_and_a_short_gap_are_no_end() -> None:
    mask = paint((500, 450, 470))
    mask[300:305] = 0
    lines = ego_track(mask)
    assert lines["left"][0, 1] == 469
    assert lines["left"][-1, 1] == 200
    mask[240:260] = 0
    assert ego_track(mask)["right"][-1, 1] == 260  # a long one is


def test_no_track() -> None:
    assert ego_track(np.full((H, W), 17, np.uint8)) == {}
    rails_without_bed = paint((500, 450, H))
    rails_without_bed[rails_without_bed == 12] = 9
    assert ego_track(rails_without_bed) == {}
