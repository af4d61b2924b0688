"""Predictors that learned nothing."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch.testing import assert_close

from handful.problems.video_anomaly.floors import copied, extrapolated, floors, least_squares

RANDOM = torch.Generator().manual_seed(0)


def drawn(*shape: int) -> torch.Tensor:
    return torch.rand(*shape, generator=RANDOM, dtype=torch.float64)


@pytest.mark.parametrize("channels", [1, 3])
def test_they_take_the_last_frames(channels: int) -> None:
    frames = drawn(2, 4, channels, 6, 5)
    windows = frames.flatten(1, 2)
    assert_close(copied(windows, channels), frames[:, 3])
    assert_close(extrapolated(windows, channels), 2 * frames[:, 3] - frames[:, 2])


@pytest.mark.parametrize("channels", [1, 3])
def test_least_squares_is_numpys(channels: int) -> None:
    frames, wanted, other = drawn(3, 4, channels, 6, 5), drawn(3, channels, 6, 5), drawn(2, 4, channels, 6, 5)
    rows = np.stack([*(frames[:, t].flatten().numpy() for t in range(4)), np.ones(wanted.numel())], 1)
    weights, *_ = np.linalg.lstsq(rows, wanted.flatten().numpy(), rcond=None)
    found = least_squares(frames.flatten(1, 2), wanted)(other.flatten(1, 2))
    plain = sum(weights[t] * other[:, t] for t in range(4)) + weights[4]
    assert_close(found, plain, rtol=1e-6, atol=1e-6)


def test_a_scene_that_never_changes_still_has_weights() -> None:
    frames = torch.full((1, 4, 4, 4), 0.5)
    predict = least_squares(frames, torch.full((1, 1, 4, 4), 0.5))
    assert_close(predict(frames), torch.full((1, 1, 4, 4), 0.5), rtol=0, atol=1e-4)


def test_all_of_them_by_name() -> None:
    found = floors(drawn(2, 4, 6, 6), drawn(2, 1, 6, 6))
    assert list(found) == ["copy", "linear extrapolation", "least squares"]
    assert {predict(drawn(3, 4, 6, 6)).shape for predict in found.values()} == {(3, 1, 6, 6)}
