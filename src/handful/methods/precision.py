"""What stays in float32 while a backbone runs in half precision (`handful train --precision bf16-mixed`)."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any, ParamSpec, TypeVar

import torch
from torch import Tensor

Inputs = ParamSpec("Inputs")
Output = TypeVar("Output")


def full_precision(function: Callable[Inputs, Output]) -> Callable[Inputs, Output]:
    """Run it outside autocast, its half-precision tensors raised to float32: distances are small differences."""

    @functools.wraps(function)
    def run(*args: Inputs.args, **options: Inputs.kwargs) -> Output:
        first = next(value for value in (*args, *options.values()) if isinstance(value, Tensor))
        with torch.autocast(first.device.type, enabled=False):
            return function(*map(_raised, args), **{key: _raised(value) for key, value in options.items()})

    return run


def _raised(value: Any) -> Any:
    half = isinstance(value, Tensor) and value.dtype in (torch.float16, torch.bfloat16)
    return value.float() if half else value
