"""The timeline of a clip."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from handful.report import save, score_timeline


def test_it_shows_score_threshold_and_alarms(tmp_path: Path) -> None:
    scores = [None, None, 0.5, 1.0, 4.0, 5.0, 1.0, 3.0]
    alarms = [False, False, False, False, True, True, False, True]
    figure = score_timeline([number / 10 for number in range(8)], scores, alarms, 2.0)
    (axes,) = figure.axes
    curve, limit = axes.lines
    assert np.asarray(curve.get_ydata())[2:].tolist() == scores[2:]
    assert np.asarray(limit.get_ydata()).tolist() == [2.0, 2.0]
    assert axes.get_title(loc="left") == "2 alarms; the highest score, 5.00, at 0.5 s"
    shaded = [(patch.get_x(), patch.get_width()) for patch in axes.patches]  # type: ignore[attr-defined]
    assert [x for x, _ in shaded] == pytest.approx([0.4, 0.5, 0.7])
    assert [width for _, width in shaded] == pytest.approx([0.1] * 3)
    low, high = axes.get_ylim()
    assert low < 0.5
    assert high > 5
    with Image.open(save(figure, tmp_path / "t.png")) as image:
        assert image.width > image.height


def test_long_clips_are_in_minutes_and_folders_of_frames_in_frames() -> None:
    places = [10.0 * number for number in range(30)]
    figure = score_timeline(places, [float(number) for number in range(30)], [False] * 30, 50.0)
    assert figure.axes[0].get_xlabel() == "time (min:s)"
    assert figure.axes[0].get_title(loc="left") == "No alarm; the highest score, 29.00, at 4:50"
    assert figure.axes[0].get_ylim()[1] > 50
    figure = score_timeline([0, 1], [1.0, 2.0], [False, False], 1.5, timed=False)
    assert figure.axes[0].get_xlabel() == "frame"
    assert figure.axes[0].get_title(loc="left") == "No alarm; the highest score, 2.00, in frame 1"


def test_nothing_but_frames_without_a_score() -> None:
    figure = score_timeline([0.0], [None], [True], 1.0)
    assert figure.axes[0].get_title(loc="left") == "1 alarm"
