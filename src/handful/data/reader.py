"""Reader: what a data set is, for the registry in `library.py`; and where its source may lie."""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from handful.data.pictures import Survey
from handful.data.store import Contents


def places_of(name: str, root: str | Path | None) -> list[Path]:
    """Where the source of a data set may lie: the root or its folder of this name, or that of $HANDFUL_DATA."""
    if root is not None:
        named = Path(os.path.expanduser(root))  # unlike Path.expanduser, of ~nobody it makes nothing
        return [named, named / name]
    data = os.environ.get("HANDFUL_DATA")
    return [Path(os.path.expanduser(data)) / name] if data else []


@dataclass(frozen=True)
class Reader:
    """A data set that Handful can read.  Those that need no source leave `expects` and `files` out.

    read([source], **options) -> Contents: what the source folder holds, its images decoded as they are
    asked for; about: one line; expects: what a source folder holds, in words; files: its files, none if it
    is no source folder; survey: all that a source folder holds and what is wrong with it, for `check`;
    options: those of `load` that it takes; fetch: downloads the source into a folder and returns that;
    by_path: each source folder is a data set of its own; version: of what `read` makes, raised to have
    stores built anew.
    """

    read: Callable[..., Contents]
    about: str
    expects: str = ""
    files: Callable[[Path], list[Path]] | None = None
    survey: Callable[[Path], Survey] | None = None
    options: tuple[str, ...] = ()
    fetch: Callable[[Path], Path] | None = None
    by_path: bool = False
    version: int = 1
