"""Reptile: mini-batches, its Adam across tasks, both ways of testing, and training end to end (identities: M9)."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.func import functional_call

from handful.checkpoint import read_metrics
from handful.methods import GradientBased, Reptile
from handful.recipe import load_recipe
from handful.run import Run
from handful.training import train_recipe
from tests.methods.family import Smooth, close, episode, gradient, group_norm, made, of_network


def reptile(**options: Any) -> GradientBased:
    return made(Reptile, lambda: Smooth(group_norm), **{"inner_lr": 0.01, "inner_steps": 5, **options})


def rows_of(method: GradientBased, steps: int, batch: int) -> list[list[int]]:
    """The support rows of every inner step."""
    adaptation = method.adaptation(episode(), "batch")
    list(adaptation.steps(steps))
    assert adaptation.order is not None
    return [adaptation.order[step * batch : (step + 1) * batch].tolist() for step in range(steps)]


@pytest.mark.parametrize(("size", "steps"), [(2, 9), (3, 6), (4, 9), (6, 3), (10, 4)])
def test_mini_batches_go_through_the_support_without_replacement(size: int, steps: int) -> None:
    """Six images: every six in a row are all of them, whatever the size of a batch, and the rounds differ."""
    taken = [row for rows in rows_of(reptile(inner_batch=size), steps, size) for row in rows]
    assert len(taken) == size * steps
    rounds = [taken[start : start + 6] for start in range(0, len(taken) - 5, 6)]
    assert all(sorted(one) == list(range(6)) for one in rounds)
    assert len({tuple(one) for one in rounds}) > 1


def test_a_training_steps_order_is_drawn_from_its_seed_and_evaluation_has_one_order() -> None:
    method, orders = reptile(inner_batch=2), []
    for seed in (1, 2, 1):
        torch.manual_seed(seed)
        orders.append(rows_of(method.train(), 6, 2))
    assert orders[0] == orders[2] != orders[1]
    method.eval()
    orders = []
    for seed in (1, 2):
        torch.manual_seed(seed)
        orders.append(rows_of(method, 6, 2))
    assert orders[0] == orders[1]


def torch_reptile(method: GradientBased, b: int, orders: list[list[int]]) -> dict[str, Tensor]:
    """phi of one task by torch's Adam with beta1 = 0 on the plain network."""
    params = {name: p.detach().clone().requires_grad_() for name, p in method.network.named_parameters()}
    adam = torch.optim.Adam(params.values(), lr=0.01, betas=(0.0, 0.999))
    batch = episode()
    for rows in orders:
        logits = functional_call(method.network, params, (batch.support_x[b, rows],))
        adam.zero_grad()
        torch.nn.functional.cross_entropy(logits, batch.support_y[b, rows]).backward()
        adam.step()
    return {name: p.detach() for name, p in params.items()}


@pytest.mark.parametrize("size", [None, 4])
def test_the_outer_gradient_is_theta_less_mean_phi_of_plain_adam(size: int | None) -> None:
    method = reptile(inner_batch=size)
    torch.manual_seed(3)
    orders = rows_of(method, 5, size) if size else [list(range(6))] * 5
    phi = [torch_reptile(method, b, orders) for b in range(4)]
    theta = {name: p.detach() for name, p in method.network.named_parameters()}
    mean = {name: torch.stack([one[name] for one in phi]).mean(0) for name in theta}
    close(of_network(gradient(method, episode())), {name: value - mean[name] for name, value in theta.items()}, 1e-7)


def test_the_next_tasks_go_on_from_the_moments_that_were_kept() -> None:
    """So a second batch on the same weights moves otherwise; evaluation goes on from them too and keeps nothing."""
    method = reptile(inner_batch=None)
    first = gradient(method, episode())
    kept = {name: value.clone() for name, value in method.optimizer.state_dict().items()}
    assert int(kept["steps"]) == 5
    method.predict(episode(), inner_steps=3)
    assert all(torch.equal(value, kept[name]) for name, value in method.optimizer.state_dict().items())
    second = gradient(method, episode())
    assert max(float((first[name] - second[name]).abs().max()) for name in first) > 1e-4
    assert int(method.optimizer.get_buffer("steps")) == 10


def test_both_ways_of_testing_differ_and_only_one_is_transductive() -> None:
    method, batch = made(Reptile, inner_lr=0.01), episode()
    together, alone = (method.predict(batch, 3, stats)[-1] for stats in ("batch", "support+1"))
    assert (together - alone).abs().max() > 1e-2
    one = batch._replace(query_x=batch.query_x[:, 4:5], query_y=batch.query_y[:, 4:5])
    torch.testing.assert_close(method.predict(one, 3, "support+1")[-1], alone[:, 4:5])
    assert (method.predict(one, 3, "batch")[-1] - together[:, 4:5]).abs().max() > 1e-2


RECIPE = """
name: reptile
data: {{name: folder, root: {root}, image_size: 16, channels: 1}}
backbone: {{name: conv4, channels: 8, downsample: stride, pooling: flatten}}
method: {{name: reptile, inner_lr: 0.003, inner_steps: 8, inner_batch: 4}}
train: {{way: 3, shot: 4, query: 1, tasks_per_step: 3, steps: 100, optimizer: sgd, lr: 1.0, schedule: linear,
  validate_every: 50, validation_tasks: 8}}
evaluate: {{tasks: 60, shot: 1, query: 3, inner_steps: 8, also: [{{norm_stats: support+1}}, {{inner_steps: 0}}]}}
"""


def test_a_recipe_trains_end_to_end(pictures: Path, tmp_path: Path) -> None:
    """SGD of rate 1 falling to 0 in a line: the loss after adaptation goes down, and unseen classes are told apart."""
    path = tmp_path / "reptile.yaml"
    path.write_text(RECIPE.format(root=pictures), encoding="utf-8")
    _, results = train_recipe(load_recipe(str(path)), tmp_path / "run", quiet=True)
    rows = read_metrics(tmp_path / "run" / "metrics.csv")
    rates = [float(row["lr"]) for row in rows]
    assert rates == pytest.approx([1 - int(row["step"]) / 100 for row in rows], abs=1e-9)
    losses = [float(row["loss"]) for row in rows]
    assert sum(losses[-5:]) < 0.75 * sum(losses[:5])
    batch, beside, unadapted = results
    assert batch.mean > unadapted.mean + 0.2
    assert batch.mean > 0.6
    assert (batch.transductive, beside.transductive) == (True, False)
    assert beside.norm_stats == "support+1"
    opened = Run.open(tmp_path / "run")
    assert int(opened.method.state_dict()["optimizer.steps"]) > 0  # Adam's state is part of the run
