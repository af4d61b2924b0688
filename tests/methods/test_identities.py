"""What must hold exactly of the gradient-based family, M1 to M17, in float64 against plain formulas."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.func import functional_call

import handful.inner_loop.tasks
import handful.methods.adaptation
from handful.backbones import mlp
from handful.data.store import ImageStore
from handful.episodes import Episode
from handful.errors import HandfulError
from handful.evaluation import evaluate_method
from handful.inner_loop import GradientDescent, NormStats, adapt
from handful.methods import ANIL, MAML, METHODS, GradientBased, MAMLPlusPlus, MetaSGD
from handful.methods.gradient_based import Backprop
from handful.methods.maml_plus_plus import EPOCH, AnnealedWeights
from handful.methods.reptile import displacement
from handful.problems import Regression
from handful.recipe import Protocol
from tests.methods.family import (
    FAMILY,
    LR,
    STEPS,
    TASKS,
    WAY,
    Picture,
    Smooth,
    central_differences,
    close,
    differ,
    episode,
    flat,
    gradient,
    group_norm,
    made,
    of_network,
    plain_gradient,
)

EVERY = list(FAMILY)


def task(b: int = 0) -> Episode:
    """One task alone."""
    return episode().tasks(b, b + 1)


def losses_of(method: GradientBased, params: dict[str, Tensor], x: Tensor, y: Tensor) -> Tensor:
    """Cross-entropy of one task under some parameters, by the network itself in training mode."""
    buffers = {name: value.clone() for name, value in method.network.named_buffers()}
    return F.cross_entropy(functional_call(method.network, {**params, **buffers}, (x,)), y)


def gradient_at(method: GradientBased, params: dict[str, Tensor], x: Tensor, y: Tensor) -> dict[str, Tensor]:
    leaves = {name: value.detach().requires_grad_() for name, value in params.items()}
    return dict(zip(leaves, torch.autograd.grad(losses_of(method, leaves, x, y), list(leaves.values()))))


def theta_of(method: GradientBased) -> dict[str, Tensor]:
    return {name: value.detach() for name, value in method.network.named_parameters()}


def adapted(method: GradientBased, batch: Episode, steps: int) -> dict[str, Tensor]:
    """The parameters that the method itself reaches, [B, ...]."""
    *_, params = method.adaptation(batch, "batch").steps(steps)
    return dict(params)


def test_maml_gradient_is_that_of_finite_differences() -> None:
    """(M1) over three steps, along random directions."""
    method, batch = made(MAML, inner_lr=LR, inner_steps=STEPS), episode()
    analytic = flat(gradient(method, batch))
    parameters = list(method.parameters())
    generator = torch.Generator().manual_seed(2)
    for _ in range(3):
        direction = [torch.randn(p.shape, dtype=torch.float64, generator=generator) for p in parameters]
        numeric = central_differences(lambda: method(batch).loss, parameters, direction)
        along = analytic @ torch.cat([d.flatten() for d in direction])
        assert along.item() == pytest.approx(numeric, rel=1e-7)


def test_one_step_is_the_query_gradient_times_i_minus_a_h() -> None:
    """(M2) with the Hessian of the support loss written out."""
    method, batch = made(MAML, inner_lr=LR, inner_steps=1), task()
    theta = theta_of(method)
    names, sizes = list(theta), [value.numel() for value in theta.values()]

    def support_loss(vector: Tensor) -> Tensor:
        params = {name: part.view_as(theta[name]) for name, part in zip(names, vector.split(sizes))}
        return losses_of(method, params, batch.support_x[0], batch.support_y[0])

    hessian = torch.autograd.functional.hessian(support_loss, flat(theta))
    assert isinstance(hessian, Tensor)
    assert hessian.abs().max() > 1e-2
    slope = gradient_at(method, theta, batch.support_x[0], batch.support_y[0])
    phi = {name: value - LR * slope[name] for name, value in theta.items()}
    g_q = flat(gradient_at(method, phi, batch.query_x[0], batch.query_y[0]))
    expected = g_q - LR * hessian @ g_q
    torch.testing.assert_close(flat(gradient(method, batch)), expected, rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("first_order", [False, True])
def test_without_step_or_rate_it_is_the_plain_query_gradient(first_order: bool) -> None:
    """(M3) FOMAML and MAML alike; and no step at all leaves the network's own predictions."""
    method, batch = made(MAML, inner_lr=0.0, inner_steps=STEPS, first_order=first_order), episode()
    close(of_network(gradient(method, batch)), plain_gradient(method, batch, rate=lambda step, name: 0.0))
    nothing = {name: torch.zeros_like(value) for name, value in theta_of(method).items()}
    for b in range(TASKS):
        plain = gradient_at(method, theta_of(method), batch.query_x[b], batch.query_y[b])
        nothing = {name: total + plain[name] / TASKS for name, total in nothing.items()}
    close(of_network(gradient(method, batch)), nothing)
    predicted = made(MAML, inner_lr=LR).predict(batch, inner_steps=0)
    assert predicted.shape[0] == 1
    buffers = {name: value.clone() for name, value in method.network.named_buffers()}
    for b in range(TASKS):
        torch.testing.assert_close(
            predicted[0, b], functional_call(method.network, {**theta_of(method), **buffers}, (batch.query_x[b],))
        )


