"""Lines on rows: as a plain loop finds them, and back to points."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import pytest

from handful.data.rails import Line
from handful.data.rails.rows import FOOT, ROWS, line_on, rows_of

WIDTH, HEIGHT = 512, 288


def crossing(line: Line, y: float) -> float:
    """Where a line that climbs crosses a height, at its nearest end beyond."""
    for (x0, y0), (x1, y1) in pairwise(line):
        if y1 <= y <= y0:
            return float(x0 + (x1 - x0) * (y0 - y) / (y0 - y1))
    return float(line[0, 0] if y > line[0, 1] else line[-1, 0])


def plain(line: Line, rows: int) -> list[tuple[float, float]]:
    """(x, share) of every row."""
    found = []
    for row in range(rows):
        upper, lower = row * HEIGHT / rows - 0.5, (row + 1) * HEIGHT / rows - 0.5
        over, under = max(upper, line[-1, 1]), min(lower, line[0, 1])
        share = max(0.0, under - over) / (lower - upper)
        y = (over + under) / 2 if share else (upper + lower) / 2
        x = (crossing(line, y) + 0.5) / WIDTH
        found.append((x, share if 0 <= x <= 1 else 0.0))
    return found


def drawn(seed: int, foot: float, top: float, points: int = 7) -> Line:
    """A crooked line between two heights, which may leave the picture at its sides."""
    random = np.random.default_rng(seed)
    y = np.sort(random.uniform(top, foot, points))[::-1]
    y[[0, -1]] = foot, top
    return np.stack([random.uniform(-60, WIDTH + 60, points), y], 1)


@pytest.mark.parametrize("rows", [ROWS, 36])
@pytest.mark.parametrize("seed", range(5))
def test_rows_are_those_of_a_plain_loop(seed: int, rows: int) -> None:
    line = drawn(seed, foot=270 - 7.3 * seed, top=40.2 + 11 * seed)
    found = rows_of(line, WIDTH, HEIGHT, rows)
    assert found.shape == (rows, 2)
    assert found.dtype == np.float32
    expected = np.array(plain(line, rows))
    assert 0 < (expected[:, 1] > 0).sum() < rows
    np.testing.assert_allclose(found, expected, atol=1e-5)


def test_a_row_that_a_line_ends_in_has_a_share_of_it() -> None:
    line = np.array([[100.0, 200.0], [100.0, 100.0]])  # rows are 2 pixels, the borders between them at odd halves
    share = rows_of(line, WIDTH, HEIGHT)[:, 1]
    assert share[[49, 50, 51, 99, 100, 101]].tolist() == [0, 0.75, 1, 1, 0.25, 0]
    assert share.sum() * 2 == 100


def test_a_line_that_ends_near_the_lower_border_goes_on_to_it() -> None:
    border = HEIGHT - 0.5
    near, far = (np.array([[90.0, border - share * HEIGHT], [200.0, 100.0]]) for share in (0.9 * FOOT, 1.1 * FOOT))
    assert (rows_of(near, WIDTH, HEIGHT)[-3:, 1] == 1).all()
    assert rows_of(near, WIDTH, HEIGHT)[-1, 0] == pytest.approx(90.5 / WIDTH)
    assert rows_of(far, WIDTH, HEIGHT)[-1, 1] == 0


def test_what_is_below_or_beside_the_picture_is_not_there() -> None:
    below = np.array([[50.0, HEIGHT + 40.0], [50.0, HEIGHT + 10.0]])
    assert rows_of(below, WIDTH, HEIGHT)[:, 1].sum() == 0
    through = np.array([[600.0, HEIGHT - 0.5], [400.0, -0.5]])  # crosses the right border in the middle
    share = rows_of(through, WIDTH, HEIGHT)[:, 1]
    inside = 400 + 200 * (np.arange(ROWS) + 0.5) / ROWS <= WIDTH - 0.5
    np.testing.assert_array_equal(share, inside)


def test_a_line_that_is_not_there_has_no_row() -> None:
    assert not rows_of(None, WIDTH, HEIGHT).any()


@pytest.mark.parametrize(("first", "last"), [(0.25, 1.0), (0.0, 0.5), (30 / ROWS, 90 / ROWS)])
def test_points_are_the_inverse_of_rows(first: float, last: float) -> None:
    top, foot = first * HEIGHT - 0.5, last * HEIGHT - 0.5
    line = np.array([[100.0, foot], [300.0, top]])
    found = rows_of(line, WIDTH, HEIGHT)
    there = np.flatnonzero(found[:, 1])
    assert (there[0] / ROWS, (there[-1] + 1) / ROWS) == (first, last)
    x = np.interp(np.arange(ROWS), there, found[there, 0].astype(np.float64))
    x[: there[0]] = x[there[0]] - (there[0] - np.arange(there[0])) * (x[there[1]] - x[there[0]])
    x[there[-1] :] = x[there[-1]] + np.arange(ROWS - there[-1]) * (x[there[-1]] - x[there[-2]])
    again = line_on(x, first, last, WIDTH, HEIGHT)
    assert (np.diff(again[:, 1]) < 0).all()
    np.testing.assert_allclose(again[[0, -1]], line, atol=1e-3)
    np.testing.assert_allclose(again[:, 0], [crossing(line, y) for y in again[:, 1]], atol=1e-3)


def test_points_of_a_line_within_one_row() -> None:
    again = line_on(np.linspace(0, 1, 10), 0.42, 0.48, WIDTH, HEIGHT)
    np.testing.assert_allclose(again[:, 1], np.array([0.48, 0.45, 0.42]) * HEIGHT - 0.5)
