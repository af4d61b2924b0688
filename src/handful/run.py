"""A run folder: what training leaves behind, and what evaluation, fit and report start from."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from handful.backbones import BACKBONES
from handful.data import load
from handful.data.store import ImageStore
from handful.errors import HandfulError
from handful.files import read_tensors, write_tensors
from handful.methods import MAML, METHODS
from handful.recipe import DataRecipe, Recipe, parse
from handful.registry import build
from handful.runtime import environment


@dataclass
class Run:
    """A run: its folder, its resolved recipe, the method with its weights, and the data."""

    folder: Path
    recipe: Recipe
    method: MAML
    data: ImageStore

    @classmethod
    def open(cls, folder: Path | str, data_root: str | None = None, weights: str = "best") -> Run:
        """Open a run folder with its best weights (`last` if asked, or if none were selected yet)."""
        folder = Path(folder)
        recipe = cls.read_recipe(folder)
        data = open_data(recipe.data.model_copy(update={"root": data_root} if data_root else {}))
        backbone = build("backbone", BACKBONES, recipe.backbone.spec(), image_shape=data.image_shape)
        method = build("method", METHODS, recipe.method.spec(), backbone=backbone)
        method.attach_head(method.problem.outputs(recipe.train.way))
        run = cls(folder, recipe, method, data)
        run.load_weights(weights)
        return run

    @staticmethod
    def read_recipe(folder: Path) -> Recipe:
        """The resolved recipe of a run folder."""
        path = folder / "recipe.yaml"
        if not path.is_file():
            raise HandfulError(
                f"{folder} is not a run folder (no recipe.yaml); `handful train RECIPE --out {folder}` makes one."
            )
        return parse(path.read_text(encoding="utf-8"), str(path))

    def weights(self, which: str) -> Path:
        """The file of the `best` or `last` weights."""
        return self.folder / "checkpoints" / which / "model.safetensors"

    def save_weights(self, which: str) -> None:
        """Write the method's weights as `best` or `last`."""
        write_tensors(self.weights(which), self.method.state_dict())

    def load_weights(self, which: str) -> None:
        """Load the `best` or `last` weights into the method."""
        path = self.weights(which)
        if not path.exists():
            raise HandfulError(f"The run {self.folder} has no weights yet ({path.name} is missing); train it first.")
        tensors, _ = read_tensors(path)
        try:
            self.method.load_state_dict(tensors)
        except RuntimeError as error:
            raise HandfulError(
                f"{path} does not fit the run's recipe: {str(error).splitlines()[-1].strip()}"
            ) from error

    def provenance(self) -> dict[str, Any]:
        """What a result needs to say of where it comes from."""
        machine = environment()
        keys = ("commit", "handful", "torch", "cpu", "cores", "threads")
        return {"recipe": self.recipe.name, **{key: machine[key] for key in keys}}


def open_data(data: DataRecipe) -> ImageStore:
    """The store that a recipe names, built first if need be."""
    return load(
        data.name,
        data.root,
        rotations=4 if data.rotations else 1,
        image_size=data.image_size,
        channels=data.channels,
        seed=data.split_seed,
        skip_bad=data.skip_bad,
    )
