"""Lines of a video made steadier by the frames before, as they come: nothing waits for a later frame."""

from __future__ import annotations

import torch
from torch import Tensor

from handful.problems.rail_lines import Lines


class Smoother:
    """A running mean over frames, in which each row of a line weighs as much as it is sure.

    memory: the share of what is known that the next frame keeps, 0 (no smoothing) to 1.  A row's weight is one over
    the variance of its distribution, times the probability of the line being there.
    """

    def __init__(self, memory: float) -> None:
        self.memory = memory
        self.known: tuple[Tensor, Tensor, Tensor] | None = None  # sum of weights, of weighted x, and of shares

    def __call__(self, lines: Lines) -> Lines:
        """Lines [L, R] of the next frame, smoothed."""
        weight = lines.there / lines.spread.square().clamp(min=1e-6) + 1e-9
        new = weight, weight * lines.x, lines.there
        if self.known is not None:
            total, x, there = self.known
            new = (
                weight + self.memory * total,
                weight * lines.x + self.memory * x,
                torch.lerp(lines.there, there, self.memory),
            )
        self.known = new
        return lines._replace(x=new[1] / new[0], there=new[2])
