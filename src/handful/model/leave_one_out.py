"""How good a model is, from its own support: each picture is judged by what the others teach."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from handful.errors import HandfulError

ROWS = 256  # compared with the support at a time
ROUNDING = 1e-5  # of a cosine of features of one picture, embedded twice
ALONE = 60  # support pictures; of more, a part is left out at a time, since each takes learning anew
FOLDS = 20
TEMPERATURES = torch.logspace(-2, 3, 201, dtype=torch.float64)

Judge = Callable[[Tensor, Tensor], Tensor]


def folds_of(pictures: int) -> int:
    """Parts that are left out in turn: each picture alone if they are few."""
    return pictures if pictures <= ALONE else FOLDS


def leave_one_out(judge: Judge, labels: Tensor, way: int, same: Tensor | None = None) -> tuple[Tensor, Tensor]:
    """Which pictures can be judged by the others [m], and their logits [m, N].

    judge: indices of the pictures to learn from [s], of those to judge [q] -> logits [q, N]; labels [n]; same [n]: the
    first picture that is the same, since copies are left out together.  A picture that is the only one of its class is
    never left out, and no part that is left out holds all of a class.
    """
    first, group = torch.unique(torch.arange(len(labels)) if same is None else same, return_inverse=True)
    folds = folds_of(len(first))
    part = torch.empty_like(first)
    part[labels[first].argsort(stable=True)] = torch.arange(len(first)) % folds
    logits = torch.zeros(len(labels), way)
    judged = torch.zeros(len(labels), dtype=torch.bool)
    for fold in range(folds):
        out = part[group] == fold
        out &= torch.bincount(labels[~out], minlength=way)[labels] > 0  # what would leave nothing of its class stays
        if out.any():
            judged |= out
            logits[out] = judge((~out).nonzero().squeeze(1), out.nonzero().squeeze(1)).float()
    which = judged.nonzero().squeeze(1)
    return which, logits[which]


def temperature(logits: Tensor, labels: Tensor) -> float:
    """The factor on the logits [m, N] that makes the right labels [m] likeliest; 1 if there are none.

    The labels are taken to be right in all but one of m + 2 cases (Laplace), so that it stays finite where no picture
    was named wrong.
    """
    m, way = logits.shape
    if not m:
        return 1.0
    doubt = 1 / (m + 2)

    def likelihood(factor: float) -> float:
        of_all = (factor * logits).log_softmax(-1)
        right = of_all.gather(1, labels[:, None]).squeeze(1)
        others = (of_all.sum(-1) - right) / max(way - 1, 1)
        return float(((1 - doubt) * right + doubt * others).double().mean())

    return max(TEMPERATURES.tolist(), key=likelihood)  # one at a time: of many pictures the logits are large


def wilson(right: int, count: int) -> tuple[float, float]:
    """The ends of the 95 % interval of a share, by Wilson's formula: it holds for few pictures, and for all right."""
    share, z = right / count, 1.96
    middle, width = share + z * z / (2 * count), z * math.sqrt(share * (1 - share) / count + (z / (2 * count)) ** 2)
    return max((middle - width) / (1 + z * z / count), 0.0), min((middle + width) / (1 + z * z / count), 1.0)


def likeness(features: Tensor, support: Tensor) -> Tensor:
    """The largest cosine of features [n, d] to any of the support's, of unit length [S, d], as a share of 1: [n]."""
    cosines = F.normalize(features, dim=-1) @ support.mT
    return (1 + cosines.max(-1).values.clamp(-1, 1)) / 2


def copies(features: Tensor) -> Tensor:
    """For each row of features [n, d] the first that is equal, but for rounding: that of the same picture, [n]."""
    directions = F.normalize(features, dim=-1)
    parts = directions.split(ROWS)
    return torch.cat([(part @ directions.mT > 1 - ROUNDING).int().argmax(1) for part in parts])


class OpenSet(NamedTuple):
    """The likeness below which a picture is none of the classes, and what it does to the support's own pictures.

    none_of_own: the share of them that would be none of the classes, compared with the others; None where every class
    has one picture; none_of_others: the share that would be so if the pictures of their own class were not there.
    """

    threshold: float
    none_of_own: float | None
    none_of_others: float


def open_set_threshold(features: Tensor, labels: Tensor) -> OpenSet:
    """The threshold of a support, from features of views of its pictures, [n, V, d].

    Each picture is compared with all others, as a new picture of a known class would be, and with those of other
    classes alone, as one of an unknown class: the threshold is where most of both are told apart, the least such.
    Where every class has one picture, there is nothing of the first kind; then it is the median of the second.  Raises
    HandfulError for a single picture, to which nothing can be compared.
    """
    if len(labels) == 1:
        raise HandfulError(
            "open_set learns from how alike the support's pictures are, and there is one; give two or more."
        )
    directions = F.normalize(features, dim=-1)
    own: list[Tensor] = []  # the largest cosine of each picture to another of its class, -1 if there is none
    other: list[Tensor] = []  # to a picture of another class
    for rows in torch.arange(len(labels)).split(ROWS):
        cosines = directions[rows, 0] @ directions.flatten(0, 1).mT
        alike = cosines.unflatten(1, directions.shape[:2]).max(-1).values
        alike[torch.arange(len(rows)), rows] = -1  # itself
        same = labels[rows, None] == labels
        own.append(alike.masked_fill(~same, -1).max(-1).values)
        other.append(alike.masked_fill(same, -1).max(-1).values)
    known, unknown = torch.cat(own), torch.cat(other)
    judged = torch.bincount(labels)[labels] > 1
    if not judged.any():
        middle = unknown.median()
        return OpenSet(float((1 + middle) / 2), None, float((unknown < middle).double().mean()))
    known = torch.maximum(known, unknown)[judged]
    places = torch.cat([known, unknown]).sort().values
    lost, refused = (torch.searchsorted(kind.sort().values, places) / len(kind) for kind in (known, unknown))
    told = refused.double() - lost  # shares below each place
    best = int(told.argmax())
    return OpenSet(float((1 + places[best]) / 2), float(lost[best]), float(refused[best]))
