"""Ridge systems K + penalty I: by Cholesky, never by LU."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from handful.errors import HandfulError


def ridge_factor(gram: Tensor, penalty: Tensor) -> Tensor:
    """The lower Cholesky factors of K + penalty I: gram K [..., m, m], penalty [...] -> [..., m, m].

    Factors of matrices that are not finite are not a number, for training to report.  Raises HandfulError where the
    penalty is lost in rounding.
    """
    eye = torch.eye(gram.shape[-1], dtype=gram.dtype, device=gram.device)
    matrices = gram + penalty[..., None, None] * eye
    factors, failed = torch.linalg.cholesky_ex(matrices)
    if failed.any():
        if matrices.isfinite().all():
            squares = gram.diagonal(dim1=-2, dim2=-1).sum(-1).max().item()
            raise HandfulError(
                f"A ridge penalty of {penalty.min().item():.1e} is lost in {str(gram.dtype).removeprefix('torch.')} "
                f"beside features whose squares add up to {squares:.1e}; raise the penalty or divide the features."
            )
        factors = factors * torch.nan
    return factors


def ridge_inverse(gram: Tensor, penalty: Tensor) -> Tensor:
    """(K + penalty I)^-1, for where all of it is wanted: gram K [..., m, m], penalty [...] -> [..., m, m]."""
    return _Inverse.apply(gram, penalty)


class _Inverse(torch.autograd.Function):
    """dX = -X dX^-1 X is two products, where autograd would go back through the factorisation."""

    @staticmethod
    def forward(ctx: Any, gram: Tensor, penalty: Tensor) -> Tensor:
        inverse = torch.cholesky_inverse(ridge_factor(gram, penalty))
        ctx.save_for_backward(inverse)
        return inverse

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, Tensor]:
        (inverse,) = ctx.saved_tensors
        on_gram = -inverse @ grad @ inverse
        return on_gram, on_gram.diagonal(dim1=-2, dim2=-1).sum(-1)
