"""What is unusual drawn over a frame."""

from __future__ import annotations

from pathlib import Path

import av
import numpy as np
import pytest
from numpy.typing import NDArray

from handful.model.video import FrameScore, VideoModel
from handful.model.video.overlay import CALM, HOT, MARK, Overlay, drawn

GREY = np.full((120, 200), 90, np.uint8)
THRESHOLD = 2.0


def hot(row: int, column: int, most: float) -> NDArray[np.float32]:
    """Heat [32, 32] at one place."""
    heat = np.full((32, 32), -1, np.float32)
    heat[row : row + 8, column : column + 8] = most
    return heat


def told(score: float | None, alarm: bool, heat: NDArray[np.float32] | None = None) -> FrameScore:
    return FrameScore(7, 0.7, score, alarm, heat)


def coloured(pixels: NDArray[np.uint8], colour: tuple[int, int, int]) -> NDArray[np.bool_]:
    return np.asarray((pixels == colour).all(-1))


def test_a_normal_frame_has_a_bar_alone() -> None:
    found = drawn(GREY, told(1.0, False, hot(8, 8, 1.9)), THRESHOLD)
    assert found.shape == (120, 200, 3)
    assert (found[:114] == 90).all()  # nothing is hot below the threshold
    bar = coloured(found, CALM)
    assert np.flatnonzero(bar.any(0)).tolist() == list(range(51))  # a quarter: the threshold is in the middle
    assert np.flatnonzero(bar.any(1))[0] >= 117
    assert np.flatnonzero(coloured(found, MARK).any(0))[0] == 100
    assert (GREY == 90).all()  # the frame itself is left alone


def test_what_is_above_the_threshold_glows_where_it_is_and_an_alarm_has_a_border() -> None:
    found = drawn(GREY, told(9.0, True, hot(8, 16, 20.0)), THRESHOLD).astype(int)
    red = found[..., 0] - found[..., 2] > 60
    inside = np.zeros_like(red)
    inside[30:60, 100:150] = True  # 8 of 32 rows of 120, 8 of 32 columns of 200
    assert red[34:56, 106:144].all()
    assert not red[8:100, 8:90].any()
    border = coloured(found.astype(np.uint8), HOT)
    assert border[0].all()
    assert border[:, 0].all()
    assert border[:, -1].all()
    assert (~border[118]).sum() <= 3  # the bar is as long as the frame is wide, but for its mark


def test_the_bar_of_an_alarm_is_told_from_its_border() -> None:
    found = drawn(GREY, told(2.4, True), THRESHOLD)
    bar = coloured(found, HOT)[118]
    assert bar[:120].sum() >= 117  # but for the mark
    assert not bar[123:].any()


def test_the_heat_grows_with_the_error() -> None:
    reds = [
        int(drawn(GREY, told(9.0, False, hot(8, 16, most)), THRESHOLD)[45, 125, 0])
        for most in (2.0, 2.5, 3.0, 4.0, 50.0)
    ]
    assert reds[0] == 90
    assert reds[0] < reds[1] < reds[2] < reds[3] == reds[4]


def test_a_frame_without_a_score_has_no_bar() -> None:
    assert (drawn(GREY, told(None, False), THRESHOLD) == 90).all()
    dark = drawn(np.zeros((120, 200, 3), np.uint8), told(None, True), THRESHOLD)
    assert coloured(dark, HOT)[0].all()
    assert (dark[10:110, 10:190] == 0).all()


def test_below_a_threshold_of_1_the_bar_is_full_at_2() -> None:
    found = drawn(GREY, told(1.0, False), 0.5)
    assert np.flatnonzero(coloured(found, MARK).any(0))[0] == 50  # a quarter
    assert np.flatnonzero(coloured(found, CALM).any(0)).max() == 100


@pytest.mark.parametrize("threshold", [0.0, -1.0])
def test_a_threshold_that_is_none(threshold: float) -> None:
    found = drawn(GREY, told(1.0, True), threshold)
    assert np.flatnonzero(coloured(found, MARK).any(0))[0] <= 3


def test_an_overlay_is_as_long_and_as_fast_as_its_clip(watcher: VideoModel, clips: Path, tmp_path: Path) -> None:
    overlay = Overlay(tmp_path / "o.mp4", clips / "odd.mp4", watcher.card.threshold)
    for frame, score in watcher.watch(clips / "odd.mp4", heat=True):
        overlay.write(frame, score)
    overlay.close()
    with av.open(str(tmp_path / "o.mp4")) as video:
        shown = [frame.to_ndarray(format="rgb24").astype(int) for frame in video.decode(video=0)]
        assert video.streams.video[0].average_rate == 10
    assert len(shown) == 48
    red = [int((frame[..., 0] - frame[..., 2] > 60).sum()) for frame in shown]
    assert max(red[5:20]) < 100
    assert min(red[28:40]) > 500  # of 6,144 pixels: the heat, and the border
    nothing = Overlay(tmp_path / "none.mp4", clips / "odd.mp4", 1.0)
    nothing.close()
    assert not (tmp_path / "none.mp4").exists()
