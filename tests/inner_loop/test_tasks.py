"""Tasks side by side and the inner loop, against plain loops, in float64."""

from __future__ import annotations

import copy
from collections.abc import Callable

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

import handful.inner_loop.tasks
from handful.episodes import Episode
from handful.errors import HandfulError
from handful.inner_loop import (
    GradientDescent,
    NormStats,
    TaskForward,
    adapt,
    freeze_statistics,
    per_task,
)
from handful.problems import Classification
from tests.methods.family import LR, STEPS, flat, plain_gradient

TASKS, WAY, SHOT, QUERY = 3, 3, 2, 4


def network(kind: str = "conv") -> nn.Module:
    """Small nets of several kinds; smooth activations, so that finite differences hold."""
    torch.manual_seed(0)
    kinds: dict[str, Callable[[], nn.Module]] = {
        "conv": lambda: nn.Sequential(
            nn.Conv2d(1, 4, 3, stride=2, padding=1),
            nn.BatchNorm2d(4),
            nn.Tanh(),
            nn.Flatten(),
            nn.Linear(64, WAY),
        ),
        "residual": Residual,
        "group norm": lambda: nn.Sequential(
            nn.Conv2d(1, 4, 3),
            nn.GroupNorm(2, 4),
            nn.SiLU(),
            nn.AvgPool2d(2),
            nn.Flatten(),
            nn.Linear(36, WAY),
        ),
        "mlp": lambda: nn.Sequential(nn.Flatten(), nn.Linear(64, 8), nn.Tanh(), nn.Linear(8, WAY)),
        "layer norm": lambda: nn.Sequential(nn.Flatten(), nn.LayerNorm(64), nn.Linear(64, WAY)),  # cannot be folded
    }
    return kinds[kind]().double()


class Residual(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Conv2d(1, 4, 3, padding=1)
        self.second = nn.Conv2d(4, 4, 3, padding=1, bias=False)
        self.norm = nn.BatchNorm2d(4)
        self.head = nn.Linear(4, WAY)

    def forward(self, x: Tensor) -> Tensor:
        x = torch.tanh(self.first(x))
        x = F.max_pool2d(x + self.norm(self.second(x)), 2)
        return self.head(x.mean((2, 3)))


KINDS = ("conv", "residual", "group norm", "mlp", "layer norm")


def tasks() -> Episode:
    generator = torch.Generator().manual_seed(1)
    sx = torch.randn(TASKS, WAY * SHOT, 1, 8, 8, dtype=torch.float64, generator=generator)
    qx = torch.randn(TASKS, WAY * QUERY, 1, 8, 8, dtype=torch.float64, generator=generator)
    sy, qy = (torch.arange(WAY).repeat_interleave(k).expand(TASKS, -1) for k in (SHOT, QUERY))
    return Episode(sx, sy, qx, qy)


def meta_loss(net: nn.Module, first_order: bool = False, **options: object) -> Tensor:
    sx, sy, qx, qy = tasks()
    problem = Classification()
    forward = TaskForward(net, **options)  # type: ignore[arg-type]
    *_, adapted = adapt(
        lambda step, phi: problem.loss(forward.support(phi, sx), sy),
        per_task(dict(net.named_parameters()), TASKS),
        GradientDescent(LR, "fixed", STEPS).step,
        STEPS,
        differentiable=True,
        first_order=first_order,
    )
    return problem.loss(forward.query(adapted, qx, sx), qy).mean()


def gradient(net: nn.Module, **options: object) -> Tensor:
    found = torch.autograd.grad(meta_loss(net, **options), list(net.parameters()))  # type: ignore[arg-type]
    return torch.cat([g.flatten() for g in found])


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("first_order", [False, True])
@pytest.mark.parametrize("fast_ops", [True, False])
@pytest.mark.parametrize("grouped", [0, 1000])
def test_meta_gradient_is_that_of_the_plain_loop(
    kind: str, first_order: bool, fast_ops: bool, grouped: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(handful.inner_loop.tasks, "GROUPED_IMAGES", grouped)
    net = network(kind)
    ours = gradient(net, first_order=first_order, fast_ops=fast_ops)
    plain = flat(plain_gradient(net, tasks(), first_order=first_order))
    torch.testing.assert_close(ours, plain, rtol=1e-9, atol=1e-12)


def test_foldable_nets_are_folded_and_others_are_not() -> None:
    sx, _, qx, _ = tasks()
    for kind in KINDS:
        net = network(kind)
        forward = TaskForward(net)
        forward.query(per_task(dict(net.named_parameters()), TASKS), qx, sx)
        assert forward.passing[0] == ("folded" if kind != "layer norm" else "vmap")


def test_weights_that_are_not_adapted_are_shared() -> None:
    """Only the head is adapted: the same as the plain loop over the head alone."""
    sx, *_ = tasks()
    for kind in ("conv", "residual", "group norm"):
        net = network(kind)
        head = {name: value for name, value in net.named_parameters() if value.shape[0] == WAY}
        forward = TaskForward(net)
        stacked = forward.support(per_task(head, TASKS), sx)
        for b in range(TASKS):
            torch.testing.assert_close(stacked[b], copy.deepcopy(net).train()(sx[b]))


def seen(net: nn.Module) -> None:
    """Mark running statistics as kept in training."""
    for module in net.modules():
        if isinstance(module, nn.BatchNorm2d) and module.num_batches_tracked is not None:
            module.num_batches_tracked.fill_(1)


def predictions(net: nn.Module, qx: Tensor, norm_stats: NormStats) -> Tensor:
    sx, *_ = tasks()
    return TaskForward(net, norm_stats).query(per_task(dict(net.named_parameters()), len(qx)), qx, sx)


def test_support_statistics_are_those_of_the_support_set() -> None:
    net, (sx, _, qx, _) = network(), tasks()
    ours = predictions(net, qx, "support")
    for b in range(TASKS):
        frozen = copy.deepcopy(net)
        freeze_statistics(frozen, sx[b])
        torch.testing.assert_close(ours[b], frozen(qx[b]))
        # and the support set itself is normalised exactly as batch statistics would
        torch.testing.assert_close(frozen(sx[b]), copy.deepcopy(net).train()(sx[b]))


def test_running_statistics_are_the_buffers() -> None:
    net, (_, _, qx, _) = network(), tasks()
    norm = net.get_submodule("1")
    assert isinstance(norm, nn.BatchNorm2d)
    assert norm.running_mean is not None
    norm.running_mean.fill_(0.1)
    seen(net)
    torch.testing.assert_close(predictions(net, qx, "running")[1], copy.deepcopy(net).eval()(qx[1]))


def test_unknown_statistics() -> None:
    with pytest.raises(HandfulError, match="did you mean 'batch'"):
        TaskForward(network(), "batsh")  # type: ignore[arg-type]


def test_running_statistics_that_nobody_kept() -> None:
    with pytest.raises(HandfulError, match="no running statistics: meta-training never writes them"):
        TaskForward(network(), "running")
    TaskForward(network("mlp"), "running")  # nothing to normalise, nothing to refuse