def test_first_order_is_the_gradient_at_the_adapted_point_and_not_mamls() -> None:
    """(M4)"""
    method, batch = made(MAML, inner_lr=LR, inner_steps=STEPS, first_order=True), episode()
    phi = adapted(method, batch, STEPS)
    total = {name: torch.zeros_like(value) for name, value in theta_of(method).items()}
    for b in range(TASKS):
        here = {name: value[b] for name, value in phi.items()}
        found = gradient_at(method, here, batch.query_x[b], batch.query_y[b])
        total = {name: value + found[name] / TASKS for name, value in total.items()}
    ours = of_network(gradient(method, batch))
    close(ours, total)
    assert differ(ours, of_network(gradient(made(MAML, inner_lr=LR, inner_steps=STEPS), batch)), by=1e-3)


def test_anil_is_maml_with_rate_zero_for_the_body() -> None:
    """(M5) the meta-gradient included, that of the head's learned rates too."""
    batch = episode()
    maml = made(MAML, inner_lr=LR, inner_steps=STEPS, rates="per_tensor")
    anil = made(ANIL, inner_lr=LR, inner_steps=STEPS, rates="per_tensor")
    assert isinstance(maml.optimizer, GradientDescent)
    with torch.no_grad():
        for name, index in maml.optimizer.position.items():
            if not name.startswith("head."):
                maml.optimizer.learned[index].zero_()
    torch.testing.assert_close(anil.predict(batch), maml.predict(batch))
    ours, other = gradient(anil, batch), gradient(maml, batch)
    close(of_network(ours), of_network(other))
    assert float(ours["network.backbone.conv.weight"].abs().max()) > 1e-3  # the outer loop moves the body
    for name in ("head.weight", "head.bias"):
        index = maml.optimizer.position[name]
        mine = list(anil.optimizer.learned_rates()).index(name)
        torch.testing.assert_close(ours[f"optimizer.learned.{mine}"], other[f"optimizer.learned.{index}"])


@pytest.mark.parametrize("steps", [1, STEPS])
def test_meta_sgd_of_one_constant_is_maml(steps: int) -> None:
    """(M6) and for one step and task its sizes have the gradient -g_q g_s, entry by entry."""
    method = made(MetaSGD, inner_lr=LR, inner_steps=steps)
    maml = made(MAML, inner_lr=LR, inner_steps=steps)
    close(of_network(gradient(method, episode())), of_network(gradient(maml, episode())))
    if steps == 1:
        batch = task(2)
        theta = theta_of(method)
        g_s = gradient_at(method, theta, batch.support_x[0], batch.support_y[0])
        phi = {name: value - LR * g_s[name] for name, value in theta.items()}
        g_q = gradient_at(method, phi, batch.query_x[0], batch.query_y[0])
        found = gradient(method, batch)
        close(found, {f"optimizer.learned.{index}": -g_q[name] * g_s[name] for index, name in enumerate(theta)})


def test_rates_for_every_step_of_one_constant_are_maml() -> None:
    """(M7) and their gradients add up to that of one rate for all steps."""
    each, one = (made(MAML, inner_lr=LR, inner_steps=STEPS, rates=kind) for kind in ("per_step", "per_tensor"))
    ours, shared = gradient(each, episode()), gradient(one, episode())
    close(of_network(ours), of_network(gradient(made(MAML, inner_lr=LR, inner_steps=STEPS), episode())))
    rates = [name for name in ours if name.startswith("optimizer.")]
    assert all(ours[name].shape == (STEPS,) for name in rates)
    close({name: ours[name].sum() for name in rates}, {name: shared[name] for name in rates})


