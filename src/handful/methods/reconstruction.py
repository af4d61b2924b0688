"""How far feature maps lie from what each class can reconstruct of them: ridge regression in three forms.

Wertheimer, Tang, Hariharan: Few-Shot Classification With Feature Map Reconstruction Networks, CVPR 2021,
arXiv 2012.01506, section 3.

The descriptors of a class's supports are the rows of S [m, d].  A query descriptor q is reconstructed as rho H q, where

    H = S^T (S S^T + penalty I_m)^-1 S = (S^T S + penalty I_d)^-1 S^T S,

and its distance from the class is |q - rho H q|^2; that of an image is the mean over its r descriptors.

- `direct` forms the reconstructions, by the first H.
- `woodbury` forms the residual operator M = I - rho H, by the second: distance = |M q|^2.
- `closed` needs neither.  With P P^T = (2 - rho) S S^T + 2 penalty I_m, a Cholesky factor,

      distance = |q|^2 - rho |V q|^2,   V = P^T (S S^T + penalty I_m)^-1 S [m, d].

The last two are one matrix product of all queries with the operators of all classes.  Every form is exact for classes
of unequal m whose S are filled up with zero rows.  A gate g [d] of a class multiplies the channels of its supports and
of the queries that are compared with it; it is folded into the operators, so queries are never copied for a class.
"""

from __future__ import annotations

from typing import Literal, NamedTuple

import torch
from torch import Tensor

from handful.errors import HandfulError
from handful.methods.linear_algebra import ridge_factor, ridge_inverse
from handful.methods.precision import full_precision

Form = Literal["auto", "closed", "woodbury", "direct"]
MOST_RHO = 2  # beyond it a perfect reconstruction is farther from its query than none, and P does not exist


@full_precision
def distances(
    query: Tensor, support: Tensor, penalty: Tensor, rho: Tensor, gate: Tensor | None = None, form: Form = "auto"
) -> Tensor:
    """Mean squared distance of each query's descriptors from their reconstructions, [B, Q, N].

    query [B, Q, r, d]; support [B, N, m, d], filled up with zero rows; penalty [B, N]; rho, a number; gate [B, N, d].
    form: `auto` takes the one with the fewest operations.  On a CPU many tasks are best given a few at a time, whose
    products fit its cache.  Raises HandfulError if the penalty is lost in rounding, and for `closed` with a rho of 2
    or more, where `auto` takes `direct`.
    """
    if form == "auto":
        (_, queries, positions, d), m = query.shape, support.shape[2]
        form = fastest(queries * positions, m, d, rho.item())
    if form == "direct":
        return direct(query, support, penalty, rho, gate)
    if form == "woodbury":
        return woodbury(query, support, penalty, rho, gate)
    return closed(query, support, penalty, rho, gate)


def fastest(rows: int, m: int, d: int, rho: float) -> Form:
    """The form with the fewest multiplications a class; those of factorisations count for what they take."""
    if rho >= MOST_RHO:
        return "direct"
    by_closed = rows * d * m + 2 * d * m**2 + 3 * m**3
    by_woodbury = rows * d**2 + m * d**2 + 0.8 * d**3
    return "closed" if by_closed < by_woodbury else "woodbury"


def direct(query: Tensor, support: Tensor, penalty: Tensor, rho: Tensor, gate: Tensor | None = None) -> Tensor:
    """The distances by q - rho W S with W = q S^T (S S^T + penalty I)^-1, the paper's equation 8."""
    tasks, queries, positions, _ = query.shape
    rows = query.flatten(1, 2)
    gated = _gated(support, gate)
    weights = torch.cholesky_solve(support, ridge_factor(gated @ gated.mT, penalty))  # (S S^T + penalty I)^-1 S
    products = rows @ _gated(gated, gate).flatten(1, 2).mT
    products = products.unflatten(2, support.shape[1:3]).transpose(1, 2)  # [B, N, Q*r, m]
    residuals = _gated(rows.unsqueeze(1) - rho * (products @ weights), gate)
    squares = torch.linalg.vector_norm(residuals, dim=-1).square()
    return squares.view(tasks, -1, queries, positions).mean(3).mT


