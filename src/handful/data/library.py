"""Which data sets there are, where their sources and stores lie, and the way from a name to an open store.

A store is built once, into the cache folder, and opened ever after.  It remembers a fingerprint of its
source (names, sizes and times of the files) and is built anew when the source has changed.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
from collections.abc import Iterable, Mapping, Sequence
from inspect import signature
from pathlib import Path
from typing import Any, Literal, overload

from handful.data import cifar_fs, cub, folders, glyphs, mini_imagenet, omniglot, random_pixels, tiered_imagenet
from handful.data.functions import FAMILIES, FunctionFamily
from handful.data.rails.library import FRAMED, open_frames
from handful.data.rails.store import RailFrames
from handful.data.reader import Reader, places_of
from handful.data.store import ImageStore, open_store, write_store
from handful.data.video.library import EXPECTS, FILMED, open_video
from handful.data.video.store import VideoClips
from handful.errors import HandfulError, unknown

READERS: dict[str, Reader] = {
    "glyphs": glyphs.READER,
    "omniglot": omniglot.READER,
    "mini_imagenet": mini_imagenet.READER,
    "tiered_imagenet": tiered_imagenet.READER,
    "cifar_fs": cifar_fs.READER,
    "cub": cub.READER,
    "folder": folders.READER,
    "random": random_pixels.READER,
}
DRAWN = FAMILIES  # as they are needed: nothing to build


@overload
def load(name: Literal["sinusoid", "lines"]) -> FunctionFamily: ...  # type: ignore[overload-overlap]
@overload
def load(  # type: ignore[overload-overlap]
    name: Literal["rails", "rail_scenes"],
    root: str | Path | None = None,
    *,
    fold: int | None = None,
    scenes: int | None = None,
    targets: str | None = None,
) -> RailFrames: ...
@overload
def load(  # type: ignore[overload-overlap]
    name: Literal["ped2", "scenes", "video_folder", "sprites"],
    root: str | Path | None = None,
    *,
    image_size: int | None = None,
    channels: int | None = None,
    window: int | None = None,
    clips: int | None = None,
    rebuild: bool = False,
) -> VideoClips: ...
@overload
def load(
    name: str,
    root: str | Path | None = None,
    *,
    rotations: int = 1,
    image_size: int | None = None,
    channels: int | None = None,
    seed: int = 0,
    skip_bad: bool = False,
    fractions: Sequence[float] | None = None,
    classes: int | None = None,
    split: str | None = None,
    cropped: bool = False,
    fold: int | None = None,
    scenes: int | None = None,
    targets: str | None = None,
    window: int | None = None,
    clips: int | None = None,
    rebuild: bool = False,
) -> ImageStore: ...
def load(
    name: str,
    root: str | Path | None = None,
    *,
    rotations: int = 1,
    image_size: int | None = None,
    channels: int | None = None,
    seed: int = 0,
    skip_bad: bool = False,
    fractions: Sequence[float] | None = None,
    classes: int | None = None,
    split: str | None = None,
    cropped: bool = False,
    fold: int | None = None,
    scenes: int | None = None,
    targets: str | None = None,
    window: int | None = None,
    clips: int | None = None,
    rebuild: bool = False,
) -> ImageStore | FunctionFamily | RailFrames | VideoClips:
    """Open a data set by name: images, a family of functions, annotated frames, or clips.

    The store of images is built first if there is none or its source has changed.

    name: one of `READERS`, `DRAWN`, `FRAMED` or `FILMED`; root: the folder of the source, or the folder around it; else
    the source is looked for in $HANDFUL_DATA/name, and without any a store that was built before is opened.  rotations:
    4 counts quarter turns of a class as classes of their own; image_size: pixels of a side; channels: 1 or 3;
    seed, fractions: of the class split (`folder`) or the pixels (`random`); skip_bad: go on without
    undecodable pictures; classes: read only the first so many of each split (the published sets of photographs);
    split, cropped: which class split, and whether to cut pictures to the bird (`cub`); fold, scenes, targets: as for
    `handful.data.rails.library` (`rails`, `rail_scenes`); window, clips: as for `handful.data.video.library`
    (`FILMED`); rebuild: build in any case.

    Raises HandfulError: an unknown name, an option that the data set does not take, no source, a bad source.
    """
    given = {
        "rotations": None if rotations == 1 else rotations,
        "image_size": image_size,
        "channels": channels,
        "seed": seed or None,
        "skip_bad": skip_bad or None,
        "fractions": None if fractions is None else tuple(fractions),
        "classes": classes,
        "split": split,
        "cropped": cropped or None,
        "fold": fold,
        "scenes": scenes,
        "targets": targets,
        "window": window,
        "clips": clips,
    }
    given = {key: value for key, value in given.items() if value is not None}
    if name in FRAMED and not rebuild:
        check_options(name, {**given, **({} if root is None else {"root": root})}, FRAMED[name].options)
        return open_frames(name, cache_dir(), root, given)
    if name in FILMED:
        check_options(name, {**given, **({} if root is None else {"root": root})}, FILMED[name].options)
        return open_video(name, cache_dir(), root, given, rebuild)
    if name in DRAWN and not rebuild:
        check_options(name, {**given, **({} if root is None else {"root": root})}, ())
        return DRAWN[name]
    reader = reader_of(name)
    options = build_options(name, given)
    source = find_source(name, root)
    target = store_folder(name, source, options)
    mark = fingerprint(reader, source)
    if rebuild or not is_current(target, mark):
        if reader.files and source is None:
            raise missing(name, root)
        contents = reader.read(*([source] if reader.files else []), **options)
        where = None if source is None else str(source)
        info = {**contents.info, "source": where, "options": options, "fingerprint": mark}
        write_store(target, **contents._replace(info=info)._asdict())
    return open_store(target, rotations)


def build_options(name: str, given: Mapping[str, Any]) -> dict[str, Any]:
    """The given options that make a store another one: not `rotations`, a way to open it, and no defaults.

    Raises HandfulError for an option that the data set does not take.
    """
    reader = reader_of(name)
    check_options(name, given, reader.options)
    known = signature(reader.read).parameters
    return {key: value for key, value in given.items() if key in known and value != known[key].default}


def check_options(name: str, given: Iterable[str], options: Sequence[str]) -> None:
    """Refuse what a data set does not take."""
    for key in given:
        if key not in options:
            takes = f"it takes {', '.join(options)}" if options else "it takes no options"
            raise HandfulError(f"The data set {name!r} does not take {key}; leave it out ({takes}).")


def build(
    name: str, source: str | Path | None = None, *, download: bool = False, **options: Any
) -> ImageStore | VideoClips:
    """Build a store anew, as `handful data build NAME --source PATH` does; options as for `load`.

    download: fetch the source first, into `source` or else into the cache folder.
    """
    reader = None if name in FILMED else reader_of(name)
    if download:
        if reader is None or reader.fetch is None:
            raise HandfulError(f"The data set {name!r} has no download; it is made of: {expected(name)}.")
        source = reader.fetch(Path(source) if source else downloads(name))
    return load(name, source, rebuild=True, **options)


def expected(name: str) -> str:
    """What a data set is made of, in words."""
    return EXPECTS.get(name) or (READERS[name].expects if name in READERS else None) or "nothing"


def folder(path: str | Path, image_size: int = 84, channels: int = 3, seed: int = 0, **options: Any) -> ImageStore:
    """The pictures of class folders, `path/<class>/*.jpg`, as uint8 [channels, image_size, image_size].

    Classes are split into train, val and test by `seed`, or as `path/train`, `path/val` and `path/test` say.
    Options as for `load`; everything else as in `handful.data.folders.read`.
    """
    return load("folder", path, image_size=image_size, channels=channels, seed=seed, **options)


def reader_of(name: str) -> Reader:
    """The reader of a data set."""
    if name in DRAWN:
        raise HandfulError(f"The data set {name!r} is drawn when it is needed, so there is nothing to build.")
    if name in FRAMED:
        raise HandfulError(
            f"The data set {name!r} is kept in the cache when it is first opened; there is nothing to build."
        )
    if name not in READERS:
        raise unknown("data set", name, {**READERS, **DRAWN, **FRAMED, **FILMED})
    return READERS[name]


def cache_dir() -> Path:
    """Where stores are kept: $HANDFUL_CACHE, else $XDG_CACHE_HOME/handful, else ~/.cache/handful."""
    if named := os.environ.get("HANDFUL_CACHE"):
        return Path(os.path.expanduser(named))
    return Path(os.environ.get("XDG_CACHE_HOME") or "~/.cache").expanduser() / "handful"


def downloads(name: str) -> Path:
    """Where the archives of a data set are put if no folder is named for them."""
    return cache_dir() / "downloads" / name


def find_source(name: str, root: str | Path | None) -> Path | None:
    """The folder of a data set's source: root, root/name, or without a root $HANDFUL_DATA/name or a former
    download.

    None if there is none, or if the data set needs none.  Raises HandfulError where `root` is given and
    holds none.
    """
    reader = reader_of(name)
    if reader.files is None:
        return None
    for place in [*places_of(name, root), *([downloads(name)] if root is None else [])]:
        if os.path.isdir(place) and reader.files(place):
            return place
    if root is not None:
        raise missing(name, root)
    return None


def missing(name: str, root: str | Path | None) -> HandfulError:
    """The error for a source that was not found, with the ways to name one."""
    reader = READERS[name]
    if root is None:
        start = f"The data set {name!r} was not built yet: name the folder that holds {reader.expects}"
    elif not os.path.isdir(os.path.expanduser(root)):
        start = f"There is no folder {root}: name the folder that holds {reader.expects}"
    else:
        start = f"{root} does not hold {reader.expects}: name the folder that does"
    last = f", or fetch it: `handful data build {name} --download`" if reader.fetch else ""
    ways = "by --source (`data build`) or --data (`evaluate`, `compare`, `fit`), by data.root in the recipe"
    return HandfulError(f"{start}, {ways}, or as {name}/ in HANDFUL_DATA{last}.")


def store_folder(name: str, source: Path | None, options: Mapping[str, Any]) -> Path:
    """Where the store of a data set with these options lies in the cache folder."""
    parts: dict[str, Any] = dict(options)
    label = name
    if READERS[name].by_path and source is not None:
        parts["path"] = str(source.resolve())
        label += "-" + re.sub(r"\W+", "_", source.resolve().name)[:40]
    if parts:
        label += "-" + hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()[:10]
    return cache_dir() / label


def fingerprint(reader: Reader, source: Path | None) -> str | None:
    """A digest of the reader's version and its source's files (name, size, time); None if there is none."""
    if reader.files and source is None:
        return None
    digest = hashlib.sha256(f"version {reader.version}".encode())
    if reader.files and source:
        for path in reader.files(source):
            stat = path.stat() if path.exists() else path.lstat()  # a broken link is for the reader to name
            digest.update(f"\n{path.relative_to(source).as_posix()} {stat.st_size} {stat.st_mtime_ns}".encode())
    return digest.hexdigest()


def is_current(target: Path, mark: str | None) -> bool:
    """Whether a store is there and made of the source that `mark` names; without a mark any store will do."""
    try:
        found = open_store(target).info.get("fingerprint")
    except HandfulError:  # missing or damaged: built anew if the source is at hand, told otherwise
        return mark is None and target.exists()
    return mark in (None, found)
