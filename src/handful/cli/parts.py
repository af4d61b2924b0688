"""list."""

from __future__ import annotations

import re
from collections.abc import Mapping
from itertools import takewhile
from typing import Annotated, Any

import typer

from handful.cli.shared import Json, show
from handful.errors import unknown


def list_parts(
    kind: Annotated[
        str | None, typer.Argument(help="methods, backbones, decoders, datasets or recipes; all of them if not said.")
    ] = None,
    as_json: Json = False,
) -> None:
    """Name what there is."""
    if kind is None:
        every = {name: named() for name, named in KINDS.items()}
        show(every, as_json, "\n\n".join(f"{name}:\n{table(parts)}" for name, parts in every.items()))
    elif kind in KINDS:
        parts = KINDS[kind]()
        show(parts, as_json, table(parts))
    else:
        raise unknown("kind of part", kind, KINDS)


def methods() -> dict[str, str]:
    """Name -> what it is, in a line, as in all of these."""
    from handful.methods import METHODS

    return first_lines(METHODS)


def backbones() -> dict[str, str]:
    """Name -> what it is."""
    from handful.backbones import BACKBONES

    return first_lines(BACKBONES)


def decoders() -> dict[str, str]:
    """Name -> what it is."""
    from handful.decoders import DECODERS

    return first_lines(DECODERS)


def datasets() -> dict[str, str]:
    """Name -> what it is."""
    from handful.data import DRAWN, FILMED, FRAMED, READERS

    abouts = {name: found.about for name, found in READERS.items()}
    abouts |= {name: found.about for name, found in DRAWN.items()}
    abouts |= {name: found.about for name, found in FRAMED.items()}
    return abouts | {name: found.about for name, found in FILMED.items()}


def recipes() -> dict[str, str]:
    """Name -> what it is."""
    from handful.recipe import SHIPPED, shipped_recipes

    return {name: first_sentence((SHIPPED / f"{name}.yaml").read_text(encoding="utf-8")) for name in shipped_recipes()}


KINDS = {"methods": methods, "backbones": backbones, "decoders": decoders, "datasets": datasets, "recipes": recipes}


def first_sentence(recipe: str) -> str:
    """Of the comment that a recipe begins with, or what is before its first semicolon."""
    comment = takewhile(lambda line: line.startswith("#"), recipe.splitlines())
    text = " ".join(line.lstrip("# ") for line in comment)
    return re.split(r"(?<! al)[.;](?: |$)", text, maxsplit=1)[0]


def first_lines(registry: Mapping[str, Any]) -> dict[str, str]:
    """Of the documentation of parts."""
    return {name: (part.__doc__ or "").strip().splitlines()[0] for name, part in registry.items()}


def table(parts: Mapping[str, str]) -> str:
    """A line a part."""
    width = max(map(len, parts))
    return "\n".join(f"{name:<{width}}  {about}" for name, about in parts.items())
