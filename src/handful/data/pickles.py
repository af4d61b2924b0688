"""Pickles that hold plain data, read without running anything that they ask for.

A pickle is a program: `pickle.load` calls whatever functions it names.  Some data sets circulate as pickles all
the same.  Here every name in one must be among those of numbers, texts and numpy's arrays, and even these are
not called: stand-ins of this file take their place.
"""

from __future__ import annotations

import pickle
import struct
from pathlib import Path
from typing import Any, BinaryIO, ClassVar

import numpy as np
from numpy.typing import NDArray

from handful.errors import HandfulError

OFTEN = 10  # things a byte of the file: each takes a byte at least, but for lists that are there several times


def read_pickle(path: Path) -> Any:
    """The numbers, texts, bytes, lists, tuples, dictionaries and numpy arrays of a pickle, of Python 2 or 3.

    Raises HandfulError: anything else in it, no such file, a damaged one.
    """
    try:
        with path.open("rb") as file:
            held = PlainUnpickler(Bounded(file, path.stat().st_size), encoding="latin1").load()
            if size_of(held, {}) > OFTEN * file.tell():
                raise ValueError("it repeats what it holds over and over")
            return unwrapped(held)
    except FileNotFoundError as error:
        raise HandfulError(f"{path} is missing.") from error
    except Exception as error:  # a damaged pickle raises nearly anything
        raise HandfulError(
            f"{path} is no pickle of plain data ({str(error) or type(error).__name__}); nothing in it was run: get the "
            "data in another form, or from where it was published."
        ) from error


def size_of(value: Any, known: dict[int, int]) -> int:
    """Things in a value and in all that it holds, as often as they are there; known: the sizes that were counted."""
    if not isinstance(value, list | tuple | dict):
        return 1
    if id(value) not in known:
        inside = value.values() if isinstance(value, dict) else value
        known[id(value)] = 1 + sum(size_of(item, known) for item in inside)
    return known[id(value)]


class Bounded:
    """A file of `size` bytes, of which no more are asked for: Python makes room for as many as are."""

    def __init__(self, file: BinaryIO, size: int) -> None:
        self.read = lambda count: file.read(min(count, size))
        self.readline = file.readline


class PlainDtype:
    """Stands in for numpy.dtype: numbers and texts of one size, no objects and no records."""

    def __init__(self, name: str, *_: Any) -> None:
        self.dtype = np.dtype(str(name))
        if self.dtype.kind not in "biufcSU":
            raise ValueError(f"it holds an array of {name!r}")

    def __setstate__(self, state: tuple[Any, ...]) -> None:
        if state[1] in ("<", ">"):
            self.dtype = self.dtype.newbyteorder(state[1])


class PlainArray:
    """Stands in for numpy.ndarray; `value` is the array, once its state is set."""

    value: NDArray[Any]

    def __setstate__(self, state: tuple[Any, ...]) -> None:
        _, shape, kind, fortran, raw = state
        self.value = array(raw, kind, shape, "F" if fortran else "C").value


def array(raw: Any, kind: PlainDtype, shape: tuple[int, ...], order: str) -> PlainArray:
    """The array of these bytes; Python 2's arrive as text."""
    made = PlainArray()
    content = raw.encode("latin1") if isinstance(raw, str) else raw
    if not isinstance(content, bytes | bytearray | pickle.PickleBuffer):  # of a number bytes() would make as many
        raise ValueError("it holds an array without its bytes")
    made.value = np.frombuffer(memoryview(content), kind.dtype).reshape(shape, order="F" if order == "F" else "C")
    return made


def scalar(kind: PlainDtype, raw: Any) -> Any:
    """A number of numpy's."""
    return array(raw, kind, (), "C").value.item()


def encoded(text: str, encoding: str) -> bytes:
    """Bytes, as the second protocol writes them."""
    return text.encode("latin1")


STAND_INS: dict[tuple[str, str], Any] = {
    ("numpy", "ndarray"): PlainArray,
    ("numpy", "dtype"): PlainDtype,
    ("numpy.core.multiarray", "_reconstruct"): lambda *_: PlainArray(),
    ("numpy.core.multiarray", "scalar"): scalar,
    ("numpy.core.numeric", "_frombuffer"): array,
    ("_codecs", "encode"): encoded,
    ("__builtin__", "bytes"): lambda: b"",
}


class PlainUnpickler(pickle._Unpickler):
    """Knows the stand-ins and nothing else.

    It is pickle's own in Python: that in C makes room for as many objects as a number in the file says, gigabytes for
    ten bytes.
    """

    def load_bytes(self) -> None:
        """Bytes that may be changed, as protocol 5 has them: as many as there are, however many it says."""
        reader: Any = self  # whose reading and stack are pickle's own affair
        (count,) = struct.unpack("<Q", reader.read(8))
        reader.append(reader.read(count))

    dispatch: ClassVar[Any] = {**pickle._Unpickler.dispatch, pickle.BYTEARRAY8[0]: load_bytes}

    def find_class(self, module: str, name: str) -> Any:
        """A stand-in; ValueError for any other name."""
        known = STAND_INS.get((module.replace("numpy._core", "numpy.core"), name))
        if known is None:
            raise ValueError(f"it asks for {module}.{name}")
        return known


def unwrapped(value: Any) -> Any:
    """The same with the arrays in the place of their stand-ins."""
    if isinstance(value, PlainArray):
        return value.value
    if isinstance(value, list | tuple):
        return type(value)(map(unwrapped, value))
    if isinstance(value, dict):
        return {key: unwrapped(item) for key, item in value.items()}
    return value
