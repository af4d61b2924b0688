"""Opening annotated frames: a file of one of the known formats, or a folder that holds such files."""

from __future__ import annotations

import os
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from handful import wording
from handful.data.folders import list_images
from handful.data.pictures import Picture, opened
from handful.data.rails.formats import FORMATS, Annotation, Format
from handful.data.rails.frame import Frame, Line, line_of
from handful.data.rails.masks import ego_track
from handful.errors import HandfulError
from handful.wording import printable

OWN_NAME = "annotations.json"  # is always ours, however damaged
SUFFIXES = (".json", ".jsonl")
NEAR_THE_START = 65_536  # bytes in which a file shows what it is
LONGEST = 65_535  # pixels of a side: more a JPEG cannot have
RAILSEM19 = ("jsons/rs19_val", "jsons", "uint8/rs19_val", "uint8")  # below its folder; polylines before masks
PICTURES = (".", "images", "jpgs/rs19_val", "jpgs")  # where pictures lie, seen from a file or from RailSem19's folder


@dataclass(frozen=True)
class Annotations:
    """All frames that a file or a folder annotates.

    kind: of the files; frames: those whose picture is there, with the lines that can be used; problems: a sentence
    for everything that is wrong, as far as it shows without decoding a picture; notes: what is good to know.
    """

    kind: str
    frames: list[Frame]
    problems: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)


def load_frames(path: str | Path) -> list[Frame]:
    """The annotated frames of a file or a folder.

    Raises HandfulError: nothing there that is known, or the first problem of `survey_frames`.
    """
    found = survey_frames(path)
    if found is None:
        known = ", ".join(kind.kind for kind in FORMATS)
        there = "holds no annotated frames" if Path(path).exists() else "is not there"
        raise HandfulError(f"{path} {there}; known are files of {known}, and RailSem19's masks (docs/rails.md).")
    if found.problems:
        raise HandfulError(found.problems[0])
    return found.frames


def survey_frames(path: str | Path) -> Annotations | None:
    """All that a file or a folder annotates, and what is wrong with it; None if it is nothing of the kind."""
    path = Path(path)
    if os.path.isfile(path):  # unlike Path.is_file, of a name that is too long it makes nothing
        kind = format_of(path)
        return None if kind is None else read([path], kind)
    if not os.path.isdir(path):
        return None
    for place in RAILSEM19:
        if files := sorted((path / place).glob("*.json")):
            return read(files, FORMATS[-1])
        if masks := sorted((path / place).glob("*.png")):
            return read_masks(masks)
    kinds: dict[str, list[Path]] = {}
    known = {kind.kind: kind for kind in FORMATS}
    for file in sorted(path.iterdir()):
        if file.suffix.lower() in SUFFIXES and file.is_file() and (kind := format_of(file)):
            kinds.setdefault(kind.kind, []).append(file)
    if not kinds:
        return None
    first, *others = kinds
    found = read(kinds[first], known[first])
    for other in others:
        found.problems.append(
            f"{path} holds {first} ({kinds[first][0].name}) and {other} ({kinds[other][0].name}); keep one of them."
        )
    found.notes.extend(not_annotated(path, found.frames))
    return found


def format_of(file: Path) -> Format | None:
    """Which format a file is of, by what it holds near its start; None if of none."""
    if file.name == OWN_NAME:
        return FORMATS[0]
    try:
        with file.open("rb") as opened:
            start = opened.read(NEAR_THE_START).decode("utf-8", "replace")
    except OSError:
        return None
    return next((kind for kind in FORMATS if all(mark in start for mark in kind.marks)), None)


