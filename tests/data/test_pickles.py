import io
import pickle
import struct
import tracemalloc
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from handful.data.pickles import read_pickle
from handful.errors import HandfulError


def python2(value: Any) -> bytes:
    """A pickle with bytes as the text of Python 2, which is how its arrays keep theirs."""

    def save(pickler: Any, content: bytes) -> None:
        pickler.write(b"T" + struct.pack("<i", len(content)) + content)

    file = io.BytesIO()
    pickler: Any = pickle._Pickler(file, 2)
    pickler.dispatch = {**pickler.dispatch, bytes: save}
    pickler.dump(value)
    return file.getvalue()


@pytest.mark.parametrize("dump", [*(lambda value, p=p: pickle.dumps(value, p) for p in range(6)), python2])
def test_plain_data_comes_back(tmp_path: Path, dump: Callable[[Any], bytes]) -> None:
    random = np.random.default_rng(0)
    pictures = random.integers(0, 256, (3, 4, 4, 3), dtype=np.uint8)
    held: dict[str, Any] = {
        "data": pictures,
        "fortran": np.asfortranarray(pictures[0, :, :, 0]),
        "labels": [1, 2, np.int64(2**40)],
        "big": np.arange(3, dtype=">i4"),
        "nested": [(1.5, None, True, "é"), [np.zeros((0, 2))]],
    }
    (tmp_path / "a.pkl").write_bytes(dump(held))
    found = read_pickle(tmp_path / "a.pkl")
    for key in ("data", "fortran", "big"):
        assert np.array_equal(found[key], held[key])
        assert found[key].dtype == held[key].dtype
    assert found["labels"] == held["labels"]
    assert found["nested"][0] == held["nested"][0]
    assert found["nested"][1][0].shape == (0, 2)


@pytest.mark.parametrize("protocol", range(6))
def test_bytes_come_back(tmp_path: Path, protocol: int) -> None:
    (tmp_path / "a.pkl").write_bytes(pickle.dumps([b"\x89PNG\xff", b""], protocol))
    assert read_pickle(tmp_path / "a.pkl") == [b"\x89PNG\xff", b""]


class Command:
    def __init__(self, function: Any, *arguments: Any) -> None:
        self.does = function, arguments

    def __reduce__(self) -> Any:
        return self.does


@pytest.mark.parametrize("protocol", range(6))
def test_nothing_is_run(tmp_path: Path, protocol: int) -> None:
    sign = tmp_path / "was here"
    content = pickle.dumps({"data": Command(open, str(sign), "w")}, protocol)
    (tmp_path / "a.pkl").write_bytes(content)
    with pytest.raises(
        HandfulError,
        match=r"a.pkl is no pickle of plain data \(it asks for (_?io|__builtin__|builtins).open\); nothing in",
    ):
        read_pickle(tmp_path / "a.pkl")
    assert not sign.exists()
    pickle.loads(content)["data"].close()  # which is what would have happened
    assert sign.exists()


@pytest.mark.parametrize(
    ("value", "asked"),
    [
        (Command(eval, "1 + 1"), "eval"),
        (Command(getattr, "a", "b"), "getattr"),
        (Path("a"), "pathlib"),
        (np.array([1, "a", None], dtype=object), "array of 'O8'"),
        (np.zeros(2, [("a", "i4")]), "array of 'V4'"),
        (np.ma.zeros(2), "numpy.ma"),
    ],
)
def test_what_is_no_plain_data(tmp_path: Path, value: Any, asked: str) -> None:
    (tmp_path / "a.pkl").write_bytes(pickle.dumps(value))
    with pytest.raises(HandfulError, match=rf"a.pkl is no pickle of plain data \(it .*{asked}"):
        read_pickle(tmp_path / "a.pkl")


def test_missing_and_damaged(tmp_path: Path) -> None:
    with pytest.raises(HandfulError, match=r"a.pkl is missing"):
        read_pickle(tmp_path / "a.pkl")
    for content in (b"", b"no pickle", pickle.dumps(np.zeros(9))[:-20]):
        (tmp_path / "a.pkl").write_bytes(content)
        with pytest.raises(HandfulError, match=r"a.pkl is no pickle of plain data"):
            read_pickle(tmp_path / "a.pkl")


def test_lists_that_stand_for_far_more_than_is_there(tmp_path: Path) -> None:
    shared: Any = [0, 1]
    for _ in range(40):
        shared = [shared] * 8
    (tmp_path / "a.pkl").write_bytes(pickle.dumps({"data": shared}))
    with pytest.raises(HandfulError, match="it repeats what it holds over and over"):
        read_pickle(tmp_path / "a.pkl")


SCALAR = b"\x80\x02cnumpy.core.multiarray\nscalar\ncnumpy\ndtype\nX\x02\x00\x00\x00i8\x85R"


@pytest.mark.parametrize(
    "content",
    [
        SCALAR + b"\x8a\x05" + (2**34).to_bytes(5, "little") + b"\x86R.",  # so many bytes, by their number
        b"\x80\x04K\x00r" + struct.pack("<I", 2**31) + b"N.",  # the place of an object among as many
        b"\x80\x05\x96" + struct.pack("<Q", 2**34),  # bytes that do not follow
        b"\x80\x05\x8e" + struct.pack("<Q", 2**34),
        b"\x80\x04" + b"]" * 5000 + b"a" * 4999 + b".",
    ],
)
def test_what_claims_gigabytes(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "a.pkl").write_bytes(content)
    tracemalloc.start()
    with suppress(HandfulError):
        read_pickle(tmp_path / "a.pkl")
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 2**26
