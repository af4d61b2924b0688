"""Scores against plain formulas and naive loops."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from numpy.testing import assert_allclose
from sklearn.metrics import roc_auc_score

from handful.problems.video_anomaly.scores import (
    area,
    causal,
    covering,
    decibels,
    frame_errors,
    smoothed,
    whole_clips,
    within_clip,
)

RANDOM = np.random.default_rng(0)


class TestFrameErrors:
    def test_is_the_naive_loop(self) -> None:
        predictions = torch.from_numpy(RANDOM.random((2, 3, 16, 24)))
        targets = torch.from_numpy(RANDOM.random((2, 3, 16, 24)))
        found = frame_errors(predictions, targets)
        squares = ((predictions - targets) ** 2).mean(1).numpy()
        place = np.zeros_like(squares)
        for y in range(16):  # a box of 2 x 3 around each place, cut off at the borders
            for x in range(24):
                rows, columns = slice(max(0, y - 1), y + 1), slice(max(0, x - 1), x + 2)
                place[:, y, x] = squares[:, rows, columns].mean((1, 2))
        assert_allclose(found.place.numpy(), place)
        assert_allclose(found.mean.numpy(), squares.mean((1, 2)))
        assert_allclose(found.local.numpy(), place.max((1, 2)))
        assert (found.feature == 0).all()

    def test_what_no_frame_can_be_is_brought_to_what_one_can(self) -> None:
        predictions = torch.tensor([-0.5, 0.25, 1.5, 1.0]).reshape(1, 1, 2, 2)
        targets = torch.tensor([0.0, 0.25, 1.0, 0.5]).reshape(1, 1, 2, 2)
        assert frame_errors(predictions, targets).mean.item() == pytest.approx(0.5**2 / 4)

    def test_the_plane_after_the_frame_is_the_distance_from_the_prototypes(self) -> None:
        predictions = torch.from_numpy(RANDOM.random((2, 3, 8, 8)))
        targets = torch.from_numpy(RANDOM.random((2, 1, 8, 8)))
        found = frame_errors(predictions, targets)
        assert_allclose(found.feature.numpy(), predictions[:, 1].mean((1, 2)).numpy())
        assert_allclose(found.mean.numpy(), (predictions[:, :1] - targets).square().mean((1, 2, 3)).numpy())


class TestForms:
    def test_decibels_are_minus_the_psnr_and_a_perfect_frame_has_some(self) -> None:
        assert_allclose(decibels(np.array([0.01, 1.0, 0.0])), [-20, 0, -100])

    def test_the_filter_is_the_sum_over_fifteen_frames(self) -> None:
        scores = RANDOM.random(20)
        taps = [math.exp(-(k**2) / 8) for k in range(-7, 8)]
        naive = [
            sum(tap * scores[min(max(t + k, 0), 19)] for tap, k in zip(taps, range(-7, 8))) / sum(taps)
            for t in range(20)
        ]
        assert_allclose(smoothed(scores), naive)

    def test_a_clip_shorter_than_the_filter_keeps_its_length(self) -> None:
        assert_allclose(smoothed(np.array([2.0])), [2.0])
        assert len(smoothed(RANDOM.random(3))) == 3

    def test_within_a_clip_the_least_is_0_and_the_greatest_1(self) -> None:
        assert_allclose(within_clip(np.array([2.0, 4.0, 3.0])), [0, 1, 0.5])

    def test_a_constant_clip_is_all_zeros(self) -> None:
        assert_allclose(within_clip(np.full(4, 7.0)), np.zeros(4))

    def test_causal_scores_know_nothing_of_later_frames(self) -> None:
        scores = RANDOM.random(10)
        changed = scores.copy()
        changed[6:] = 9
        assert_allclose(causal(scores)[:6], causal(changed)[:6])
        assert causal(scores)[0] == scores[0]
        assert_allclose(causal(scores, 0.5)[1], (scores[0] + scores[1]) / 2)


class TestAreas:
    def test_every_form_is_taken_over_the_clips_it_says(self) -> None:
        scores = [RANDOM.random(30), 5 + RANDOM.random(20), RANDOM.random(25)]
        labels = [(RANDOM.random(len(clip)) < 0.5).astype(np.uint8) for clip in scores]
        labels[2][:] = 1  # one of the kind that macro leaves out
        found, every = whole_clips(scores, labels), np.concatenate(labels)
        assert found["raw"] == roc_auc_score(every, np.concatenate(scores))
        joined = np.concatenate([(clip - clip.min()) / np.ptp(clip) for clip in scores])
        assert found["minmax"] == roc_auc_score(every, joined)
        assert found["macro"] == np.mean([roc_auc_score(labels[i], scores[i]) for i in (0, 1)])
        later = np.concatenate([smoothed(within_clip(clip)) for clip in scores])
        assert found["minmax_smoothed"] == roc_auc_score(every, later)
        assert found["raw_smoothed"] == roc_auc_score(every, np.concatenate([smoothed(clip) for clip in scores]))

    @pytest.mark.parametrize("labels", [np.zeros(4, np.uint8), np.ones(4, np.uint8)])
    def test_of_one_kind_there_is_none(self, labels: np.ndarray) -> None:
        assert math.isnan(area(labels, np.arange(4.0)))
        assert math.isnan(whole_clips([np.arange(4.0)], [labels])["macro"])

    def test_of_a_score_that_is_not_finite_there_is_none(self) -> None:
        assert math.isnan(area(np.array([0, 1], np.uint8), np.array([1.0, math.nan])))


class TestCovering:
    def test_is_the_highest_threshold_at_which_40_percent_of_the_mask_are_found(self) -> None:
        place, mask = RANDOM.random((8, 8)), RANDOM.random((8, 8)) < 0.4
        found = covering(place, mask)
        assert (place[mask] >= found).mean() >= 0.4
        assert (place[mask] > found).mean() < 0.4

    def test_a_mask_of_another_size_is_looked_at_where_its_pixels_lie(self) -> None:
        place = np.zeros((4, 4))
        place[0, 0] = 1
        mask = np.zeros((12, 8), bool)
        mask[:3, :2] = True
        assert covering(place, mask) == 1
        assert covering(place, np.roll(mask, 3, 0)) == 0

    def test_without_a_mask_it_is_the_greatest_anywhere(self) -> None:
        place = RANDOM.random((4, 4))
        assert covering(place, np.zeros((4, 4), bool)) == place.max()