def test_a_layer_of_rate_zero_is_a_layer_that_is_not_adapted() -> None:
    """(M7) second half: rates zero at every step for the convolution."""
    method = made(MAML, inner_lr=LR, inner_steps=STEPS, rates="per_step")
    assert isinstance(method.optimizer, GradientDescent)
    with torch.no_grad():
        for name in ("backbone.conv.weight", "backbone.conv.bias"):
            method.optimizer.learned[method.optimizer.position[name]].zero_()
    frozen = made(MAML, inner_lr=LR, inner_steps=STEPS, adapt=["backbone.norm", "head"])
    ours = of_network(gradient(method, episode()))
    close(ours, of_network(gradient(frozen, episode())))
    assert differ(ours, of_network(gradient(made(MAML, inner_lr=LR, inner_steps=STEPS), episode())))


def test_all_weight_on_the_last_step_is_maml() -> None:
    """(M8) and any other weights are the weighted sum of the plain loop."""
    plain: dict[str, Any] = {"per_step_rates": False, "per_step_norm": False, "inner_lr": LR, "inner_steps": STEPS}
    last, annealed = made(MAMLPlusPlus, multi_step_epochs=0, **plain), made(MAMLPlusPlus, multi_step_epochs=15, **plain)
    maml = of_network(gradient(made(MAML, inner_lr=LR, inner_steps=STEPS), episode()))
    close(of_network(gradient(last, episode())), maml)
    annealed.outer_step = 15 * EPOCH
    close(of_network(gradient(annealed, episode())), maml)
    annealed.outer_step = 4 * EPOCH
    weights = AnnealedWeights(15)(4 * EPOCH, STEPS)
    assert all(weight > 0.1 for weight in weights)
    ours = of_network(gradient(annealed, episode()))
    close(ours, plain_gradient(annealed, episode(), weights=weights))
    assert differ(ours, maml)


def test_zero_shot_is_the_share_of_the_loss_before_any_step() -> None:
    """The gradient is that share of the plain query loss's, and the rest of MAML's."""
    method = made(MAML, inner_lr=LR, inner_steps=STEPS, zero_shot=0.3)
    adapted = plain_gradient(method, episode())
    before = plain_gradient(method, episode(), rate=lambda step, name: 0.0)
    assert differ(adapted, before)
    close(of_network(gradient(method, episode())), {name: 0.3 * before[name] + 0.7 * adapted[name] for name in adapted})


@pytest.mark.parametrize(("steps", "epochs"), [(5, 15), (5, 10), (3, 4), (1, 7)])
def test_weights_of_the_steps_follow_the_published_formula(steps: int, epochs: int) -> None:
    """(M8) second half: they sum to 1 at every epoch, the last one only grows and the others only shrink."""
    before: list[float] | None = None
    for epoch in range(epochs + 3):
        weights = list(AnnealedWeights(epochs)(epoch * EPOCH, steps))
        assert weights == list(AnnealedWeights(epochs)(epoch * EPOCH + EPOCH - 1, steps))  # constant in an epoch
        assert sum(weights) == pytest.approx(1, abs=1e-12)
        if epoch < epochs:
            early = max(1 / steps - epoch / (steps * epochs), 0.03 / steps)
            last = min(1 / steps + epoch * (steps - 1) / (steps * epochs), 1 - (steps - 1) * 0.03 / steps)
            assert weights == pytest.approx([early] * (steps - 1) + [last])
        else:
            assert weights == [0.0] * (steps - 1) + [1.0]
        if before:
            assert weights[-1] >= before[-1]
            assert all(now <= then for now, then in zip(weights[:-1], before[:-1]))
        before = weights


def test_weights_of_the_published_run() -> None:
    """(M8) in numbers: five steps, fifteen epochs; the floor of 0.006 acts in no epoch of these."""
    weights = AnnealedWeights(15)
    for epoch, early, last in ((0, 0.2, 0.2), (5, 0.13333, 0.46667), (14, 0.01333, 0.94667), (15, 0.0, 1.0)):
        assert list(weights(epoch * EPOCH, 5)) == pytest.approx([early] * 4 + [last], abs=1e-5)
    assert AnnealedWeights(100)(99 * EPOCH, 5)[0] == pytest.approx(0.006)


