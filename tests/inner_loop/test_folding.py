"""Folding tasks into channels: equal to a loop over tasks, or not done at all."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.func import functional_call

from handful.inner_loop import TaskForward
from handful.inner_loop.folding import Fold, NotFoldable, fold, unfold

TASKS = IMAGES = 4  # equal on purpose: a broadcast over the wrong one of them would go unnoticed by the shapes


class Wrap(nn.Module):
    """A function of the images, and of parameters of given shapes."""

    def __init__(self, function: Callable[..., Tensor], *shapes: tuple[int, ...]) -> None:
        super().__init__()
        self.function = function
        self.own = nn.ParameterList([torch.randn(shape) for shape in shapes])

    def forward(self, x: Tensor) -> Tensor:
        return self.function(x, *self.own)


class Plus(nn.Module):
    """x + f(x), in place."""

    def __init__(self, inner: nn.Module) -> None:
        super().__init__()
        self.inner = inner

    def forward(self, x: Tensor) -> Tensor:
        y = self.inner(x)
        y += x
        return y


FOLDED: dict[str, Callable[[], nn.Module]] = {
    "grouped convolution": lambda: nn.Conv2d(3, 6, 3, groups=3, stride=2, padding=1, bias=False),
    "dilated convolution": lambda: nn.Conv2d(3, 2, 3, dilation=2),
    "convolution by keywords": lambda: Wrap(lambda x, w: F.conv2d(x, w, stride=2, groups=1), (2, 3, 3, 3)),
    "batch norm": lambda: nn.BatchNorm2d(3),
    "1-d batch norm": lambda: nn.Sequential(nn.Flatten(), nn.Linear(192, 5), nn.BatchNorm1d(5)),
    "group norm": lambda: nn.GroupNorm(3, 3),
    "pools": lambda: nn.Sequential(nn.MaxPool2d(2), nn.AvgPool2d(2), nn.AdaptiveAvgPool2d(1)),
    "activations": lambda: nn.Sequential(nn.LeakyReLU(0.1), nn.GELU(), nn.SiLU(), nn.ELU(), nn.Sigmoid(), nn.Tanh()),
    "flatten and two linears": lambda: nn.Sequential(nn.Flatten(), nn.Linear(192, 7), nn.ReLU(), nn.Linear(7, 2)),
    "spatial mean": lambda: Wrap(lambda x: x.mean((2, 3))),
    "spatial mean kept": lambda: Wrap(lambda x: x.mean(dim=(-2, -1), keepdim=True)),
    "residual, in place": lambda: Plus(nn.Conv2d(3, 3, 3, padding=1)),
    "scaled": lambda: Wrap(lambda x: x / 25.0 + 1),
    "upsampling": lambda: nn.Upsample(scale_factor=2),
}
LEFT_TO_VMAP: dict[str, Callable[[], nn.Module]] = {
    "softmax over channels": lambda: nn.Softmax(1),
    "a slope for each channel": lambda: nn.PReLU(3),
    "an offset for each channel": lambda: Wrap(lambda x, b: x + b, (3, 1, 1)),
    "an offset for each position": lambda: Wrap(lambda x, b: x + b, (3, 8, 8)),
    "a learned number": lambda: Wrap(lambda x, b: x * b, (1,)),
    "a learned scalar": lambda: Wrap(lambda x, b: x * b, ()),
    "a mean over channels": lambda: Wrap(lambda x: x.mean(1)),
    "a sum": lambda: Wrap(lambda x: x.sum((2, 3))),
    "concatenation": lambda: Wrap(lambda x: torch.cat([x, x], 1)),
    "its own shape": lambda: Wrap(lambda x: x if x.shape[1] == 3 else -x),
    "its own size": lambda: Wrap(lambda x: x.reshape(x.size(0), -1)),
    "instance norm": lambda: nn.InstanceNorm2d(3, affine=True),
    "layer norm": lambda: nn.LayerNorm([3, 8, 8]),
    "mean by another keyword": lambda: Wrap(lambda x: x.mean(axis=(2, 3))),
    "flatten by keyword": lambda: Wrap(lambda x: torch.flatten(input=x, start_dim=1)),
    "linear on maps": lambda: nn.Linear(8, 2),
}


@pytest.fixture(autouse=True)
def seeded() -> None:
    torch.manual_seed(0)


def stacked(module: nn.Module) -> dict[str, Tensor]:
    return {name: torch.randn(TASKS, *p.shape) for name, p in module.named_parameters()}


def loop(module: nn.Module, params: dict[str, Tensor], x: Tensor) -> Tensor:
    return torch.stack(
        [functional_call(module, {name: value[b] for name, value in params.items()}, (x[b],)) for b in range(TASKS)]
    )


def test_fold_and_back() -> None:
    x = torch.randn(TASKS, 5, 3, 2, 2)
    assert fold(x).shape == (5, TASKS * 3, 2, 2)
    assert torch.equal(unfold(fold(x), TASKS), x)


@pytest.mark.parametrize("name", FOLDED)
def test_folded_is_the_loop_over_tasks(name: str) -> None:
    module, x = FOLDED[name](), torch.randn(TASKS, IMAGES, 3, 8, 8)
    params, side_by_side = stacked(module), fold(x)
    with Fold(TASKS):
        folded = functional_call(module, params, (side_by_side,))
    torch.testing.assert_close(unfold(folded, TASKS), loop(module, params, x), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("name", FOLDED)
def test_shared_weights_too(name: str) -> None:
    module, x = FOLDED[name](), torch.randn(TASKS, IMAGES, 3, 8, 8)
    side_by_side = fold(x)
    with Fold(TASKS):
        folded = module(side_by_side)
    expected = torch.stack([module(part) for part in x])
    torch.testing.assert_close(unfold(folded, TASKS), expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("name", LEFT_TO_VMAP)
def test_what_folding_cannot_do_it_leaves_to_vmap(name: str) -> None:
    module, x = LEFT_TO_VMAP[name](), torch.randn(TASKS, IMAGES, 3, 8, 8)
    params, side_by_side = stacked(module), fold(x)
    with Fold(TASKS), pytest.raises(NotFoldable):
        functional_call(module, params, (side_by_side,))
    forward = TaskForward(module)
    torch.testing.assert_close(forward.support(params, x), loop(module, params, x), rtol=1e-4, atol=1e-5)
    assert not forward.foldable


def test_a_shared_kernel_with_a_bias_for_each_task() -> None:
    module, x = nn.Conv2d(3, 2, 3), torch.randn(TASKS, IMAGES, 3, 8, 8)
    params = {"bias": torch.randn(TASKS, 2)}
    torch.testing.assert_close(TaskForward(module).support(params, x), loop(module, params, x), rtol=1e-4, atol=1e-5)
