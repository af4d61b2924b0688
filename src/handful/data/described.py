"""Data as a run's `split.json` describes it: what fitting on the run needs to know of it, where it is not at hand."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from handful.data.dataset import Split, Splits
from handful.errors import HandfulError


@dataclass(frozen=True)
class DescribedData(Splits[Split]):
    """A data set without its contents: no task can be drawn from it."""

    name: str
    problem: str
    input_shape: tuple[int, ...]
    info: dict[str, Any]
    content: dict[str, Any]

    @property
    def split_hash(self) -> str:
        """Names what was in which split."""
        return str(self.content["hash"])

    def split(self, name: str) -> Split:
        """Refused: nothing is at hand."""
        raise HandfulError(
            f"The {name} split of {self.name!r} is not at hand, only its description; open the run with its data: "
            "hf.Run.open(folder)."
        )

    def describe(self) -> dict[str, Any]:
        """The content of `split.json`."""
        return self.content

    def recipe(self) -> dict[str, Any]:
        """The name alone: the run's recipe says the rest."""
        return {"name": self.name}
