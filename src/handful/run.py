"""A run folder: what training leaves behind, and what evaluation, fit and report start from."""

from __future__ import annotations

import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pydantic import BaseModel, PositiveInt
from torch import nn

from handful.backbones import BACKBONES, weights_to_follow
from handful.data import Data, load
from handful.data.described import DescribedData
from handful.errors import HandfulError
from handful.files import read_tensors, write_tensors
from handful.methods import METHODS, Method
from handful.problems import problem_of
from handful.processes import by_first
from handful.reading import from_json
from handful.recipe import DataRecipe, Recipe, parse, read_text
from handful.registry import build
from handful.runtime import device, environment

METRICS = ("step", "seconds", "loss", "score", "lr", "val_mean", "val_ci95")  # the columns of metrics.csv
BEFORE_THE_RECIPE = ("environment.json", "split.json")  # with it they make a folder a run
WRITTEN = (
    *BEFORE_THE_RECIPE,
    "recipe.yaml",
    "metrics.csv",
    "report.html",
    "checkpoints",
    "eval",
    "plots",
    "pretrain",
)


@dataclass
class Run:
    """A run: its folder, its resolved recipe, the method with its weights, and the data."""

    folder: Path
    recipe: Recipe
    method: Method
    data: Data

    @classmethod
    def open(
        cls,
        folder: Path | str,
        data_root: str | None = None,
        backbone: nn.Module | None = None,
        *,
        without_data: bool = False,
    ) -> Run:
        """Open a run folder with its best weights, on the GPU where there is one.

        data_root: where the data's source lies now; backbone: the module, if it is none that a recipe can name;
        without_data: to fit on the run alone, for which its data need not be at hand (a run of before it was described
        in the folder asks for it all the same).  Data whose classes are split otherwise than in training is refused: it
        would be tested on what it has seen.
        """
        folder = Path(folder)
        recipe = cls.read_recipe(folder)
        known = description(folder) if without_data and data_root is None else None
        data = known or open_data(recipe.data.model_copy(update={"root": data_root} if data_root else {}))
        check_split(folder, data)
        if backbone is None:
            with weights_to_follow():
                backbone = build("backbone", BACKBONES, recipe.backbone.spec(), input_shape=data.input_shape)
        method = build("method", METHODS, recipe.method.spec(), backbone=backbone)
        method.problem = problem_of(data, recipe.decoder.spec() if recipe.decoder else None)
        method.attach_head(method.problem.outputs(recipe.train.way))
        run = cls(folder, recipe, method.to(device()), data)
        run.load_weights("best")
        return run

    @staticmethod
    def read_recipe(folder: Path) -> Recipe:
        """The resolved recipe of a run folder."""
        path = folder / "recipe.yaml"
        if not is_run(folder):
            way_out = "`handful train --out` makes them"
            if not folder.exists():
                way_out = f"`handful train RECIPE --out {folder}` makes one"
            raise HandfulError(f"{folder} is not a run folder; {way_out}.")
        return parse(read_text(path), str(path))

    def weights(self, which: str) -> Path:
        """The file of the `best` or `last` weights."""
        return self.folder / "checkpoints" / which / "model.safetensors"

    def save_weights(self, which: str) -> None:
        """Write the method's weights as `best` or `last`; results of earlier best weights are then deleted."""

        def write() -> None:
            if which == "best":
                shutil.rmtree(self.folder / "eval", ignore_errors=True)
            write_tensors(self.weights(which), self.method.state_dict())

        by_first(write)

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
        versions = ("handful", "python", "torch", "numpy", "lightning-fabric")
        keys = ("commit", *versions, "platform", "cpu", "cores", "threads")
        trained = {
            "recipe": self.recipe.name,
            "recipe_hash": self.recipe.hash(),
            "precision": trained_in(self.folder),
        }
        return {**trained, **{key: machine[key] for key in keys}}


def is_run(folder: Path) -> bool:
    """Whether a folder is one that training made."""
    return all((folder / name).is_file() for name in (*BEFORE_THE_RECIPE, "recipe.yaml"))


def trained_in(folder: Path) -> str:
    """The precision of a run's training; a run of before there was a choice does not say."""
    path = folder / "environment.json"
    try:
        return str(from_json(path.read_text(encoding="utf-8")).get("precision", "32-true"))
    except (OSError, ValueError, AttributeError) as error:
        raise HandfulError(
            f"{path} is missing or damaged; the run cannot say in which precision it trained."
        ) from error


def described(data: Data) -> dict[str, Any]:
    """The content of `split.json`: what is in which split, and what fitting on the run needs to know of the data."""
    inverted = bool(data.info.get("inverted", False))
    return {**data.describe(), "input_shape": list(data.input_shape), "info": {"inverted": inverted}}


class Description(BaseModel):
    """What `split.json` says of the data, beside what is in which split."""

    name: str
    problem: str
    hash: str
    input_shape: list[PositiveInt]
    info: dict[str, Any]


def description(folder: Path) -> DescribedData | None:
    """The data of a run as its folder describes it; None if an older one does not, or is damaged."""
    try:
        content = from_json((folder / "split.json").read_text(encoding="utf-8"))
        found = Description.model_validate(content)
    except (OSError, ValueError):
        return None
    return DescribedData(found.name, found.problem, tuple(found.input_shape), found.info, content)


def check_split(folder: Path, data: Data) -> None:
    """Refuse data whose classes are split otherwise than when the run was made."""
    path = folder / "split.json"
    try:
        written = from_json(path.read_text(encoding="utf-8"))["hash"]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise HandfulError(
            f"{path} is missing or damaged; the run cannot say which classes it was trained on."
        ) from error
    if written != data.split_hash:
        raise HandfulError(
            f"The classes of {data.name!r} are split otherwise now than when {folder} was trained "
            f"({data.split_hash} now, {written} then): bring back the pictures as they were, or train anew."
        )


def open_data(data: DataRecipe) -> Data:
    """The data that a recipe names, its store built first if need be."""
    return load(
        data.name,
        data.root,
        rotations=4 if data.rotations else 1,
        image_size=data.image_size,
        channels=data.channels,
        seed=data.split_seed,
        fractions=data.fractions,
        skip_bad=data.skip_bad,
        classes=data.classes,
        split=data.split,
        cropped=data.cropped,
        fold=data.fold,
        scenes=data.scenes,
        targets=data.targets,
        window=data.window,
        clips=data.clips,
    )
