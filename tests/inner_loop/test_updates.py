"""Inner optimizers: the four kinds of rates, and Reptile's Adam against torch's own."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from handful.errors import HandfulError
from handful.inner_loop import GradientDescent, InnerAdam, Params, Rates, ScaledDescent

TASKS, STEPS, LR = 3, 4, 0.25
START = {"weight": torch.arange(6.0, dtype=torch.float64).view(2, 3) / 3, "bias": torch.ones(2, dtype=torch.float64)}


def stacked() -> dict[str, Tensor]:
    return {name: value.expand(TASKS, *value.shape) for name, value in START.items()}


def drawn(seed: int, tasks: int = TASKS) -> dict[str, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    return {
        name: torch.randn(tasks, *value.shape, dtype=torch.float64, generator=generator)
        for name, value in START.items()
    }


def descent(kind: Rates) -> GradientDescent:
    optimizer = GradientDescent(LR, kind, STEPS)
    optimizer.attach(START)
    return optimizer


@pytest.mark.parametrize(
    ("kind", "shapes"),
    [
        ("per_tensor", {"weight": (), "bias": ()}),
        ("per_step", {"weight": (STEPS,), "bias": (STEPS,)}),
        ("per_element", {"weight": (2, 3), "bias": (2,)}),
    ],
)
def test_learned_rates_are_named_and_begin_at_the_inner_rate(kind: Rates, shapes: dict[str, tuple[int, ...]]) -> None:
    optimizer = descent(kind)
    found = optimizer.learned_rates()
    assert {name: tuple(value.shape) for name, value in found.items()} == shapes
    assert all(value.eq(LR).all() and not value.requires_grad for value in found.values())
    assert [tuple(p.shape) for p in optimizer.parameters()] == list(shapes.values())
    assert all(p.requires_grad for p in optimizer.parameters())


def test_a_fixed_rate_is_no_parameter() -> None:
    optimizer = descent("fixed")
    assert optimizer.learned_rates() == {}
    assert list(optimizer.parameters()) == []


@pytest.mark.parametrize("kind", ["fixed", "per_tensor", "per_step", "per_element"])
def test_a_step_is_the_parameter_less_rate_times_gradient(kind: Rates) -> None:
    """Entry by entry, with rates of either sign that differ by tensor, step and entry."""
    optimizer = descent(kind)
    with torch.no_grad():
        for rate in optimizer.learned:
            rate.copy_(torch.linspace(-0.5, 1, rate.numel()).view(rate.shape) if rate.dim() else rate * 3)
    params, grads = stacked(), drawn(0)
    for step in range(STEPS):
        moved = optimizer.start(params)(step, params, grads)
        for index, name in enumerate(START):
            learned = optimizer.learned[index].detach() if kind != "fixed" else torch.tensor(LR)
            rate = learned[step] if kind == "per_step" else learned
            for b in range(TASKS):
                torch.testing.assert_close(moved[name][b], START[name] - rate * grads[name][b])


def test_an_unknown_kind_of_rates() -> None:
    with pytest.raises(HandfulError, match=r"no kind of rates 'per_tenser'; did you mean 'per_tensor'\?"):
        GradientDescent(LR, "per_tenser", STEPS)  # type: ignore[arg-type]


def test_a_step_without_rate_of_its_own_is_refused() -> None:
    optimizer = descent("per_step")
    optimizer.step(STEPS - 1, stacked(), drawn(0))
    with pytest.raises(HandfulError, match=r"Inner step 5 has no learned rate: .* 4 inner steps; use inner_steps=4"):
        optimizer.step(STEPS, stacked(), drawn(0))
    descent("per_tensor").step(STEPS, stacked(), drawn(0))  # shared by all steps, there is one for any


class TorchAdam:
    """Reptile's inner loop by torch: one Adam with beta1 = 0, never reset, and the model put back after every task."""

    def __init__(self) -> None:
        self.values = {name: value.clone().requires_grad_() for name, value in START.items()}
        self.adam = torch.optim.Adam(self.values.values(), lr=LR, betas=(0.0, 0.999))

    def task(self, gradients: list[dict[str, Tensor]]) -> dict[str, Tensor]:
        with torch.no_grad():
            for name, value in self.values.items():
                value.copy_(START[name])
        for grads in gradients:
            for name, value in self.values.items():
                value.grad = grads[name][0].clone()
            self.adam.step()
        return {name: value.detach().clone() for name, value in self.values.items()}


