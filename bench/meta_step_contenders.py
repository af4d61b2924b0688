"""What bench/meta_step.py compares: one network, one meta-training step, written with one library after another.

A contender takes a network (backbone and head in one `nn.Sequential`) and has two verbs: `outer_gradient` leaves the
gradient of the mean query loss in `parameters`, `predict` adapts without an outer gradient.  Each is
written as its library's own documentation recommends; a comment says where a choice was open.
"""

from __future__ import annotations

import copy
import math
from collections import OrderedDict
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from importlib.metadata import PackageNotFoundError, version
from importlib.util import find_spec
from typing import Any, Literal, Protocol

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.func import functional_call

from handful.backbones.conv4 import Conv4, Downsample
from handful.backbones.images import Pooling
from handful.episodes import Episode
from handful.inner_loop import GROUPED_VALUES
from handful.methods import MAML

Mode = Literal["first order", "second order", "test time", "test time, every step"]
MODES: tuple[Mode, ...] = ("second order", "first order", "test time", "test time, every step")
TRAINING: tuple[Mode, ...] = ("second order", "first order")
LIBRARIES = ("higher", "torchopt")
OUTER_LR = 2e-4


@dataclass(frozen=True)
class Setting:
    """A network and the tasks it meets."""

    name: str
    tasks: int = 8
    way: int = 5
    shot: int = 1
    query: int = 15
    steps: int = 5
    image_shape: tuple[int, int, int] = (1, 28, 28)
    channels: int = 64
    downsample: Downsample = "stride"
    pooling: Pooling = "mean"
    inner_lr: float = 0.04
    note002: bool = False

    def __str__(self) -> str:
        height, width = self.image_shape[1:]
        network = "note 002's network" if self.note002 else f"Conv-4-{self.channels} ({self.downsample})"
        return (
            f"{self.name}: {network}, {height}x{width}, {self.tasks} tasks of {self.way}-way {self.shot}-shot "
            f"{self.query}-query, {self.steps} inner steps"
        )


OMNIGLOT = Setting("omniglot")
SETTINGS = {
    setting.name: setting
    for setting in (
        OMNIGLOT,
        Setting("84x84", 4, shot=5, image_shape=(3, 84, 84), channels=32, downsample="pool", pooling="flatten"),
        replace(OMNIGLOT, name="20way", way=20),
        replace(OMNIGLOT, name="5shot", shot=5),
        replace(OMNIGLOT, name="note002", note002=True),
        Setting("tiny", 2, way=2, query=2, steps=1, channels=4),  # for trying the script out
    )
}


class NoteNetwork(nn.Module):
    """The network of note 002 up to its head: stride 2 and padding 2 and pooling, so 28 -> 7 -> 2 -> 1 -> 1."""

    out_features = 64

    def __init__(self) -> None:
        super().__init__()
        layers: list[nn.Module] = []
        for block in range(4):
            layers.append(nn.Conv2d(1 if block == 0 else 64, 64, 3, stride=2, padding=2))
            middle = [nn.BatchNorm2d(64), nn.MaxPool2d(2), nn.ReLU()]
            layers += middle if block < 3 else [nn.ReLU(), nn.BatchNorm2d(64), nn.MaxPool2d(2)]
        self.layers = nn.Sequential(*layers, nn.Flatten())

    def forward(self, x: Tensor) -> Tensor:
        return self.layers(x)


def make_network(setting: Setting) -> nn.Sequential:
    """Backbone and linear head, the same weights at every call."""
    torch.manual_seed(0)
    shape, channels = setting.image_shape, setting.channels
    backbone: NoteNetwork | Conv4 = (
        NoteNetwork() if setting.note002 else Conv4(channels, shape, setting.downsample, setting.pooling)
    )
    return nn.Sequential(OrderedDict(backbone=backbone, head=nn.Linear(backbone.out_features, setting.way)))


