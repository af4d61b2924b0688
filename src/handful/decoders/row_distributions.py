"""A decoder that says where a line crosses each row by a distribution over columns.

The maps are summed from the top down (Lin et al.: "Feature pyramid networks", CVPR 2017) at stride 8, and every place
is looked at in the same way wherever it is: what was learned of a rail on the left holds on the right (UFLD has the
distribution by rows, but from a dense layer, which learns each place anew).
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from handful.decoders.pyramid import Shape, unpacked
from handful.errors import HandfulError
from handful.registry import DECODERS, part

GROUPS = 8  # of the group norms, which no batch mate changes


@part(DECODERS, "row_distributions")
class RowDistributions(nn.Module):
    """Rows of a `Pyramid` [n, features] -> [n, lines, H/8, W/8 + 1]: logits of columns, and of the line being there.

    channels: of the summed maps, a multiple of 8.  Whether a line is in a row is asked of the features where the row
    has it, weighted by its distribution.  Raises HandfulError for other channels.
    """

    residual = False

    def __init__(self, channels: int = 64, lines: int = 2, shapes: Sequence[Shape] = ()) -> None:
        super().__init__()
        if channels < GROUPS or channels % GROUPS:
            raise HandfulError(
                f"decoder.channels is {channels}, but it takes {GROUPS} groups of channels; use a multiple of {GROUPS}."
            )
        self.shapes, self.out_features = shapes, lines
        self.lateral = nn.ModuleList(nn.Conv2d(depth, channels, 1) for depth, _, _ in shapes)
        self.trunk = nn.Sequential(
            nn.Conv2d(channels + 2, channels, 3, padding=1),
            nn.GroupNorm(GROUPS, channels),
            nn.ReLU(),
            nn.Conv2d(channels, channels, 3, padding=2, dilation=2),
            nn.GroupNorm(GROUPS, channels),
            nn.ReLU(),
        )
        self.columns = nn.Conv2d(channels, lines, 1)
        self.there = nn.Linear(channels, lines)
        _, height, width = shapes[0]
        down, across = torch.linspace(-1, 1, height), torch.linspace(-1, 1, width)
        self.register_buffer("places", torch.stack(torch.meshgrid(down, across, indexing="ij")), persistent=False)

    def forward(self, features: Tensor) -> Tensor:
        """[n, features] -> [n, lines, H/8, W/8 + 1]."""
        maps = unpacked(features, self.shapes)
        x = self.lateral[-1](maps[-1])
        for lateral, found in zip(reversed(self.lateral[:-1]), reversed(maps[:-1])):
            x = lateral(found) + F.interpolate(x, found.shape[-2:], mode="nearest")
        x = self.trunk(torch.cat([x, self.get_buffer("places").expand(x.shape[0], -1, -1, -1)], 1))
        columns = self.columns(x)  # [n, lines, rows, columns]
        at_line = columns.softmax(-1).transpose(1, 2) @ x.permute(0, 2, 3, 1)  # [n, rows, lines, channels]
        there = ((at_line * self.there.weight).sum(-1) + self.there.bias).transpose(1, 2)
        return torch.cat([columns, there.unsqueeze(-1)], -1)
