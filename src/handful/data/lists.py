"""Lists that say which pictures or classes are in which split, as data sets are published with them.

filename,label            train.csv: a picture and its class a line (Ravi and Larochelle, FEAT)
{"class_roots": [...]}    train.json: class folders (easy-few-shot)
apple                     train.txt: a class folder a line (CIFAR-FS)
"""

from __future__ import annotations

import csv
from pathlib import Path

from handful.errors import HandfulError
from handful.reading import from_json


def picture_list(path: Path) -> list[tuple[str, str]]:
    """(file name, class) of each line of a CSV file whose header begins `filename,label`."""
    try:
        with path.open(encoding="utf-8", newline="") as file:
            rows = [[cell.strip() for cell in row] for row in csv.reader(file) if row]
    except FileNotFoundError as error:
        raise HandfulError(f"{path} is missing: it says which pictures are in the {path.stem} split.") from error
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise HandfulError(f"{path} cannot be read as a table ({error}).") from error
    if not rows or rows[0][:2] != ["filename", "label"]:
        first = ",".join(rows[0]) if rows else ""
        raise HandfulError(
            f"The first line of {path} is {first[:60]!r}; a list of pictures begins with filename,label."
        )
    for number, row in enumerate(rows[1:], 2):
        if len(row) < 2:
            raise HandfulError(f"Line {number} of {path} has 1 column, and a list of pictures has 2.")
    return [(row[0], row[1]) for row in rows[1:]]


def class_list(path: Path) -> list[str]:
    """The class folders that a text file (one a line) or a JSON file (its `class_roots`) names, as they are written."""
    try:
        text = path.read_text(encoding="utf-8")
        if path.suffix == ".txt":
            return [line.strip() for line in text.splitlines() if line.strip()]
        return [str(root) for root in from_json(text)["class_roots"]]
    except FileNotFoundError as error:
        raise HandfulError(f"{path} is missing: it says which classes are in the {path.stem} split.") from error
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise HandfulError(
            f'{path} is no list of classes ({type(error).__name__}: {error}); it should hold {{"class_roots": […]}}.'
        ) from error


def class_folder(source: Path, root: str, listed_in: Path) -> Path:
    """The folder in `source` that a list names: lists hold paths of other machines, so their first parts are dropped
    until one is there.
    """
    parts = [part for part in Path(root).parts if part not in ("/", ".", "..")]
    for first in range(len(parts)):
        if (folder := source.joinpath(*parts[first:])).is_dir():
            return folder
    raise HandfulError(f"{source} has no class folder {root}, which {listed_in} lists; unpack it there.")
