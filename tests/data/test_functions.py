"""Families of functions: their formulas, and that support and query of a task are samples of one function."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch

from handful.data import FAMILIES, FunctionFamily, build, load
from handful.episodes import FunctionSampler
from handful.errors import HandfulError

SINUSOID, LINES = load("sinusoid"), load("lines")


@pytest.mark.parametrize("family", FAMILIES.values(), ids=FAMILIES)
def test_a_task_depends_on_seed_epoch_and_index_only(family: FunctionFamily) -> None:
    sampler = FunctionSampler(family.train, 5, 3, seed=7)
    together = sampler.episodes(0, 40)
    for start, stop in ((0, 1), (13, 20), (39, 40)):
        for whole, part in zip(together, sampler.episodes(start, stop)):
            assert torch.equal(whole[start:stop], part)
    for other in (sampler.episodes(0, 40, epoch=1), FunctionSampler(family.train, 5, 3, seed=8).episodes(0, 40)):
        assert not any(torch.equal(a, b) for a, b in zip(together, other))


def test_support_and_query_are_of_one_function() -> None:
    sinus = FunctionSampler(SINUSOID.test, 10, 20)
    episode = sinus.episodes(3, 9)
    assert [tuple(t.shape) for t in episode] == [(6, 10, 1), (6, 10, 1), (6, 20, 1), (6, 20, 1)]
    for task, (amplitude, phase) in enumerate(sinus.parameters(3, 9)):
        for x, y in (episode[:2], episode[2:]):
            np.testing.assert_allclose(y[task].numpy(), amplitude * np.sin(x[task].numpy() - phase), atol=2e-5)
    lines = FunctionSampler(LINES.test, 4, 6).episodes(0, 50)
    for x, y, x_query, y_query in zip(*(tensor[..., 0].double().numpy() for tensor in lines)):
        np.testing.assert_allclose(np.polyval(np.polyfit(x, y, 1), x_query), y_query, atol=1e-4)


def test_more_queries_leave_the_functions_and_supports_as_they_are() -> None:
    few, many = (FunctionSampler(SINUSOID.val, 10, query).episodes(0, 9) for query in (3, 40))
    assert torch.equal(few.support_x, many.support_x)
    assert torch.equal(few.support_y, many.support_y)


def test_the_ranges_are_those_of_the_paper_and_of_the_note() -> None:
    sampler = FunctionSampler(SINUSOID.train, 10, 1)
    amplitude, phase = sampler.parameters(0, 4000).T
    x = sampler.episodes(0, 4000).support_x
    for values, low, high in ((amplitude, 0.1, 5.0), (phase, 0.0, np.pi), (x.numpy(), -5.0, 5.0)):
        assert low <= values.min() < low + 0.01 * (high - low)
        assert high - 0.01 * (high - low) < values.max() <= high
        assert abs(values.mean() - (low + high) / 2) < 0.03 * (high - low)
    drawn = FunctionSampler(LINES.train, 10, 1).parameters(0, 4000)
    np.testing.assert_allclose(drawn.mean(0), [0, 0], atol=0.15)
    np.testing.assert_allclose(drawn.std(0), [2, 1], rtol=0.05)
    assert abs(np.mean(drawn[:, 0] * drawn[:, 1]) / 2) < 0.05
    assert abs(float((np.abs(drawn[:, 1]) < 1).mean()) - 0.683) < 0.03  # as normal numbers are


def test_no_function_is_in_two_splits() -> None:
    drawn = {name: FunctionSampler(SINUSOID.split(name), 2, 2).parameters(0, 3000) for name in ("train", "val", "test")}
    assert len(np.unique(np.concatenate(list(drawn.values())), axis=0)) == 9000


def test_task_hash_names_tasks_family_and_split() -> None:
    sampler = FunctionSampler(SINUSOID.test, 10, 5)
    assert sampler.task_hash(10) == FunctionSampler(load("sinusoid").test, 10, 5).task_hash(10)
    others = [
        sampler.task_hash(11),
        replace(sampler, seed=1).task_hash(10),
        replace(sampler, query=6).task_hash(10),
        replace(sampler, split=SINUSOID.val).task_hash(10),
        replace(sampler, split=LINES.test).task_hash(10),
    ]
    assert len({sampler.task_hash(10), *others}) == 6


def test_what_a_family_says_of_itself() -> None:
    assert (SINUSOID.name, SINUSOID.problem, SINUSOID.input_shape) == ("sinusoid", "regression", (1,))
    assert SINUSOID.recipe() == {"name": "sinusoid"}
    assert SINUSOID.describe()["hash"] == SINUSOID.split_hash != LINES.split_hash
    assert SINUSOID.train.data is SINUSOID


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"root": "there"}, r"'lines' does not take root; leave it out \(it takes no options\)"),
        ({"rotations": 4}, "does not take rotations"),
        ({"image_size": 28}, "does not take image_size"),
        ({"seed": 1}, "does not take seed"),
    ],
)
def test_options_are_refused_and_not_ignored(options: dict[str, Any], message: str) -> None:
    with pytest.raises(HandfulError, match=message):
        load("lines", **options)


def test_nothing_to_build_and_unknown_names() -> None:
    with pytest.raises(HandfulError, match=r"'sinusoid' is drawn when it is needed, so there is nothing to build"):
        build("sinusoid")
    with pytest.raises(HandfulError, match="no data set 'sinusoids'; did you mean 'sinusoid'"):
        load("sinusoids")
    with pytest.raises(HandfulError, match="no split 'tests'; did you mean 'test'"):
        SINUSOID.split("tests")


@pytest.mark.parametrize(("shot", "query"), [(0, 1), (1, 0)])
def test_counts_below_one(shot: int, query: int) -> None:
    with pytest.raises(HandfulError, match=f"shot and query must be at least 1, not {shot}, {query}"):
        FunctionSampler(LINES.train, shot, query)
