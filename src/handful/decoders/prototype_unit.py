"""The Dynamic Prototype Unit of MPN (Lv, Chen, Cui, Xu, Li, Yang: "Learning normal dynamics in videos with meta
prototype network", CVPR 2021): what is normal in a window, as a few prototypes made from the window itself.

With x_n the unit vector of position n, and w_m the rows of the one weight matrix:

    a_nm = softmax over positions n of w_m . x_n / temperature
    q_m  = unit(sum over n of a_nm x_n)
    b_nm = softmax over prototypes m of x_n . q_m / temperature
    y_n  = unit(sum over m of b_nm q_m)
    z_n  = y_n + x_n

Both sums are matrix products: a^T x and b q.  Written out as products of weights and vectors they would hold M vectors
for every position, 335 MB for each window at the published size.
"""

from __future__ import annotations

from typing import NamedTuple

from torch import Tensor, nn

TINY = 1e-12  # beside a squared length: what is all zeros stays so, and has derivatives of any order


class Encodings(NamedTuple):
    """What the unit makes of a map, N = H*W positions row by row, to be looked at by name.

    ae: x [n, N, C], unit vectors (autoencoder encoding); prototypes: q [n, M, C], unit vectors; attention: a [n, N, M],
    which sums to 1 over positions; similarity: x . q [n, N, M], the cosine; shares: b [n, N, M], which sums to 1 over
    prototypes; query: y [n, N, C], unit vectors, what is normal nearest to x; aggregation: z = y + x [n, N, C].
    """

    ae: Tensor
    prototypes: Tensor
    attention: Tensor
    similarity: Tensor
    shares: Tensor
    query: Tensor
    aggregation: Tensor


class PrototypeUnit(nn.Module):
    """A map [n, C, H, W] -> its encodings under M prototypes of its own, for any H and W.

    temperature: of both softmaxes.  MPN has 1, with which no share is more than e^2 = 7.4 times another, and prototypes
    begin as nearly the same mean over all positions; less tells them apart.
    """

    def __init__(self, channels: int, prototypes: int, temperature: float = 1.0) -> None:
        super().__init__()
        self.temperature = temperature
        self.positions = nn.Linear(channels, prototypes, bias=False)

    def forward(self, features: Tensor) -> Encodings:
        """[n, C, H, W] -> tensors over H*W positions."""
        return encode(turned(features.flatten(2)), self.positions.weight, self.temperature)


def encode(features: Tensor, weight: Tensor, temperature: float = 1.0) -> Encodings:
    """Features [n, N, C] under weights [M, C], as above."""
    x = unit(features)  # positions come last below: a softmax over few of M for many of N is far faster across rows
    attention = (weight / temperature @ turned(x)).softmax(-1)
    prototypes = unit(attention @ x)
    similarity = prototypes @ turned(x)
    shares = (similarity / temperature).softmax(1)
    query = read(shares, prototypes)
    return Encodings(x, prototypes, turned(attention), turned(similarity), turned(shares), query, query + x)


def turned(matrices: Tensor) -> Tensor:
    """Matrices [n, A, B] -> [n, B, A]; the exporter that a first predict waits the shorter time for knows no `.mT`."""
    return matrices.transpose(1, 2)


def unit(vectors: Tensor) -> Tensor:
    """Vectors [..., C] at length 1."""
    return vectors * (vectors.square().sum(-1, keepdim=True) + TINY).rsqrt()


def read(shares: Tensor, prototypes: Tensor) -> Tensor:
    """unit(shares^T @ prototypes): [n, M, N], [n, M, C] -> [n, N, C].

    The lengths come from the products of prototypes with each other, |b q|^2 = b (q q^T) b^T: of M numbers a position,
    and without a further [n, N, C].
    """
    squared = ((prototypes @ turned(prototypes)) @ shares * shares).sum(1, keepdim=True)
    return turned(shares * (squared + TINY).rsqrt()) @ prototypes


def compactness(encodings: Encodings) -> Tensor:
    """How far each position is from its nearest prototype, [n, N]: the mean over channels of (x - q)^2.

    Of unit vectors |x - q|^2 is 2 - 2 x . q.
    """
    nearest = encodings.similarity.amax(-1)
    return (2 - 2 * nearest).clamp(min=0) / encodings.ae.shape[-1]


def separateness(encodings: Encodings) -> Tensor:
    """How much too near prototypes are to each other, [n]: the mean over pairs of max(0, 1 - |q_i - q_j|^2)."""
    q = encodings.prototypes
    count = q.shape[1]
    near = (2 * (q @ turned(q)) - 1).relu().triu(1).sum((-1, -2))
    return near / max(1, count * (count - 1) // 2)
