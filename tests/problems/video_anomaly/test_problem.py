"""The loss and the scores of a task, against plain formulas."""

from __future__ import annotations

import math

import pytest
import torch
from torch.testing import assert_close

from handful.backbones import conv4, unet
from handful.data.functions import LINES
from handful.episodes import Episode
from handful.errors import HandfulError
from handful.problems import VideoAnomaly, problem_of
from handful.problems.video_anomaly.floors import copied, extrapolated, least_squares
from handful.problems.video_anomaly.tasks import ClipTasks

from .conftest import Make


def drawn(*shape: int) -> torch.Tensor:
    return torch.rand(*shape, dtype=torch.float64)


class TestLoss:
    def test_is_the_plain_formula(self) -> None:
        problem = VideoAnomaly({"name": "next_frame", "prototypes": 2, "edges": 0.3, "separateness": 0.2})
        predictions, targets = drawn(2, 3, 3, 4, 5), drawn(2, 3, 1, 4, 5)
        for task in range(2):
            total = torch.zeros((), dtype=torch.float64)
            for n in range(3):
                p, t = 2 * predictions[task, n, 0] - 1, 2 * targets[task, n, 0] - 1
                squares = sum((p[y, x] - t[y, x]) ** 2 for y in range(4) for x in range(5)) / 20
                across = sum(
                    abs(abs(p[y, x + 1] - p[y, x]) - abs(t[y, x + 1] - t[y, x])) for y in range(4) for x in range(4)
                )
                down = sum(
                    abs(abs(p[y + 1, x] - p[y, x]) - abs(t[y + 1, x] - t[y, x])) for y in range(3) for x in range(5)
                )
                near, apart = predictions[task, n, 1].mean(), predictions[task, n, 2].mean()
                total = total + (squares + 0.3 * (across / 16 + down / 15) + near + 0.2 * apart) / 3
            assert_close(problem.loss(predictions, targets)[task], total)

    def test_without_prototypes_and_edges_it_is_the_squared_error(self) -> None:
        predictions, targets = drawn(2, 3, 3, 4, 5), drawn(2, 3, 3, 4, 5)
        problem = VideoAnomaly({"name": "next_frame", "edges": 0})
        problem.network(unet(widths=(4, 8), channels=3, input_shape=(12, 16, 16)), 1)
        assert_close(problem.loss(predictions, targets), 4 * (predictions - targets).square().mean((1, 2, 3, 4)))

    def test_colours_that_the_backbone_does_not_predict_are_named(self) -> None:
        problem = VideoAnomaly()
        problem.network(unet(widths=(4, 8), input_shape=(12, 16, 16)), 1)
        with pytest.raises(HandfulError, match="Frames have 3 channels, but the backbone predicts 1; set backbone"):
            problem.loss(drawn(1, 1, 1, 16, 16), drawn(1, 1, 3, 16, 16))


class TestScore:
    def test_is_the_mean_psnr(self) -> None:
        predictions, targets = drawn(2, 3, 1, 4, 4), drawn(2, 3, 1, 4, 4)
        plain = [
            sum(10 * math.log10(1 / float((predictions[b, n] - targets[b, n]).square().mean())) for n in range(3)) / 3
            for b in range(2)
        ]
        assert_close(VideoAnomaly().score(predictions, targets), torch.tensor(plain, dtype=torch.float64))

    def test_of_every_inner_step_and_of_a_perfect_frame(self) -> None:
        targets = drawn(2, 3, 1, 4, 4)
        predictions = torch.stack([targets, targets + 0.1])
        assert_close(VideoAnomaly().score(predictions, targets), torch.tensor([[100.0] * 2, [20.0] * 2]).double())

    def test_floors_are_their_predictors(self, make: Make) -> None:
        episode = ClipTasks(make().train, 2, 3).episodes(0, 2)
        problem = VideoAnomaly()
        found = problem.floors(episode)
        for name, predict in (("copy", copied), ("linear extrapolation", extrapolated)):
            plain = problem.score(torch.stack([predict(x) for x in episode.query_x]), episode.query_y)
            assert_close(found[name]["psnr"], plain)
        fitted = [least_squares(episode.support_x[b], episode.support_y[b])(episode.query_x[b]) for b in range(2)]
        assert_close(found["least squares"]["psnr"], problem.score(torch.stack(fitted), episode.query_y))


class TestParts:
    def test_the_network_starts_as_the_linear_extrapolation(self, make: Make) -> None:
        problem = VideoAnomaly({"name": "next_frame", "prototypes": 3})
        body, head = problem.network(unet(widths=(4, 8), input_shape=(4, 16, 16)), 1)
        episode: Episode = ClipTasks(make().train, 2, 2).episodes(0, 1)
        found = head(body(episode.query_x[0]))
        assert found.shape == (2, 3, 16, 16)
        assert_close(found[:, :1], extrapolated(episode.query_x[0]), rtol=0, atol=0)

    @pytest.mark.parametrize(
        ("act", "message"),
        [
            (lambda: VideoAnomaly({"name": "row_distributions"}), "'row_distributions' gives no frames"),
            (lambda: VideoAnomaly({"name": "next_fram"}), "next_frame"),
            (lambda: VideoAnomaly().network(conv4(), 1), "map"),
            (lambda: VideoAnomaly().sampler(LINES.train, 1, 1, 1), "need clips, but the data set 'lines' holds none"),
        ],
    )
    def test_what_does_not_fit_is_named(self, act, message: str) -> None:  # type: ignore[no-untyped-def]
        with pytest.raises(HandfulError, match=message):
            act()

    def test_way_and_augment_are_checked(self, make: Make) -> None:
        data = make()
        with pytest.raises(HandfulError, match="way must be 1, not 5"):
            VideoAnomaly().sampler(data.train, 5, 1, 1)
        with pytest.raises(HandfulError, match="augment varies clips as clips, and not by photos"):
            VideoAnomaly().sampler(data.train, 1, 1, 1, augment="photos")
        assert problem_of(data).name == "video_anomaly"
