"""Baseline and Baseline++: an ordinary classifier's features, and a new linear layer trained for every task.

Chen, Liu, Kira, Wang, Huang: A Closer Look at Few-shot Classification, ICLR 2019, arXiv 1904.04232.

    Baseline:    logits = W x + b                       Baseline++:  logits = s cos(x, w_n), with a learned length g_n:
                                                                     s g_n <x/|x|, v_n/|v_n|>

The layer starts at random and takes mini-batches of 4 shots for 100 epochs of SGD with rate 0.01, momentum 0.9,
dampening 0.9 and weight decay 0.001; the backbone stays as it is.  All tasks of a batch are trained side by side.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from handful.methods.metric import Head, Metric
from handful.registry import METHODS, part

BATCH, RATE, MOMENTUM, DAMPENING, DECAY = 4, 0.01, 0.9, 0.9, 0.001


class FineTuned(Head[list[Tensor]]):
    """A linear or cosine layer, trained on the support of each task.

    epochs: passes over the support; cosine_scale: s of Baseline++, None for Baseline.
    """

    episodic = False

    def __init__(self, epochs: int, cosine_scale: float | None = None) -> None:
        super().__init__()
        self.epochs, self.cosine_scale = epochs, cosine_scale

    def learn(self, support: Tensor, labels: Tensor, way: int) -> list[Tensor]:
        """[B, S, d], [B, S] -> the layer of each task: W [B, N, d] and b [B, 1, N], or v [B, N, d] and g [B, N, 1]."""
        support = support.detach()
        generator = torch.Generator().manual_seed(0)  # the same start and order for every task, however it is batched
        tasks, images, features = support.shape
        bound = features**-0.5
        start = torch.empty(way, features).uniform_(-bound, bound, generator=generator).to(support)
        other = start.new_zeros(1, way) if self.cosine_scale is None else start.norm(dim=-1, keepdim=True)
        layer = [value.expand(tasks, *value.shape).contiguous() for value in (start, other)]
        velocity: list[Tensor] = []
        for _ in range(self.epochs):
            for rows in torch.randperm(images, generator=generator).split(BATCH):
                gradients = self.gradients(layer, support[:, rows], labels[:, rows])
                decayed = [gradient + DECAY * value for gradient, value in zip(gradients, layer)]
                if velocity:  # the first step is not damped, as in torch's SGD
                    decayed = [MOMENTUM * v + (1 - DAMPENING) * g for v, g in zip(velocity, decayed)]
                velocity = decayed
                layer = [value - RATE * v for value, v in zip(layer, velocity)]
        return layer

    def gradients(self, layer: list[Tensor], x: Tensor, y: Tensor) -> tuple[Tensor, ...]:
        """Of each task's mean cross-entropy."""
        with torch.enable_grad():
            values = [value.detach().requires_grad_() for value in layer]
            losses = F.cross_entropy(self.judge(x, values).mT, y, reduction="none").mean(1)
            return torch.autograd.grad(losses.sum(), values)

    def judge(self, x: Tensor, layer: list[Tensor]) -> Tensor:
        """[B, n, d], the layers -> [B, n, N]."""
        weight, other = layer
        if self.cosine_scale is None:
            return x @ weight.mT + other
        rows = other * F.normalize(weight, dim=-1)
        return self.cosine_scale * F.normalize(x, dim=-1, eps=1e-5) @ rows.mT


@part(METHODS, "baseline")
def Baseline(backbone: nn.Module, *, epochs: int = 100) -> Metric:
    """Baseline; for a backbone pre-trained with `head: linear` (`train.steps: 0`)."""
    return Metric(backbone, FineTuned(epochs))


@part(METHODS, "baseline++")
def BaselinePlusPlus(backbone: nn.Module, *, epochs: int = 100, scale: float = 2.0) -> Metric:
    """Baseline++; scale: s, 2 for up to 200 training classes in the authors' code and 10 for more."""
    return Metric(backbone, FineTuned(epochs, scale))
