"""Reading what others wrote, JSON, YAML and arrays: whatever is wrong with it is a ValueError of one line.

Nothing in it is run, and nothing is made that is far larger than what is written there.
"""

from __future__ import annotations

import json
from pathlib import Path
from tokenize import TokenError
from typing import Any

import numpy as np
import yaml
from numpy.typing import NDArray

from handful.errors import first_line

MAGIC = b"\x93NUMPY"
# What numpy, and the parser of Python that it asks, say of a damaged header.
BAD_HEADER = (ValueError, TypeError, EOFError, OverflowError, MemoryError, RecursionError, SyntaxError, TokenError)
LARGEST = 100_000  # things in a YAML text, each counted as often as an alias repeats it


def from_json(text: str) -> Any:
    """The content of a JSON text; ValueError if it is none, or is nested too deeply."""
    try:
        return json.loads(text)
    except RecursionError as error:
        raise ValueError("it is nested too deeply") from error


def from_yaml(text: str) -> Any:
    """The plain values of a YAML text; ValueError, `not valid YAML (line 3)`, if it is none."""
    try:
        return yaml.load(text, _Loader)
    except RecursionError as error:
        raise ValueError("not valid YAML: it is nested too deeply") from error
    except yaml.YAMLError as error:
        where = getattr(error, "problem_mark", None)
        raise ValueError(f"not valid YAML{f' (line {where.line + 1})' if where else ''}") from error


class _Loader(yaml.SafeLoader):
    """Raises YAMLError for a value that is none of its kind, and for aliases that repeat far more than is written."""

    def get_single_node(self) -> Any:
        """The whole text, before values are made of it."""
        node = super().get_single_node()
        if node is not None and _size(node, {}) > LARGEST:
            raise yaml.composer.ComposerError(None, None, "it is too large", node.start_mark)
        return node

    def construct_object(self, node: yaml.Node, deep: bool = False) -> Any:
        """A value: PyYAML lets through what int, float and datetime say of `0b_` or `2001-99-99`."""
        try:
            return super().construct_object(node, deep)
        except (ValueError, KeyError, AttributeError, TypeError, OverflowError) as error:
            raise yaml.constructor.ConstructorError(None, None, first_line(error), node.start_mark) from error


def _size(node: yaml.Node, known: dict[int, int]) -> int:
    """Things in a node, and in all below it; known: the sizes of those that were counted."""
    if id(node) in known:
        return known[id(node)]
    known[id(node)] = LARGEST + 1  # until it is counted: it is part of itself
    inside = node.value if isinstance(node, yaml.CollectionNode) else []
    parts = [part for entry in inside for part in (entry if isinstance(entry, tuple) else (entry,))]
    known[id(node)] = 1 + sum(_size(part, known) for part in parts)
    return known[id(node)]


def read_array(path: Path, mapped: bool = False) -> NDArray[Any]:
    """The array of an .npy file, memory-mapped or in memory; ValueError for what is none, or for one of objects.

    It is mapped in any case first: that compares the size that its header claims with that of the file.
    """
    with path.open("rb") as file:
        if file.read(len(MAGIC)) != MAGIC:  # numpy would try it as an archive, or as a pickle
            raise ValueError("it is no .npy file")
    try:
        found = np.load(path, mmap_mode="r", allow_pickle=False)
    except BAD_HEADER as error:
        raise ValueError(first_line(error)) from error
    return found if mapped else np.array(found)