def reptile(rate: float, steps: int) -> GradientBased:
    """Reptile with gradient descent inside."""

    def build(backbone: nn.Module) -> GradientBased:
        optimizer = GradientDescent(rate, "fixed", steps)
        return GradientBased(backbone, optimizer=optimizer, inner_steps=steps, objective=displacement)

    return made(build)


@pytest.mark.parametrize("steps", [1, STEPS])
def test_reptile_moves_along_the_inner_gradients(steps: int) -> None:
    """(M9) one step: the gradient of the joint loss; k steps: the sum of the gradients on the way, mean over tasks."""
    method, batch = reptile(LR, steps), episode()
    total = {name: torch.zeros_like(value) for name, value in theta_of(method).items()}
    for b in range(TASKS):
        phi = theta_of(method)
        for _ in range(steps):
            found = gradient_at(method, phi, batch.support_x[b], batch.support_y[b])
            phi = {name: value - LR * found[name] for name, value in phi.items()}
            total = {name: value + found[name] / TASKS for name, value in total.items()}
    ours = {name: value / LR for name, value in of_network(gradient(method, batch)).items()}
    close(ours, total)


def test_reptile_of_outer_rate_one_and_zero() -> None:
    """(M9) second half: one task and rate 1 end at phi, rate 0 changes nothing."""
    for rate in (1.0, 0.0):
        method, batch = reptile(LR, STEPS), task(1)
        before = {name: value.clone() for name, value in theta_of(method).items()}
        phi = {name: value[0].detach() for name, value in adapted(method, batch, STEPS).items()}
        optimizer = torch.optim.SGD(method.parameters(), lr=rate)
        method(batch).loss.backward()
        optimizer.step()
        close(theta_of(method), phi if rate else before, rtol=1e-12)
        assert differ(theta_of(method), before) == bool(rate)


@pytest.mark.parametrize("name", EVERY)
def test_order_of_supports_and_of_tasks_does_not_matter(name: str) -> None:
    """(M10) and the gradient of a batch is the mean of its tasks' own."""
    adam = name == "reptile"  # which goes on from task to task, and blows rounding up where a gradient is zero, as
    # that of a bias before batch norm: so it is made anew each time, with another norm
    options: dict[str, Any] = {"inner_batch": None, "backbone": lambda: Smooth(group_norm)} if adam else {}

    def found(batch: Episode) -> dict[str, Tensor]:
        return gradient(made(METHODS[name], **options), batch)

    whole, batch = found(episode()), episode()
    tasks, rows = torch.tensor([3, 0, 2, 1]), torch.tensor([4, 1, 0, 5, 3, 2])
    close(found(Episode(*(tensor[tasks] for tensor in batch))), whole)
    shuffled = batch._replace(support_x=batch.support_x[:, rows], support_y=batch.support_y[:, rows])
    close(found(shuffled), whole)
    single = [found(task(b)) for b in range(TASKS)]
    close({key: torch.stack([one[key] for one in single]).mean(0) for key in whole}, whole)


def test_names_of_classes_matter_only_together_with_the_head() -> None:
    """(M11) other labels with the head's rows moved along: the same loss; labels alone: not, unless rows agree."""
    batch, order = episode(), torch.tensor([2, 0, 1])
    renamed = batch._replace(support_y=order[batch.support_y], query_y=order[batch.query_y])
    method = made(MAML, inner_lr=LR, inner_steps=STEPS)
    loss, alone = method(batch).loss.item(), method(renamed).loss.item()
    assert abs(loss - alone) > 1e-3
    head = method.network.get_submodule("head")
    assert isinstance(head, nn.Linear)
    nn.init.uniform_(head.bias)
    loss = method(batch).loss.item()
    weight, bias = head.weight.detach().clone(), head.bias.detach().clone()
    with torch.no_grad():
        head.weight[order], head.bias[order] = weight, bias
    assert method(renamed).loss.item() == pytest.approx(loss, rel=1e-12)
    with torch.no_grad():
        head.weight.copy_(weight[:1].expand(WAY, -1))
        head.bias.copy_(bias[:1].expand(WAY))
    assert method(renamed).loss.item() == pytest.approx(method(batch).loss.item(), rel=1e-12)


