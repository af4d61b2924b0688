"""MAML++: every switch changes something, and does what it says (weights: M8, rates: M7, norms: M15)."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from handful.errors import HandfulError
from handful.methods import MAML, GradientBased, MAMLPlusPlus
from tests.methods.family import LR, STEPS, close, differ, episode, gradient, made, of_network

OFF: dict[str, Any] = {"multi_step_epochs": 0, "per_step_rates": False, "per_step_norm": False}
SWITCHES: dict[str, Any] = {
    "multi_step_epochs": 10,
    "per_step_rates": True,
    "per_step_norm": True,
    "first_order_steps": 5,
}


def plus(**switches: Any) -> GradientBased:
    return made(MAMLPlusPlus, inner_lr=LR, inner_steps=STEPS, **{**OFF, **switches})


def test_without_its_switches_it_is_maml() -> None:
    maml = made(MAML, inner_lr=LR, inner_steps=STEPS)
    close(gradient(plus(), episode()), gradient(maml, episode()))


@pytest.mark.parametrize("switch", SWITCHES)
def test_each_switch_changes_something(switch: str) -> None:
    """The outer gradient, or for the rates what is learned at all."""
    switched, plain = plus(**{switch: SWITCHES[switch]}), plus()
    ours, without = gradient(switched, episode()), gradient(plain, episode())
    if switch == "per_step_rates":
        assert {name: value.shape for name, value in switched.learned_rates().items()} == {
            name: torch.Size([STEPS]) for name in plain.inner_names
        }
        assert max(float(ours[name].abs().max()) for name in ours if name.startswith("optimizer.")) > 1e-4
    else:
        assert differ({name: g for name, g in of_network(ours).items() if "norm" not in name}, of_network(without))
    assert not plain.learned_rates()


def test_first_order_ends_at_its_step() -> None:
    """Derivative-order annealing: up to the step before it is FOMAML, from then on MAML."""
    annealed = plus(first_order_steps=5)
    for first_order, steps in ((True, (0, 4)), (False, (5, 9))):
        maml = of_network(gradient(made(MAML, inner_lr=LR, inner_steps=STEPS, first_order=first_order), episode()))
        for step in steps:
            annealed.outer_step = step
            close(of_network(gradient(annealed, episode())), maml)


def test_the_loss_of_every_step_is_taken_under_that_steps_norms() -> None:
    """All weight on the first step moves the first row alone."""
    method = made(MAMLPlusPlus, inner_lr=LR, inner_steps=STEPS, **{**OFF, "per_step_norm": True})
    object.__setattr__(method.objective, "weights", lambda outer_step, steps: [1.0, 0.0, 0.0])
    found = gradient(method, episode())["norms.affine.0"]
    assert found[0].abs().max() > 1e-4
    assert not found[1:].any()


def test_more_steps_in_testing_than_in_training_have_neither_rates_nor_norms() -> None:
    with pytest.raises(HandfulError, match="rows for 3 inner steps"):
        plus(per_step_norm=True).predict(episode(), inner_steps=4)
    with pytest.raises(HandfulError, match="rates for 3 inner steps"):
        plus(per_step_rates=True).predict(episode(), inner_steps=4)
    assert len(plus(per_step_rates=True, per_step_norm=True).predict(episode(), inner_steps=2)) == 3
    assert len(plus().predict(episode(), inner_steps=4)) == 5


def test_a_fitted_network_has_the_norms_of_its_last_step() -> None:
    """And is the inductive prediction with support statistics."""
    method, batch = plus(per_step_norm=True), episode()
    assert method.norms is not None
    with torch.no_grad():
        for rows in method.norms.affine:
            rows.copy_(torch.rand_like(rows) + 0.5)
    for steps in (0, 2, 3):
        network = method.fit(batch.support_x[1], batch.support_y[1], inner_steps=steps).double()
        row = max(steps - 1, 0)
        assert torch.equal(network.get_parameter("backbone.norm.weight"), method.norms.affine[0][row])
        expected = method.predict(batch, inner_steps=steps, norm_stats="support")[-1, 1]
        torch.testing.assert_close(network(batch.query_x[1]), expected)
