"""Runs an unchanged module for B tasks at once, each with its own adapted parameters."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from typing import get_args

import torch
from torch import Tensor, nn
from torch.autograd.graph import disable_saved_tensors_hooks
from torch.func import functional_call, vmap
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.overrides import TorchFunctionMode

from handful.errors import HandfulError, unknown
from handful.inner_loop.adaptation import Params, random_state, set_random_state
from handful.inner_loop.fast_ops import FastOps
from handful.inner_loop.folding import Fold, fold, unfold
from handful.inner_loop.statistics import BatchNormStatistics, Moments, NormStats, has_running_statistics
from handful.layout import LARGE_VALUES, channels_last

# A query set of more images than this is passed task by task: side by side it is no faster and takes more memory.
GROUPED_IMAGES = 25
# Tasks whose support sets hold more values than this are taken one after another: each fills the machine by itself.
# Below it one grouped convolution beats a loop of small ones.
GROUPED_VALUES = 100_000
# Images in a pass that holds each query beside its support set.
BESIDE_IMAGES = 250
# How several tasks are passed, the fastest first; the last one takes any module.
PASSING = ("folded", "vmap", "loop")
CHECKPOINTED = (
    "This network uses activation checkpointing, which would compute its activations again without a task's own "
    "parameters; turn it off, and set backprop='recompute' or train.memory_gib to save memory."
)


def ways_of_passing() -> list[str]:
    """What is tried for several tasks, in turn; HANDFUL_TASKS=vmap or loop leaves out what is before it."""
    first = os.environ.get("HANDFUL_TASKS", PASSING[0])
    if first not in PASSING:
        raise unknown("way HANDFUL_TASKS of passing tasks", first, PASSING)
    return list(PASSING[PASSING.index(first) :])


class TaskForward:
    """module: an nn.Module without activation checkpointing; its parameters that are not adapted and its buffers are
    shared by all tasks, and buffers are never written.  norm_stats says whose statistics batch norm uses for queries
    (support passes always use those of the support batch, but for `running`):

    - `batch`: those of the query batch, so a query's prediction depends on its batch mates (transductive);
    - `support`: those of the support set under the same parameters (inductive);
    - `support+1`: those of the support set and the one query together, as Reptile judges queries one by one
      (inductive);
    - `running`: those kept in the module's buffers (inductive);
    - `per_step`: those handed to `query` as `statistics`, the running ones of an inner step (inductive).

    passing: how several tasks are passed, in the order of trying.  A way in which the module fails is removed, so that
    the next TaskForward of the same module may be handed this list.
    """

    def __init__(
        self,
        module: nn.Module,
        norm_stats: NormStats = "batch",
        fast_ops: bool = True,
        passing: list[str] | None = None,
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
        self.passing = ways_of_passing() if passing is None else passing
        self.record = False
        self.observed: list[Moments] = []  # with `record`: the moments of each batch norm in the last pass, [B, C]

    def support(self, params: Params, x: Tensor) -> Tensor:
        """Predictions [B, n, ...] for a support set x [B, n, ...] under params [B, ...]."""
        return self._run(params, x)

    def query(self, params: Params, x: Tensor, support_x: Tensor, statistics: list[Moments] | None = None) -> Tensor:
        """Predictions [B, n, ...] for queries x [B, n, ...] under params [B, ...].

        support_x is read by `support` and `support+1` only, statistics by `per_step` only.
        """
        if self.norm_stats == "support+1":
            return self._beside_support(params, x, support_x)
        reference = support_x if self.norm_stats == "support" else None
        given = statistics if self.norm_stats == "per_step" else None
        kept = not params and torch.is_grad_enabled()  # the graphs of all tasks wait in any case
        if kept or x.shape[1] <= GROUPED_IMAGES:
            return self._run(params, x, reference, given)
        return self._loop(params, x, reference, given)

    def _beside_support(self, params: Params, x: Tensor, support_x: Tensor) -> Tensor:
        """Each query in one batch with the support set: a task's queries are as many batches under one weight set."""
        rows = []
        size = max(1, BESIDE_IMAGES // (support_x.shape[1] + 1))
        for one, queries, support in zip(each_task(params, len(x)), x, support_x):
            for images in queries.split(size):
                beside = torch.cat([support.expand(len(images), *support.shape), images.unsqueeze(1)], 1)
                rows.append(self._run(one, beside, shared=True)[:, -1])
        return torch.cat(rows).unflatten(0, x.shape[:2])

    def _run(
        self,
        params: Params,
        x: Tensor,
        reference: Tensor | None = None,
        given: list[Moments] | None = None,
        shared: bool = False,
    ) -> Tensor:
        """All tasks, side by side where the module lets itself be; `shared`: under one set of parameters [...]."""
        if len(x) == 1:
            return self._loop(params, x, reference, given, shared)
        ways = {"folded": self._folded, "vmap": self._vmap, "loop": self._loop}
        drawn, failed = random_state(x.device), 0
        while True:
            try:
                predictions = ways[self.passing[failed]](params, x, reference, given, shared)
                break
            except (RuntimeError, IndexError) as error:
                failed += 1
                if failed == len(self.passing) or isinstance(error, torch.OutOfMemoryError):
                    raise
                set_random_state(drawn, x.device)  # dropout that the attempt drew: a resumed run does not attempt it
        del self.passing[:failed]
        return predictions

    def _folded(
        self, params: Params, x: Tensor, reference: Tensor | None, given: list[Moments] | None, shared: bool
    ) -> Tensor:
        """Tasks as groups of channels."""
        tasks = len(x)
        folded = None if reference is None else fold(reference)
        predictions, seen = self._run_one(params, fold(x), folded, given, Fold(tasks))
        unfolded = unfold(predictions, tasks)
        self.observed = [(mean.view(tasks, -1), var.view(tasks, -1)) for mean, var in seen]
        return unfolded

    def _vmap(
        self, params: Params, x: Tensor, reference: Tensor | None, given: list[Moments] | None, shared: bool
    ) -> Tensor:
        """Tasks as a dimension that torch adds to every function."""
        in_dims = (None if shared or not params else 0, 0, None if reference is None else 0, None)
        run = vmap(self._run_one, in_dims, randomness="different")
        with sdpa_kernel(SDPBackend.MATH):  # vmap would loop over the tasks of a fused attention kernel, with a warning
            predictions, self.observed = run(params, x, reference, given)
        return predictions

    def _loop(
        self,
        params: Params,
        x: Tensor,
        reference: Tensor | None,
        given: list[Moments] | None,
        shared: bool = False,
    ) -> Tensor:
        """Task by task, which any module can do."""
        lay = channels_last if x[0, 0].numel() > LARGE_VALUES else nn.Identity()
        passed = [
            self._run_one(
                {name: lay(value) for name, value in one.items()},
                lay(x[b]),
                None if reference is None else lay(reference[b]),
                given,
            )
            for b, one in enumerate([params] * len(x) if shared else each_task(params, len(x)))
        ]
        self.observed = [
            (torch.stack([mean for mean, _ in layer]), torch.stack([var for _, var in layer]))
            for layer in zip(*(observed for _, observed in passed))
        ]
        return torch.stack([predictions for predictions, _ in passed])

    def _run_one(
        self,
        params: Params,
        x: Tensor,
        reference: Tensor | None,
        given: list[Moments] | None,
        *modes: TorchFunctionMode,
    ) -> tuple[Tensor, list[Moments]]:
        """One task, or all of them folded: params [...], x [n, ...] -> predictions [n, ...] and recorded moments."""
        weights = {**self.frozen(), **params}
        with ExitStack() as stack:
            stack.enter_context(without_checkpoints())
            if self.fast_ops and not torch._C._functorch.maybe_current_level():
                stack.enter_context(FastOps())
            statistics = stack.enter_context(BatchNormStatistics(self.norm_stats == "running"))
            for mode in modes:
                stack.enter_context(mode)
            if reference is not None:
                statistics.recorded = given = []
                functional_call(self.module, weights, (reference,))
                statistics.recorded = None
            if given is not None:
                statistics.give(given)
            statistics.observed = [] if self.record else None
            return functional_call(self.module, weights, (x,)), statistics.observed or []

    def frozen(self) -> dict[str, Tensor]:
        """Copies of the buffers for one pass: adaptation never writes the module's own."""
        return {name: buffer.clone() for name, buffer in self.module.named_buffers()} if self.module.training else {}


def each_task(params: Params, tasks: int) -> Iterator[dict[str, Tensor]]:
    """[B, ...] -> B dictionaries [...].

    By unbind, not params[b]: its backward is one stack instead of B buffers of B copies.
    """
    if not params:
        return iter([{} for _ in range(tasks)])
    return (dict(zip(params, values)) for values in zip(*(value.unbind() for value in params.values())))


@contextmanager
def without_checkpoints() -> Iterator[None]:
    """Refuse activation checkpointing: on the way back it would run a module with its own parameters, not a task's."""
    try:
        with disable_saved_tensors_hooks(CHECKPOINTED):
            yield
    except RuntimeError as error:
        if CHECKPOINTED in str(error):
            raise HandfulError(CHECKPOINTED) from error
        raise


@contextmanager
def evaluating(module: nn.Module) -> Iterator[None]:
    """Put a module in eval mode for a while: no dropout.  Batch-norm statistics are `norm_stats`'s own affair."""
    training = module.training
    module.eval()
    try:
        yield
    finally:
        module.train(training)