def test_a_zero_head_takes_a_step_to_the_class_means() -> None:
    """(M12) w_c moves by a/n sum (onehot - 1/N) f, and the body, which the zero head hides, not at all."""
    method, batch = made(MAML, inner_lr=LR), episode()
    head = method.network.get_submodule("head")
    assert isinstance(head, nn.Linear)
    nn.init.zeros_(head.weight)
    phi = adapted(method, batch, 1)
    for b in range(TASKS):
        features = method.backbone(batch.support_x[b])
        surprise = F.one_hot(batch.support_y[b], WAY).double() - 1 / WAY
        count = len(features)
        torch.testing.assert_close(phi["head.weight"][b], LR / count * surprise.T @ features, rtol=1e-9, atol=1e-12)
        torch.testing.assert_close(phi["head.bias"][b], LR / count * surprise.sum(0), rtol=1e-9, atol=1e-12)
        assert torch.equal(phi["backbone.conv.weight"][b], theta_of(method)["backbone.conv.weight"])


@pytest.mark.parametrize("recompute", [False, True])
def test_quadratic_losses_have_their_closed_form(recompute: bool) -> None:
    """(M13) phi_S = p* + (I - aH)^S (theta - p*), and the meta-gradient (I - aH)^S (H_q phi_S - b_q)."""
    generator = torch.Generator().manual_seed(3)
    size, steps, rate = 5, 4, 0.1
    draw = torch.randn(2, TASKS, size, size, dtype=torch.float64, generator=generator)
    h_s, h_q = draw @ draw.mT + torch.eye(size)
    b_s, b_q = torch.randn(2, TASKS, size, dtype=torch.float64, generator=generator)
    theta = torch.randn(size, dtype=torch.float64, generator=generator, requires_grad=True)

    def quadratic(h: Tensor, b: Tensor, p: Tensor) -> Tensor:
        return torch.einsum("bi,bij,bj->b", p, h, p) / 2 - (b * p).sum(1)

    *_, params = adapt(
        lambda step, params: quadratic(h_s, b_s, params["p"]),
        {"p": theta.expand(TASKS, size)},
        GradientDescent(rate, "fixed", steps).step,
        steps,
        differentiable=True,
        recompute=recompute,
    )
    best = torch.linalg.solve(h_s, b_s.unsqueeze(-1)).squeeze(-1)
    shrink = torch.linalg.matrix_power(torch.eye(size) - rate * h_s, steps)
    expected = best + torch.einsum("bij,bj->bi", shrink, theta.detach() - best)
    torch.testing.assert_close(params["p"], expected, rtol=1e-10, atol=1e-10)
    (found,) = torch.autograd.grad(quadratic(h_q, b_q, params["p"]).sum(), theta)
    slope = torch.einsum("bij,bj->bi", h_q, expected) - b_q
    torch.testing.assert_close(found, torch.einsum("bij,bj->i", shrink.mT, slope), rtol=1e-10, atol=1e-9)


@pytest.mark.parametrize("name", EVERY)
def test_nothing_is_written_by_training_prediction_and_fit(name: str) -> None:
    """(M14) values, identities and buffers; only what a method says it keeps from task to task changes in training."""
    method, batch = made(METHODS[name]), episode()
    before = {key: value.clone() for key, value in method.state_dict().items()}
    identities = {key: id(value) for key, value in method.named_parameters()}
    first, second = method.predict(batch), method.predict(batch)
    assert torch.equal(first, second)
    method.fit(batch.support_x[0], batch.support_y[0])
    same_as(method, before, identities)
    method(batch).loss.backward()
    kept = {"reptile": "optimizer.", "maml++": "norms."}.get(name, "nothing")
    same_as(method, {key: value for key, value in before.items() if not key.startswith(kept)}, identities)
    assert not first.requires_grad


def same_as(method: GradientBased, before: dict[str, Tensor], identities: dict[str, int]) -> None:
    after = method.state_dict()
    assert all(torch.equal(after[key], value) for key, value in before.items())
    assert {key: id(value) for key, value in method.named_parameters()} == identities


@pytest.mark.parametrize("name", EVERY)
def test_an_evaluation_is_bit_equal_when_repeated(name: str, store: ImageStore) -> None:
    """(M14) second half: with one seed, after other work in between."""

    method = made(METHODS[name], Picture).float()
    protocol = Protocol(way=WAY, shot=1, query=2, tasks=6)
    first = evaluate_method(method, store.test, protocol, seed=3)
    evaluate_method(method, store.val, protocol, seed=4)
    torch.rand(7)
    assert replace(evaluate_method(method, store.test, protocol, seed=3), seconds=first.seconds) == first


