"""What is in a folder, and what is wrong with it: `handful data check DIR`."""

from __future__ import annotations

import hashlib
from collections import Counter, defaultdict
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from handful.data.folders import SUFFIXES, no_folder
from handful.data.library import READERS
from handful.data.pictures import Picture, Survey, decode, opened, plain, unreadable
from handful.data.store import ImageStore, open_store
from handful.errors import HandfulError

SHOWN = 20  # problems that are printed; all of them are in the report
NAMED = 6  # pictures of a group that a sentence names
THUMBNAIL, ACROSS, DOWN = (3, 96, 96), 8, 40  # of the sheet: a picture, pictures of a class, classes


@dataclass(frozen=True)
class Identical:
    """Pictures that are the same, pixel for pixel.

    names: where they are; splits, classes: those that they are in, without repetition; same_bytes: whether
    their files are the same too, byte for byte; None in a store, which keeps no files.
    """

    names: list[str]
    splits: list[str]
    classes: list[str]
    same_bytes: bool | None

    @property
    def spoils(self) -> bool:
        """Whether a measurement suffers: a test picture was trained on, or one picture has two right answers."""
        return len(self.splits) > 1 or len(self.classes) > 1

    def __str__(self) -> str:
        files = {True: " (the same file)", False: " (the pixels, in files that differ)", None: ""}[self.same_bytes]
        if len(self.splits) > 1:
            what = f"in the splits {' and '.join(self.splits)}, which should share nothing"
        elif len(self.classes) > 1:
            what = f"in the classes {' and '.join(map(repr, self.classes))}, so no answer is right for all of them"
        else:
            what = f"in the class {self.classes[0]!r}, so a task may ask for a picture that its support shows"
        more = f" and {len(self.names) - NAMED} more" if len(self.names) > NAMED else ""
        return f"Identical{files} {what}: {', '.join(self.names[:NAMED])}{more}."


@dataclass
class Report:
    """A folder looked through.

    kind: `store`, `class folders`, the name of a data set's files, or `unknown`; per_class: least, median and
    greatest number of images of a class, (0, 0, 0) if there is none; splits: split name -> number of
    classes, empty where no split is laid down; unreadable: images that cannot be decoded; empty: class
    folders without an image; duplicates: groups of identical pictures, those across splits first, then
    those across classes, then those within a class; problems: a sentence for everything that is wrong,
    duplicates across splits and classes first; notes: what is no problem and good to know, such as what these classes
    are enough for.  Duplicates within a class are no problem, only told.
    """

    path: str
    kind: str = "unknown"
    classes: int = 0
    images: int = 0
    per_class: tuple[int, float, int] = (0, 0.0, 0)
    splits: dict[str, int] = field(default_factory=dict)
    unreadable: list[str] = field(default_factory=list)
    empty: list[str] = field(default_factory=list)
    duplicates: list[Identical] = field(default_factory=list)
    problems: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)

    @property
    def ok(self) -> bool:
        """Whether nothing is wrong."""
        return not self.problems

    def __str__(self) -> str:
        """For people: what it is, then a line for each problem and each duplicate, the first `SHOWN` of them."""
        least, median, greatest = self.per_class
        found = f"{self.path}: {self.kind}"
        if self.classes:
            found += f", {self.classes} classes, {self.images} images, "
            found += f"{least} to {greatest} a class (median {median:g})"
        splits = [", ".join(f"{count} {name}" for name, count in self.splits.items())] if self.splits else []
        told = [*self.problems, *(str(group) for group in self.duplicates if not group.spoils)]
        lines = [f"- {line}" for line in told[:SHOWN]]
        more = len(told) - SHOWN
        rest = [f"- and {more} more"] if more > 0 else []
        return "\n".join([found, *(f"classes of the splits: {line}" for line in splits), *lines, *rest, *self.notes])


def check(path: str | Path) -> Report:
    """Look through a folder and decode every image in it; HandfulError only if there is no such folder."""
    source = Path(path)
    if not source.is_dir():
        raise no_folder(source)
    report = Report(str(source))
    survey = survey_of(source)
    if survey is None:
        known = ", ".join(reader.expects for reader in READERS.values() if reader.survey)
        report.problems.append(f"{source} holds no store and no pictures ({', '.join(sorted(SUFFIXES))}), nor {known}.")
        return report
    report.kind, report.empty = survey.kind, survey.empty
    report.problems += survey.problems
    report.notes += survey.notes
    sizes = Counter((picture.split, picture.label) for picture in survey.pictures)
    counts = np.array([*sizes.values()] or [0])
    report.classes, report.images = len(sizes), len(survey.pictures)
    report.per_class = int(counts.min()), float(np.median(counts)), int(counts.max())
    report.splits = dict(Counter(part for part, _ in sizes if part))
    look_at(survey, report)
    return report


