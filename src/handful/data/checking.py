"""What is in a folder, and what is wrong with it: `handful data check DIR`."""

from __future__ import annotations

import hashlib
import zipfile
from collections import defaultdict
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from handful.data import folders, omniglot
from handful.data.store import open_store
from handful.errors import HandfulError

SHOWN = 20  # problems that are printed; all of them are in the report


@dataclass
class Report:
    """A folder looked through.

    kind: `store`, `omniglot archives`, `class folders` or `unknown`; per_class: least, median and greatest
    number of images of a class, (0, 0, 0) if there is none; splits: split name -> number of classes, empty
    where no split is laid down; unreadable: images that cannot be decoded; empty: class folders without an
    image; duplicates: files that are the same byte for byte, of which two in different classes or splits
    spoil a measurement; problems: a sentence for everything that is wrong, the unreadable, the empty and
    the duplicates included.
    """

    path: str
    kind: str = "unknown"
    classes: int = 0
    images: int = 0
    per_class: tuple[int, float, int] = (0, 0.0, 0)
    splits: dict[str, int] = field(default_factory=dict)
    unreadable: list[str] = field(default_factory=list)
    empty: list[str] = field(default_factory=list)
    duplicates: list[list[str]] = field(default_factory=list)
    problems: list[str] = field(default_factory=list)

    @property
    def ok(self) -> bool:
        """Whether nothing is wrong."""
        return not self.problems

    def __str__(self) -> str:
        """For people: what it is, then a line for each problem, the first `SHOWN` of them."""
        least, median, greatest = self.per_class
        found = f"{self.path}: {self.kind}"
        if self.classes:
            found += f", {self.classes} classes, {self.images} images, "
            found += f"{least} to {greatest} a class (median {median:g})"
        splits = [", ".join(f"{count} {name}" for name, count in self.splits.items())] if self.splits else []
        problems = [f"- {problem}" for problem in self.problems[:SHOWN]]
        more = len(self.problems) - SHOWN
        rest = [f"- and {more} more"] if more > 0 else []
        return "\n".join([found, *(f"classes of the splits: {line}" for line in splits), *problems, *rest])


def check(path: str | Path) -> Report:
    """Look through a folder and decode every image in it; HandfulError only if there is no such folder."""
    source = Path(path)
    if not source.is_dir():
        raise HandfulError(f"There is no folder {source}.")
    report = Report(str(source))
    if (source / "store.json").is_file() or (source / "images.npy").is_file():
        check_store(source, report)
    elif omniglot.files(source):
        check_archives(source, report)
    elif folders.list_images(source):
        check_folders(source, report)
    else:
        report.problems.append(
            f"{source} holds no store, no Omniglot archives and no pictures ({', '.join(sorted(folders.SUFFIXES))})."
        )
    return report


def check_store(source: Path, report: Report) -> None:
    """A store: it opens, and its pixels still have the digest that was written down."""
    report.kind = "store"
    try:
        store = open_store(source)
    except HandfulError as error:
        report.problems.append(str(error))
        return
    count(report, dict(enumerate(np.bincount(store.labels, minlength=len(store.class_names)).tolist())))
    report.splits = {name: len(classes) for name, classes in store.splits.items()}
    digest = hashlib.sha256(store.labels.tobytes())
    for image in store.images:
        digest.update(image.tobytes())
    if digest.hexdigest() != store.digest:
        report.problems.append(
            f"The pixels of {source} are not those that were written (digest {digest.hexdigest()[:16]}, not "
            f"{store.digest[:16]}); build it anew with `handful data build`."
        )


def check_archives(source: Path, report: Report) -> None:
    """Omniglot: both archives are there and whole, with all their characters, and every drawing decodes."""
    report.kind = "omniglot archives"
    counts: dict[str, int] = {}
    for archive in omniglot.ARCHIVES:
        try:
            report.problems += [str(fault) for fault in omniglot.faults(source, archive)]
            table = omniglot.drawings(source / archive.name)
        except HandfulError as error:
            report.problems.append(str(error))
            continue
        counts |= {f"{alphabet}/{character}": len(members) for (alphabet, character), members in table.items()}
        with zipfile.ZipFile(source / archive.name) as opened:
            for member in (member for members in table.values() for member in members):
                try:
                    omniglot.decode(opened, member, 28)
                except HandfulError as error:
                    report.unreadable.append(f"{archive.name}/{member}")
                    report.problems.append(str(error))
    count(report, counts)


def check_folders(source: Path, report: Report) -> None:
    """Class folders: every picture decodes, no class is empty or in two splits, no file is there twice."""
    report.kind = "class folders"
    try:
        source = folders.unwrapped(source)
        parts = folders.split_folders(source) or {"": source}
        found = {part: folders.class_folders(path) for part, path in parts.items()}
    except HandfulError as error:
        report.problems.append(str(error))
        return
    try:
        folders.check_disjoint(found, source)
    except HandfulError as error:
        report.problems.append(str(error))
    count(
        report,
        {f"{part}/{name}": len(paths) for part, classes in found.items() for name, paths in classes.items()},
    )
    if "" not in found:
        report.splits = {part: len(classes) for part, classes in found.items()}
    elif report.classes < 3:
        report.problems.append(f"{report.classes} classes cannot be split into train, val and test; 3 is the least.")
    find_empty(parts, report)
    find_loose(source, parts, found, report)
    look_at([path for classes in found.values() for paths in classes.values() for path in paths], report)


def count(report: Report, counts: Mapping[Any, int]) -> None:
    """Fill in the numbers of classes and images."""
    sizes = np.array(list(counts.values()) or [0])
    report.classes, report.images = len(counts), int(sizes.sum())
    report.per_class = int(sizes.min()), float(np.median(sizes)), int(sizes.max())


def find_empty(parts: Mapping[str, Path], report: Report) -> None:
    """Class folders without a picture."""
    for part in parts.values():
        report.empty += [str(child) for child in folders.subfolders(part) if not folders.list_images(child)]
    report.problems += [f"{name} holds no picture; it is passed over." for name in report.empty]


def find_loose(
    source: Path, parts: Mapping[str, Path], found: Mapping[str, Mapping[str, list[Path]]], report: Report
) -> None:
    """Pictures that lie in no class folder."""
    classed = {path for classes in found.values() for paths in classes.values() for path in paths}
    loose = [path for path in folders.list_images(source) if path not in classed]
    if loose:
        where = " or ".join(f"{part}/" for part in parts if part)
        report.problems.append(
            f"{len(loose)} pictures lie in no class folder{f' of {where}' if where else ''} and are passed "
            f"over, {loose[0]} the first."
        )


def look_at(paths: list[Path], report: Report) -> None:
    """Decode every picture, and find files that are the same."""

    def glance(path: Path) -> tuple[str | None, str]:
        try:
            folders.load_image(path, (3, 32, 32))
            fault = None
        except HandfulError as error:
            fault = str(error)
        return fault, hashlib.sha256(path.read_bytes()).hexdigest()

    same: dict[str, list[str]] = defaultdict(list)
    with ThreadPoolExecutor() as pool:
        for path, (fault, digest) in zip(paths, pool.map(glance, paths)):
            same[digest].append(str(path))
            if fault:
                report.unreadable.append(str(path))
                report.problems.append(fault)
    report.duplicates = [names for names in same.values() if len(names) > 1]
    report.problems += [f"These files are the same: {', '.join(names)}." for names in report.duplicates]
