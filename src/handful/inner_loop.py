"""The inner loop: differentiable adaptation of any module to a batch of tasks.

Parameters are dictionaries by name, as in `torch.func.functional_call`.  Those that are adapted carry a leading task
dimension, [B, ...]: one copy a task.  Gradients of the losses summed over tasks are then each task's own gradients,
and one call adapts all tasks.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from typing import Any, Literal, get_args

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.func import functional_call, vmap
from torch.nn.modules.batchnorm import _BatchNorm
from torch.overrides import TorchFunctionMode

from handful.errors import HandfulError, unknown
from handful.fast_ops import FastOps
from handful.folding import Fold, NotFoldable, fold, unfold

Params = Mapping[str, Tensor]
Loss = Callable[[Tensor, Tensor], Tensor]  # predictions [B, n, ...], targets [B, n, ...] -> [B], one loss a task
StepSize = Callable[[int, str], Tensor | float]  # inner step, parameter name -> rate

NormStats = Literal["batch", "support", "running"]

# More query images a task than this are passed task by task: a grouped convolution of few images a group beats a loop
# of small convolutions, and loses against it once each task fills the machine by itself (bench/meta_step.py).
GROUPED_IMAGES = 25


def adapt(
    forward: Callable[[Params, Tensor], Tensor],
    params: Params,
    support_x: Tensor,
    support_y: Tensor,
    *,
    loss: Loss,
    step_size: StepSize,
    steps: int,
    first_order: bool,
    differentiable: bool,
) -> Iterator[Params]:
    """Yield the adapted parameters after 0, 1, ..., `steps` steps of gradient descent on the support set.

    phi_{s+1} = phi_s - a * grad L_support(phi_s)   (MAML, Finn et al. 2017, eq. 1), each phi [B, ...].

    `differentiable` keeps the graph from phi_S back to `params`, through the gradients too unless `first_order`
    (which takes them for constants).  New tensors at every step; `params` is never written.
    """
    if not differentiable:
        params = {name: value.detach().requires_grad_() for name, value in params.items()}
    yield params
    for step in range(steps):
        with torch.enable_grad():
            losses = loss(forward(params, support_x), support_y)
            # Tasks do not share a parameter copy, so the gradient of the sum holds the gradient of each.
            grads = torch.autograd.grad(
                losses.sum(),
                list(params.values()),
                create_graph=differentiable and not first_order,
                materialize_grads=True,
            )
            params = {
                name: value - step_size(step, name) * grad
                for (name, value), grad in zip(params.items(), grads, strict=True)
            }
        if not differentiable:
            params = {name: value.detach().requires_grad_() for name, value in params.items()}
        yield params


def per_task(params: Mapping[str, Tensor], tasks: int) -> Params:
    """[...] -> [B, ...]: one copy a task, without copying memory."""
    return {name: value.expand(tasks, *value.shape) for name, value in params.items()}


class TaskForward:
    """Runs a module for B tasks at once, each with its own adapted parameters.

    module: any nn.Module; its parameters that are not adapted and its buffers are shared by all tasks, and buffers
    are never written.  norm_stats says whose statistics batch norm uses:

    - `batch`: those of the batch being forwarded, so a query's prediction depends on its batch mates (transductive);
    - `support`: those of the support set under the same parameters (inductive);
    - `running`: those kept in the module's buffers (inductive).
    """

    def __init__(
        self, module: nn.Module, norm_stats: NormStats = "batch", fast_ops: bool = True, foldable: bool = True
    ) -> None:
        if norm_stats not in get_args(NormStats):
            raise unknown("kind of norm_stats", norm_stats, get_args(NormStats))
        if norm_stats == "running" and not has_running_statistics(module):
            raise HandfulError(
                "norm_stats is 'running', but this network has no running statistics: meta-training never writes "
                "them, only pre-training does; use 'support' for inductive predictions."
            )
        self.module = module
        self.norm_stats = norm_stats
        self.fast_ops = fast_ops
        self.foldable = foldable  # False once the module has called a function that cannot be folded

    def support(self, params: Params, x: Tensor) -> Tensor:
        """Predictions [B, n, ...] for a support set x [B, n, ...] under params [B, ...]."""
        return self._run(params, x, None)

    def query(self, params: Params, x: Tensor, support_x: Tensor) -> Tensor:
        """Predictions [B, n, ...] for queries x [B, n, ...]; `support_x` is read by `support` statistics only."""
        reference = support_x if self.norm_stats == "support" else None
        tasks = len(x)
        if tasks == 1 or x.shape[1] <= GROUPED_IMAGES:
            return self._run(params, x, reference)
        # unbind, not params[b]: its backward is one stack instead of B buffers of B copies
        slices = [dict(zip(params, values)) for values in zip(*(value.unbind() for value in params.values()))]
        return torch.stack(
            [self._run_one(slices[b], x[b], None if reference is None else reference[b]) for b in range(tasks)]
        )

    def _run(self, params: Params, x: Tensor, reference: Tensor | None) -> Tensor:
        if len(x) == 1:  # nothing to group
            one = {name: value[0] for name, value in params.items()}
            return self._run_one(one, x[0], None if reference is None else reference[0])[None]
        if self.foldable:
            drawn = torch.get_rng_state()
            try:
                folded = self._run_one(params, fold(x), None if reference is None else fold(reference), Fold(len(x)))
                return unfold(folded, len(x))
            except NotFoldable:
                self.foldable = False
                torch.set_rng_state(drawn)  # the attempt may have drawn dropout masks: a resumed run must not
        in_dims = (0, 0, None if reference is None else 0)
        return vmap(self._run_one, in_dims, randomness="different")(params, x, reference)

    def _run_one(self, params: Params, x: Tensor, reference: Tensor | None, *modes: TorchFunctionMode) -> Tensor:
        """One task, or all of them folded: params [...], x [n, ...] -> predictions [n, ...]."""
        weights = {**self.frozen(), **params}
        with ExitStack() as stack:
            if self.fast_ops and not torch._C._functorch.maybe_current_level():
                stack.enter_context(FastOps())
            statistics = stack.enter_context(_Statistics(self.norm_stats))
            for mode in modes:
                stack.enter_context(mode)
            if reference is not None:
                statistics.recording = []
                functional_call(self.module, weights, (reference,))
                statistics.replay()
            return functional_call(self.module, weights, (x,))

    def frozen(self) -> dict[str, Tensor]:
        """Copies of the buffers for one pass: adaptation never writes the module's own."""
        return {name: buffer.clone() for name, buffer in self.module.named_buffers()} if self.module.training else {}


