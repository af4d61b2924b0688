"""The inner loop of a method on a batch of tasks."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from handful.episodes import Episode
from handful.errors import HandfulError
from handful.inner_loop import (
    GROUPED_IMAGES,
    Moments,
    NormStats,
    Params,
    TaskForward,
    adapt,
    evaluating,
    has_batch_norm,
    per_task,
    with_gradient,
)
from handful.methods.heads import class_means

if TYPE_CHECKING:
    from handful.methods.gradient_based import GradientBased


class Adaptation:
    """The inner loop of one batch of tasks: `steps` yields the adapted parameters, `query` predicts under them."""

    def __init__(self, method: GradientBased, episode: Episode, norm_stats: NormStats, training: bool) -> None:
        if norm_stats == "per_step" and method.norms is None:
            raise HandfulError(
                "norm_stats is 'per_step', but this run kept no statistics for every step; train maml++ with "
                "per_step_norm, or use 'support' for inductive predictions."
            )
        self.method, self.episode, self.training = method, episode, training
        self.tasks = len(episode.support_x)
        self.norm_stats = norm_stats
        self.runner = TaskForward(method.network, norm_stats, method.fast_ops, method.passing)
        self.support_x, self.query_x = episode.support_x, episode.query_x
        self.prefix = ""
        head = method.network.get_submodule("head")
        if method.norms is None and all(n.startswith("head.") for n in method.inner_names) and not has_batch_norm(head):
            self._pass_the_body_once(norm_stats)
        if method.norms is not None and not method.norms.order:
            with evaluating(method.network):
                method.norms.trace(method.backbone, self.support_x[0])
        self.runner.record = training and method.norms is not None
        self.order: Tensor | None = None

    def _pass_the_body_once(self, norm_stats: NormStats) -> None:
        """If the inner loop moves the head alone, the features below it are the same in every step."""
        body = TaskForward(self.method.backbone, norm_stats, self.method.fast_ops, self.method.passing)
        with torch.set_grad_enabled(self.training):
            self.support_x = body.support({}, self.episode.support_x)
            self.query_x = body.query({}, self.episode.query_x, self.episode.support_x)
        self.runner = TaskForward(self.method.network.get_submodule("head"))
        self.prefix = "head."

    def steps(self, count: int) -> Iterator[Params]:
        """Adapted parameters after 0, 1, ..., count steps, [B, ...] each."""
        method, start = self.method, self.initial()
        self.update = method.optimizer.start(start)
        if method.inner_batch:
            self.order = self._order(count * method.inner_batch)
        yield from adapt(
            self.support_loss,
            start,
            self.update,
            count,
            differentiable=self.training,
            first_order=method.first_order,
            recompute=method.backprop == "recompute",
            through=self._through() if self.training else (),
        )
        self.runner.record = False  # a step that is computed again on the way back is no new observation

    def initial(self) -> dict[str, Tensor]:
        """phi_0: the initialisation, once for each task, with a head made from prototypes if that is how it starts."""
        learned = dict(self.method.network.named_parameters())
        params = per_task({n: learned[n] for n in self.method.inner_names if n in learned}, self.tasks)
        if not self.method.prototype_head:
            return params
        return {**params, **self._prototype_head()}

    def _prototype_head(self) -> dict[str, Tensor]:
        """Class means p_c as a linear layer: w_c = 2 p_c and b_c = -|p_c|^2, so that logits are |f|^2 - |f - p_c|^2.

        Made under theta itself, not the tasks' copies: the first inner gradient takes body and head for independent.
        """
        body = TaskForward(self.method.backbone, self.norm_stats, self.method.fast_ops, self.method.passing)
        with torch.set_grad_enabled(self.training):
            means = class_means(body.support({}, self.episode.support_x), self.episode.support_y)
        return {"head.weight": 2 * means, "head.bias": -means.square().sum(-1)}

    def support_loss(self, step: int, params: Params) -> Tensor:
        """Loss [B] of an inner step on its support images."""
        x, y = self.support_x, self.episode.support_y
        if self.order is not None and (size := self.method.inner_batch):
            rows = self.order[step * size : (step + 1) * size]
            x, y = x[:, rows], y[:, rows]
        predictions = self.runner.support(self._inside(step, params), x)
        self._observe(step, [self.runner.observed])
        return self.method.problem.loss(predictions, y)

    def query(self, step: int, params: Params) -> Tensor:
        """Predictions [B, N*Q, ...] for the queries after `step` inner steps."""
        row = max(step - 1, 0)
        predictions = self._query(row, params, slice(None))
        self._observe(row, [self.runner.observed])
        return predictions

    def query_loss(self, step: int, params: Params) -> tuple[Tensor, Tensor]:
        """Mean over tasks of the loss on the queries after `step` inner steps, and the predictions, without graph.

        The loss is differentiated task by task where tasks are passed one by one, as soon as it is computed: no more
        than one such graph exists at a time, and none waits for the way back.
        """
        if self.prefix:  # the graph of the features waits in any case
            predictions = self.query(step, params)
            return self.method.problem.loss(predictions, self.episode.query_y).mean(), predictions.detach()
        row = max(step - 1, 0)
        shared = [value for value in self._through() if value.is_leaf]
        size = self.tasks if self.query_x.shape[1] <= GROUPED_IMAGES else 1
        sums: list[Tensor | None] = [None] * len(shared)
        losses, parts, predicted, observed = [], [], [], []
        for start in range(0, self.tasks, size):
            tasks = slice(start, start + size)
            part = {name: value[tasks].detach().requires_grad_() for name, value in params.items()}
            logits = self._query(row, part, tasks)
            loss = self.method.problem.loss(logits, self.episode.query_y[tasks]).sum() / self.tasks
            gradients = torch.autograd.grad(loss, [*part.values(), *shared], allow_unused=True)
            sums = list(map(add, sums, gradients[len(part) :]))
            losses.append(loss.detach())
            parts.append(gradients[: len(part)])
            predicted.append(logits.detach())
            observed.append(self.runner.observed)
        self._observe(row, observed)
        of_params = [None if None in each else torch.cat(each) for each in zip(*parts)]
        known = [*zip(params.values(), of_params), *zip(shared, sums)]
        return with_gradient(torch.stack(losses).sum(), known), torch.cat(predicted)

    def _query(self, row: int, params: Params, tasks: slice) -> Tensor:
        """Predictions for the queries of some of the tasks, with the batch norms of an inner step."""
        statistics = self.method.norms.statistics(row) if self.method.norms else None
        return self.runner.query(self._inside(row, params), self.query_x[tasks], self.support_x[tasks], statistics)

    def whole(self, step: int, params: Params) -> Params:
        """The adapted parameters with the batch norms of an inner step, if it has its own."""
        norms = self.method.norms
        return {**params, **per_task(norms.params(step), len(next(iter(params.values()))))} if norms else params

    def _inside(self, step: int, params: Params) -> Params:
        """The parameters by the names that the running module gives them."""
        return {name.removeprefix(self.prefix): value for name, value in self.whole(step, params).items()}

    def _observe(self, step: int, observed: list[list[Moments]]) -> None:
        """Tell the batch norms of an inner step what the tasks' batches were like."""
        if self.runner.record and self.method.norms:
            layers = [[torch.cat(values) for values in zip(*layer)] for layer in zip(*observed)]
            self.method.norms.observe(step, [(mean, var) for mean, var in layers])

    def _through(self) -> list[Tensor]:
        """What enters an inner step with a gradient, other than by the adapted parameters."""
        inner = set(self.method.inner_names)
        shared = [p for n, p in self.runner.module.named_parameters() if self.prefix + n not in inner]
        others = [*self.method.optimizer.parameters(), *(self.method.norms.parameters() if self.method.norms else ())]
        features = [self.support_x] if self.prefix else []
        return [value for value in (*shared, *others, *features) if value.requires_grad]

    def _order(self, needed: int) -> Tensor:
        """Rows of the support set in the order of inner steps: shuffled, and shuffled anew when all were taken.

        One order for all tasks of the batch, drawn from the seed of the outer step, so that it is the same however
        the tasks are divided.
        """
        seed = torch.initial_seed() if self.method.network.training else 0
        generator = torch.Generator().manual_seed(seed)
        count = self.support_x.shape[1]
        rounds = max(1, math.ceil(needed / count))  # an inner loop of no steps needs none, but is no error
        return torch.cat([torch.randperm(count, generator=generator) for _ in range(rounds)])


def add(total: Tensor | None, more: Tensor | None) -> Tensor | None:
    """Sum of gradients, of which either may be absent."""
    if total is None or more is None:
        return more if total is None else total
    return total + more
