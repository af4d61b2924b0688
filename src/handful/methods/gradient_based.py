"""What MAML and its relatives share: adapt a network to each task by gradient steps on its support set.

    phi_0 = theta,   phi_{s+1} = update(phi_s, grad L_support(phi_s))        (inner loop)
    theta <- Opt(theta, grad_theta mean over tasks of the objective)         (outer loop, in training.py)

A member of the family is this class with other parts: which parameters are adapted, how far a step goes, what the
outer loop descends, where the head comes from.  Each has a file of its own, named after it.
"""

from __future__ import annotations

import copy
import math
from collections import OrderedDict
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor, nn

from handful.episodes import Episode
from handful.errors import HandfulError, unknown
from handful.inner_loop import (
    GROUPED_IMAGES,
    GROUPED_VALUES,
    InnerOptimizer,
    Moments,
    NormStats,
    Params,
    PerStepNorm,
    TaskForward,
    adapt,
    evaluating,
    freeze_statistics,
    keep_statistics,
    per_task,
    ways_of_passing,
    with_gradient,
)
from handful.methods.method import Method, Outcome
from handful.problems import Classification

Backprop = Literal["auto", "graph", "recompute"]
Objective = Callable[["GradientBased", Episode], Outcome]


class GradientBased(Method):
    """A backbone with a head, adapted by gradient steps.

    optimizer: the inner optimizer; inner_steps: S, in training, and in evaluation unless asked otherwise; objective:
    what the outer loop descends; adapted: parameters that the inner loop moves, by name or by the start of a name
    (`head`, `backbone.blocks.9`), all if empty; prototype_head: start every task with a head made from its class
    means instead of a learned one; first_order_steps: outer steps in which the inner gradients are taken for
    constants (inf: first-order MAML); norm_stats: whose batch-norm statistics (`TaskForward`); per_step_norm: batch
    norm of its own for every inner step, not adapted (`PerStepNorm`); fast_ops: closed second derivatives; backprop:
    keep the graph of all inner steps, rebuild one at a time (`adapt`), or what fits the memory; inner_batch: support
    images of an inner step, taken in turn without replacement, all if None.
    """

    def __init__(
        self,
        backbone: nn.Module,
        *,
        optimizer: InnerOptimizer,
        inner_steps: int,
        objective: Objective | None = None,
        adapted: Sequence[str] = (),
        prototype_head: bool = False,
        first_order_steps: float = 0,
        norm_stats: NormStats = "batch",
        per_step_norm: bool = False,
        fast_ops: bool = True,
        backprop: Backprop = "auto",
        inner_batch: int | None = None,
    ) -> None:
        super().__init__()
        if inner_steps < 1:
            raise HandfulError(f"inner_steps is {inner_steps}, but an inner loop needs at least 1 step to learn from.")
        self.network = nn.Sequential(OrderedDict(backbone=backbone))
        self.optimizer: InnerOptimizer = optimizer
        self.inner_steps = inner_steps
        self.objective: Objective = objective or QueryLoss()
        self.adapted = tuple(adapted)
        self.prototype_head = prototype_head
        self.first_order_steps = first_order_steps
        self.norm_stats: NormStats = norm_stats
        self.inductive: NormStats = "running" if norm_stats == "running" else "support"
        self.norms = PerStepNorm(self.network, inner_steps) if per_step_norm else None
        self.fast_ops = fast_ops
        self.wanted_backprop: Backprop = backprop
        self.backprop = "recompute" if backprop == "recompute" else "graph"
        self.inner_batch = inner_batch
        self.passing = ways_of_passing()  # until the network proves otherwise
        if prototype_head:
            self.network.add_module("head", OpenHead())

    def attach_head(self, outputs: int) -> None:
        """Put a linear head with one unit a class on the backbone: it is part of the initialisation that is learned.

        A learned head has its number of ways for good; one made from prototypes has as many as the task.
        """
        if hasattr(self, "inner_names"):
            if not self.prototype_head and self.ways != outputs:
                raise HandfulError(
                    f"This head was meta-trained for {self.ways} ways and cannot name {outputs} classes, since each "
                    f"of its units was learned; give it {self.ways}, train a run with way={outputs}, or train "
                    "proto-maml, whose head is made from the support set."
                )
            return
        if self.prototype_head and not isinstance(self.problem, Classification):
            raise HandfulError(
                f"proto-maml makes its head from class means, but the problem is {self.problem.name}; use maml."
            )
        if not self.prototype_head:
            self.network.add_module("head", linear_head(self.backbone, outputs))
        frozen = set(self.norms.names) if self.norms else set()
        learned = {n: p for n, p in self.network.named_parameters() if p.requires_grad and n not in frozen}
        self.inner_names = select(self.adapted, [*learned, *(HEAD if self.prototype_head else ())])
        for_any_ways = torch.zeros((), device=self.device)  # a head that is made anew for every task
        self.optimizer.attach({name: learned.get(name, for_any_ways) for name in self.inner_names})
        for name, value in self.network.named_parameters():
            if name in frozen:  # its rows in self.norms are what is learned
                value.requires_grad_(False)

    @property
    def ways(self) -> int:
        """Number of classes that a learned head can tell apart."""
        head: Any = self.network.get_submodule("head")
        return int(head.out_features)

    @property
    def backprops(self) -> tuple[str, ...]:
        """As wanted; `auto` leaves both."""
        return ("graph", "recompute") if self.wanted_backprop == "auto" else (self.wanted_backprop,)

    @property
    def first_order(self) -> bool:
        """Whether inner gradients are constants at this outer step."""
        return self.outer_step < self.first_order_steps

    def forward(self, episode: Episode) -> Outcome:
        """What the outer loop descends, with its gradient.

        Tasks that are not taken side by side are differentiated one part after another, so that a part's graph is
        gone before the next begins.  What an optimizer or a norm keeps starts in every part from the step's own
        value and ends at the mean over its tasks, as if all had been taken at once.
        """
        parts = self.parts(episode)
        if len(parts) == 1:
            return self.objective(self, episode)
        learned = [p for p in self.parameters() if p.requires_grad]
        sums: list[Tensor | None] = [None] * len(learned)
        loss, scores = torch.zeros((), device=self.device), []
        kept = [*self.optimizer.buffers(), *(self.norms.buffers() if self.norms else ())]
        before, after = ([value.clone() for value in kept] for _ in range(2))
        for part in parts:
            for value, old in zip(kept, before):
                value.copy_(old)
            share = len(part.support_x) / len(episode.support_x)
            outcome = self.objective(self, part)
            sums = list(map(add, sums, torch.autograd.grad(outcome.loss * share, learned, allow_unused=True)))
            loss = loss + outcome.loss.detach() * share
            scores.append(outcome.score)
            for mean, value, old in zip(after, kept, before):
                mean.add_((value - old) * share) if value.is_floating_point() else mean.copy_(value)
        for value, mean in zip(kept, after):
            value.copy_(mean)
        return Outcome(with_gradient(loss, list(zip(learned, sums))), torch.cat(scores))

    def predict(
        self,
        episode: Episode,
        inner_steps: int | None = None,
        norm_stats: NormStats | None = None,
        every_step: bool = True,
    ) -> Tensor:
        """Query predictions after 0, 1, ..., S inner steps, [S+1, B, N*Q, N]; no graph is kept.

        every_step: if not, those after the last step alone, [1, B, N*Q, N], which takes one query pass.
        """
        steps = self.inner_steps if inner_steps is None else inner_steps
        predictions = []
        with evaluating(self.network):
            for part in self.parts(episode):
                adaptation = self.adaptation(part, norm_stats or self.norm_stats)
                wanted = []
                for step, params in enumerate(adaptation.steps(steps)):
                    if every_step or step == steps:
                        with torch.no_grad():
                            wanted.append(adaptation.query(step, params))
                predictions.append(torch.stack(wanted))
        return torch.cat(predictions, 1)

    def side_by_side(self, episode: Episode) -> int:
        """Tasks that are taken together: all, where that is faster, but no more than `chunk`."""
        total = len(episode.support_x)
        return min(self.chunk or total, total if episode.support_x[0].numel() <= GROUPED_VALUES else 1)

    def parts(self, episode: Episode) -> list[Episode]:
        """The tasks in parts that are taken side by side."""
        size = self.side_by_side(episode)
        return [episode.tasks(start, start + size) for start in range(0, len(episode.support_x), size)]

    def fit(self, support_x: Tensor, support_y: Tensor, inner_steps: int | None = None) -> nn.Module:
        """Adapt to one task, images [n, C, H, W] and classes [n]: an ordinary network in eval mode.

        Its batch norms hold the statistics of the support set, or with norm_stats="running" those of training, so
        that a prediction does not depend on what else is predicted with it (inductive).
        """
        x, y = support_x.to(self.device), support_y.to(self.device)
        steps = self.inner_steps if inner_steps is None else inner_steps
        with evaluating(self.network):
            adaptation = self.adaptation(Episode(x[None], y[None], x[None], y[None]), self.inductive)
            *_, params = adaptation.steps(steps)
            params = adaptation.whole(max(steps - 1, 0), params)
        outputs = params["head.weight"].shape[1] if "head.weight" in params else self.ways
        network = self.unfitted([0] * outputs).to(next(self.parameters()))
        adapted = {name: value[0].detach() for name, value in params.items()}
        network.load_state_dict({**network.state_dict(), **self.network.state_dict(), **adapted})
        if self.inductive == "support":
            freeze_statistics(network, x)
        return network.cpu().eval().requires_grad_(False)

    def unfitted(self, shots: Sequence[int]) -> nn.Module:
        """Backbone and linear head."""
        head = nn.Linear(features_of(self.backbone), len(shots))
        return keep_statistics(nn.Sequential(OrderedDict(backbone=copy.deepcopy(self.backbone), head=head)))

    def learned_rates(self) -> dict[str, Tensor]:
        """Of the inner optimizer."""
        return self.optimizer.learned_rates()

    def adaptation(self, episode: Episode, norm_stats: NormStats, *, training: bool = False) -> Adaptation:
        """Prepare the inner loop for a batch of tasks."""
        return Adaptation(self, episode, norm_stats, training)


