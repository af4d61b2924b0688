"""JSON, YAML and arrays of others: what is wrong with them is a ValueError of one line, and nothing large is made."""

from __future__ import annotations

import pickle
from pathlib import Path

import numpy as np
import pytest

from handful.reading import LARGEST, from_json, from_yaml, read_array

BOMB = "".join(f"k{i}: &a{i} [{', '.join([f'*a{i - 1}'] * 9)}]\n" for i in range(1, 30))


@pytest.mark.parametrize(
    "text",
    [
        *("!!bool maybe", "!!int x", "!!float x", "!!timestamp x", "2001-99-99", "0b_", "a: [1", "*a", "&a [*a]"),
        *("9" * 5000, "? [a]\n: b", "!!python/object/apply:os.mkdir [x]", f"k0: &a0 [x]\n{BOMB}"),
    ],
)
def test_yaml_that_is_none(text: str) -> None:
    with pytest.raises(ValueError, match=r"^not valid YAML \(line \d+\)$"):
        from_yaml(text)


def test_aliases_that_repeat_little_are_followed() -> None:
    assert from_yaml("a: &a {b: 1}\nc: [*a, *a]") == {"a": {"b": 1}, "c": [{"b": 1}, {"b": 1}]}
    assert len(from_yaml("[" + "1," * (LARGEST // 2) + "]")) == LARGEST // 2
    with pytest.raises(ValueError, match="not valid YAML"):
        from_yaml("[" + "1," * LARGEST + "]")


@pytest.mark.parametrize("read", [from_json, from_yaml])
def test_what_is_nested_too_deeply(read: object) -> None:
    assert callable(read)
    with pytest.raises(ValueError, match="nested too deeply"):
        read("[" * 100_000 if read is from_json else "[" * 3000)


def test_numbers_of_more_digits_than_python_reads() -> None:
    with pytest.raises(ValueError, match="digits"):
        from_json("9" * 5000)


def test_arrays_come_back(tmp_path: Path) -> None:
    for array in (np.arange(6).reshape(2, 3), np.float32(3), np.zeros((0, 2), np.uint8)):
        np.save(tmp_path / "a.npy", array)
        for mapped in (False, True):
            found = read_array(tmp_path / "a.npy", mapped)
            assert (found.dtype, found.shape) == (array.dtype, array.shape)
            np.testing.assert_array_equal(found, array)
        assert read_array(tmp_path / "a.npy").flags.writeable


def header(text: str, size: int = 48) -> bytes:
    return b"\x93NUMPY\x01\x00" + len(text).to_bytes(2, "little") + text.encode() + bytes(size)


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"\x93NUMPY",
        b"PK\x03\x04",
        pickle.dumps(print),
        header("{'descr': '|O', 'fortran_order': False, 'shape': (6,)}"),
        header("{'descr': '<i8', 'fortran_order': False, 'shape': (7,)}"),
        header("{'descr': '<i8', 'fortran_order': False, 'shape': (10**30,)}"),
        header(f"{{'descr': '<i8', 'fortran_order': False, 'shape': ({10**30},)}}"),
        header(f"{{'descr': '<i8', 'fortran_order': False, 'shape': ({2**45},)}}"),
        header("{'descr': '<i8', 'fortran_order': False, 'shape': (-1,)}"),
        header("(" * 3000),
        header("{'descr': " + "[" * 150 + "]" * 150 + "}"),
        header(" " * 60_000),
    ],
)
def test_what_is_no_array(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "a.npy").write_bytes(content)
    with pytest.raises(ValueError, match=r"\w") as caught:
        read_array(tmp_path / "a.npy")
    assert len(str(caught.value).splitlines()) == 1