def make_episode(setting: Setting) -> Episode:
    """The same tasks of random pixels at every call: what the pixels show does not change what a step costs."""
    generator = torch.Generator().manual_seed(0)

    def images(each: int) -> Tensor:
        return torch.rand(setting.tasks, setting.way * each, *setting.image_shape, generator=generator)

    def labels(each: int) -> Tensor:
        return torch.arange(setting.way).repeat_interleave(each).repeat(setting.tasks, 1)

    return Episode(images(setting.shot), labels(setting.shot), images(setting.query), labels(setting.query))


class Contender(Protocol):
    """One way to write the step."""

    parameters: list[nn.Parameter]

    def outer_gradient(self, episode: Episode) -> None:
        """Leave the gradient of the mean query loss in the parameters."""

    def predict(self, episode: Episode, every_step: bool) -> Tensor:
        """Query predictions after the last inner step, [B, n, way], or after each from 0 to S, [S+1, B, n, way]."""


class PlainLoop:
    """What one writes with torch alone: a task at a time, and its graph freed before the next one's is built."""

    def __init__(self, network: nn.Module, setting: Setting, first_order: bool) -> None:
        self.network, self.setting, self.first_order = network, setting, first_order
        self.parameters = list(network.parameters())

    def outer_gradient(self, episode: Episode) -> None:
        for sx, sy, qx, qy in zip(*episode):
            fast: dict[str, Tensor] = dict(self.network.named_parameters())
            for _ in range(self.setting.steps):
                fast = self.descend(fast, sx, sy, create_graph=not self.first_order)
            (F.cross_entropy(functional_call(self.network, fast, (qx,)), qy) / len(episode.support_x)).backward()

    def predict(self, episode: Episode, every_step: bool) -> Tensor:
        tasks = [list(self.predictions(sx, sy, qx, every_step)) for sx, sy, qx, _ in zip(*episode)]
        return stack_tasks(tasks, every_step)

    def predictions(self, sx: Tensor, sy: Tensor, qx: Tensor, every_step: bool) -> Iterator[Tensor]:
        start: Iterator[tuple[str, Tensor]] = self.network.named_parameters()
        fast = {name: value.detach().requires_grad_() for name, value in start}
        for step in range(self.setting.steps + 1):
            if step > 0:
                fast = self.descend(fast, sx, sy, create_graph=False)
                fast = {name: value.detach().requires_grad_() for name, value in fast.items()}
            if every_step or step == self.setting.steps:
                with torch.no_grad():
                    yield functional_call(self.network, fast, (qx,))

    def descend(self, fast: dict[str, Tensor], x: Tensor, y: Tensor, create_graph: bool) -> dict[str, Tensor]:
        loss = F.cross_entropy(functional_call(self.network, fast, (x,)), y)
        grads = torch.autograd.grad(loss, list(fast.values()), create_graph=create_graph)
        return {name: value - self.setting.inner_lr * grad for (name, value), grad in zip(fast.items(), grads)}


class Higher:
    """`higher`, as its README and its example maml-omniglot.py write it: `innerloop_ctx`, a backward for each task."""

    def __init__(self, network: nn.Module, setting: Setting, first_order: bool) -> None:
        import higher

        self.innerloop = higher.innerloop_ctx
        self.network, self.setting, self.first_order = network, setting, first_order
        self.parameters = list(network.parameters())
        self.inner = torch.optim.SGD(network.parameters(), lr=setting.inner_lr)

    def outer_gradient(self, episode: Episode) -> None:
        tasks = len(episode.support_x)
        for sx, sy, qx, qy in zip(*episode):
            with self.innerloop(
                self.network, self.inner, copy_initial_weights=False, track_higher_grads=not self.first_order
            ) as (fast, inner):
                for _ in range(self.setting.steps):
                    inner.step(F.cross_entropy(fast(sx), sy))
                loss = F.cross_entropy(fast(qx), qy) / tasks
                if self.first_order:
                    # The library cuts the graph at every step then; its authors advise to take the gradient at the
                    # last weights and hand it to the first (facebookresearch/higher, issue 63).
                    add_gradients(self.parameters, torch.autograd.grad(loss, list(fast.parameters())))
                else:
                    loss.backward()

    def predict(self, episode: Episode, every_step: bool) -> Tensor:
        tasks = []
        for sx, sy, qx, _ in zip(*episode):
            predictions = []
            with self.innerloop(self.network, self.inner, track_higher_grads=False) as (fast, inner):
                for step in range(self.setting.steps + 1):
                    if step > 0:
                        inner.step(F.cross_entropy(fast(sx), sy))
                    if every_step or step == self.setting.steps:
                        with torch.no_grad():
                            predictions.append(fast(qx))
            tasks.append(predictions)
        return stack_tasks(tasks, every_step)