def read(files: list[Path], kind: Format) -> Annotations:
    """Frames from files of one format."""
    found, seen = Annotations(kind.kind, []), dict[Path, str]()
    for file in files:
        name = printable(file)
        try:
            text = file.read_text(encoding="utf-8-sig")
        except (OSError, UnicodeDecodeError) as error:
            found.problems.append(f"{name} cannot be read ({error}); write it anew as UTF-8.")
            continue

        def say(fault: str, name: str = name) -> None:
            found.problems.append(f"{name}: {fault}{'' if fault.endswith(('.', '?')) else '.'}")

        for record in kind.records(text, say):
            add(found, record, home(file), name, seen)
    if not found.frames and not found.problems:
        found.problems.append(f"{printable(files[0])} annotates no picture; docs/rails.md shows the format.")
    lineless = sum(not frame.lines for frame in found.frames)
    if lineless:
        found.notes.append(f"Without any line: {wording.count(lineless, 'picture')}.")
    return found


def home(file: Path) -> Path:
    """The folder from which the pictures of a file are looked for: its own, or RailSem19's above jsons/ and uint8/."""
    return next((parent.parent for parent in file.parents[:2] if parent.name in ("jsons", "uint8")), file.parent)


def add(found: Annotations, record: Annotation, root: Path, file: str, seen: dict[Path, str]) -> None:
    """Turn a record into a frame, as far as it is sound, and tell the rest."""
    image = str(record.image)
    if not all(isinstance(side, int) and not isinstance(side, bool) and 0 < side <= LONGEST for side in record[1:3]):
        found.problems.append(
            f"{file}: {image} has the width {record.width!r} and the height {record.height!r}; say the whole numbers "
            "of pixels of the picture in which the lines were drawn."
        )
        return
    path = next((root / place / image for place in PICTURES if os.path.isfile(root / place / image)), None)
    if path is None:
        found.problems.append(f"{file}: {image} is annotated, but there is no such picture in {root}; add it.")
        return
    if (same := path.resolve()) in seen:
        found.problems.append(f"{image} is annotated twice, in {seen[same]} and in {file}; leave one of the records.")
        return
    seen[same] = file
    lines = dict(usable(found, record.lines, image))
    frame = Frame(Picture(printable(path), "", "", path.read_bytes), record.width, record.height, lines, record.tags)
    found.frames.append(frame)
    found.problems.extend(frame.faults())


def usable(found: Annotations, lines: dict[str, Any], image: str) -> Iterator[tuple[str, Line]]:
    """The lines that are some; null and [] stand for one that is not there."""
    for name, points in lines.items():
        if points is None or (isinstance(points, list) and not points):
            continue
        try:
            yield name, line_of(points)
        except ValueError as error:
            found.problems.append(f"The line {name!r} of {image} {error}; mend it, or leave it out.")


def read_masks(masks: list[Path]) -> Annotations:
    """RailSem19's masks: of each the train's own track, as `ego_track` says."""
    found, seen = Annotations("RailSem19 masks", []), dict[Path, str]()

    def look(path: Path) -> Annotation | str:
        try:
            with opened(path.read_bytes()) as image:
                mask = np.asarray(image)
        except Exception as error:  # as for `decode`
            return f"{path} is no readable mask ({error}); mend it or remove it."
        if mask.ndim != 2:
            return f"{path} is no mask: it has {mask.shape[-1]} channels, and one of class numbers is expected."
        return Annotation(f"{path.stem}.jpg", mask.shape[1], mask.shape[0], dict(ego_track(mask)))

    with ThreadPoolExecutor(os.cpu_count()) as pool:
        for path, record in zip(masks, pool.map(look, masks)):
            if isinstance(record, str):
                found.problems.append(record)
            else:
                add(found, record, home(path), printable(path), seen)
    return found


def not_annotated(folder: Path, frames: list[Frame]) -> list[str]:
    """A sentence for the pictures in a folder that have no annotation."""
    known = {frame.picture.name for frame in frames}
    others = [path for path in list_images(folder) if printable(path) not in known]
    told = wording.count(len(others), "picture")
    return [f"Without annotation: {told}, {printable(others[0])} the first."] if others else []