def samples(path: str | Path) -> tuple[dict[str, list[NDArray[np.uint8] | None]], dict[str, int]]:
    """The first pictures of the first classes of a folder, uint8 [3, 96, 96], None where one cannot be read.

    And how many pictures each class has.  Raises HandfulError if there are none.
    """
    survey = survey_of(Path(path))
    if survey is None or not survey.pictures:
        raise HandfulError(f"There are no pictures in {path} to draw.")
    classes: dict[str, list[Picture]] = defaultdict(list)
    for picture in survey.pictures:
        classes["/".join(filter(None, [picture.split, picture.label]))].append(picture)

    def drawn(picture: Picture) -> NDArray[np.uint8] | None:
        try:
            return decode(picture, THUMBNAIL, survey.mend)
        except HandfulError:
            return None

    found = {name: [drawn(picture) for picture in own[:ACROSS]] for name, own in list(classes.items())[:DOWN]}
    return found, {name: len(own) for name, own in classes.items()}


def survey_of(source: Path) -> Survey | None:
    """All that is in a folder, whatever it is; None if it is nothing that Handful knows."""
    if (source / "store.json").is_file() or (source / "images.npy").is_file():
        return survey_store(source)
    for reader in READERS.values():
        if reader.survey and reader.files and reader.files(source):
            return reader.survey(source)
    return None


def survey_store(source: Path) -> Survey:
    """A store: it opens, and its pixels still have the digest that was written down."""
    try:
        store = open_store(source)
    except HandfulError as error:
        return Survey("store", [], [str(error)])
    digest = hashlib.sha256(store.labels.tobytes())
    for image in store.images:
        digest.update(image.tobytes())
    problems = []
    if digest.hexdigest() != store.digest:
        problems.append(
            f"The pixels of {source} are not those that were written (digest {digest.hexdigest()[:16]}, not "
            f"{store.digest[:16]}); build it anew with `handful data build`."
        )
    owner = {int(index): part for part, classes in store.splits.items() for index in classes}
    pictures = [
        Picture(f"image {i}", owner.get(label, ""), store.class_names[label], partial(channels_last, store, i))
        for i, label in enumerate(store.labels.tolist())
    ]
    return Survey("store", pictures, problems)


def channels_last(store: ImageStore, index: int) -> NDArray[np.uint8]:
    """An image of a store, [H, W, C]."""
    return store.images[index].transpose(1, 2, 0)


class Glance(NamedTuple):
    """What one look at a picture tells: what is wrong with it, or the digests of its pixels and of its file."""

    fault: str | None
    pixels: str = ""
    file: str | None = None


def glance(picture: Picture, mend: str) -> Glance:
    """Decode a picture whole; two pictures are the same if size and pixels are, as RGB, upright and on white."""
    try:
        content = picture.content()
        with opened(content) as image:
            rgb = plain(image).convert("RGB")
        digest = hashlib.sha256(f"{rgb.size}".encode() + rgb.tobytes())
    except Exception as error:  # as for `decode`
        return Glance(str(unreadable(picture, error, mend)))
    return Glance(None, digest.hexdigest(), hashlib.sha256(content).hexdigest() if isinstance(content, bytes) else None)


def look_at(survey: Survey, report: Report) -> None:
    """Decode every picture, and find those that are the same."""
    same: dict[str, list[tuple[Picture, str | None]]] = defaultdict(list)
    with ThreadPoolExecutor() as pool:
        seen = pool.map(lambda picture: glance(picture, survey.mend), survey.pictures)
        for picture, (fault, pixels, file) in zip(survey.pictures, seen):
            if fault is None:
                same[pixels].append((picture, file))
            else:
                report.unreadable.append(picture.name)
                report.problems.append(fault)
    groups = [identical(group) for group in same.values() if len(group) > 1]
    report.duplicates = sorted(groups, key=lambda group: (-len(group.splits), -len(group.classes)))
    report.problems[:0] = [str(group) for group in report.duplicates if group.spoils]


def identical(group: Sequence[tuple[Picture, str | None]]) -> Identical:
    """A group of pictures with the same pixels."""
    pictures = [picture for picture, _ in group]
    files = {file for _, file in group}
    return Identical(
        names=[picture.name for picture in pictures],
        splits=list(dict.fromkeys(picture.split for picture in pictures if picture.split)),
        classes=list(dict.fromkeys(picture.label for picture in pictures)),
        same_bytes=None if None in files else len(files) == 1,
    )