class TorchOpt:
    """TorchOpt: `MetaSGD` with extracted and recovered states, as in its example maml_omniglot.py.

    The example adds up the losses of all tasks before one backward; here each task has its own, which costs the same
    time and a fraction of the memory.  `MetaSGD` always keeps the graph of the inner gradients, so first order and
    test time use the functional optimizer, as the library's README does with plain gradients.
    """

    def __init__(self, network: nn.Module, setting: Setting, first_order: bool) -> None:
        import torchopt

        self.torchopt = torchopt
        self.network, self.setting, self.first_order = network, setting, first_order
        self.parameters = list(network.parameters())
        self.meta = torchopt.MetaSGD(network, lr=setting.inner_lr)
        self.functional = torchopt.sgd(lr=setting.inner_lr)

    def outer_gradient(self, episode: Episode) -> None:
        tasks = len(episode.support_x)
        if self.first_order:
            for sx, sy, qx, qy in zip(*episode):
                *_, fast = self.adapt(dict(self.network.named_parameters()), sx, sy)
                (F.cross_entropy(functional_call(self.network, fast, (qx,)), qy) / tasks).backward()
            return
        weights = self.torchopt.extract_state_dict(self.network, by="reference", detach_buffers=True)
        state = self.torchopt.extract_state_dict(self.meta, by="reference")
        for sx, sy, qx, qy in zip(*episode):
            for _ in range(self.setting.steps):
                self.meta.step(F.cross_entropy(self.network(sx), sy))
            (F.cross_entropy(self.network(qx), qy) / tasks).backward()
            self.torchopt.recover_state_dict(self.network, weights)
            self.torchopt.recover_state_dict(self.meta, state)

    def predict(self, episode: Episode, every_step: bool) -> Tensor:
        tasks = []
        for sx, sy, qx, _ in zip(*episode):
            start = {name: value.detach().requires_grad_() for name, value in self.network.named_parameters()}
            predictions = []
            for step, fast in enumerate(self.adapt(start, sx, sy)):
                if every_step or step == self.setting.steps:
                    with torch.no_grad():
                        predictions.append(functional_call(self.network, fast, (qx,)))
            tasks.append(predictions)
        return stack_tasks(tasks, every_step)

    def adapt(self, fast: dict[str, Tensor], x: Tensor, y: Tensor) -> Iterator[dict[str, Tensor]]:
        names, values = list(fast), tuple(fast.values())
        state = self.functional.init(values)
        yield fast
        for _ in range(self.setting.steps):
            loss = F.cross_entropy(functional_call(self.network, dict(zip(names, values)), (x,)), y)
            grads = torch.autograd.grad(loss, values)
            updates, state = self.functional.update(grads, state, inplace=False)
            values = self.torchopt.apply_updates(values, updates, inplace=False)
            yield dict(zip(names, values))


class Handful:
    """Handful's MAML: all tasks in one call."""

    def __init__(self, network: nn.Module, setting: Setting, first_order: bool, **options: Any) -> None:
        self.method = MAML(
            copy.deepcopy(network.get_submodule("backbone")),
            inner_lr=setting.inner_lr,
            inner_steps=setting.steps,
            first_order=first_order,
            **options,
        )
        self.method.attach_head(setting.way)
        self.method.to(next(network.parameters())).train()
        self.parameters = list(self.method.parameters())
        with torch.no_grad():
            for ours, theirs in zip(self.parameters, network.parameters(), strict=True):
                ours.copy_(theirs)

    def outer_gradient(self, episode: Episode) -> None:
        self.method(episode).loss.backward()

    def predict(self, episode: Episode, every_step: bool) -> Tensor:
        predictions = self.method.predict(episode, every_step=every_step)
        return predictions if every_step else predictions[-1]


