"""What is served: a model folder, or a run folder whose page is to be taught first."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from handful.errors import HandfulError
from handful.model import Model, Preprocessing
from handful.model.start import Start, from_model, from_run
from handful.run import Run, is_run


@dataclass(frozen=True)
class Served:
    """What is served: a fitted model, a start to teach from, or both.

    start is None where a model holds only the network that was adapted to its classes.
    """

    name: str
    model: Model | None
    start: Start | None

    @property
    def preprocessing(self) -> Preprocessing:
        """What is done to a picture first."""
        if self.model is not None:
            return self.model.card.preprocessing
        assert self.start is not None
        return self.start.preprocessing

    @property
    def drawn(self) -> bool:
        """Whether it was made for drawings: dark ink on paper."""
        return self.preprocessing.channels == 1 and self.preprocessing.invert

    @property
    def open_set(self) -> bool:
        """Whether models that are taught say `none of these`, as the served one does."""
        return self.model is not None and self.model.card.threshold is not None


def open_served(folder: Path, data: str | None = None) -> Served:
    """A model folder, or a run folder, whose page is to be taught first."""
    if is_run(folder):
        return Served(folder.name, None, from_run(Run.open(folder, data, without_data=True)))
    if data is not None:
        raise HandfulError(f"--data is about a run, and {folder} is none; leave it out.")
    model = Model.load(folder)
    try:
        return Served(folder.name, model, from_model(model))
    except HandfulError:  # it can be asked, and not taught
        return Served(folder.name, model, None)
