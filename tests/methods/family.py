"""What the tests of the gradient-based family share: small smooth networks, tasks in float64, and the plain loop."""

from __future__ import annotations

import copy
from collections.abc import Callable, Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.func import functional_call
from torch.nn.utils import parametrizations

from handful.backbones import conv4
from handful.data.store import ImageStore
from handful.episodes import Episode
from handful.methods import MAML, GradientBased

TASKS, WAY, SHOT, QUERY = 4, 3, 2, 3
LR, STEPS = 0.25, 3  # a rate that float32 holds exactly
FAMILY = ("anil", "maml", "maml++", "meta-sgd", "proto-maml", "reptile")


class Smooth(nn.Module):
    """Images [n, 1, 6, 6] -> features: a backbone without corners, so that finite differences hold."""

    def __init__(self, norm: Callable[[int], nn.Module] = nn.BatchNorm2d, dropout: float = 0.0) -> None:
        super().__init__()
        self.conv = nn.Conv2d(1, 4, 3, stride=2, padding=1)
        self.norm = norm(4)
        self.drop = nn.Dropout(dropout)
        self.out_features = 36
        self.input_shape = (1, 6, 6)
        self.calls = 0

    def forward(self, images: Tensor) -> Tensor:
        self.calls += 1
        return torch.flatten(self.drop(torch.tanh(self.norm(self.conv(images)))), 1)


class Picture(Smooth):
    """For the store's images of 16x16 pixels."""

    def __init__(self, norm: Callable[[int], nn.Module] = nn.BatchNorm2d) -> None:
        super().__init__(norm)
        self.out_features = 256


class Unfoldable(Smooth):
    """The same function by a call that folding does not know, so that vmap runs it."""

    def forward(self, images: Tensor) -> Tensor:
        return super().forward(images).reshape(len(images), 36).clone()


class Odd(nn.Module):
    """Rows of an image [n, 1, 6, 6] through a function that is written as in no usual network."""

    def __init__(self, function: Callable[..., Tensor], features: int, **layers: nn.Module) -> None:
        super().__init__()
        self.function, self.out_features = function, features
        for name, layer in layers.items():
            self.add_module(name, layer)

    def forward(self, images: Tensor) -> Tensor:
        found: Tensor = self.function(self, images.squeeze(1))
        return found


class Halved(torch.autograd.Function):
    """x, and half its gradient."""

    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        return x * 1.0

    @staticmethod
    def backward(ctx: Any, *cotangents: Tensor) -> Tensor:
        return cotangents[0] * 0.5


def written(net: Any, rows: Tensor) -> Tensor:
    """Into a tensor of zeros, row after row."""
    found = torch.zeros(len(rows), 6, dtype=rows.dtype)
    for row in range(6):
        found[:, row] = net.layer(rows[:, row]).tanh().sum(-1)
    return found


def branched(net: Any, rows: Tensor) -> Tensor:
    """One way or the other, by what the images hold."""
    found: Tensor = net.layer(rows)
    return (found.tanh() if found.max() > rows.median() else found.sigmoid()).mean(1)


def tabled(net: Any, rows: Tensor) -> Tensor:
    """A fixed table through an adapted layer."""
    found: Tensor = torch.tanh(rows.mean(1) @ net.layer(torch.eye(6, dtype=rows.dtype)))
    return found


def flattened(net: Any, rows: Tensor) -> Tensor:
    """A kernel as a matrix: what a convolution over the whole image is."""
    return torch.tanh(F.linear(rows.flatten(1), net.layer.weight.flatten(1), net.layer.bias))


ODD: dict[str, Callable[[], Odd]] = {
    "LSTM": lambda: Odd(lambda net, rows: net.layer(rows)[0][:, -1], 4, layer=nn.LSTM(6, 4, batch_first=True)),
    "GRU": lambda: Odd(lambda net, rows: net.layer(rows)[1][0], 4, layer=nn.GRU(6, 4, batch_first=True)),
    "a branch on values": lambda: Odd(branched, 4, layer=nn.Linear(6, 4)),
    "written into zeros": lambda: Odd(written, 6, layer=nn.Linear(6, 4)),
    "spectral norm": lambda: Odd(
        lambda net, rows: net.layer(rows).tanh().mean(1), 4, layer=parametrizations.spectral_norm(nn.Linear(6, 4))
    ),
    "a backward of its own": lambda: Odd(
        lambda net, rows: Halved.apply(torch.tanh(net.layer(rows.flatten(1)))), 4, layer=nn.Linear(36, 4)
    ),
    "a table through a layer": lambda: Odd(tabled, 4, layer=nn.Linear(6, 4)),
    "a kernel as a matrix": lambda: Odd(flattened, 1, layer=nn.Conv2d(1, 1, 6)),
}


def group_norm(channels: int) -> nn.Module:
    return nn.GroupNorm(2, channels)


def episode(tasks: int = TASKS, way: int = WAY, shot: int = SHOT, query: int = QUERY, seed: int = 1) -> Episode:
    """Random images in float64, class-major."""
    generator = torch.Generator().manual_seed(seed)
    x = [torch.randn(tasks, way * count, 1, 6, 6, dtype=torch.float64, generator=generator) for count in (shot, query)]
    y = [torch.arange(way).repeat_interleave(count).expand(tasks, -1) for count in (shot, query)]
    return Episode(x[0], y[0], x[1], y[1])