def woodbury(query: Tensor, support: Tensor, penalty: Tensor, rho: Tensor, gate: Tensor | None = None) -> Tensor:
    """The distances by M = (1 - rho) I + rho penalty (S^T S + penalty I)^-1, the paper's equation 10."""
    return woodbury_operators(support, penalty, rho, gate).distances(query)


def closed(query: Tensor, support: Tensor, penalty: Tensor, rho: Tensor, gate: Tensor | None = None) -> Tensor:
    """The distances by |q|^2 - rho |V q|^2."""
    return closed_operators(support, penalty, rho, gate).distances(query)


class Operators(NamedTuple):
    """What the distances are made of whatever the queries: |A q|^2, or |q|^2 - rho |A q|^2 if there is a rho.

    matrices: A [B, N, k, d], with the gate in it; gate [B, N, d]: of the |q|^2.
    """

    matrices: Tensor
    rho: Tensor | None = None
    gate: Tensor | None = None

    def distances(self, query: Tensor) -> Tensor:
        """[B, Q, r, d] -> [B, Q, N]."""
        found = _energy(query, self.matrices)
        if self.rho is None:
            return found
        squares = query.square().mean(2)  # [B, Q, d]
        total = squares.sum(-1, keepdim=True) if self.gate is None else squares @ self.gate.square().mT
        return total - self.rho * found


def operators(support: Tensor, penalty: Tensor, rho: Tensor, gate: Tensor | None = None) -> Operators:
    """For any number of queries: the smaller of the two."""
    m, d = support.shape[2:]
    form = closed_operators if m < d and rho.item() < MOST_RHO else woodbury_operators
    return form(support, penalty, rho, gate)


def woodbury_operators(support: Tensor, penalty: Tensor, rho: Tensor, gate: Tensor | None = None) -> Operators:
    """M [B, N, d, d]."""
    gated = _gated(support, gate)
    inverse = ridge_inverse(gated.mT @ gated, penalty)
    eye = torch.eye(support.shape[-1], dtype=support.dtype, device=support.device)
    residual = (1 - rho) * eye + rho * penalty[..., None, None] * inverse  # no difference of near equals, as I - rho H
    return Operators(_gated(residual, gate))


def closed_operators(support: Tensor, penalty: Tensor, rho: Tensor, gate: Tensor | None = None) -> Operators:
    """V [B, N, m, d]."""
    if rho >= MOST_RHO:
        raise HandfulError(
            f"rho is {rho.item():.3g}, but the closed form of the distance needs less than {MOST_RHO}, beyond which a "
            "perfect reconstruction is farther from its query than none; use the form direct or auto."
        )
    gated = _gated(support, gate)
    gram = gated @ gated.mT
    root = ridge_factor((MOST_RHO - rho) * gram, 2 * penalty)  # P
    weights = torch.cholesky_solve(root, ridge_factor(gram, penalty))
    return Operators(_gated(weights.mT @ gated, gate), rho, gate)


def _energy(query: Tensor, operators: Tensor) -> Tensor:
    """Mean of |A q|^2 over the descriptors of an image: query [B, Q, r, d], operators [B, N, k, d] -> [B, Q, N]."""
    products = query.flatten(1, 2) @ operators.flatten(1, 2).mT
    products = products.view(*query.shape[:3], *operators.shape[1:3])
    return torch.linalg.vector_norm(products, dim=-1).square().mean(2)  # without keeping the squares


def _gated(rows: Tensor, gate: Tensor | None) -> Tensor:
    """Channels times the gate of their class: rows [B, N or 1, ..., d], gate [B, N, d]."""
    return rows if gate is None else rows * gate.unsqueeze(2)
