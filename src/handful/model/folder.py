"""A model folder: `card.json`, what the model says of itself, and `model.safetensors`, its weights, which name that.

Opening one runs no code from it, and makes nothing that is far larger than what lies there.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, TypeVar

import torch
from pydantic import BaseModel, ValidationError
from torch import Tensor, nn

from handful.backbones import weights_to_follow
from handful.data.store import new_folder
from handful.errors import HandfulError, first_line
from handful.files import read_tensors, to_json, write_tensors, write_text
from handful.reading import from_json

CARD, WEIGHTS = "card.json", "model.safetensors"
MOST, SPARE = 8, 10**6  # of what a file of weights holds: numbers that its card may ask for, as step sizes of the loop

Kind = TypeVar("Kind", bound=BaseModel)
Network = TypeVar("Network", bound=nn.Module)


def write_folder(folder: str | Path, card: BaseModel, network: nn.Module) -> Path:
    """Write a model folder; an older model of that name is replaced once the new one is whole."""
    folder = Path(folder)
    refuse_other_folder(folder)
    text = to_json(card.model_dump())
    tensors = {name: value.clone() for name, value in network.state_dict().items()}  # some may share memory
    with new_folder(folder) as work:
        write_tensors(work / WEIGHTS, tensors, {"card": digest(text)})
        write_text(work / CARD, text)
    return folder


def read_card(folder: Path, kind: type[Kind], problem: str) -> tuple[Kind, str]:
    """The card of a model folder, and its text; HandfulError if it is damaged, or that of another problem."""
    file = folder / CARD
    try:
        text = file.read_text(encoding="utf-8")
        content = from_json(text)
        if (other := said_problem(content)) not in (None, problem):
            raise HandfulError(
                f"{folder} is a model of {other}, and one of {problem} is wanted here; `handful predict` and "
                "`hf.load_model` take any of them."
            )
        return kind(**content), text
    except (FileNotFoundError, NotADirectoryError) as error:
        raise HandfulError(f"{folder} is not a model folder (no card.json); `handful fit` makes one.") from error
    except ValidationError as error:
        first = error.errors()[0]
        place = ".".join(map(str, first["loc"])) or "the whole"
        raise HandfulError(f"{file} is damaged: {place}: {first['msg']}.") from error
    except (OSError, ValueError, TypeError) as error:
        raise HandfulError(f"{file} is damaged: {first_line(error)}.") from error


def problem_of_model(folder: Path) -> str | None:
    """The problem that the card of a model folder names, if there is a card and it names one."""
    try:
        return said_problem(from_json((folder / CARD).read_text(encoding="utf-8")))
    except (OSError, ValueError):  # what is wrong with it is told by whoever opens it
        return None


def said_problem(content: Any) -> str | None:
    """The problem that the content of a card names, if it does."""
    problem = content.get("problem") if isinstance(content, dict) else None
    return problem if isinstance(problem, str) else None


def read_weights(folder: Path, card: str) -> dict[str, Tensor]:
    """The weights that belong to the text of a card; HandfulError for others, and for values that are not finite."""
    tensors, told = read_tensors(folder / WEIGHTS)
    if told.get("card", digest(card)) != digest(card):
        raise HandfulError(
            f"{folder / WEIGHTS} does not fit its card.json, which was changed after both were written; fit anew."
        )
    if broken := [name for name, value in tensors.items() if not value.float().isfinite().all()]:
        raise misfit(folder, f"{broken[0]} holds values that are not finite.")
    return tensors


def read_network(
    folder: Path, kind: type[Kind], problem: str, unfitted: Callable[[Kind], Network]
) -> tuple[Network, Kind]:
    """The network of a model folder and its card; nothing in the folder is run.

    unfitted: makes the network of a card, whose weights are then filled in.  Raises HandfulError for a damaged folder,
    or one of another problem.
    """
    card, text = read_card(folder, kind, problem)
    tensors = read_weights(folder, text)
    try:
        refuse_too_large(folder, lambda: unfitted(card), tensors)
        with weights_to_follow():
            network = unfitted(card)
    except (RuntimeError, ValueError) as error:  # of torch, for numbers of which it can make no layer
        raise misfit(folder, f"its parts cannot be made ({first_line(error)}).") from error
    fill(network, tensors, folder)
    return network, card


def refuse_too_large(folder: Path, sketch: Callable[[], nn.Module], tensors: Mapping[str, Tensor]) -> None:
    """Refuse weights for which the parts that the card names are too large, before any of that size are made.

    sketch: makes these parts, here as shapes alone.
    """
    with weights_to_follow(), torch.device("meta"):
        asked = sketch().state_dict()
    if problem := too_large(asked, tensors):
        raise misfit(folder, problem)


def too_large(asked: Mapping[str, Tensor], tensors: Mapping[str, Tensor]) -> str:
    """Whether the parts that a card names are of another size than the weights that are to fill them."""
    for name, value in asked.items():
        found = tensors.get(name, tensors.get(name.removeprefix("network.")))  # as a method has them, or a model
        if found is not None and found.shape != value.shape:
            return f"{name} is {list(found.shape)} there, and the card asks for {list(value.shape)}."
    numbers, held = (sum(value.numel() for value in of.values()) for of in (asked, tensors))
    return f"the card asks for {numbers} numbers, and it holds {held}." if numbers > MOST * held + SPARE else ""


def fill(network: nn.Module, tensors: Mapping[str, Tensor], folder: Path) -> nn.Module:
    """The network with these weights, settled: in eval mode, and without gradients."""
    try:
        network.load_state_dict(tensors)
    except RuntimeError as error:
        raise misfit(folder, str(error).splitlines()[-1].strip()) from error
    return network.eval().requires_grad_(False)


def misfit(folder: Path, problem: str) -> HandfulError:
    """The error for weights that cannot be those of the card beside them."""
    return HandfulError(f"{folder / WEIGHTS} does not fit its card.json: {problem}")


def digest(card: str) -> str:
    """Of the text of a card, which its weights name, so that neither changes without the other."""
    return hashlib.sha256(card.encode()).hexdigest()


def refuse_other_folder(folder: Path) -> None:
    """Refuse to write a model where something else lies, which would be lost."""
    if not folder.exists():
        return
    if not (folder / CARD).exists():
        raise HandfulError(f"{folder} exists and is not a model folder; choose another name.")
    if others := sorted(path.name for path in folder.iterdir() if path.name not in (CARD, WEIGHTS)):
        raise HandfulError(f"{folder} holds more than a model ({others[0]}), which would be lost; choose another name.")
