"""cifar_fs: the 100 classes of CIFAR-100, 600 pictures each, 32x32, split by Bertinetto et al. (2019).

    handful data build cifar_fs --source FOLDER

FOLDER holds what circulates, in one of two forms:

    data/CLASS/*.png and splits/bertinetto/{train,val,test}.txt, which name a class a line: the authors' archive
    CIFAR_FS_{train,val,test}.pickle, each {"data": uint8 [n, 32, 32, 3], "labels": n numbers}

Pickles are read without running anything in them (`handful.data.pickles`); their classes have numbers for names.
"""

from __future__ import annotations

from functools import partial
from pathlib import Path

import numpy as np

from handful.data.folders import list_images
from handful.data.lists import class_list
from handful.data.pickles import read_pickle
from handful.data.pictures import Picture, Survey, contents, miscounts
from handful.data.reader import Reader
from handful.data.store import Contents
from handful.errors import HandfulError

CLASSES, IMAGES = {"train": 64, "val": 16, "test": 20}, 600
WAY_OUT = "docs/data.md says which files are expected"


def read(source: Path, image_size: int = 32, classes: int | None = None) -> Contents:
    """CIFAR-FS from folders or pickles: 64, 16 and 20 classes of 600 images, uint8 [3, image_size, image_size].

    classes: only the first so many of each split.  Raises HandfulError: a list, a class or a pickle is missing or
    damaged, or other numbers of classes and pictures than published.
    """
    return contents(survey(source), image_size, classes, name="cifar_fs", split="Bertinetto et al. 2019")


def files(folder: Path) -> list[Path]:
    """The lists of classes, or the pickles, that are in a folder."""
    lists = [folder / "splits" / "bertinetto" / f"{part}.txt" for part in CLASSES]
    pickles = [folder / f"CIFAR_FS_{part}.pickle" for part in CLASSES]
    return [path for path in lists if path.is_file()] or [path for path in pickles if path.is_file()]


def survey(source: Path) -> Survey:
    """All pictures of the three splits, and whatever is missing, damaged or not as published."""
    pictures: list[Picture] = []
    problems: list[str] = []
    form = from_pickle if (source / "CIFAR_FS_train.pickle").is_file() else from_folders
    for part in CLASSES:
        try:
            pictures += form(source, part)
        except HandfulError as error:
            problems.append(str(error))
    return Survey("CIFAR-FS", pictures, problems or miscounts(pictures, CLASSES, IMAGES, source, WAY_OUT))


def from_folders(source: Path, part: str) -> list[Picture]:
    """The pictures of the class folders that the list of a split names."""
    path = source / "splits" / "bertinetto" / f"{part}.txt"
    pictures = []
    for name in class_list(path):
        if not (source / "data" / name).is_dir():
            raise HandfulError(f"{source / 'data' / name} is missing, a class of {path}; {WAY_OUT}.")
        pictures += [Picture(str(file), part, name, file.read_bytes) for file in list_images(source / "data" / name)]
    return pictures


def from_pickle(source: Path, part: str) -> list[Picture]:
    """The pictures of the pickle of a split."""
    path = source / f"CIFAR_FS_{part}.pickle"
    held = read_pickle(path)
    try:
        images, labels = np.asarray(held["data"]), [int(label) for label in held["labels"]]
    except (LookupError, TypeError, ValueError, OverflowError) as error:
        raise HandfulError(f"{path} holds no data and labels ({type(error).__name__}: {error}); {WAY_OUT}.") from error
    if images.dtype != np.uint8 or images.ndim != 4 or len(images) != len(labels):
        raise HandfulError(
            f"{path} holds {images.dtype} {list(images.shape)} for {len(labels)} labels, not uint8 [n, h, w, 3] "
            f"for n; {WAY_OUT}."
        )
    return [
        Picture(f"{path}[{index}]", part, f"{part}/{label:02}", partial(images.__getitem__, index))
        for index, label in enumerate(labels)
    ]


READER = Reader(
    read,
    about="CIFAR-FS, the 100 classes of CIFAR-100 at 32x32, 600 pictures each (Bertinetto et al. 2019)",
    expects="data/CLASS/*.png with splits/bertinetto/*.txt, or CIFAR_FS_{train,val,test}.pickle",
    files=files,
    survey=survey,
    options=("image_size", "classes"),
)
