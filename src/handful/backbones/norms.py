"""What a backbone normalises its maps by."""

from __future__ import annotations

from typing import Literal

from torch import nn

from handful.errors import HandfulError

Norm = Literal["batch", "group"]
GROUPS = (8, 4, 2, 1)  # of channels that group norm normalises together: as many as leave four channels a group


def norm_layer(norm: Norm, channels: int) -> nn.Module:
    """`batch` norm, or `group` norm, which looks at one image alone."""
    return nn.BatchNorm2d(channels) if norm == "batch" else group_norm(channels)


def group_norm(channels: int) -> nn.GroupNorm:
    """Group norm that a last map of 1x1 survives: one channel a group would be normalised to zero there."""
    if channels == 1:
        raise HandfulError("norm='group' normalises channels together, but there is one, channels=1; use 2 or more.")
    groups = next(g for g in GROUPS if channels % g == 0 and channels // g >= min(channels, 4))
    return nn.GroupNorm(groups, channels)
