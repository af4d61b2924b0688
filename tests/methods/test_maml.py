from __future__ import annotations

import pytest
import torch
from torch import nn

from handful.backbones import conv4
from handful.data.store import ImageStore
from handful.episodes import Episode, EpisodeSampler
from handful.errors import HandfulError
from handful.methods import MAML, GradientBased


def made(store: ImageStore, **options: object) -> GradientBased:
    torch.manual_seed(0)
    method = MAML(conv4(channels=8, input_shape=store.input_shape, downsample="stride"), **options)  # type: ignore[arg-type]
    method.attach_head(3)
    return method


@pytest.fixture
def episode(store: ImageStore) -> Episode:
    return EpisodeSampler(store.train, 3, 2, 4).episodes(0, 5)


def test_scores_after_every_inner_step_are_filled(store: ImageStore, episode: Episode) -> None:
    method = made(store, inner_lr=0.3, inner_steps=2)
    predictions = method.predict(episode, inner_steps=4)
    assert predictions.shape == (5, 5, 12, 3)
    assert (predictions[0] != predictions[1]).any()
    assert (predictions[3] != predictions[4]).any()
    # the entry of step s is what a run of s steps ends with
    torch.testing.assert_close(method.predict(episode, inner_steps=2)[-1], predictions[2])


def test_training_and_prediction_agree(store: ImageStore, episode: Episode) -> None:
    method = made(store, inner_steps=2)
    outcome = method(episode)
    predictions = method.predict(episode)[-1]
    torch.testing.assert_close(outcome.loss, method.problem.loss(predictions, episode.query_y).mean())
    torch.testing.assert_close(outcome.score, method.problem.score(predictions, episode.query_y))


def test_fit_is_the_inductive_prediction(store: ImageStore, episode: Episode) -> None:
    method = made(store, inner_steps=3)
    expected = method.predict(episode, norm_stats="support")[-1]
    for b in range(2):
        network = method.fit(episode.support_x[b], episode.support_y[b])
        torch.testing.assert_close(network(episode.query_x[b]), expected[b], rtol=1e-4, atol=1e-5)
        one_by_one = torch.cat([network(image[None]) for image in episode.query_x[b]])
        torch.testing.assert_close(one_by_one, expected[b], rtol=1e-4, atol=1e-5)


def test_unbalanced_support(store: ImageStore, episode: Episode) -> None:
    network = made(store).fit(episode.support_x[0][[0, 1, 2, 4]], episode.support_y[0][[0, 1, 2, 4]])
    assert network(episode.query_x[0]).shape == (12, 3)


def test_a_head_for_another_number_of_ways_is_refused(store: ImageStore) -> None:
    with pytest.raises(HandfulError, match=r"meta-trained for 3 ways and cannot name 4 classes.*proto-maml"):
        made(store).attach_head(4)


def test_no_inner_step() -> None:
    with pytest.raises(HandfulError, match="inner_steps is 0"):
        MAML(nn.Identity(), inner_steps=0)


def test_any_module_is_a_backbone(store: ImageStore, episode: Episode) -> None:
    """No rewritten layers: a plain module with nn.LSTM-free, unfoldable parts trains as well."""

    class Patches(nn.Module):
        out_features = 8

        def __init__(self) -> None:
            super().__init__()
            self.embed = nn.Linear(16, 8)
            self.norm = nn.LayerNorm(8)

        def forward(self, images: torch.Tensor) -> torch.Tensor:
            patches = images.unfold(2, 4, 4).unfold(3, 4, 4).reshape(len(images), 16, 16)
            return self.norm(self.embed(patches)).mean(1)

    method = MAML(Patches(), inner_lr=0.1, inner_steps=1)
    method.attach_head(3)
    method(episode).loss.backward()
    assert all(p.grad is not None and p.grad.isfinite().all() for p in method.parameters())
