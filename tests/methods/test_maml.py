from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import nn
from torch.utils.checkpoint import checkpoint

from handful.data.store import ImageStore
from handful.episodes import Episode, EpisodeSampler
from handful.errors import HandfulError
from handful.methods import MAML
from tests.methods.family import LR, ODD, STEPS, Odd, close, gradient, made, made_for, of_network, plain_gradient
from tests.methods.family import episode as batch


@pytest.fixture
def episode(store: ImageStore) -> Episode:
    return EpisodeSampler(store.train, 3, 2, 4).episodes(0, 5)


def test_scores_after_every_inner_step_are_filled(store: ImageStore, episode: Episode) -> None:
    method = made_for(store, inner_lr=0.3, inner_steps=2)
    predictions = method.predict(episode, inner_steps=4)
    assert predictions.shape == (5, 5, 12, 3)
    assert (predictions[0] != predictions[1]).any()
    assert (predictions[3] != predictions[4]).any()
    # the entry of step s is what a run of s steps ends with
    torch.testing.assert_close(method.predict(episode, inner_steps=2)[-1], predictions[2])


def test_training_and_prediction_agree(store: ImageStore, episode: Episode) -> None:
    method = made_for(store, inner_steps=2)
    outcome = method(episode)
    predictions = method.predict(episode)[-1]
    torch.testing.assert_close(outcome.loss, method.problem.loss(predictions, episode.query_y).mean())
    torch.testing.assert_close(outcome.score, method.problem.score(predictions, episode.query_y))


def test_fit_is_the_inductive_prediction(store: ImageStore, episode: Episode) -> None:
    method = made_for(store, inner_steps=3)
    expected = method.predict(episode, norm_stats="support")[-1]
    for b in range(2):
        network = method.fit(episode.support_x[b], episode.support_y[b])
        torch.testing.assert_close(network(episode.query_x[b]), expected[b], rtol=1e-4, atol=1e-5)
        one_by_one = torch.cat([network(image[None]) for image in episode.query_x[b]])
        torch.testing.assert_close(one_by_one, expected[b], rtol=1e-4, atol=1e-5)


def test_unbalanced_support(store: ImageStore, episode: Episode) -> None:
    network = made_for(store).fit(episode.support_x[0][[0, 1, 2, 4]], episode.support_y[0][[0, 1, 2, 4]])
    assert network(episode.query_x[0]).shape == (12, 3)


def test_a_head_for_another_number_of_ways_is_refused(store: ImageStore) -> None:
    with pytest.raises(HandfulError, match=r"meta-trained for 3 ways and cannot name 4 classes.*proto-maml"):
        made_for(store).attach_head(4)


def test_no_inner_step() -> None:
    with pytest.raises(HandfulError, match="inner_steps is 0"):
        MAML(nn.Identity(), inner_steps=0)


def patches(net: Any, rows: torch.Tensor) -> torch.Tensor:
    found: torch.Tensor = net.norm(net.embed(rows.unfold(1, 3, 3).unfold(2, 3, 3).reshape(len(rows), 4, 9))).mean(1)
    return found


OTHERS: dict[str, Callable[[], nn.Module]] = {
    **ODD,
    "patches": lambda: Odd(patches, 8, embed=nn.Linear(9, 8), norm=nn.LayerNorm(8)),
}


@pytest.mark.parametrize("backprop", ["graph", "recompute"])
@pytest.mark.parametrize("name", OTHERS)
def test_any_module_is_a_backbone(name: str, backprop: str) -> None:
    """Neither folding nor vmap can run all of these: the gradient is that of the plain loop, again at the next step."""
    options: dict[str, Any] = {"inner_lr": LR, "inner_steps": STEPS, "backprop": backprop}
    method = made(MAML, OTHERS[name], **options)
    for _ in range(2):
        found = of_network(gradient(method, batch()))
        close(found, plain_gradient(method, batch()))
    assert method.passing[0] == (
        "vmap" if name in ("patches", "a table through a layer", "a kernel as a matrix") else "loop"
    )


def test_activation_checkpointing_is_refused() -> None:
    """On the way back it would run the module with its own parameters: other gradients, and no error."""

    def checkpointed(net: Any, rows: torch.Tensor) -> torch.Tensor:
        found: torch.Tensor = checkpoint(net.layer, rows.mean(1), use_reentrant=False)
        return found

    for tasks in (1, 3):
        method = made(MAML, lambda: Odd(checkpointed, 4, layer=nn.Linear(6, 4)))
        with pytest.raises(HandfulError, match=r"uses activation checkpointing.*backprop='recompute'"):
            method(batch(tasks))
