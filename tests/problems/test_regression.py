from __future__ import annotations

import numpy as np
import pytest
import torch

from handful.data import load
from handful.data.store import ImageStore
from handful.errors import HandfulError
from handful.problems import Classification, Regression, problem_of

LINES = load("lines")


@pytest.mark.parametrize("shape", [(), (1,), (2, 3)])
def test_loss_and_score_are_the_mean_square_of_a_task(shape: tuple[int, ...]) -> None:
    predictions, targets = torch.randn(4, 3, 7, *shape), torch.randn(3, 7, *shape)
    problem = Regression()
    score = problem.score(predictions, targets)
    assert (score.shape, score.dtype) == ((4, 3), torch.float64)
    for b in range(3):
        expected = np.square(predictions[1, b].double().numpy() - targets[b].double().numpy()).mean()
        assert problem.loss(predictions[1], targets)[b].item() == pytest.approx(expected, rel=1e-5)
        assert score[1, b].item() == pytest.approx(expected, rel=1e-5)


def test_the_floor_says_the_mean_of_the_support() -> None:
    episode = Regression().sampler(LINES.test, 1, 4, 9).episodes(0, 5)
    floors = Regression().floors(episode)
    support, query = (y[..., 0].double().numpy() for y in (episode.support_y, episode.query_y))
    expected = np.square(query - support.mean(1, keepdims=True)).mean(1)
    assert list(floors) == ["support mean"]
    np.testing.assert_allclose(floors["support mean"]["mean_squared_error"].numpy(), expected, rtol=1e-5)


def test_a_data_set_says_its_problem(store: ImageStore) -> None:
    assert isinstance(problem_of(LINES), Regression)
    assert isinstance(problem_of(store), Classification)
    assert Regression().outputs(1) == 1


def test_data_of_another_problem(store: ImageStore) -> None:
    with pytest.raises(HandfulError, match="needs functions, but the data set 'patterns' holds none"):
        Regression().sampler(store.test, 1, 5, 5)
    with pytest.raises(HandfulError, match="needs images with classes, but the data set 'lines' holds none"):
        Classification().sampler(LINES.test, 5, 1, 5)


def test_what_regression_has_not() -> None:
    with pytest.raises(HandfulError, match="one function, so way must be 1, not 5"):
        Regression().sampler(LINES.train, 5, 1, 1)
    with pytest.raises(HandfulError, match="augment varies images, and 'lines' has none: set it to none"):
        Regression().sampler(LINES.train, 1, 1, 1, augment="drawings")
