"""What a look through a folder found, for people and as JSON."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass, field

from handful import wording

SHOWN = 20  # problems that are printed; all of them are in the report


@dataclass(frozen=True)
class Identical:
    """Pictures that are the same, pixel for pixel.

    names: where they are; splits, classes: those that they are in, without repetition, no class being that of
    annotated frames; same_bytes: whether their files are the same too, byte for byte; None in a store, which keeps
    no files.
    """

    names: list[str]
    splits: list[str]
    classes: list[str]
    same_bytes: bool | None

    @property
    def spoils(self) -> bool:
        """Whether a measurement suffers: a test picture was trained on, or one picture has two right answers."""
        return len(self.splits) > 1 or len(self.classes) != 1

    def __str__(self) -> str:
        files = {True: " (the same file)", False: " (the pixels, in files that differ)", None: ""}[self.same_bytes]
        if len(self.splits) > 1:
            what = f"in the splits {' and '.join(self.splits)}, which should share nothing"
        elif len(self.classes) > 1:
            what = f"in the classes {' and '.join(map(repr, self.classes))}, so no answer is right for all of them"
        elif not self.classes:
            what = "among the annotated ones, so a picture may be learned from and asked for"
        else:
            what = f"in the class {self.classes[0]!r}, so a task may ask for a picture that its support shows"
        return f"Identical{files} {what}: {wording.named(self.names)}."


@dataclass
class Report:
    """A folder looked through.

    kind: `store`, `class folders`, the name of a data set's files, or `unknown`; per_class: least, median and
    greatest number of images of a class, (0, 0, 0) if there is none; splits: split name -> number of
    classes, empty where no split is laid down; unreadable: images that cannot be decoded; empty: class
    folders without an image; duplicates: groups of identical pictures, those across splits first, then
    those across classes, then those within a class; problems: a sentence for everything that is wrong,
    duplicates across splits and classes first; notes: what is no problem and good to know, such as what these classes
    are enough for.  Duplicates within a class are no problem, only told.  pixels: width and height of the smallest and
    of the largest picture that can be decoded, none if there is none.  Of annotated frames, which have no
    classes: sizes: `512x288` -> frames annotated at that size; lines: name of a line -> frames that have it.
    Of clips: clips: name -> frames, images being all of them; splits and sizes count clips; rates: `10` frames a second
    -> clips.
    """

    path: str
    kind: str = "unknown"
    classes: int = 0
    images: int = 0
    per_class: tuple[int, float, int] = (0, 0.0, 0)
    pixels: tuple[tuple[int, int], ...] = ()
    splits: dict[str, int] = field(default_factory=dict)
    unreadable: list[str] = field(default_factory=list)
    empty: list[str] = field(default_factory=list)
    sizes: dict[str, int] = field(default_factory=dict)
    lines: dict[str, int] = field(default_factory=dict)
    clips: dict[str, int] = field(default_factory=dict)
    rates: dict[str, int] = field(default_factory=dict)
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
            sizes = " to ".join(dict.fromkeys(f"{width}x{height}" for width, height in self.pixels))
            found += f", {wording.count(self.classes, 'class')}, {wording.count(self.images, 'image')}"
            found += f" of {sizes} pixels, " if sizes else ", "
            found += f"{least} to {greatest} a class (median {median:g})" if least < greatest else f"{least} a class"
        elif self.clips:
            found += f", {wording.count(len(self.clips), 'clip')} of {between(self.clips.values())} frames"
            found += f", {', '.join(self.sizes)} pixels" if self.sizes else ""
            found += f", {' and '.join(self.rates)} frames a second" if self.rates else ""
        elif self.sizes:
            found += f", {wording.count(self.images, 'frame')} of {', '.join(self.sizes)} pixels"
        lines_of = [f"{name} in {count}" for name, count in self.lines.items()]
        splits = [", ".join(f"{count} {name}" for name, count in self.splits.items())] if self.splits else []
        told = [*self.problems, *(str(group) for group in self.duplicates if not group.spoils)]
        lines = [f"- {line}" for line in told[:SHOWN]]
        more = len(told) - SHOWN
        rest = [f"- and {more} more"] if more > 0 else []
        what = "clips" if self.clips else "classes"
        parts = [f"{what} of the splits: {line}" for line in splits]
        parts += [f"lines: {', '.join(lines_of)}"] * bool(lines_of)
        return "\n".join([found, *parts, *lines, *rest, *self.notes])


def between(values: Collection[int]) -> str:
    """`120`, or `120 to 180`."""
    return " to ".join(f"{value:,}" for value in sorted({min(values), max(values)}))
