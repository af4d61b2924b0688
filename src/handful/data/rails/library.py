"""The data sets of annotated frames: `rails`, photographs with lines drawn in them, and `rail_scenes`, rendered."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple, get_args

import numpy as np
from numpy.typing import NDArray

from handful.data.functions import SPLITS
from handful.data.rails.frame import Frame, Line
from handful.data.rails.reading import load_frames, survey_frames
from handful.data.rails.store import FOLDS, HEIGHT, WIDTH, RailFrames, Targets, folded, stored
from handful.data.reader import places_of
from handful.data.scenes import render_frame
from handful.data.scenes.source import VERSION
from handful.errors import HandfulError, unknown

SCENES = {"train": 1000, "val": 60, "test": 150}
RENDERED = "The pictures are rendered: a result on them says nothing of photographs."


class Framed(NamedTuple):
    """A data set of annotated frames: what it is, and the options that it takes."""

    about: str
    options: tuple[str, ...]


FRAMED = {
    "rails": Framed(
        "photographs from a train's cab with rail lines drawn in them (docs/rails.md)",
        ("root", "fold", "scenes", "targets"),
    ),
    "rail_scenes": Framed(
        "views from a train's cab, rendered on the spot with their exact rail lines", ("scenes", "targets")
    ),
}


def open_frames(name: str, cache: Path, root: str | Path | None, options: dict[str, Any]) -> RailFrames:
    """A data set of `FRAMED` by name; root: the folder of the photographs, $HANDFUL_DATA/rails if not said.

    Raises HandfulError: no photographs, fewer than none or, for `rail_scenes`, no scenes, no such targets.
    """
    least = int(name == "rail_scenes")
    if (scenes := options.get("scenes", least)) < least:
        raise HandfulError(f"scenes is {scenes}, but {name!r} is trained on {least} or more; give their number.")
    if (targets := options.get("targets", "ego")) not in get_args(Targets):
        raise unknown("kind of targets", targets, get_args(Targets))
    if name == "rail_scenes":
        return rendered_scenes(cache, **options)
    source = next((place for place in places_of(name, root) if survey_frames(place) is not None), None)
    if source is None:
        where = f"{root} holds" if root else "The data set 'rails' was not found: there are"
        raise HandfulError(
            f"{where} no annotated frames; name the folder that does, by data.root in the recipe or by --data, or as "
            "rails/ in HANDFUL_DATA."
        )
    return photographs(source, cache, **options)


class Part(NamedTuple):
    """Frames of one source: uint8 [n, 3, H, W], their lines, their names, and a digest of all of it."""

    pixels: NDArray[np.uint8]
    lines: list[dict[str, Line]]
    names: list[str]
    digest: str


def photographs(source: Path, cache: Path, *, fold: int = 0, scenes: int = 0, targets: Targets = "ego") -> RailFrames:
    """Annotated frames of a folder, each of a place of its own, a third of which is tested.

    fold: which third, 0 to 2; scenes: rendered ones that are trained on too; then other rendered ones validate, else
    the training places themselves do: a few places make no tasks of five and more.  Raises HandfulError: no frames.
    """
    if not 0 <= fold < FOLDS:
        raise HandfulError(f"fold is {fold}, but the places have {FOLDS} folds, 0 to {FOLDS - 1}.")
    frames = load_frames(source)
    marks = "".join(mark(frame) for frame in frames)
    photos = made(
        cache / f"rails-{hashed(marks)[:16]}-{WIDTH}x{HEIGHT}", len(frames), frames.__getitem__, hashed(marks)
    )
    splits = folded(len(frames), fold)
    parts = [photos]
    if scenes:
        parts += [rendered(cache, "train", scenes), rendered(cache, "val", SCENES["val"])]
        first, last = len(frames) + scenes, len(frames) + scenes + SCENES["val"]
        splits = {
            **splits,
            "train": np.append(splits["train"], np.arange(len(frames), first)),
            "val": np.arange(first, last),
        }
    else:
        splits["val"] = splits["train"]
    options = {"root": str(source), "fold": fold, "scenes": scenes, "targets": targets}
    about = f"{len(frames)} annotated places, of which fold {fold} is tested"
    return joined("rails", parts, splits, len(frames), targets, {"name": "rails", "about": about}, options)


def rendered_scenes(cache: Path, *, scenes: int = SCENES["train"], targets: Targets = "ego") -> RailFrames:
    """Rendered scenes; scenes: how many are trained on."""
    counts = {**SCENES, "train": scenes}
    parts = [rendered(cache, name, count) for name, count in counts.items()]
    ends = np.cumsum(list(counts.values()))
    splits = {name: np.arange(end - count, end) for (name, count), end in zip(counts.items(), ends)}
    info = {"name": "rail_scenes", "version": VERSION, "note": RENDERED}
    return joined("rail_scenes", parts, splits, 0, targets, info, {"scenes": scenes, "targets": targets})


def rendered(cache: Path, split: str, count: int) -> Part:
    """The first scenes of a split, which is a stream of random numbers of its own."""
    key = f"rail_scenes-{VERSION}-{split}-{count}-{WIDTH}x{HEIGHT}"
    draw = partial(render_frame, SPLITS.index(split), size=(WIDTH, HEIGHT))
    return made(cache / key, count, draw, hashed(key))


def made(folder: Path, count: int, frame: Callable[[int], Frame], digest: str) -> Part:
    """A part from the cache, or made and put there."""
    return Part(*stored(folder, count, frame), digest)


def joined(
    name: str,
    parts: list[Part],
    splits: dict[str, NDArray[np.int64]],
    first_rendered: int,
    targets: Targets,
    info: dict[str, Any],
    options: dict[str, Any],
) -> RailFrames:
    """One data set of several parts, whose frames are numbered through."""
    return RailFrames(
        name=name,
        pixels=[part.pixels for part in parts],
        lines=[lines for part in parts for lines in part.lines],
        names=[named for part in parts for named in part.names],
        splits=splits,
        rendered=first_rendered,
        targets=targets,
        info=info,
        digest=hashed(" ".join(part.digest for part in parts)),
        options=options,
    )


def mark(frame: Frame) -> str:
    """What changes when a frame does: its picture's bytes and its lines."""
    content = frame.picture.content()
    assert isinstance(content, bytes)
    lines = [(name, line.tolist()) for name, line in frame.lines.items()]
    return (
        f"{Path(frame.picture.name).name} {hashlib.sha256(content).hexdigest()} {frame.width} {frame.height} {lines}\n"
    )


def hashed(text: str) -> str:
    """SHA-256 of a text."""
    return hashlib.sha256(text.encode()).hexdigest()
