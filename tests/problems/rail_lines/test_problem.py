"""Rail lines as a problem: figures of tasks, floors with the same keys, and what other methods and problems refuse."""

from __future__ import annotations

import json
import math

import pytest
import torch

from handful.backbones import conv4
from handful.data import load
from handful.data.store import ImageStore
from handful.episodes import Episode, EpisodeSampler, ImageSampler
from handful.errors import HandfulError
from handful.evaluation import evaluate_method
from handful.methods import MAML, GradientBased, ProtoMAML, ProtoNet
from handful.problems import Classification, RailLines, Regression, problem_of
from handful.problems.rail_lines.predictions import cut
from handful.recipe import Protocol
from tests.rails import Tiny, frames, rows, track

FIGURES = {"path_iou", "points_20px", "f1", "gauge_error", "limit_error"}
PROTOCOL = Protocol(way=1, shot=2, query=2, tasks=4)


def made(decoder: dict[str, object] | None = None, **options: object) -> GradientBased:
    torch.manual_seed(0)
    method = MAML(Tiny(), **{"inner_lr": 0.01, "inner_steps": 2, "adapt": ["head"], **options})  # type: ignore[arg-type]
    method.problem = RailLines(decoder or {"name": "row_distributions", "channels": 8})
    method.attach_head(2)
    return method


def test_data_of_rail_lines_poses_that_problem(store: ImageStore) -> None:
    problem = problem_of(frames(), {"name": "row_regression"})
    assert isinstance(problem, RailLines)
    assert (problem.name, problem.metric, problem.outputs(1)) == ("rail_lines", "path_iou", 2)
    assert problem.residual
    assert problem_of(frames()).__dict__ == RailLines().__dict__
    for data in (store, load("lines")):
        with pytest.raises(
            HandfulError, match=r"A decoder is for rail lines and video anomalies, and .* is data of .*; leave it out"
        ):
            problem_of(data, {"name": "row_regression"})


def test_loss_and_scores_are_means_over_the_frames_of_a_task() -> None:
    problem = RailLines()
    targets = torch.cat([rows([track(60), track(70)]), rows([track(50), track(64, 30)])])
    predictions = torch.randn(3, 2, 2, 2, 8, 17)  # [S + 1, B, n, L, R', C + 1]
    scores = problem.score(predictions, targets)
    assert (scores.shape, scores.dtype) == ((3, 2), torch.float64)
    further = problem.measures(predictions[1], targets)
    assert set(further) == FIGURES - {"path_iou"}
    for b in range(2):
        alone = [(predictions[1, b, i][None, None], targets[b, i][None, None]) for i in range(2)]
        loss = torch.stack([problem.loss(*pair) for pair in alone]).mean()
        torch.testing.assert_close(problem.loss(predictions[1], targets)[b], loss)
        torch.testing.assert_close(scores[1, b], torch.stack([problem.score(*pair) for pair in alone]).mean())
        for name, values in further.items():
            mean = torch.stack([problem.measures(*pair)[name] for pair in alone]).mean()
            torch.testing.assert_close(values[b], mean)


def test_the_true_lines_score_all_and_the_floor_is_the_mean_line() -> None:
    problem, targets = RailLines(), rows([track(60), track(70, 30)], support=1)
    x = torch.zeros(1, 2, 1)
    floors = problem.floors(Episode(x, targets, x, targets))
    assert set(floors) == {"support mean"}
    assert set(floors["support mean"]) == FIGURES
    expected = problem.score(said(targets[0, :1].expand(1, 2, -1, -1, -1)), targets)
    torch.testing.assert_close(floors["support mean"]["path_iou"], expected, atol=2e-3, rtol=0)
    assert 0.2 < expected.item() < 0.9
    right = said(targets)
    assert problem.score(right, targets).item() > 0.99
    best = problem.measures(right, targets)
    assert best["points_20px"].item() > 0.99
    assert best["f1"].item() == 1
    assert best["gauge_error"].item() < 0.01
    assert best["limit_error"].item() < 0.01


def said(targets: torch.Tensor) -> torch.Tensor:
    """Predictions of a network that regresses these very rows."""
    x, there = targets[..., 0], targets[..., 1]
    return torch.stack([x, (there.clamp(1e-3, 1 - 1e-3)).logit()], -1)


