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
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor, nn

from handful.decoders.linear import features_of
from handful.episodes import Episode
from handful.errors import HandfulError, unknown
from handful.inner_loop import (
    GROUPED_VALUES,
    InnerOptimizer,
    NormStats,
    PerStepNorm,
    evaluating,
    freeze_statistics,
    keep_statistics,
    ways_of_passing,
    with_gradient,
)
from handful.methods.adaptation import Adaptation, add
from handful.methods.heads import HEAD, OpenHead
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

    mixed = False  # see docs/backbones.md

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
        if first_order_steps == math.inf:  # no step's graph is ever kept
            backprop = "graph"
        self.backprops = ("graph", "recompute") if backprop == "auto" else (backprop,)
        self.backprop = self.backprops[0]
        self.inner_batch = inner_batch
        self.passing = ways_of_passing()  # until the network proves otherwise
        if prototype_head:
            self.network.add_module("head", OpenHead())

    def attach_head(self, outputs: int) -> None:
        """Put the problem's head on the backbone, a linear one but for rail lines: it is part of what is learned.

        A learned head has its number of outputs for good; one made from prototypes has as many as the task has ways.
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
            body, head = self.problem.network(self.backbone, outputs)
            self.network = nn.Sequential(OrderedDict(backbone=body, head=head))
            self.network.to(self.device)  # that of the body, if it has weights
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
        kept = self.kept()
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

    def kept(self) -> list[Tensor]:
        """Of the inner optimizer, and of batch norms for every inner step."""
        return [*self.optimizer.buffers(), *(self.norms.buffers() if self.norms else ())]

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
        """Backbone and linear head, or a copy of what was meta-trained where the problem has a head of its own."""
        if not isinstance(self.problem, Classification):
            return keep_statistics(copy.deepcopy(self.network))
        head = nn.Linear(features_of(self.backbone), len(shots))
        return keep_statistics(nn.Sequential(OrderedDict(backbone=copy.deepcopy(self.backbone), head=head)))

    def learned_rates(self) -> dict[str, Tensor]:
        """Of the inner optimizer."""
        return self.optimizer.learned_rates()

    def adaptation(self, episode: Episode, norm_stats: NormStats, *, training: bool = False) -> Adaptation:
        """Prepare the inner loop for a batch of tasks."""
        return Adaptation(self, episode, norm_stats, training)


@dataclass(frozen=True)
class QueryLoss:
    """The query loss of the adapted networks: after the last inner step, or a weighted sum over all of them.

    weights: outer step, S -> the weights of L_query(phi_1) ... L_query(phi_S); zero_shot: the share of the whole that
    L_query(phi_0) has, before any inner step.
    """

    weights: Callable[[int, int], Sequence[float]] = lambda outer_step, steps: [0.0] * (steps - 1) + [1.0]
    zero_shot: float = 0

    def __call__(self, method: GradientBased, episode: Episode) -> Outcome:
        """Mean over tasks, with its graph."""
        adaptation = method.adaptation(episode, method.norm_stats, training=True)
        adapted = self.weights(method.outer_step, method.inner_steps)
        weights = [self.zero_shot, *((1 - self.zero_shot) * weight for weight in adapted)]
        total = torch.zeros((), device=method.device)
        for step, params in enumerate(adaptation.steps(method.inner_steps)):
            if weights[step]:
                loss, predictions = adaptation.query_loss(step, params)
                total = total + weights[step] * loss
        return Outcome(total, method.problem.score(predictions, episode.query_y))


def select(wanted: Sequence[str], names: Sequence[str]) -> list[str]:
    """The names that are wanted, in order: by a whole name or by whole leading parts of one; all if none is said."""
    for want in wanted:
        if not any(f"{name}.".startswith(f"{want}.") for name in names):
            parts = {".".join(name.split(".")[:depth]) for name in names for depth in range(1, name.count(".") + 2)}
            raise unknown("parameter to adapt", want, parts)
    return [name for name in names if not wanted or any(f"{name}.".startswith(f"{want}.") for want in wanted)]
