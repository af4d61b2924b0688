"""tiered_imagenet: 608 classes of ImageNet, 84x84, split by 34 wider categories (Ren et al. 2018).

    handful data build tiered_imagenet --source FOLDER

FOLDER holds one of two forms:

    {train,val,test}_images_png.pkl, a list of encoded pictures, and {train,val,test}_labels.pkl with the numbers
    `label_general` and `label_specific` of each; a pair of numbers is a class
    {train,val,test}.json with `class_roots`, and the class folders that they name

Pickles are read whole, so they must fit into memory, and without running anything in them (`handful.data.pickles`).  Of
train/, val/ and test/ with class folders in them, and no lists, `folder` makes a store too.
"""

from __future__ import annotations

from functools import partial
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from handful.data.folders import list_images
from handful.data.lists import class_folder, class_list
from handful.data.pickles import read_pickle
from handful.data.pictures import Picture, Survey, contents, miscounts
from handful.data.reader import Reader
from handful.data.store import Contents
from handful.errors import HandfulError

CLASSES = {"train": 351, "val": 97, "test": 160}
WAY_OUT = "docs/data.md says which files are expected"


def read(source: Path, image_size: int = 84, classes: int | None = None) -> Contents:
    """tiered-ImageNet from pickles or folders: 351, 97 and 160 classes, uint8 [3, image_size, image_size].

    classes: only the first so many of each split.  Raises HandfulError: a list, a class or a pickle is missing or
    damaged, or there are other numbers of classes than published.
    """
    info = {"name": "tiered_imagenet", "part_of": "ImageNet", "split": "Ren et al. 2018"}
    return contents(survey(source), image_size, classes, **info)


def files(folder: Path) -> list[Path]:
    """The pickles, or the lists of classes, that are in a folder."""
    pickles = [folder / f"{part}_{kind}.pkl" for part in CLASSES for kind in ("images_png", "labels")]
    lists = [folder / f"{part}.json" for part in CLASSES]
    return [path for path in pickles if path.is_file()] or (lists if all(path.is_file() for path in lists) else [])


def survey(source: Path) -> Survey:
    """All pictures of the three splits, and whatever is missing, damaged or not as published."""
    pictures: list[Picture] = []
    problems: list[str] = []
    form = from_pickles if list(source.glob("*_images_png.pkl")) else from_folders
    for part in CLASSES:
        try:
            pictures += form(source, part)
        except HandfulError as error:
            problems.append(str(error))
    return Survey("tiered-ImageNet", pictures, problems or miscounts(pictures, CLASSES, None, source, WAY_OUT))


def from_folders(source: Path, part: str) -> list[Picture]:
    """The pictures of the class folders that the list of a split names."""
    path = source / f"{part}.json"
    folders = [class_folder(source, root, path) for root in class_list(path)]
    return [
        Picture(str(file), part, folder.name, file.read_bytes) for folder in folders for file in list_images(folder)
    ]


def from_pickles(source: Path, part: str) -> list[Picture]:
    """The pictures of the two pickles of a split."""
    path = source / f"{part}_images_png.pkl"
    images, labels = read_pickle(path), read_pickle(source / f"{part}_labels.pkl")
    try:
        pairs = list(zip(labels["label_general"], labels["label_specific"], strict=True))
        names = [f"{part}/{int(general):02}/{int(specific):03}" for general, specific in pairs]
        if len(images) != len(names):
            raise ValueError(f"{len(images)} pictures for {len(names)} labels")
    except (LookupError, TypeError, ValueError, OverflowError) as error:
        raise HandfulError(
            f"{path} and {part}_labels.pkl do not fit together ({type(error).__name__}: {error}); {WAY_OUT}."
        ) from error
    return [
        Picture(f"{path}[{index}]", part, name, partial(as_bytes, image))
        for index, (image, name) in enumerate(zip(images, names))
    ]


def as_bytes(image: bytes | NDArray[np.uint8]) -> bytes:
    """An encoded picture, kept as bytes or as an array of them."""
    return image if isinstance(image, bytes) else np.asarray(image, np.uint8).tobytes()


READER = Reader(
    read,
    about="tiered-ImageNet, 608 classes of ImageNet split by wider categories (Ren et al. 2018)",
    expects="{train,val,test}_images_png.pkl with _labels.pkl, or {train,val,test}.json with class folders",
    files=files,
    survey=survey,
    options=("image_size", "classes"),
)
