"""What every data set has, be it images or functions: enough to draw tasks from its splits and to name it on disk."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from typing import Any, Generic, Protocol, TypeVar


class Split(Protocol):
    """One of the splits of a data set."""

    @property
    def name(self) -> str:
        """`train`, `val` or `test`."""

    @property
    def data(self) -> Data:
        """The data set that it is a split of."""


AnySplit = TypeVar("AnySplit", covariant=True)


class Splits(ABC, Generic[AnySplit]):
    """The three splits by name, of a data set that says how each is had."""

    @abstractmethod
    def split(self, name: str) -> AnySplit:
        """One split; raises HandfulError for a name that is none."""

    @property
    def train(self) -> AnySplit:
        """What meta-training may see."""
        return self.split("train")

    @property
    def val(self) -> AnySplit:
        """What selects the best step."""
        return self.split("val")

    @property
    def test(self) -> AnySplit:
        """What nothing but a final evaluation may see."""
        return self.split("test")


class Data(Protocol):
    """A data set whose tasks are split into train, val and test."""

    @property
    def name(self) -> str:
        """The name by which a recipe opens it."""

    @property
    def problem(self) -> str:
        """Name of the problem that its tasks pose, such as `classification`."""

    @property
    def input_shape(self) -> tuple[int, ...]:
        """Shape of one x."""

    @property
    def info(self) -> Mapping[str, Any]:
        """Where it came from; `note` is what every result on it must say."""

    @property
    def split_hash(self) -> str:
        """Names what is in which split."""

    def split(self, name: str) -> Split:
        """One split; raises HandfulError for a name that is none."""

    @property
    def train(self) -> Split:
        """What meta-training may see."""

    @property
    def val(self) -> Split:
        """What selects the best step."""

    @property
    def test(self) -> Split:
        """What nothing but a final evaluation may see."""

    def describe(self) -> dict[str, Any]:
        """The content of a run's `split.json`: name, problem, hash, and what is in which split."""

    def recipe(self) -> dict[str, Any]:
        """The `data` section of a recipe that opens it again."""
