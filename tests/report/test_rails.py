"""The pictures of found rails."""

from __future__ import annotations

import numpy as np
import pytest

from handful.data import render_frame
from handful.data.rails import Frame
from handful.errors import HandfulError
from handful.report.rails import prediction_sheet, reliability


def test_a_row_a_sort() -> None:
    frame = render_frame(9, 0, light="day", size=(256, 144))
    both = {name: frame.lines[name] for name in ("left", "right")}
    lines = {**both, "true left": both["left"], "neighbour left": both["left"]}
    shown = Frame(frame.picture, frame.width, frame.height, lines)
    (ax,) = prediction_sheet({"best": [(shown, "a 0.9"), (shown, "b 0.8")], "worst": [(shown, "c 0.1")]}, "Title").axes
    texts = [text.get_text() for text in ax.texts]
    assert texts[0] == "Title"
    assert [text for text in texts if text in ("best", "worst")] == ["best", "worst"]
    assert [text for text in texts if text[0] in "abc"][1:] == ["a 0.9", "b 0.8", "c 0.1"]
    assert len(ax.images) == 3
    assert len(ax.lines) == 3 * 3  # neither lines of other tracks nor those that are not there
    with pytest.raises(HandfulError, match="no predictions"):
        prediction_sheet({"best": []}, "Title")


def test_bins_and_their_counts() -> None:
    upper, lower = reliability([0.05, 0.95, 1.0, 0.91], [0.0, 1.0, 0.8, 0.6], of="rail").axes
    assert upper.get_title(loc="left") == "Expected 0.728, observed 0.600"
    points = [np.asarray(line.get_xydata()).ravel() for line in upper.lines if line.get_marker() == "o"]
    np.testing.assert_allclose(np.array(points), np.array([(0.05, 0.0), (2.86 / 3, 0.8)]))
    assert [text.get_text() for text in lower.texts] == ["1", "3"]
    assert lower.get_ylabel() == "rails"
    with pytest.raises(HandfulError, match="not 2 for 1"):
        reliability([0.5], [0.5, 0.6])
    with pytest.raises(HandfulError, match="not 0 for 0"):
        reliability([], [])
