"""Changes of the view: pictures and lines move alike."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from handful.data.rails.view import ACROSS, DOWN, PLACE, SCALE, TONE, TURN, matrices, moved, moved_line, toned

WIDTH, HEIGHT = 256, 144
STILL = [0.9, 0.5, 0.5, 0.5, 0.0]  # no mirror, turn, scale or shift


def test_no_change_is_the_identity() -> None:
    (change,) = matrices(np.array([STILL]), WIDTH, HEIGHT)
    np.testing.assert_allclose(change, np.eye(3), atol=1e-12)
    images = torch.rand(1, 3, HEIGHT, WIDTH)
    torch.testing.assert_close(moved(images, change[None]), images, atol=1e-4, rtol=0)


def test_a_mirror_turns_left_into_right() -> None:
    (change,) = matrices(np.array([[0.1, *STILL[1:]]]), WIDTH, HEIGHT)
    images = torch.rand(1, 3, HEIGHT, WIDTH)
    torch.testing.assert_close(moved(images, change[None]), images.flip(-1), atol=1e-4, rtol=0)
    line = np.array([[10.0, 140.0], [30.0, 20.0]])
    np.testing.assert_allclose(moved_line(line, change), [[WIDTH - 11.0, 140.0], [WIDTH - 31.0, 20.0]])


def test_shifts_go_to_either_side_and_downwards() -> None:
    numbers = np.array([[0.9, 0.5, 0.5, across, down] for across, down in ((0.0, 0.0), (1.0, 1.0))])
    point = np.array([[100.0, 50.0]])
    left, right = (moved_line(point, change)[0] - point[0] for change in matrices(numbers, WIDTH, HEIGHT))
    np.testing.assert_allclose(left, [-ACROSS * WIDTH, 0], atol=1e-9)
    np.testing.assert_allclose(right, [ACROSS * WIDTH, DOWN * HEIGHT], atol=1e-9)


def test_scale_and_turn_stay_in_their_bounds() -> None:
    changes = matrices(np.random.default_rng(0).random((500, PLACE)), WIDTH, HEIGHT)
    area = np.linalg.det(changes[:, :2, :2])
    assert 0.4 < (area < 0).mean() < 0.6
    scale = np.sqrt(np.abs(area))
    assert scale.min() > 1 / (1 + SCALE)
    assert scale.max() < 1 + SCALE
    assert np.ptp(np.log(scale)) > math.log(1 + SCALE)
    angle = np.arcsin(-changes[:, 0, 1] / scale)
    assert 0.9 * TURN < np.abs(angle).max() <= TURN


@pytest.mark.parametrize("seed", range(6))
def test_a_painted_line_is_found_where_the_moved_line_is(seed: int) -> None:
    change = matrices(np.random.default_rng(seed).random((1, PLACE)), WIDTH, HEIGHT)
    line = np.array([[90.0, HEIGHT - 1.0], [150.0, 10.0]])
    y, x = np.mgrid[:HEIGHT, :WIDTH]
    on_line = np.interp(y[:, 0], line[::-1, 1], line[::-1, 0])[:, None]
    painted = np.exp(-(((x - on_line) / 2) ** 2)) * (y >= 10)
    picture = moved(torch.from_numpy(painted)[None, None], change)[0, 0].numpy()
    after = moved_line(line, change[0])
    rows = np.arange(max(0, math.ceil(after[-1, 1])) + 8, math.floor(min(after[0, 1], HEIGHT - 1)) - 8)
    assert len(rows) > 40
    found = (picture[rows] * x[0]).sum(1) / picture[rows].sum(1)
    np.testing.assert_allclose(found, np.interp(rows, after[::-1, 1], after[::-1, 0]), atol=0.1)


def test_what_was_outside_the_picture_is_black() -> None:
    change = matrices(np.array([[0.9, 0.5, 0.5, 1.0, 1.0]]), WIDTH, HEIGHT)
    picture = moved(torch.ones(1, 1, HEIGHT, WIDTH), change)[0, 0]
    assert picture[: int(DOWN * HEIGHT) - 1].abs().max() < 1e-5
    assert picture[:, : int(ACROSS * WIDTH) - 1].abs().max() < 1e-5
    assert picture[-1, -1].item() == pytest.approx(1)


def test_colours_stay_in_range_and_the_middle_changes_nothing() -> None:
    images = torch.rand(8, 3, 5, 5)
    torch.testing.assert_close(toned(images, np.full((8, TONE), 0.5)), images)
    varied = toned(images, np.random.default_rng(0).random((8, TONE)))
    assert varied.min() >= 0
    assert varied.max() <= 1
    assert ((varied - images).abs().flatten(1).mean(1) > 0.01).all()
