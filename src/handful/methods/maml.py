"""Model-Agnostic Meta-Learning.

Finn, Abbeel, Levine: Model-Agnostic Meta-Learning for Fast Adaptation of Deep Networks, ICML 2017, arXiv 1703.03400.

Learn an initialisation theta from which a few gradient steps on a task's support set give a good model of that task:

    phi_0 = theta,   phi_{s+1} = phi_s - a grad L_support(phi_s)        (inner loop)
    theta <- Adam(theta, grad_theta mean over tasks of L_query(phi_S))  (outer loop, in training.py)

The outer gradient goes through the inner gradients, so it holds second derivatives; `first_order` takes the inner
gradients for constants instead (FOMAML).  With norm_stats="batch", as published, it is transductive.
"""

from __future__ import annotations

import copy
from collections import OrderedDict
from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor, nn

from handful.episodes import Episode
from handful.errors import HandfulError
from handful.inner_loop import NormStats, Params, TaskForward, adapt, evaluating, freeze_statistics, per_task
from handful.methods.method import Method, Outcome
from handful.registry import METHODS, part


@part(METHODS, "maml")
class MAML(Method):
    """MAML and FOMAML over any backbone with `out_features`.

    inner_lr: step size a on the *mean* support loss (the paper's 0.4 for 5-way Omniglot is on the sum over classes,
    so 2.0 here); learn_inner_lr: one learned step size a parameter tensor, starting from inner_lr; inner_steps:
    gradient steps in training, and in evaluation unless asked otherwise; norm_stats: whose batch-norm statistics
    (see `TaskForward`); fast_ops: closed second derivatives (same numbers, less time).
    """

    def __init__(
        self,
        backbone: nn.Module,
        *,
        inner_lr: float = 0.4,
        inner_steps: int = 5,
        first_order: bool = False,
        learn_inner_lr: bool = False,
        norm_stats: NormStats = "batch",
        fast_ops: bool = True,
    ) -> None:
        super().__init__()
        if inner_steps < 1:
            raise HandfulError(f"inner_steps is {inner_steps}, but MAML needs at least 1 step on the support set.")
        self.network = nn.Sequential(OrderedDict(backbone=backbone))
        self.inner_lr = inner_lr
        self.inner_steps = inner_steps
        self.first_order = first_order
        self.learn_inner_lr = learn_inner_lr
        self.norm_stats: NormStats = norm_stats
        self.fast_ops = fast_ops
        self.foldable = True  # until the network proves otherwise

    def attach_head(self, outputs: int) -> None:
        """Put a linear head with one unit a class on the backbone: MAML's head is part of its initialisation."""
        if hasattr(self.network, "head"):
            if self.ways != outputs:
                raise HandfulError(
                    f"This MAML head was meta-trained for {self.ways} ways and cannot name {outputs} classes; "
                    f"give it {self.ways}, or train a run with way={outputs}."
                )
            return
        features: Any = self.backbone.out_features
        head = nn.Linear(features, outputs)
        nn.init.xavier_uniform_(head.weight)
        nn.init.zeros_(head.bias)
        self.network.add_module("head", head)
        if self.learn_inner_lr:
            names = [name for name, _ in self.network.named_parameters()]
            self.inner_lrs = nn.Parameter(torch.full((len(names),), self.inner_lr))
            self._position = {name: index for index, name in enumerate(names)}

    @property
    def ways(self) -> int:
        """Number of classes that the head can tell apart."""
        head: Any = self.network.head
        return int(head.out_features)

    def step_size(self, step: int, name: str) -> Tensor | float:
        """Inner-loop rate of a parameter tensor."""
        return self.inner_lrs[self._position[name]] if self.learn_inner_lr else self.inner_lr

    def forward(self, episode: Episode) -> Outcome:
        """Query loss after the inner loop, with the graph back to the initialisation."""
        tasks = TaskForward(self.network, self.norm_stats, self.fast_ops, self.foldable)
        *_, adapted = self._adapt(tasks, episode.support_x, episode.support_y, self.inner_steps, differentiable=True)
        predictions = tasks.query(adapted, episode.query_x, episode.support_x)
        self.foldable = tasks.foldable
        loss = self.problem.loss(predictions, episode.query_y).mean()
        return Outcome(loss, self.problem.score(predictions.detach(), episode.query_y))

    def predict(self, episode: Episode, inner_steps: int | None = None, norm_stats: NormStats | None = None) -> Tensor:
        """Query predictions after 0, 1, ..., S inner steps, [S+1, B, N*Q, N]; no graph is kept."""
        steps = self.inner_steps if inner_steps is None else inner_steps
        predictions = []
        with evaluating(self.network):
            tasks = TaskForward(self.network, norm_stats or self.norm_stats, self.fast_ops, self.foldable)
            for params in self._adapt(tasks, episode.support_x, episode.support_y, steps, differentiable=False):
                with torch.no_grad():
                    predictions.append(tasks.query(params, episode.query_x, episode.support_x))
        return torch.stack(predictions)

    def fit(self, support_x: Tensor, support_y: Tensor, inner_steps: int | None = None) -> nn.Module:
        """Adapt to one task, images [n, C, H, W] and classes [n]: an ordinary network in eval mode.

        Its batch norms hold the statistics of the support set, so that a prediction does not depend on what else is
        predicted with it (inductive).
        """
        x, y = support_x.to(self.device), support_y.to(self.device)
        steps = self.inner_steps if inner_steps is None else inner_steps
        with evaluating(self.network):
            tasks = TaskForward(self.network, "batch", self.fast_ops)
            *_, adapted = self._adapt(tasks, x[None], y[None], steps, differentiable=False)
        network = copy.deepcopy(self.network)
        network.load_state_dict({name: value[0].detach() for name, value in adapted.items()}, strict=False)
        freeze_statistics(network, x)
        return network.cpu().requires_grad_(False)

    def _adapt(self, tasks: TaskForward, x: Tensor, y: Tensor, steps: int, differentiable: bool) -> Iterator[Params]:
        learned = {name: value for name, value in self.network.named_parameters() if value.requires_grad}
        return adapt(
            tasks.support,
            per_task(learned, len(x)),
            x,
            y,
            loss=self.problem.loss,
            step_size=self.step_size,
            steps=steps,
            first_order=self.first_order,
            differentiable=differentiable,
        )
