"""Predictors of the next frame that learned nothing, or next to nothing, and yet are hard to beat."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import torch
from torch import Tensor

Predictor = Callable[[Tensor], Tensor]


def frames_of(windows: Tensor, channels: int) -> Tensor:
    """Windows [..., T*C, H, W] as frames [..., T, C, H, W], the oldest first."""
    return windows.unflatten(-3, (-1, channels))


def copied(windows: Tensor, channels: int = 1) -> Tensor:
    """The last frame, f(t-1): [..., T*C, H, W] -> [..., C, H, W]."""
    return windows[..., -channels:, :, :]


def extrapolated(windows: Tensor, channels: int = 1) -> Tensor:
    """What moves goes on as it did, 2 f(t-1) - f(t-2): [..., T*C, H, W] -> [..., C, H, W]."""
    return 2 * windows[..., -channels:, :, :] - windows[..., -2 * channels : -channels, :, :]


def least_squares(support_x: Tensor, support_y: Tensor) -> Predictor:
    """A weight for each of the T frames and a constant, fitted to windows [n, T*C, H, W] and frames [n, C, H, W].

    The normal equations are solved in float64: T + 1 numbers from as many equations as there are values.
    """
    channels = support_y.shape[-3]
    frames = frames_of(support_x, channels).double().movedim(-4, -1)  # [n, C, H, W, T]
    rows = torch.cat([frames, torch.ones_like(frames[..., :1])], -1).flatten(0, -2)
    wanted = support_y.double().flatten()
    gram = rows.mT @ rows + 1e-9 * len(rows) * torch.eye(rows.shape[1], dtype=rows.dtype, device=rows.device)
    weights = torch.cholesky_solve((rows.mT @ wanted)[:, None], torch.linalg.cholesky(gram))[:, 0]
    return partial(weighted, weights=weights, channels=channels)


def weighted(windows: Tensor, weights: Tensor, channels: int) -> Tensor:
    """A weighted sum of the frames, and a constant, weights [T + 1]: [..., T*C, H, W] -> [..., C, H, W]."""
    numbers = weights.to(windows)
    return torch.einsum("...tchw,t->...chw", frames_of(windows, channels), numbers[:-1]) + numbers[-1]


def floors(support_x: Tensor, support_y: Tensor) -> dict[str, Predictor]:
    """The predictors by name, of a task."""
    channels = support_y.shape[-3]
    return {
        "copy": partial(copied, channels=channels),
        "linear extrapolation": partial(extrapolated, channels=channels),
        "least squares": least_squares(support_x, support_y),
    }
