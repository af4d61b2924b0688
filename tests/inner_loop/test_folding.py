"""Folding tasks into channels: equal to a loop over tasks, or not done at all."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.func import functional_call

from handful.errors import HandfulError
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
    "its own shape": lambda: Wrap(lambda x: x if x.shape[1] == 3 and x.dim() == 4 else -x),
    "flattened by its size": lambda: Wrap(lambda x: x.view(x.size(0), -1)),
    "flattened by its length": lambda: Wrap(lambda x: x.reshape(len(x), 192)),
    "flattened by what is left": lambda: Wrap(lambda x: torch.reshape(x, (-1, 192))),
    "positions in a row, and back": lambda: Wrap(lambda x: x.view(-1, *x.shape[1:2], 64).reshape(x.shape)),
    "channels divided": lambda: Wrap(lambda x: x.flatten(1).view(x.size(0), 6, 4, -1)),
    "differences": lambda: Wrap(lambda x: (2 * x - x * x + (1 - x)) - 3 + (4 + x)),
    "a weight that is bounded": lambda: Wrap(lambda x, w: F.conv2d(x, torch.tanh(w) / 2), (2, 3, 3, 3)),
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
    "instance norm": lambda: nn.InstanceNorm2d(3, affine=True),
    "layer norm": lambda: nn.LayerNorm([3, 8, 8]),
    "mean by another keyword": lambda: Wrap(lambda x: x.mean(axis=(2, 3))),
    "flatten by keyword": lambda: Wrap(lambda x: torch.flatten(input=x, start_dim=1)),
    "linear on maps": lambda: nn.Linear(8, 2),
    "a mean over a kernel": lambda: Wrap(lambda x, w: F.linear(x.mean((2, 3)), w.mean((2, 3))), (2, 3, 3, 3)),
    "a kernel as a matrix": lambda: Wrap(lambda x, w: F.linear(x.flatten(1), torch.flatten(w, 1)), (1, 3, 8, 8)),
    "a kernel as a matrix by view": lambda: Wrap(lambda x, w: F.linear(x.flatten(1), w.view(2, -1)), (2, 3, 8, 8)),
    "a table through a layer": lambda: Wrap(lambda x, w: torch.tanh(F.linear(torch.eye(4), w)), (3, 4)),
    "an activation as a matrix": lambda: Wrap(lambda x: F.linear(x.mean((2, 3)), x.mean((2, 3)))),
    "an activation as a matrix by name": lambda: Wrap(lambda x: F.linear(x.mean((2, 3)), weight=x.mean((2, 3)))),
    "a sum of weights": lambda: Wrap(lambda x, v, w: F.linear(x.mean((2, 3)), v + w), (4, 3), (4, 3)),
    "pooling of rows": lambda: Wrap(lambda x: F.max_pool2d(x.flatten(2), 2)),
    "samples mixed": lambda: Wrap(lambda x: x.view(2, -1)),
    "a weight comes out": lambda: Wrap(lambda x, w: torch.tanh(w), (4, 3)),
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
        unfold(functional_call(module, params, (side_by_side,)), TASKS)
    forward = TaskForward(module)
    torch.testing.assert_close(forward.support(params, x), loop(module, params, x), rtol=1e-4, atol=1e-5)
    assert forward.passing[0] == "vmap"


def test_a_shared_kernel_with_a_bias_for_each_task() -> None:
    module, x = nn.Conv2d(3, 2, 3), torch.randn(TASKS, IMAGES, 3, 8, 8)
    params = {"bias": torch.randn(TASKS, 2)}
    torch.testing.assert_close(TaskForward(module).support(params, x), loop(module, params, x), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(("named", "passing"), [("vmap", ["vmap", "loop"]), ("loop", ["loop"])])
def test_a_way_that_is_named_leaves_out_those_before_it(
    named: str, passing: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """HANDFUL_TASKS, to compare: the same numbers for a network that can be folded, by the way that was named."""
    module, x = nn.Conv2d(3, 2, 3), torch.randn(TASKS, IMAGES, 3, 8, 8)
    params = stacked(module)
    folded = TaskForward(module)
    expected = folded.support(params, x)
    monkeypatch.setenv("HANDFUL_TASKS", named)
    forward = TaskForward(module)
    forward.__dict__["_folded"] = None  # nobody folds
    torch.testing.assert_close(forward.support(params, x), expected, rtol=1e-4, atol=1e-5)
    assert (folded.passing, forward.passing) == (["folded", "vmap", "loop"], passing)


def test_an_unknown_way_of_passing_tasks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HANDFUL_TASKS", "lop")
    with pytest.raises(HandfulError, match=r"no way HANDFUL_TASKS of passing tasks 'lop'; did you mean 'loop'\?"):
        TaskForward(nn.Identity())


def test_a_fault_of_the_network_is_its_own_and_nothing_is_remembered_of_it() -> None:
    """Every way fails then; the last one's error is the module's, and the next pass begins with the first way."""
    module, x = nn.Conv2d(3, 2, 3), torch.randn(TASKS, IMAGES, 4, 8, 8)
    forward = TaskForward(module)
    with pytest.raises(RuntimeError, match=r"expected input\[4, 4, 8, 8\] to have 3 channels"):
        forward.support(stacked(module), x)
    forward.support(stacked(module), x[:, :, :3])
    assert forward.passing[0] == "folded"


def test_memory_that_runs_out_is_no_reason_to_try_otherwise() -> None:
    tried = []

    def full(x: Tensor) -> Tensor:
        tried.append(x.dim())
        raise torch.OutOfMemoryError("no memory")

    with pytest.raises(torch.OutOfMemoryError):
        TaskForward(Wrap(full)).support({}, torch.randn(TASKS, IMAGES, 3, 8, 8))
    assert tried == [4]


def test_gradients_of_a_function_with_its_own_backward_are_not_folded() -> None:
    """Its backward may mix what lies side by side, here by the length of the gradient."""

    class Unit(torch.autograd.Function):
        @staticmethod
        def forward(ctx: Any, x: Tensor) -> Tensor:
            return x * 1.0

        @staticmethod
        def backward(ctx: Any, *cotangents: Tensor) -> Tensor:
            return cotangents[0] / cotangents[0].norm()

    module, x = Wrap(lambda x, w: Unit.apply(F.linear(x.mean((2, 3)), w)), (2, 3)), torch.randn(TASKS, IMAGES, 3, 8, 8)
    params = {name: value.requires_grad_() for name, value in stacked(module).items()}
    found = [
        torch.autograd.grad(run.pow(3).sum(), list(params.values()))
        for run in (TaskForward(module).support(params, x), loop(module, params, x))
    ]
    torch.testing.assert_close(*found)