def test_equal_norms_for_every_step_are_plain_batch_norm_that_is_not_adapted() -> None:
    """(M15) the rows' gradients add up to those of the one scale and shift."""
    options: dict[str, Any] = {"inner_lr": LR, "inner_steps": STEPS}
    rows = made(MAMLPlusPlus, multi_step_epochs=0, per_step_rates=False, **options)
    plain = made(MAML, adapt=["backbone.conv", "head"], **options)
    torch.testing.assert_close(rows.predict(episode()), plain.predict(episode()))
    ours, other = gradient(rows, episode()), of_network(gradient(plain, episode()))
    for index, name in enumerate(("backbone.norm.weight", "backbone.norm.bias")):
        shared = other.pop(name)
        found = ours[f"norms.affine.{index}"]
        assert found.shape == (STEPS, 4)
        assert float(shared.abs().max()) > 1e-4
        torch.testing.assert_close(found.sum(0), shared, rtol=1e-9, atol=1e-12)
    close(of_network(ours), other)


def test_a_step_without_norm_of_its_own_is_refused() -> None:
    """(M15) second half."""
    method = made(MAMLPlusPlus, inner_steps=2, per_step_rates=False)
    method.predict(episode(), inner_steps=2)
    with pytest.raises(HandfulError, match=r"Inner step 3 has no batch-norm row: .*rows for 2 inner steps"):
        method.predict(episode(), inner_steps=3)


@pytest.mark.parametrize("grouped", [0, 1000])
@pytest.mark.parametrize("norm_stats", ["batch", "support", "support+1", "running", "per_step"])
def test_only_batch_statistics_make_a_prediction_depend_on_its_mates(
    norm_stats: NormStats, grouped: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """(M16) with the queries of all tasks side by side, and task by task."""
    for module in (handful.inner_loop.tasks, handful.methods.adaptation):
        monkeypatch.setattr(module, "GROUPED_IMAGES", grouped)
    method, batch = made(MAMLPlusPlus, inner_steps=2), episode()
    method(batch)  # the rows have seen a batch
    norm = method.backbone.get_submodule("norm")
    assert isinstance(norm, nn.BatchNorm2d)
    assert norm.num_batches_tracked is not None
    norm.num_batches_tracked.fill_(1)
    few = batch._replace(query_x=batch.query_x[:, :2], query_y=batch.query_y[:, :2])
    whole, part = (method.predict(each, norm_stats=norm_stats) for each in (batch, few))
    gap = float((whole[:, :, :2] - part).abs().max())
    assert gap > 1e-2 if norm_stats == "batch" else gap < 1e-12


@pytest.mark.parametrize("backprop", ["graph", "recompute"])
def test_a_linear_network_with_squared_errors_is_solved_exactly(backprop: Backprop) -> None:
    """(M17) the Hessian 2/n X'X is constant, so both the adapted weights and the meta-gradient are known."""
    method = MAML(mlp((), input_shape=(3,)), inner_lr=0.1, inner_steps=STEPS, backprop=backprop)
    method.problem = Regression()
    torch.manual_seed(0)
    method.attach_head(1)
    method.double()
    x, y = torch.randn(2, TASKS, 7, 3, dtype=torch.float64), torch.randn(2, TASKS, 7, 1, dtype=torch.float64)
    batch = Episode(x[0], y[0], x[1], y[1])
    theta = torch.cat([value.detach().flatten() for value in method.parameters()])  # weight [3], bias
    expected = torch.zeros(4, dtype=torch.float64)
    phi = adapted(method, batch, STEPS)
    for b in range(TASKS):
        (support, query) = (torch.cat([part[b], torch.ones(7, 1)], 1) for part in x)
        hessian, pull = 2 / 7 * support.T @ support, 2 / 7 * support.T @ y[0, b, :, 0]
        shrink = torch.linalg.matrix_power(torch.eye(4) - 0.1 * hessian, STEPS)
        best = torch.linalg.solve(hessian, pull)
        solved = best + shrink @ (theta - best)
        reached = torch.cat([phi["head.weight"][b].flatten(), phi["head.bias"][b]])
        torch.testing.assert_close(reached, solved, rtol=1e-10, atol=1e-12)
        expected += shrink @ (2 / 7 * query.T @ (query @ solved - y[1, b, :, 0])) / TASKS
    torch.testing.assert_close(flat(gradient(method, batch)), expected, rtol=1e-10, atol=1e-12)
