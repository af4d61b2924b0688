"""Whose statistics batch norm uses, decided around an unchanged module."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any, Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.overrides import TorchFunctionMode

from handful.errors import HandfulError

NormStats = Literal["batch", "support", "support+1", "running", "per_step"]
Moments = tuple[Tensor, Tensor]  # mean and biased variance of one batch norm, [C] or [B, C]


def has_batch_norm(module: nn.Module) -> bool:
    """Whether predictions of a module depend on whose statistics batch norm uses."""
    return any(isinstance(m, _BatchNorm) for m in module.modules())


def has_running_statistics(module: nn.Module) -> bool:
    """Whether every batch norm of a module has seen a batch in training."""
    seen = [m.num_batches_tracked for m in module.modules() if isinstance(m, _BatchNorm)]
    return all(count is not None and int(count) > 0 for count in seen)


def keep_statistics(network: nn.Module) -> nn.Module:
    """Give batch norms that were made without buffers (track_running_stats=False) some, and return the network."""
    for norm in network.modules():
        if isinstance(norm, _BatchNorm) and norm.running_mean is None:
            norm.running_mean, norm.running_var = torch.zeros(norm.num_features), torch.ones(norm.num_features)
    return network


def freeze_statistics(network: nn.Module, x: Tensor) -> None:
    """Write the batch-norm statistics of a batch x [n, ...] into the network's buffers, and put it in eval mode.

    The variance is the biased one that normalisation uses (what torch accumulates in training is the unbiased one).
    Raises HandfulError for a batch norm that is called twice: it has one set of buffers.
    """
    called: set[str] = set()

    def write(name: str, module: nn.Module, inputs: tuple[Tensor, ...]) -> None:
        assert isinstance(module, _BatchNorm)
        if name in called:
            raise HandfulError(
                f"The batch norm {name!r} is called twice in one pass, but a fitted network keeps one set of "
                "statistics for it; make one batch norm for each call, or use group norm."
            )
        called.add(name)
        module.running_mean, module.running_var = moments(inputs[0])

    norms = {name: module for name, module in network.named_modules() if isinstance(module, _BatchNorm)}
    hooks = [module.register_forward_pre_hook(partial(write, name)) for name, module in norms.items()]
    with torch.no_grad():
        network.eval()(x)
    for hook in hooks:
        hook.remove()


def moments(x: Tensor) -> Moments:
    """Mean and biased variance of each channel, [n, C, ...] -> [C], [C]."""
    var, mean = torch.var_mean(x, [0, *range(2, x.dim())], correction=0)
    return mean, var


class BatchNormMode(TorchFunctionMode, ABC):
    """Within it every `F.batch_norm` is computed by `batch_norm`."""

    def __torch_function__(
        self,
        func: Callable[..., Any],
        types: Any,
        args: tuple[Any, ...] = (),
        kwargs: dict[str, Any] | None = None,
    ) -> Any:
        if func is not F.batch_norm:
            return func(*args, **(kwargs or {}))
        return self.batch_norm(*args, **(kwargs or {}))

    @abstractmethod
    def batch_norm(
        self,
        x: Tensor,
        running_mean: Tensor | None,
        running_var: Tensor | None,
        weight: Tensor | None = None,
        bias: Tensor | None = None,
        training: bool = False,
        momentum: float = 0.1,
        eps: float = 1e-5,
    ) -> Tensor:
        """As the function of torch."""


class BatchNormStatistics(BatchNormMode):
    """Within it every `F.batch_norm` normalises by the batch, by the module's buffers (`running`), or as `given`."""

    def __init__(self, running: bool = False) -> None:
        super().__init__()
        self.running = running
        self.recorded: list[Moments] | None = None  # a list collects the moments of each batch norm, in turn
        self.observed: list[Moments] | None = None  # the same, without their graph
        self._given: Iterator[Moments] | None = None

    def give(self, statistics: list[Moments]) -> None:
        """From here on normalise by these, one for each batch norm in the order of their calls."""
        self._given = iter(statistics)

    def batch_norm(
        self,
        x: Tensor,
        running_mean: Tensor | None,
        running_var: Tensor | None,
        weight: Tensor | None = None,
        bias: Tensor | None = None,
        training: bool = False,
        momentum: float = 0.1,
        eps: float = 1e-5,
    ) -> Tensor:
        """By the statistics that were asked for."""
        if self.recorded is not None:
            self.recorded.append(moments(x))
        if self.observed is not None:
            if self._given is None and not self.running and not torch._C._functorch.maybe_current_level():
                return self._observed(self.observed, x, weight, bias, eps)
            self.observed.append(moments(x.detach()))
        if self._given is not None:
            groups = x.shape[1]  # folded tasks are further channels
            mean, var = (value.repeat(groups // value.shape[0]) for value in next(self._given))
            return normalise(x, mean, var, weight, bias, eps)
        if self.running:
            return F.batch_norm(x, running_mean, running_var, weight, bias, False, momentum, eps)
        return F.batch_norm(x, None, None, weight, bias, True, momentum, eps)

    @staticmethod
    def _observed(seen: list[Moments], x: Tensor, weight: Tensor | None, bias: Tensor | None, eps: float) -> Tensor:
        """Normalise by the batch, and take its moments from the same pass: as running ones that forget all before."""
        mean, var = x.new_zeros(2, x.shape[1])
        y = F.batch_norm(x, mean, var, weight, bias, True, 1.0, eps)
        count = x.numel() // x.shape[1]
        seen.append((mean, var * ((count - 1) / count)))
        return y


def normalise(x: Tensor, mean: Tensor, var: Tensor, weight: Tensor | None, bias: Tensor | None, eps: float) -> Tensor:
    """Batch norm with given statistics, differentiable in them (F.batch_norm is not)."""
    scale = torch.rsqrt(var + eps)
    if weight is not None:
        scale = scale * weight
    offset = -mean * scale if bias is None else bias - mean * scale
    shape = (-1, *[1] * (x.dim() - 2))
    return x * scale.view(shape) + offset.view(shape)


class PerStepNorm(nn.Module):
    """Batch norm with scale, shift and running statistics of its own for every inner step (MAML++).

    Row s [C] serves the support pass of inner step s and the query pass after it.  The running rows are written by
    training and read by norm_stats="per_step".
    """

    MOMENTUM = 0.1

    def __init__(self, network: nn.Module, inner_steps: int) -> None:
        super().__init__()
        layers = {name: m for name, m in network.named_modules() if isinstance(m, _BatchNorm)}
        if not layers:
            raise HandfulError(
                "per_step_norm needs batch norm layers, but this network has none; set method.per_step_norm=false."
            )
        self.inner_steps = inner_steps
        self.names = [f"{name}.{part}" for name, m in layers.items() if m.affine for part in ("weight", "bias")]
        rows = [network.get_parameter(name).detach() for name in self.names]
        self.affine = nn.ParameterList(nn.Parameter(row.repeat(inner_steps, 1)) for row in rows)
        for index, layer in enumerate(layers.values()):
            self.register_buffer(f"mean{index}", torch.zeros(inner_steps, layer.num_features))
            self.register_buffer(f"var{index}", torch.ones(inner_steps, layer.num_features))
        self.order: list[int] = []  # of the calls, once `trace` has seen them

    def trace(self, network: nn.Module, x: Tensor) -> None:
        """Run x [n, ...] through the network once, to see in which order it calls its batch norms.

        Raises HandfulError if it calls one twice: the moments of a pass could not be told apart.
        """
        norms = {name: m for name, m in network.named_modules() if isinstance(m, _BatchNorm)}
        called: list[str] = []
        hooks = [m.register_forward_pre_hook(lambda *_, name=name: called.append(name)) for name, m in norms.items()]
        with torch.no_grad():
            network(x)
        for hook in hooks:
            hook.remove()
        twice = [name for name in norms if called.count(name) > 1]
        if twice:
            raise HandfulError(
                f"per_step_norm keeps one row of statistics a batch norm and inner step, but {twice[0]!r} is called "
                f"{called.count(twice[0])} times in one pass; make one batch norm for each call, or leave it out."
            )
        self.order = [list(norms).index(name) for name in called]

    def row(self, step: int) -> int:
        """The row of an inner step; there is none beyond those of training."""
        if step >= self.inner_steps:
            raise HandfulError(
                f"Inner step {step + 1} has no batch-norm row: this run has rows for {self.inner_steps} inner steps; "
                f"use inner_steps={self.inner_steps} or less."
            )
        return step

    def params(self, step: int) -> dict[str, Tensor]:
        """Scale and shift of every batch norm in an inner step: name -> [C]."""
        return {name: rows[self.row(step)] for name, rows in zip(self.names, self.affine)}

    def statistics(self, step: int) -> list[Moments]:
        """The running statistics of an inner step, in the order of the calls: [C], [C]."""
        row = self.row(step)
        return [(self.get_buffer(f"mean{i}")[row], self.get_buffer(f"var{i}")[row]) for i in self.order]

    def observe(self, step: int, observed: list[Moments]) -> None:
        """Move the row of an inner step towards the statistics of a pass, each [B, C], in the order of the calls."""
        if len(observed) != len(self.order):
            raise HandfulError(
                f"per_step_norm needs the same batch norms in every pass, but this network called {len(self.order)} "
                f"in one and {len(observed)} in another; leave it out."
            )
        for kept, seen in zip(self.statistics(step), observed):
            for row, value in zip(kept, seen):
                row.lerp_(value.detach().mean(0), self.MOMENTUM)