def has_running_statistics(module: nn.Module) -> bool:
    """Whether every batch norm of a module has seen a batch in training."""
    seen = [m.num_batches_tracked for m in module.modules() if isinstance(m, _BatchNorm)]
    return all(count is not None and int(count) > 0 for count in seen)


@contextmanager
def evaluating(module: nn.Module) -> Iterator[None]:
    """Put a module in eval mode for a while: no dropout.  Batch-norm statistics are `norm_stats`'s own affair."""
    training = module.training
    module.eval()
    try:
        yield
    finally:
        module.train(training)


def freeze_statistics(network: nn.Module, x: Tensor) -> None:
    """Write the batch-norm statistics of a batch x [n, ...] into the network's buffers, and put it in eval mode.

    The variance is the biased one that normalisation uses (what torch accumulates in training is the unbiased one).
    """

    def write(module: nn.Module, inputs: tuple[Tensor, ...]) -> None:
        assert isinstance(module, _BatchNorm)
        var, mean = torch.var_mean(inputs[0], [0, *range(2, inputs[0].dim())], correction=0)
        if module.running_mean is not None and module.running_var is not None:
            module.running_mean.copy_(mean)
            module.running_var.copy_(var)

    norms = [module for module in network.modules() if isinstance(module, _BatchNorm)]
    hooks = [module.register_forward_pre_hook(write) for module in norms]
    with torch.no_grad():
        network.eval()(x)
    for hook in hooks:
        hook.remove()


class _Statistics(TorchFunctionMode):
    """Within it every `F.batch_norm` uses the statistics that `norm_stats` names."""

    def __init__(self, norm_stats: NormStats) -> None:
        super().__init__()
        self.norm_stats = norm_stats
        self.recording: list[tuple[Tensor, Tensor]] | None = None
        self._replayed: Iterator[tuple[Tensor, Tensor]] | None = None

    def replay(self) -> None:
        """From here on use what was recorded, layer by layer."""
        assert self.recording is not None
        self._replayed, self.recording = iter(self.recording), None

    def __torch_function__(
        self,
        func: Callable[..., Any],
        types: Any,
        args: tuple[Any, ...] = (),
        kwargs: dict[str, Any] | None = None,
    ) -> Any:
        if func is not F.batch_norm:
            return func(*args, **(kwargs or {}))
        return self._batch_norm(*args, **(kwargs or {}))

    def _batch_norm(
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
        if self.norm_stats == "running":
            return F.batch_norm(x, running_mean, running_var, weight, bias, False, momentum, eps)
        if self._replayed is not None:
            mean, var = next(self._replayed)
            return _normalise(x, mean, var, weight, bias, eps)
        if self.recording is not None:
            dims = [0, *range(2, x.dim())]
            var, mean = torch.var_mean(x, dims, correction=0)
            self.recording.append((mean, var))
        return F.batch_norm(x, None, None, weight, bias, True, momentum, eps)


def _normalise(x: Tensor, mean: Tensor, var: Tensor, weight: Tensor | None, bias: Tensor | None, eps: float) -> Tensor:
    """Batch norm with given statistics, differentiable in them (F.batch_norm is not)."""
    scale = torch.rsqrt(var + eps)
    if weight is not None:
        scale = scale * weight
    offset = -mean * scale if bias is None else bias - mean * scale
    shape = (-1, *[1] * (x.dim() - 2))
    return x * scale.view(shape) + offset.view(shape)
