"""A decoder that regresses where a line crosses each row, from all places of the last map at once (note 004)."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from handful.data.rails.rows import ROWS, UNIT
from handful.decoders.pyramid import Shape, unpacked
from handful.errors import HandfulError
from handful.registry import DECODERS, part


@part(DECODERS, "row_regression")
class RowRegression(nn.Module):
    """Rows of a `Pyramid` [n, features] -> [n, lines, rows, 2]: where the line is, and the logit of its being there.

    The last map goes through a 1x1 convolution to `channels`, flattened through a layer of `hidden` units, to places
    in `UNIT`s as the loss counts them, so that its gradient is not steep; they come out as shares of the width.
    residual: the places are added to the mean line of the support, which with no training is therefore the answer;
    else that is the middle of the frame.  Raises HandfulError for rows that do not divide the 144 of a target.
    """

    def __init__(
        self,
        rows: int = 36,
        channels: int = 8,
        hidden: int = 256,
        residual: bool = True,
        lines: int = 2,
        shapes: Sequence[Shape] = (),
    ) -> None:
        super().__init__()
        if rows < 2 or ROWS % rows:
            raise HandfulError(
                f"decoder.rows is {rows}, but the {ROWS} rows of a target must be a multiple of it; use 36, 48 or 72."
            )
        self.shapes, self.out_features, self.rows, self.residual = shapes, lines, rows, residual
        depth, height, width = shapes[-1]
        self.narrow = nn.Conv2d(depth, channels, 1)
        self.hidden = nn.Linear(channels * height * width, hidden)
        self.rows_of = nn.Linear(hidden, lines * rows * 2)
        nn.init.zeros_(self.rows_of.weight)
        nn.init.zeros_(self.rows_of.bias)
        if not residual:
            nn.init.constant_(self.rows_of.bias[::2], 0.5 / UNIT)

    def forward(self, features: Tensor) -> Tensor:
        """[n, features] -> [n, lines, rows, 2]."""
        last = unpacked(features, self.shapes)[-1]
        hidden = torch.relu(self.hidden(self.narrow(last).flatten(1)))
        columns, there = self.rows_of(hidden).reshape(-1, self.out_features, self.rows, 2).unbind(-1)
        return torch.stack([columns * UNIT, there], -1)
