"""The files that rail lines are annotated in, each turned into records: a picture's name, its size, its lines.

What a record holds is not looked at here: a format says where things stand in its files, and `reading.py` whether
they are sound.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from json import JSONDecodeError
from typing import Any, NamedTuple

from handful.errors import unknown
from handful.reading import from_json

TEXTS = ("source", "kind", "tags", "origin", "label")  # of a record of ours, for people
KEYS = ("image", "width", "height", "left", "right", "rails", "lines", *TEXTS)
EGO_PATH_SIZE, TUSIMPLE_SIZE = (1920, 1080), (1280, 720)  # as published: their files do not say it
ABSENT = -2  # the x of TuSimple where a lane has no point


class Annotation(NamedTuple):
    """A picture and its lines as a file gives them, unchecked; `lines`: name -> what should be points."""

    image: Any
    width: Any
    height: Any
    lines: dict[str, Any]
    tags: tuple[str, ...] = ()


class Format(NamedTuple):
    """One kind of file.

    kind: in words; marks: texts that such a file holds near its start, all of them; records(text, say): what is in
    the file's text; say takes a sentence for what is wrong, without the file's name.
    """

    kind: str
    marks: tuple[str, ...]
    records: Callable[[str, Callable[[str], None]], Iterator[Annotation]]


def own(text: str, say: Callable[[str], None]) -> Iterator[Annotation]:
    """The JSON of docs/rails.md: {"records": [{"image", "width", "height", "left", "right", ...}, ...]}."""
    content = parsed(text, say)
    records = content.get("records") if isinstance(content, dict) else None
    if content is not None and not isinstance(records, list):
        say('there is no list "records"; docs/rails.md shows the format')
    for number, record in enumerate(records if isinstance(records, list) else []):
        if not isinstance(record, dict) or not isinstance(record.get("image"), str):
            say(f'record {number} names no picture as its "image"')
            continue
        for key in record:
            if key not in KEYS:
                say(f"record {number} ({record['image']}): {unknown('key', key, KEYS)}")
        rails, named = record.get("rails") or [], record.get("lines") or {}
        if not isinstance(rails, list) or not isinstance(named, dict):
            say(f'record {number} ({record["image"]}): "rails" is a list of lines, and "lines" names each')
            rails, named = [], {}
        lines = {name: record.get(name) for name in ("left", "right")}
        lines |= {f"rail {i}": rail for i, rail in enumerate(rails, 1)} | named
        tags = record.get("tags")
        words = [record.get("kind"), *(tags if isinstance(tags, list) else [tags])]
        kept = tuple(word for word in words if isinstance(word, str) and word)
        yield Annotation(record["image"], record.get("width"), record.get("height"), lines, kept)


def ego_path(text: str, say: Callable[[str], None]) -> Iterator[Annotation]:
    """TEP-Net's: {picture: {"left_rail": [[x, y], ...], "right_rail": [...]}, ...}, in 1920x1080 pixels."""
    content = parsed(text, say)
    for image, rails in content.items() if isinstance(content, dict) else ():
        if not isinstance(rails, dict):
            say(f"{image} has no rails")
            continue
        for key in rails:
            if key not in ("left_rail", "right_rail"):
                say(f"{image}: {unknown('key', key, ('left_rail', 'right_rail'))}")
        yield Annotation(image, *EGO_PATH_SIZE, {side: rails.get(f"{side}_rail") for side in ("left", "right")})


def tusimple(text: str, say: Callable[[str], None]) -> Iterator[Annotation]:
    """TuSimple's: a line a picture, {"raw_file", "h_samples": [y, ...], "lanes": [[x or -2, ...], ...]}, in 1280x720.

    Lanes have no names: the two beside the middle of the picture at their feet are `left` and `right`, the others
    `rail 1`, `rail 2`, ... from the left.
    """
    for number, row in enumerate(text.splitlines(), 1):
        if not row.strip():
            continue
        content = parsed(row, lambda fault, number=number: say(f"line {number}: {fault}"))  # type: ignore[misc]
        if content is None:
            continue
        try:
            lanes = [
                [[x, y] for x, y in zip(lane, content["h_samples"], strict=True) if x != ABSENT]
                for lane in content["lanes"]
            ]
            yield Annotation(content["raw_file"], *TUSIMPLE_SIZE, named(lanes, TUSIMPLE_SIZE[0]))
        except (KeyError, TypeError, ValueError, OverflowError):
            say(f"line {number}: raw_file, h_samples and lanes should be there, each lane as long as h_samples")


def named(lanes: Sequence[list[Any]], width: int) -> dict[str, Any]:
    """Lines without names by where their feet are: beside the middle `left` and `right`, others `rail N`."""

    def foot(lane: list[Any]) -> float:
        return float(max(lane, key=lambda point: point[1])[0])

    lanes = sorted((lane for lane in lanes if lane), key=foot)
    middle = sum(foot(lane) < (width - 1) / 2 for lane in lanes)
    names = {middle - 1: "left", middle: "right"}
    others = iter(range(1, len(lanes) + 1))
    return {names.get(i) or f"rail {next(others)}": lane for i, lane in enumerate(lanes)}


def railsem19(text: str, say: Callable[[str], None]) -> Iterator[Annotation]:
    """RailSem19's jsons: {"frame", "imgWidth", "imgHeight", "objects": [{"label": "rail", "polyline-pair": ...}, ...]}.

    Which track is the train's own is not in the file: `left` and `right` are the pair whose foot is nearest to the
    middle of the lower border; further pairs are `track 2 left`, ..., and rails without a partner `rail 1`, ...
    """
    content = parsed(text, say)
    if content is None:
        return
    try:
        width, height = content["imgWidth"], content["imgHeight"]
        rails = [thing for thing in content["objects"] if thing["label"] == "rail"]
        tracks = [
            sorted(thing["polyline-pair"], key=lambda line: max(line, key=lambda point: point[1])[0])
            for thing in rails
            if "polyline-pair" in thing
        ]

        def from_middle(track: Any) -> float:
            feet = [max(line, key=lambda point: point[1]) for line in track]
            x, y = (sum(foot[axis] for foot in feet) / 2 for axis in range(2))
            return float((x - width / 2) ** 2 + (y - height) ** 2)

        lines: dict[str, Any] = {}
        for i, (left, right) in enumerate(sorted(tracks, key=from_middle), 1):
            which = "" if i == 1 else f"track {i} "
            lines |= {f"{which}left": left, f"{which}right": right}
        single = [thing["polyline"] for thing in rails if "polyline" in thing]
        lines |= {f"rail {i}": line for i, line in enumerate(single, 1)}
        yield Annotation(f"{content['frame']}.jpg", width, height, lines)
    except (KeyError, TypeError, ValueError, IndexError, OverflowError):
        say("frame, imgWidth, imgHeight and objects should be there, each rail as two polylines of points or one")


def parsed(text: str, say: Callable[[str], None]) -> Any:
    """The content of a JSON text; None, and a sentence, if it is none."""
    try:
        return from_json(text)
    except ValueError as error:
        where = f" (line {error.lineno}, column {error.colno})" if isinstance(error, JSONDecodeError) else ""
        say(f"it is no valid JSON{where}; write it anew")
        return None


FORMATS = (
    Format("rail lines", ('"records"', '"image"'), own),
    Format("TEP-Net ego paths", ("_rail",), ego_path),
    Format("TuSimple lanes", ('"raw_file"', '"lanes"'), tusimple),
    Format("RailSem19 polylines", ('"frame"', '"objects"'), railsem19),
)