class HandfulRecompute(Handful):
    """Handful in the memory of one inner step: each step's graph is rebuilt on the way back."""

    def __init__(self, network: nn.Module, setting: Setting, first_order: bool) -> None:
        super().__init__(network, setting, first_order, backprop="recompute")


class HandfulTwo(Handful):
    """Handful as it takes a step when train.memory_gib leaves room for the graphs of two tasks."""

    def __init__(self, network: nn.Module, setting: Setting, first_order: bool) -> None:
        super().__init__(network, setting, first_order)
        self.method.chunk = 2


class HandfulWatched(Handful):
    """A training step, and the accuracy after every inner step, which note 002 logs."""

    def outer_gradient(self, episode: Episode) -> None:
        super().outer_gradient(episode)
        self.method.problem.score(self.method.predict(episode), episode.query_y)


class Note002:
    """Note 002's own algorithm: a loop over tasks, no create_graph, the queries passed with their graph at every step.

    Written for its own network as a flat list of weights: convolution, bias, gamma, beta for each block, then the head.
    """

    def __init__(self, network: nn.Module, setting: Setting, first_order: bool) -> None:
        self.setting = setting
        self.parameters = list(network.parameters())

    def outer_gradient(self, episode: Episode) -> None:
        steps = self.setting.steps
        losses = [episode.query_x.new_zeros(()) for _ in range(steps + 1)]
        for sx, sy, qx, qy in zip(*episode):
            fast: list[Tensor] = list(self.parameters)
            for step in range(steps):
                grads = torch.autograd.grad(F.cross_entropy(note_forward(fast, sx), sy), fast)
                if step == 0:
                    with torch.no_grad():
                        prediction = note_forward(self.parameters, qx)
                        losses[0] = losses[0] + F.cross_entropy(prediction, qy)
                        (prediction.argmax(1) == qy).sum().item()
                fast = [w - self.setting.inner_lr * g for w, g in zip(fast, grads)]
                if step > 0:  # the note never looks at the queries after its first update
                    prediction = note_forward(fast, qx)
                    losses[step + 1] = losses[step + 1] + F.cross_entropy(prediction, qy)
                    with torch.no_grad():
                        (prediction.softmax(1).argmax(1) == qy).sum().item()
        (losses[-1] / len(episode.support_x)).backward()

    def predict(self, episode: Episode, every_step: bool) -> Tensor:
        raise NotImplementedError("the note has no evaluation of its own")


def note_forward(w: Sequence[Tensor], x: Tensor) -> Tensor:
    """The note's network on its list of weights."""
    for block in range(4):
        kernel, bias, gamma, beta = w[4 * block : 4 * block + 4]
        x = F.conv2d(x, kernel, bias, stride=2, padding=2)
        if block < 3:
            x = F.relu(F.max_pool2d(F.batch_norm(x, None, None, gamma, beta, training=True), 2))
        else:
            x = F.max_pool2d(F.batch_norm(F.relu(x), None, None, gamma, beta, training=True), 2)
    return F.linear(x.flatten(1), w[16], w[17])


def stack_tasks(tasks: list[list[Tensor]], every_step: bool) -> Tensor:
    """Predictions by task and step -> [S+1, B, n, way], or [B, n, way] of the last step."""
    stacked = torch.stack([torch.stack(predictions) for predictions in tasks], dim=1)
    return stacked if every_step else stacked[-1]


def add_gradients(parameters: Sequence[nn.Parameter], grads: Sequence[Tensor]) -> None:
    """Accumulate, as a backward would."""
    for parameter, grad in zip(parameters, grads, strict=True):
        parameter.grad = grad if parameter.grad is None else parameter.grad.add_(grad)


