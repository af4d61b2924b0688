"""cub: CUB-200-2011, 11,788 photographs of 200 kinds of birds (Wah, Branson, Welinder, Perona, Belongie 2011).

    handful data build cub --source CUB_200_2011 --split closerlook
    handful data build cub --source CUB_200_2011 --split frn --cropped

The source is the published archive, unpacked: images.txt, image_class_labels.txt, bounding_boxes.txt, classes.txt and
images/.  Four splits of the classes are in use, and figures on one say nothing of another:

    closerlook     classes by number from 0: even train, 1 mod 4 val, 3 mod 4 test (Chen et al. 2019)
    frn            the same rule on numbers from 1, so its training classes are the others (Wertheimer et al. 2021)
    feat           feat/{train,val,test}.csv in the source, which are data/cub/split of FEAT (Ye et al. 2020)
    easy-few-shot  easy-few-shot/{train,val,test}.json in the source, which are data/CUB of easy-few-shot-learning
"""

from __future__ import annotations

from functools import partial
from pathlib import Path

import numpy as np

from handful.data.lists import class_list, picture_list
from handful.data.pictures import Picture, Pixels, Survey, contents, opened, plain
from handful.data.reader import Reader
from handful.data.store import Contents
from handful.errors import HandfulError, unknown

CLASSES, IMAGES = 200, 11788
TABLES = ("images.txt", "image_class_labels.txt", "bounding_boxes.txt", "classes.txt")
FIRST = {"closerlook": 0, "frn": 1}  # number of the first class, for the rule of even and odd
LISTS = {"feat": ".csv", "easy-few-shot": ".json"}
PARTS = ("train", "val", "test")
WAY_OUT = "unpack CUB_200_2011.tgz anew"


def read(
    source: Path, image_size: int = 84, split: str = "closerlook", cropped: bool = False, classes: int | None = None
) -> Contents:
    """The birds, uint8 [3, image_size, image_size], with one of the four splits of their classes.

    cropped: each picture is cut to its bounding box first; classes: only the first so many of each split.

    Raises HandfulError: an unknown split, a table, list or picture that is missing or damaged, other numbers of
    classes and pictures than published.
    """
    note = (
        f"CUB, split {split!r}, {'pictures cut to the bird' if cropped else 'whole pictures'}: four splits are in use, "
        "and figures on one are not to be compared with figures on another."
    )
    found = survey(source, split, cropped)
    return contents(found, image_size, classes, name="cub", split=split, cropped=cropped, note=note)


def files(folder: Path) -> list[Path]:
    """The tables in a folder, or in the CUB_200_2011 in it, and the lists of splits; none without images.txt."""
    folder = home(folder)
    if not (folder / TABLES[0]).is_file() or not (folder / "images").is_dir():
        return []
    lists = [folder / split / f"{part}{suffix}" for split, suffix in LISTS.items() for part in PARTS]
    return [path for path in (*(folder / table for table in TABLES), *lists) if path.is_file()]


def survey(source: Path, split: str = "closerlook", cropped: bool = False) -> Survey:
    """All pictures of the classes that are in a split, and whatever is missing or damaged."""
    source = home(source)
    try:
        paths, owners, boxes, names = (table(source / name) for name in TABLES)
        check_tables(source, paths, owners, boxes, names)
        owner = parts_of_classes(source, split, names)
    except HandfulError as error:
        return Survey("CUB-200-2011", [], [str(error)])
    pictures: list[Picture] = []
    lost: list[str] = []
    for number, path in sorted(paths.items(), key=lambda item: item[1]):
        label, file = names[int(owners[number])], source / "images" / path
        if not file.is_file():
            lost.append(path)
        elif label in owner:
            content = partial(cut, file, boxes[number]) if cropped else file.read_bytes
            pictures.append(Picture(str(file), owner[label], label, content))
    problems = [f"{source / 'images'} lacks {len(lost)} pictures, {lost[0]} the first; {WAY_OUT}."] if lost else []
    return Survey("CUB-200-2011", pictures, problems, mend=WAY_OUT)


def table(path: Path) -> dict[int, str]:
    """Number -> the rest of its line, of one of the tables."""
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
        return {int(number): rest for number, rest in (line.split(maxsplit=1) for line in lines if line.strip())}
    except FileNotFoundError as error:
        raise HandfulError(f"{path} is missing; {WAY_OUT}.") from error
    except (OSError, ValueError) as error:
        raise HandfulError(f"{path} is no table of CUB, a number and a text a line ({error}); {WAY_OUT}.") from error


def check_tables(
    source: Path, paths: dict[int, str], owners: dict[int, str], boxes: dict[int, str], names: dict[int, str]
) -> None:
    """Refuse tables that are not about the same pictures, or not about all of them."""
    if (len(names), len(paths)) != (CLASSES, IMAGES):
        raise HandfulError(
            f"{source} lists {len(names)} classes and {len(paths)} pictures, not {CLASSES} and {IMAGES}; {WAY_OUT}."
        )
    if paths.keys() != owners.keys() or paths.keys() != boxes.keys() or {*owners.values()} != {*map(str, names)}:
        raise HandfulError(f"The tables of {source} are not about the same pictures and classes; {WAY_OUT}.")


def parts_of_classes(source: Path, split: str, names: dict[int, str]) -> dict[str, str]:
    """Class -> train, val or test."""
    if split in FIRST:
        rule = ("train", "val", "train", "test")  # by the remainder of a division by four
        return {name: rule[(number - 1 + FIRST[split]) % 4] for number, name in names.items()}
    if split not in LISTS:
        raise unknown("split of CUB", split, [*FIRST, *LISTS])
    owner: dict[str, str] = {}
    for part in PARTS:
        path = source / split / f"{part}{LISTS[split]}"
        if path.suffix == ".csv":
            listed = {label for _, label in picture_list(path)}
        else:
            listed = {Path(root).name for root in class_list(path)}
        for name in sorted(listed):
            if name not in names.values():
                raise HandfulError(f"{path} lists {name}, which is no class of classes.txt.")
            if name in owner:
                raise HandfulError(f"{path} lists {name}, which is in the {owner[name]} split already.")
            owner[name] = part
    return owner


def cut(file: Path, box: str) -> Pixels:
    """A picture cut to its bounding box (x, y, width, height in pixels), uint8 [h, w, 3]."""
    x, y, width, height = map(float, box.split())
    with opened(file.read_bytes()) as image:
        whole = plain(image).convert("RGB")
    right, bottom = min(x + width, whole.width), min(y + height, whole.height)
    return np.asarray(whole.crop((round(max(x, 0)), round(max(y, 0)), round(right), round(bottom))))


def home(folder: Path) -> Path:
    """The folder of the tables: this one, or the CUB_200_2011 in it."""
    return folder / "CUB_200_2011" if (folder / "CUB_200_2011").is_dir() else folder


READER = Reader(
    read,
    about="CUB-200-2011, 11,788 photographs of 200 kinds of birds, in four splits (Wah et al. 2011)",
    expects="images/, images.txt, image_class_labels.txt, bounding_boxes.txt and classes.txt of CUB-200-2011",
    files=files,
    survey=survey,
    options=("image_size", "split", "cropped", "classes"),
)
