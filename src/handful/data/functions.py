"""sinusoid, lines: families of functions of one variable, for few-shot regression.

A task is one function of the family, drawn once; its support and its query are both sampled from it.  Note 003 draws
another line for the query than for the support: then there is nothing to adapt to, and no method can beat the mean.

family = hf.data.load("sinusoid")
family.train, family.val, family.test    # streams of functions; no function is in two of them
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from handful.data.dataset import Splits
from handful.errors import unknown

Floats: TypeAlias = NDArray[np.float64]
SPLITS = ("train", "val", "test")
PARAMETERS = 2  # numbers that say which function of the family it is


@dataclass(frozen=True)
class FunctionFamily(Splits["FunctionSplit"]):
    """Functions y = f(x) that differ in two parameters; x is uniform over an interval.

    formula: the function, and how parameters and x are drawn, in words: two families of one formula are the same;
    domain: lowest and highest x; parameters(u [T, 2] uniform in [0, 1)) -> [T, 2]; value(parameters [T, 2], x [T, n])
    -> y [T, n].
    """

    name: str
    about: str
    formula: str
    domain: tuple[float, float]
    parameters: Callable[[Floats], Floats]
    value: Callable[[Floats, Floats], Floats]
    problem: str = "regression"
    input_shape: tuple[int, ...] = (1,)

    @property
    def info(self) -> dict[str, Any]:
        """The formula."""
        return {"name": self.name, "formula": self.formula}

    @cached_property
    def digest(self) -> str:
        """SHA-256 of the formula."""
        return hashlib.sha256(self.formula.encode()).hexdigest()

    @property
    def split_hash(self) -> str:
        """Names the family: the splits of each are streams of random numbers of their own."""
        return self.digest[:16]

    def split(self, name: str) -> FunctionSplit:
        """The functions of one split, ready to draw tasks from."""
        if name not in SPLITS:
            raise unknown("split", name, SPLITS)
        return FunctionSplit(self, name)

    def describe(self) -> dict[str, Any]:
        """The content of a run's `split.json`."""
        streams = dict.fromkeys(SPLITS, f"a stream of functions of its own: {self.formula}")
        record = {"name": self.name, "problem": self.problem, "digest": self.digest, "hash": self.split_hash}
        return {**record, "classes": streams}

    def recipe(self) -> dict[str, Any]:
        """The `data` section of a recipe that opens it again."""
        return {"name": self.name}

    def points(self, uniform: Floats) -> Floats:
        """x from uniform numbers in [0, 1)."""
        low, high = self.domain
        return low + (high - low) * uniform


@dataclass(frozen=True)
class FunctionSplit:
    """The functions of one split: those that its streams of random numbers yield."""

    data: FunctionFamily
    name: str

    @property
    def streams(self) -> tuple[int, int, int]:
        """Numbers of its random streams: for the parameters, the x of the support, and the x of the query.

        Being apart, they give a task the same function and the same support whatever the number of queries.
        """
        first = 3 * SPLITS.index(self.name)
        return first, first + 1, first + 2


def _sinusoid(uniform: Floats) -> Floats:
    return np.stack([0.1 + 4.9 * uniform[:, 0], np.pi * uniform[:, 1]], 1)


def _sinusoid_value(parameters: Floats, x: Floats) -> Floats:
    amplitude, phase = parameters[:, :1], parameters[:, 1:]
    return amplitude * np.sin(x - phase)


def _line(uniform: Floats) -> Floats:
    radius, angle = np.sqrt(-2 * np.log1p(-uniform[:, 0])), 2 * np.pi * uniform[:, 1]
    normal = radius[:, None] * np.stack([np.cos(angle), np.sin(angle)], 1)  # Box and Muller 1958: two from N(0, 1)
    return normal * [2, 1]


def _line_value(parameters: Floats, x: Floats) -> Floats:
    slope, intercept = parameters[:, :1], parameters[:, 1:]
    return slope * x + intercept


SINUSOID = FunctionFamily(
    "sinusoid",
    "sine waves of random amplitude and phase: few-shot regression (MAML)",
    "y = A sin(x - p), A ~ U[0.1, 5], p ~ U[0, pi], x ~ U[-5, 5]",  # Finn et al. 2017, section 5.1
    (-5.0, 5.0),
    _sinusoid,
    _sinusoid_value,
)
LINES = FunctionFamily(
    "lines",
    "lines of random slope and intercept: few-shot regression (note 003)",
    "y = a x + b, a ~ 2 N(0, 1), b ~ N(0, 1), x ~ U[0, 1]",  # as note 003 draws them
    (0.0, 1.0),
    _line,
    _line_value,
)
FAMILIES = {family.name: family for family in (SINUSOID, LINES)}