def test_the_residual_decoder_with_no_training_places_the_floor() -> None:
    method = made({"name": "row_regression", "rows": 144})
    problem = method.problem
    assert isinstance(problem, RailLines)
    episode = problem.sampler(frames().train, 1, 2, 2).episodes(0, 3)
    predictions = method.predict(episode, inner_steps=0)[0]
    x = problem.lines(predictions, episode.query_y).x
    floor = cut(episode.query_y[..., 2], episode.query_y[..., 3], 144).x
    assert torch.equal(x, floor)


def test_a_result_has_every_figure_and_so_has_each_floor() -> None:
    method = made()
    result = evaluate_method(method, frames().train, PROTOCOL)
    shown = json.loads(result.to_json())
    assert shown["problem"] == "rail_lines"
    assert shown["metric"] == "path_iou"
    assert shown["path_iou"] == shown["mean"]
    assert set(shown) >= FIGURES
    assert set(shown["measures"]) == FIGURES - {"path_iou"}
    assert shown["measures"]["f1"]["mean"] == shown["f1"]
    (floor,) = shown["floors"].values()
    assert set(floor) == {"mean", "ci95", *FIGURES}
    assert floor["path_iou"] == floor["mean"]
    assert 0.3 < floor["mean"] < 1
    assert len(shown["by_inner_step"]) == 3
    assert (shown["way"], shown["shot"], shown["query"], shown["norm_stats"]) == (1, 2, 2, "none")
    again = evaluate_method(method, frames().train, PROTOCOL)
    assert again.per_task == result.per_task


def test_a_task_whose_adaptation_diverges_is_told_and_stops_nothing() -> None:
    method = made(inner_lr=1e30)
    result = evaluate_method(method, frames().train, PROTOCOL)
    assert math.isfinite(result.by_inner_step[0])
    assert not math.isfinite(result.mean)
    assert "diverged at inner step" in str(result)
    assert json.loads(result.to_json())["mean"] is None


def test_methods_that_name_classes_refuse_rail_lines() -> None:
    metric = ProtoNet(Tiny())
    metric.problem = RailLines()
    with pytest.raises(HandfulError, match="compares features names classes, but the problem is rail_lines; use maml"):
        metric.attach_head(2)
    prototypes = ProtoMAML(Tiny())
    prototypes.problem = RailLines()
    with pytest.raises(HandfulError, match="head from class means, but the problem is rail_lines; use maml"):
        prototypes.attach_head(2)


def test_frames_are_no_data_of_another_problem(store: ImageStore) -> None:
    data = frames()
    with pytest.raises(HandfulError, match="needs images with classes, but the data set 'tracks' holds none"):
        Classification().sampler(data.train, 5, 1, 1)
    with pytest.raises(HandfulError, match="needs images with classes, but the data set 'tracks' holds none"):
        Classification().examples(data.train, 0, "none")
    with pytest.raises(HandfulError, match="needs functions, but the data set 'tracks' holds none"):
        Regression().sampler(data.train, 1, 1, 1)


def test_cameras_do_not_vary_images_with_classes(store: ImageStore) -> None:
    message = "as drawings or as photos, and not by cameras, which is for frames of rail lines: set it to one of these"
    with pytest.raises(HandfulError, match=message):
        EpisodeSampler(store.train, 3, 1, 1, augment="cameras")
    with pytest.raises(HandfulError, match=message):
        ImageSampler(store.train, augment="cameras")
    with pytest.raises(HandfulError, match="There is no augmentation 'photo'; did you mean 'photos'"):
        ImageSampler(store.train, augment="photo")  # type: ignore[arg-type]


def test_single_frames_have_no_support_to_add_to() -> None:
    with pytest.raises(
        HandfulError,
        match=r"'row_regression' adds to the mean line of a support, .*: leave pretrain out, or set decoder.residual",
    ):
        RailLines({"name": "row_regression"}).examples(frames().train, 0, "none")
    RailLines({"name": "row_regression", "residual": False}).examples(frames().train, 0, "none")


def test_a_backbone_for_classes_has_no_maps() -> None:
    method = MAML(conv4(channels=4, input_shape=(3, 16, 16)))
    method.problem = RailLines()
    with pytest.raises(HandfulError, match="gives no maps at strides 8, 16 and 32"):
        method.attach_head(2)