MAKERS: dict[str, Callable[[nn.Module, Setting, bool], Contender]] = {
    "plain loop": PlainLoop,
    "higher": Higher,
    "torchopt": TorchOpt,
    "Handful": Handful,
    "Handful, recompute": HandfulRecompute,
    "Handful, two tasks at a time": HandfulTwo,
    "Handful, accuracy after every step": HandfulWatched,
    "note 002": Note002,
}


def contenders(setting: Setting, mode: Mode, libraries: Sequence[str] = LIBRARIES) -> list[str]:
    """Who is compared, of those that can be imported here."""
    names = ["plain loop", *(name for name in libraries if find_spec(name)), "Handful"]
    if mode == "second order":
        names.append("Handful, recompute")
        if setting.way * setting.shot * math.prod(setting.image_shape) <= GROUPED_VALUES:  # else it is one at a time
            names.append("Handful, two tasks at a time")
    if setting.note002 and mode == "first order":
        names = ["note 002", *names, "Handful, accuracy after every step"]
    return names


def library_versions() -> dict[str, str | None]:
    found: dict[str, str | None] = {}
    for name in LIBRARIES:
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            found[name] = None
    return found


def disagreement(setting: Setting, mode: Mode, names: Sequence[str], device: str = "cpu") -> dict[str, float]:
    """How far each contender's result is from the plain loop's, relative, in float64 on a small episode.

    The result is the outer gradient in training and the query predictions at test time.  Float64, because ReLU and
    pooling make float32 gradients of 84x84 images differ by per cents between exact formulas.
    """
    small = replace(setting, tasks=3, way=min(3, setting.way), query=10, steps=2)
    episode = make_episode(small)
    episode = Episode(episode.support_x.double(), episode.support_y, episode.query_x.double(), episode.query_y)
    episode = episode.to(torch.device(device))
    results: dict[str, Tensor] = {}
    for name in dict.fromkeys(["plain loop", *names]):
        network = make_network(small).double().to(device)
        contender = MAKERS[name](network, small, mode == "first order")
        if mode in TRAINING:
            contender.outer_gradient(episode)
            results[name] = torch.cat([p.grad.flatten() for p in contender.parameters if p.grad is not None])
        else:
            results[name] = contender.predict(episode, mode == "test time, every step")
    reference = results["plain loop"]
    return {name: float((result - reference).norm() / reference.norm()) for name, result in results.items()}


def step_flops(setting: Setting, mode: Mode) -> int:
    """Floating-point operations that the convolutions and the head of a step need, counted by hand.

    With F for a layer's forward pass: a gradient step takes F + 2F (to input and weights).  Its own derivative, for
    second order, takes 4F for the double backward (conv(ggx, w) and conv(x, ggw) to the output's cotangent, gy with
    ggw to the input, gy with ggx to the weights) and 2F for the way back through the forward pass: 9F in all.  The
    first layer has no gradient to its input: F + F, then F + F.  torch's FlopCounterMode counts the same for
    Handful, and 1 to 6 % more for the plain loop in second order, where autograd computes what is not needed.
    """
    support = layer_flops(setting, setting.way * setting.shot)
    query = layer_flops(setting, setting.way * setting.query)
    if mode not in TRAINING:
        passes = setting.steps + 1 if mode == "test time, every step" else 1
        return setting.tasks * (setting.steps * needed(support, 2, 3) + passes * sum(query))
    inner = needed(support, 4, 9) if mode == "second order" else needed(support, 2, 3)
    return setting.tasks * (setting.steps * inner + needed(query, 2, 3))


def needed(layers: list[int], of_first: int, of_others: int) -> int:
    return of_first * layers[0] + of_others * sum(layers[1:])


def layer_flops(setting: Setting, images: int) -> list[int]:
    """Of one forward pass, layer by layer."""
    found: list[int] = []

    def count(module: nn.Module, inputs: Any, output: Tensor) -> None:
        weight = module.get_parameter("weight")
        found.append(2 * weight[0].numel() * output.numel())

    network = make_network(setting)
    for module in network.modules():
        if isinstance(module, nn.Conv2d | nn.Linear):
            module.register_forward_hook(count)
    with torch.no_grad():
        network(torch.zeros(images, *setting.image_shape))
    return found