def test_inner_adam_is_torchs_over_several_steps_and_from_task_to_task() -> None:
    """One task at a time: from zero moments, and then from those that the task before left."""
    optimizer, torchs = InnerAdam(LR), TorchAdam()
    optimizer.attach(START)
    optimizer.double()
    for number in range(3):
        gradients = [drawn(10 * number + step, tasks=1) for step in range(STEPS)]
        params = {name: value[None] for name, value in START.items()}
        update = optimizer.start(params)
        for step, grads in enumerate(gradients):
            params = dict(update(step, params, grads))
        optimizer.keep(update)
        for name, value in torchs.task(gradients).items():
            torch.testing.assert_close(params[name][0], value, rtol=1e-9, atol=1e-12)


def test_what_adam_keeps_is_the_mean_over_tasks_in_any_order() -> None:
    """v after the steps of every task by the plain recursion; nothing is kept of tasks that nobody asked to keep."""
    kept = []
    for order in ([0, 1, 2], [2, 0, 1]):
        optimizer = InnerAdam(LR)
        optimizer.attach(START)
        optimizer.double()
        params, gradients = stacked(), [{n: g[order] for n, g in drawn(step).items()} for step in range(STEPS)]
        update = optimizer.start(params)
        for step, grads in enumerate(gradients):
            params = dict(update(step, params, grads))
        assert int(optimizer.get_buffer("steps")) == 0
        assert not optimizer.get_buffer("second_moment0").any()
        optimizer.keep(update)
        kept.append(optimizer.state_dict())
    expected = torch.zeros(TASKS, 2, 3, dtype=torch.float64)
    for step in range(STEPS):
        expected = 0.999 * expected + 0.001 * drawn(step)["weight"] ** 2
    torch.testing.assert_close(kept[0]["second_moment0"], expected.mean(0))
    assert int(kept[0]["steps"]) == STEPS
    for name, value in kept[0].items():
        torch.testing.assert_close(kept[1][name], value, rtol=1e-12, atol=0)


def test_adams_state_is_saved_with_the_weights_and_is_not_learned() -> None:
    optimizer = InnerAdam(LR)
    optimizer.attach(START)
    assert set(optimizer.state_dict()) == {"steps", "second_moment0", "second_moment1"}
    assert list(optimizer.parameters()) == []
    assert optimizer.learned_rates() == {}


class TestScaledDescent:
    def scaled(self, kind: Rates = "fixed") -> ScaledDescent:
        optimizer = ScaledDescent(LR, kind, STEPS)
        optimizer.attach(START)
        return optimizer

    def test_is_torchs_adam_without_first_moment_begun_anew_for_every_task(self) -> None:
        optimizer = self.scaled()
        for _ in range(2):
            update = optimizer.start(stacked())
            params: Params = stacked()
            plain = [{n: v.clone().requires_grad_() for n, v in START.items()} for _ in range(TASKS)]
            adams = [torch.optim.Adam(task.values(), LR, betas=(0.0, 0.999)) for task in plain]
            for step in range(STEPS):
                grads = drawn(step)
                params = update(step, params, grads)
                for number, (task, adam) in enumerate(zip(plain, adams)):
                    for name, value in task.items():
                        value.grad = grads[name][number].clone()
                    adam.step()
            for name in START:
                torch.testing.assert_close(params[name], torch.stack([task[name].detach() for task in plain]))

    def test_a_step_that_is_computed_again_is_the_same(self) -> None:
        update, params = self.scaled().start(stacked()), stacked()
        seen: list[Params] = [params]
        for step in range(STEPS):
            seen.append(update(step, seen[-1], drawn(step)))
        for step in reversed(range(STEPS)):
            again = update(step, seen[step], drawn(step))
            assert all(torch.equal(again[name], seen[step + 1][name]) for name in START)

    def test_its_rate_is_learned_through_the_step_it_scales(self) -> None:
        optimizer, grads = self.scaled("per_tensor"), drawn(0)
        moved = optimizer.start(stacked())(0, stacked(), grads)
        sum(value.sum() for value in moved.values()).backward()  # type: ignore[union-attr]
        for name, index in optimizer.position.items():
            rate = optimizer.learned[index].grad
            assert rate is not None
            assert rate.item() == pytest.approx(-grads[name].sign().sum().item(), abs=1e-6)