class Adaptation:
    """The inner loop of one batch of tasks: `steps` yields the adapted parameters, `query` predicts under them."""

    def __init__(self, method: GradientBased, episode: Episode, norm_stats: NormStats, training: bool) -> None:
        if norm_stats == "per_step" and method.norms is None:
            raise HandfulError(
                "norm_stats is 'per_step', but this run kept no statistics for every step; use per_step_norm=true in "
                "training, or 'support' for inductive predictions."
            )
        self.method, self.episode, self.training = method, episode, training
        self.tasks = len(episode.support_x)
        self.norm_stats = norm_stats
        self.runner = TaskForward(method.network, norm_stats, method.fast_ops, method.passing)
        self.support_x, self.query_x = episode.support_x, episode.query_x
        self.prefix = ""
        if method.norms is None and all(name in HEAD for name in method.inner_names):
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
        if method.inner_batch:
            self.order = self._order(count * method.inner_batch)
        yield from adapt(
            self.support_loss,
            start,
            method.optimizer.start(start),
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


@dataclass(frozen=True)
class QueryLoss:
    """The query loss of the adapted networks: after the last inner step, or a weighted sum over all of them.

    weights: outer step, S -> the weights of L_query(phi_1) ... L_query(phi_S).
    """

    weights: Callable[[int, int], Sequence[float]] = lambda outer_step, steps: [0.0] * (steps - 1) + [1.0]

    def __call__(self, method: GradientBased, episode: Episode) -> Outcome:
        """Mean over tasks, with its graph."""
        adaptation = method.adaptation(episode, method.norm_stats, training=True)
        weights = [0.0, *self.weights(method.outer_step, method.inner_steps)]
        total = torch.zeros((), device=method.device)
        for step, params in enumerate(adaptation.steps(method.inner_steps)):
            if weights[step]:
                loss, predictions = adaptation.query_loss(step, params)
                total = total + weights[step] * loss
        return Outcome(total, method.problem.score(predictions, episode.query_y))


class OpenHead(nn.Module):
    """A linear layer whose weights every task brings along."""

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("weight", torch.empty(0), persistent=False)
        self.register_buffer("bias", torch.empty(0), persistent=False)

    def forward(self, features: Tensor) -> Tensor:
        """[n, D] -> [n, N]."""
        return nn.functional.linear(features, self.get_buffer("weight"), self.get_buffer("bias"))


HEAD = ("head.weight", "head.bias")


def add(total: Tensor | None, more: Tensor | None) -> Tensor | None:
    """Sum of gradients, of which either may be absent."""
    if total is None or more is None:
        return more if total is None else total
    return total + more


def linear_head(backbone: nn.Module, outputs: int) -> nn.Linear:
    """Xavier-uniform weights, zero biases."""
    head = nn.Linear(features_of(backbone), outputs)
    nn.init.xavier_uniform_(head.weight)
    nn.init.zeros_(head.bias)
    return head


def features_of(backbone: nn.Module) -> int:
    """Number of features that a backbone gives."""
    features: Any = backbone.out_features
    return int(features)


def class_means(features: Tensor, classes: Tensor, way: int = -1) -> Tensor:
    """Mean feature of each class: [B, n, D], [B, n] -> [B, N, D]; supports need not be balanced."""
    member = nn.functional.one_hot(classes, way).to(features.dtype)
    return member.mT @ features / member.sum(1).unsqueeze(-1)


def select(wanted: Sequence[str], names: Sequence[str]) -> list[str]:
    """The names that are wanted, in order: by a whole name or by whole leading parts of one; all if none is said."""
    for want in wanted:
        if not any(f"{name}.".startswith(f"{want}.") for name in names):
            parts = {".".join(name.split(".")[:depth]) for name in names for depth in range(1, name.count(".") + 2)}
            raise unknown("parameter to adapt", want, parts)
    return [name for name in names if not wanted or any(f"{name}.".startswith(f"{want}.") for want in wanted)]
