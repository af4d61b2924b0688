"""Inner optimizers: what becomes of a parameter and its gradient, with four kinds of step size."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from typing import Literal, get_args

import torch
from torch import Tensor, nn

from handful.errors import HandfulError, unknown
from handful.inner_loop.adaptation import Params, Update

Rates = Literal["fixed", "per_tensor", "per_step", "per_element"]


class InnerOptimizer(nn.Module, ABC):
    """How the inner loop moves parameters.  Its own parameters are learned by the outer loop."""

    @abstractmethod
    def attach(self, params: Mapping[str, Tensor]) -> None:
        """Prepare for these parameters: name -> initial value, without the task dimension."""

    @abstractmethod
    def start(self, params: Params) -> Update:
        """Begin the adaptation of a batch of tasks from parameters [B, ...]."""

    def keep(self, update: Update) -> None:
        """Keep what an adaptation has left in its update for those that follow: nothing."""

    def learned_rates(self) -> dict[str, Tensor]:
        """Parameter name -> its learned step size, if any is learned."""
        return {}


class GradientDescent(InnerOptimizer):
    """phi' = phi - a * g.

    rates: `fixed`, a is one number (MAML); else it is learned from `inner_lr` on, unconstrained in sign:
    `per_tensor`, one a parameter tensor; `per_step`, one a tensor and inner step (MAML++, Antoniou et al. 2019);
    `per_element`, one an entry (Meta-SGD, Li et al. 2017).  Losses are means, so rates are for mean losses.
    """

    def __init__(self, inner_lr: float, rates: Rates, inner_steps: int) -> None:
        super().__init__()
        if rates not in get_args(Rates):
            raise unknown("kind of rates", rates, get_args(Rates))
        self.inner_lr = inner_lr
        self.kind: Rates = rates
        self.inner_steps = inner_steps
        self.learned = nn.ParameterList()

    def attach(self, params: Mapping[str, Tensor]) -> None:
        """One learned rate for each parameter."""
        self.position = {name: index for index, name in enumerate(params)}
        if self.kind != "fixed":
            for value in params.values():
                shape = {"per_tensor": [], "per_step": [self.inner_steps], "per_element": list(value.shape)}[self.kind]
                self.learned.append(nn.Parameter(value.new_full(shape, self.inner_lr)))

    def rate(self, step: int, name: str) -> Tensor | float:
        """Step size of a parameter in an inner step."""
        if self.kind == "fixed":
            return self.inner_lr
        learned = self.learned[self.position[name]]
        if self.kind != "per_step":
            return learned
        if step >= self.inner_steps:
            raise HandfulError(
                f"Inner step {step + 1} has no learned rate: this run has rates for {self.inner_steps} inner steps; "
                f"use inner_steps={self.inner_steps} or less."
            )
        return learned[step]

    def start(self, params: Params) -> Update:
        """Gradient descent remembers nothing."""
        return self.step

    def step(self, step: int, params: Params, grads: Params) -> Params:
        """One step of all tasks."""
        moved = {}
        for name, value in params.items():
            rate = self.rate(step, name)
            moved[name] = (
                torch.addcmul(value, grads[name], rate, value=-1)
                if isinstance(rate, Tensor)
                else torch.sub(value, grads[name], alpha=rate)
            )
        return moved

    def learned_rates(self) -> dict[str, Tensor]:
        """[] a tensor, [S] a tensor, or the parameter's shape, as `rates` says; empty if they are fixed."""
        return {name: self.learned[index].detach() for name, index in self.position.items()} if self.learned else {}


class ScaledDescent(GradientDescent):
    """Gradient descent on gradients divided by their own size: phi' = phi - a * g / (sqrt(v) + eps).

    v, the running mean of g^2 as in Adam (Kingma and Ba, ICLR 2015, with beta1 = 0), begins anew with every task, so
    that a is the length of the first step in every entry, whatever the loss is measured in.  The outer loop takes the
    divisor for a constant; a may be learned as in `GradientDescent`.
    """

    beta2, eps = 0.999, 1e-8

    def start(self, params: Params) -> Update:
        """Every task has second moments of its own."""
        kept: list[Params] = []  # after each step: one that is computed again finds what it began with

        def update(step: int, params: Params, grads: Params) -> Params:
            before = kept[step - 1] if step else {name: torch.zeros_like(g) for name, g in grads.items()}
            scaled, moments = by_size(grads, before, step + 1, self.beta2, self.eps)
            if step == len(kept):
                kept.append(moments)
            return self.step(step, params, scaled)

        return update


def by_size(grads: Params, moments: Params, steps: int, beta2: float, eps: float) -> tuple[Params, Params]:
    """Gradients over their own size, g / (sqrt(v) + eps), and v after so many steps, the corrected mean of g^2.

    Adam's step without its first moment.  The size is a constant for what differentiates through the step.
    """
    after = {name: torch.lerp(g.detach().square(), moments[name], beta2) for name, g in grads.items()}
    correction = 1 - beta2**steps
    return {name: g / ((after[name] / correction).sqrt() + eps) for name, g in grads.items()}, after


class InnerAdam(InnerOptimizer):
    """Adam without first moment (beta1 = 0), as Reptile uses it: phi' = phi - a * g / (sqrt(v) + eps).

    v, the running mean of g^2, is kept across tasks as in Reptile's code, where the optimizer is never reset: every
    task starts from the kept v.  There tasks follow one another; here B tasks run side by side, and what is kept
    after them is their mean, so that the order of tasks does not matter.
    """

    def __init__(self, inner_lr: float, beta2: float = 0.999, eps: float = 1e-8) -> None:
        super().__init__()
        self.inner_lr, self.beta2, self.eps = inner_lr, beta2, eps
        self.register_buffer("steps", torch.zeros((), dtype=torch.long))

    def attach(self, params: Mapping[str, Tensor]) -> None:
        """One second moment for each parameter."""
        self.names = list(params)
        for index, value in enumerate(params.values()):
            self.register_buffer(f"second_moment{index}", torch.zeros_like(value, requires_grad=False))

    def start(self, params: Params) -> Update:
        """Every task goes on from the kept second moments."""
        moments = {name: self.get_buffer(f"second_moment{i}") for i, name in enumerate(self.names)}
        return _AdamUpdate(self, moments, int(self.get_buffer("steps")))

    def keep(self, update: Update) -> None:
        """Keep the steps, and the mean over tasks of the second moments."""
        assert isinstance(update, _AdamUpdate)
        self.get_buffer("steps").fill_(update.steps)
        for index, name in enumerate(self.names):
            self.get_buffer(f"second_moment{index}").copy_(update.moments[name].mean(0))


class _AdamUpdate:
    """The steps of one batch of tasks: moments are [...] at first, [B, ...] from the first step on."""

    def __init__(self, adam: InnerAdam, moments: Params, steps: int) -> None:
        self.adam, self.moments, self.steps = adam, moments, steps

    def __call__(self, step: int, params: Params, grads: Params) -> Params:
        adam = self.adam
        self.steps += 1
        with torch.no_grad():
            scaled, self.moments = by_size(grads, self.moments, self.steps, adam.beta2, adam.eps)
            return {name: value - adam.inner_lr * scaled[name] for name, value in params.items()}