def made(
    method: Callable[..., Any], backbone: Callable[[], nn.Module] = Smooth, ways: int = WAY, **options: Any
) -> GradientBased:
    """A method in float64 from one seed, ready for training; the weights are the same for every method."""
    torch.manual_seed(0)
    body = backbone()
    for module in body.modules():
        if (
            isinstance(module, nn.BatchNorm2d) and module.affine
        ):  # as if it had been trained: gamma 1 and beta 0 would hide mistakes
            nn.init.uniform_(module.weight, 0.5, 1.5)
            nn.init.uniform_(module.bias, -0.5, 0.5)
    found: GradientBased = method(body, **options)
    torch.manual_seed(1)
    found.attach_head(ways)
    return found.double().train()


def made_for(
    store: ImageStore, method: Callable[..., GradientBased] = MAML, channels: int = 8, **options: Any
) -> GradientBased:
    """A method over a small Conv-4 for the store's images, in float32 from one seed, ready for training on 3 ways."""
    torch.manual_seed(0)
    ready = method(conv4(channels=channels, input_shape=store.input_shape, downsample="stride"), **options)
    ready.attach_head(3)
    return ready.train()


def gradient(method: GradientBased, batch: Episode) -> dict[str, Tensor]:
    """The outer gradient by parameter name, zero where there is none."""
    learned = {name: p for name, p in method.named_parameters() if p.requires_grad}
    loss = method(batch).loss
    return dict(
        zip(learned, torch.autograd.grad(loss, list(learned.values()), allow_unused=True, materialize_grads=True))
    )


def of_network(found: dict[str, Tensor]) -> dict[str, Tensor]:
    """The part of a gradient that belongs to the initialisation, by the network's own names."""
    return {name.removeprefix("network."): g for name, g in found.items() if name.startswith("network.")}


def close(ours: dict[str, Tensor], plain: dict[str, Tensor], rtol: float = 1e-9) -> None:
    """Equal in every entry of every tensor of `plain`, which must not be trivially zero."""
    assert plain
    assert max(float(value.abs().max()) for value in plain.values()) > 1e-4
    for name, value in plain.items():
        torch.testing.assert_close(ours[name], value, rtol=rtol, atol=1e-11, msg=f"{name} differs")


def differ(ours: dict[str, Tensor], other: dict[str, Tensor], by: float = 1e-4) -> bool:
    """Whether any entry of any tensor differs clearly."""
    return any(float((ours[name] - other[name]).abs().max()) > by for name in ours)


def plain_loss(
    method: GradientBased | nn.Module,
    batch: Episode,
    rate: Callable[[int, str], Tensor | float] = lambda step, name: LR,
    steps: int = STEPS,
    inner: Sequence[str] | None = None,
    first_order: bool = False,
    weights: Sequence[float] | None = None,
) -> tuple[Tensor, dict[str, Tensor]]:
    """MAML as the paper writes it, a loop over tasks and a loop over steps: the loss and the parameters it is of.

    method: its network is adapted, or a network itself; weights: of the query losses after 1 ... steps inner steps, the
    last alone by default.
    """
    network = copy.deepcopy(method.network if isinstance(method, GradientBased) else method).train()
    theta: dict[str, Tensor] = dict(network.named_parameters())
    inner = list(theta) if inner is None else inner
    weights = weights or [0.0] * (steps - 1) + [1.0]
    losses = []

    def run(phi: dict[str, Tensor], x: Tensor) -> Tensor:
        buffers = {name: value.clone() for name, value in network.named_buffers()}
        return functional_call(network, {**buffers, **phi}, (x,))

    for support_x, support_y, query_x, query_y in zip(*batch):
        phi = dict(theta)
        for step in range(steps):
            loss = F.cross_entropy(run(phi, support_x), support_y)
            grads = torch.autograd.grad(loss, [phi[name] for name in inner], create_graph=not first_order)
            phi = {**phi, **{name: phi[name] - rate(step, name) * g for name, g in zip(inner, grads)}}
            losses.append(weights[step] * F.cross_entropy(run(phi, query_x), query_y))
    return torch.stack(losses).sum() / len(batch.support_x), theta


def plain_gradient(method: GradientBased | nn.Module, batch: Episode, **options: Any) -> dict[str, Tensor]:
    """The gradient of `plain_loss`, by the network's own names."""
    loss, theta = plain_loss(method, batch, **options)
    return dict(zip(theta, torch.autograd.grad(loss, list(theta.values()))))


def flat(tensors: dict[str, Tensor]) -> Tensor:
    return torch.cat([value.flatten() for value in tensors.values()])


def central_differences(
    loss: Callable[[], Tensor], tensors: Sequence[Tensor], direction: Sequence[Tensor], h: float = 1e-5
) -> float:
    """(loss(t + h d) - loss(t - h d)) / 2h; the tensors are left as they were."""
    kept = [value.detach().clone() for value in tensors]
    values = []
    for sign in (1, -1):
        with torch.no_grad():
            for tensor, before, d in zip(tensors, kept, direction):
                tensor.copy_(before + sign * h * d)
        values.append(loss().item())
    with torch.no_grad():
        for tensor, before in zip(tensors, kept):
            tensor.copy_(before)
    return (values[0] - values[1]) / (2 * h)
