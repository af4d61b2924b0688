"""The online score and its threshold, against plain formulas."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from handful.model.video.scores import LEAST, ROUNDING, Normal, Smoother, crossed, levels, normal_of, scores, threshold
from handful.problems.video_anomaly.scores import causal

RANDOM = np.random.default_rng(0)


def test_levels_are_decibels_that_end_at_the_rounding_of_bytes() -> None:
    errors = torch.tensor([1.0, 1e-3, 0.0], dtype=torch.float32)
    assert levels(errors) == pytest.approx([0, -30, 10 * np.log10(ROUNDING)], abs=1e-5)
    assert 10 * np.log10(ROUNDING) == pytest.approx(-58.9, abs=0.05)


def test_scores_are_deviations_above_the_mean_smoothed_by_the_past_alone() -> None:
    runs = [RANDOM.normal(-30, 3, 20), RANDOM.normal(-30, 3, 7)]
    normal = normal_of(runs)
    every = np.concatenate(runs)
    assert normal == pytest.approx((every.mean(), np.sqrt(((every - every.mean()) ** 2).mean())))
    found = scores(runs, normal)
    for run, of in zip(runs, found):  # each by itself
        last = None
        for level, score in zip(run, of):
            raw = (level - normal.mean) / normal.deviation
            last = raw if last is None else 0.7 * last + 0.3 * raw
            assert score == pytest.approx(last, abs=1e-12)
    smoother = Smoother()
    assert [smoother(raw) for raw in normal.deviations(runs[0])] == pytest.approx(found[0], abs=1e-12)
    assert scores([runs[0][:5]], normal)[0] == pytest.approx(found[0][:5], abs=1e-12)  # nothing is of the future


def test_the_live_score_is_smoothed_by_the_filter_of_the_figures(monkeypatch: pytest.MonkeyPatch) -> None:
    raw = RANDOM.normal(size=20)
    for keep in (0.7, 0.2):
        monkeypatch.setattr(causal, "__defaults__", (keep,))
        smoother = Smoother()
        assert [smoother(score) for score in raw] == causal(raw).tolist()


def test_pictures_that_stand_still_deviate_a_little_all_the_same() -> None:
    assert normal_of([np.full(9, -58.0)]) == Normal(-58.0, LEAST)


@pytest.mark.parametrize(("count", "share"), [(99, 0.01), (100, 0.01), (1000, 0.01), (20, 0.1), (57, 0.3)])
def test_no_more_than_a_share_of_normal_frames_is_above_the_threshold(count: int, share: float) -> None:
    found = RANDOM.normal(size=count)
    limit = threshold(found, share)
    assert limit.promised
    assert limit.value in found
    assert (found > limit.value).sum() <= share * count  # of the known ones
    lower = np.sort(found)[np.searchsorted(np.sort(found), limit.value) - 1]
    assert (1 + (found > lower).sum()) / (count + 1) > share  # the next lower one would promise less
    rates = [
        float(draw[-1] > threshold(draw[:-1], share).value)
        for draw in RANDOM.normal(size=(4000 if count < 200 else 400, count + 1))
    ]
    assert np.mean(rates) == pytest.approx(share, abs=4 * np.sqrt(share / len(rates)) + 1 / (count + 1))


def test_too_few_frames_promise_nothing() -> None:
    found = RANDOM.normal(size=98)
    limit = threshold(found, 0.01)
    assert not limit.promised
    assert limit.value == found.max()
    assert threshold(np.append(found, 5.0), 0.01) == (5.0, True)


def test_equal_scores_are_no_alarm() -> None:
    assert threshold(np.zeros(200), 0.01) == (0.0, True)


def test_the_halves_are_judged_by_each_other() -> None:
    found = np.concatenate([RANDOM.normal(size=300), RANDOM.normal(0.5, 1, size=301)])
    first, second = found[:300], found[300:]
    rank = int(np.ceil(301 * 0.9))
    above = (second > np.sort(first)[rank - 1]).sum() + (first > np.sort(second)[int(np.ceil(302 * 0.9)) - 1]).sum()
    assert crossed(found, 0.1) == pytest.approx(above / 601)
    assert crossed(found[:190], 0.01) is None  # of which each half has fewer than 99
    assert crossed(found[:1], 0.5) is None
