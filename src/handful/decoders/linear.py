"""The linear head: what classes and values are read off features with."""

from __future__ import annotations

from typing import Any

from torch import nn

from handful.errors import HandfulError, sizes_that_fit


def linear_head(backbone: nn.Module, outputs: int) -> nn.Linear:
    """Xavier-uniform weights, zero biases."""
    with sizes_that_fit(f"A head of {outputs:,} outputs"):
        head = nn.Linear(features_of(backbone), outputs)
    nn.init.xavier_uniform_(head.weight)
    nn.init.zeros_(head.bias)
    return head


def features_of(backbone: nn.Module) -> int:
    """Number of features that a backbone gives."""
    features: Any = getattr(backbone, "out_features", None)
    if features is None:
        raise HandfulError(
            f"The backbone {type(backbone).__name__} does not say how many features it gives; set its attribute "
            "`out_features`."
        )
    return int(features)
