"""What is in a folder, and what is wrong with it: `handful data check DIR`."""

from __future__ import annotations

import hashlib
import math
from collections import Counter, defaultdict
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from handful.data.findings import Identical, Report
from handful.data.folders import SUFFIXES, no_folder, other_files
from handful.data.library import READERS
from handful.data.pictures import Picture, Survey, decode, opened, plain, unreadable
from handful.data.rails import Annotations, survey_frames
from handful.data.rails.frame import MEND
from handful.data.store import ImageStore, open_store
from handful.data.video.checking import check_clips
from handful.data.video.layout import Layout, layout_of
from handful.errors import HandfulError

THUMBNAIL, ACROSS, DOWN = (3, 96, 96), 8, 40  # of the sheet: a picture, pictures of a class, classes


def check(path: str | Path) -> Report:
    """Look through a folder, or a file of annotations, and decode every image in it.

    Raises HandfulError only if there is no such folder or file.
    """
    source = Path(path)
    found = None if is_store(source) else survey_frames(source)
    if found is None and not source.is_dir():
        raise no_folder(source)
    report = Report(str(source))
    if found is not None:
        check_frames(found, report)
        return report
    try:
        clips = clips_of(source)
    except HandfulError as error:
        report.kind, report.problems = "clips", [str(error)]
        return report
    if clips is not None:
        check_clips(clips, report)
        return report
    survey = survey_of(source)
    if survey is None:
        report.problems.append(
            f"{source} holds no pictures ({', '.join(sorted(SUFFIXES))}), no clips, no store, and no files of a data "
            "set that `handful data list` names."
        )
        report.notes += other_files(source)
        return report
    report.kind, report.empty = survey.kind, survey.empty
    report.problems += survey.problems
    report.notes += survey.notes
    sizes = Counter((picture.split, picture.label) for picture in survey.pictures)
    counts = np.array([*sizes.values()] or [0])
    report.classes, report.images = len(sizes), len(survey.pictures)
    report.per_class = int(counts.min()), float(np.median(counts)), int(counts.max())
    report.splits = dict(Counter(part for part, _ in sizes if part))
    seen = sorted((found.size for found in look_at(survey, report) if found.size), key=math.prod)
    report.pixels = (seen[0], seen[-1]) if seen else ()
    return report


def check_frames(found: Annotations, report: Report) -> None:
    """What is annotated, and whether the pictures are those that were."""
    report.kind, report.images = found.kind, len(found.frames)
    report.problems += found.problems
    report.notes += found.notes
    report.sizes = dict(Counter(f"{frame.width}x{frame.height}" for frame in found.frames))
    report.lines = dict(Counter(name for frame in found.frames for name in frame.lines))
    seen = look_at(Survey(found.kind, [frame.picture for frame in found.frames], mend=MEND), report)
    faults = (frame.size_fault(glance.size) for frame, glance in zip(found.frames, seen) if glance.size)
    report.problems += [fault for fault in faults if fault]


def clips_of(source: Path) -> Layout | None:
    """The clips of a folder; None if it is one of pictures, whatever videos lie among them."""
    found = None if is_store(source) else layout_of(source)
    return None if found is None or (found.bare and survey_of(source)) else found


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
    if is_store(source):
        return survey_store(source)
    for reader in READERS.values():
        if reader.survey and reader.files and reader.files(source):
            return reader.survey(source)
    return None


def is_store(source: Path) -> bool:
    """Whether a folder looks like a store, a damaged one too."""
    return (source / "store.json").is_file() or (source / "images.npy").is_file()


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
    """What one look tells: what is wrong with a picture, or its (width, height), the digests of pixels and file."""

    fault: str | None
    size: tuple[int, int] | None = None
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
    return Glance(
        None, rgb.size, digest.hexdigest(), hashlib.sha256(content).hexdigest() if isinstance(content, bytes) else None
    )


def look_at(survey: Survey, report: Report) -> list[Glance]:
    """Decode every picture, and find those that are the same."""
    same: dict[str, list[tuple[Picture, str | None]]] = defaultdict(list)
    with ThreadPoolExecutor() as pool:
        seen = list(pool.map(lambda picture: glance(picture, survey.mend), survey.pictures))
    for picture, found in zip(survey.pictures, seen):
        if found.fault is None:
            same[found.pixels].append((picture, found.file))
        else:
            report.unreadable.append(picture.name)
            report.problems.append(found.fault)
    groups = [identical(group) for group in same.values() if len(group) > 1]
    report.duplicates = sorted(groups, key=lambda group: (-len(group.splits), -len(group.classes)))
    report.problems[:0] = [str(group) for group in report.duplicates if group.spoils]
    return seen


def identical(group: Sequence[tuple[Picture, str | None]]) -> Identical:
    """A group of pictures with the same pixels."""
    pictures = [picture for picture, _ in group]
    files = {file for _, file in group}
    return Identical(
        names=[picture.name for picture in pictures],
        splits=list(dict.fromkeys(picture.split for picture in pictures if picture.split)),
        classes=list(dict.fromkeys(picture.label for picture in pictures if picture.label)),
        same_bytes=None if None in files else len(files) == 1,
    )
