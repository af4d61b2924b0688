"""How files of each form go wrong: strategies that damage a valid one, and nasty ones that were made by hand.

A form knows its valid file as bytes, and gives bytes: structured damage (a key deleted, a value of another type, an
extreme number), then now and then damage to the bytes themselves.
"""

from __future__ import annotations

import ast
import copy
import io
import json
import math
import os
import pickle
import struct
import zipfile
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple, TypeAlias

import av
import numpy as np
import yaml
from hypothesis import strategies as st
from PIL import Image

Bytes: TypeAlias = st.SearchStrategy[bytes]


class Form(NamedTuple):
    """A kind of file.

    damaged(valid file): such files, damaged by chance; nasty(valid file): what was made by hand; everywhere(valid
    file): with each of its parts wrong in turn; others: further valid files.
    """

    damaged: Callable[[bytes], Bytes]
    nasty: Callable[[bytes], list[bytes]]
    everywhere: Callable[[bytes], list[bytes]] = lambda valid: []
    others: Callable[[], list[bytes]] = list


class Target(NamedTuple):
    """A kind of input.

    kit: makes the valid folder; file: of it, that is damaged; read(folder): gives it to the library.
    """

    name: str
    kit: Callable[[Path], None]
    file: str
    form: Form
    read: Callable[[Path], object]


EXTREMES: list[Any] = [
    *(None, True, False, 0, 1, -1, 2, 65_536, 2**31, 2**32, 2**63, -(2**63), 10**30, 10**400),
    *(0.5, 1e308, 5e-324, -0.0, math.nan, math.inf, -math.inf),
    *("", "a", "left\nright", "\x00", "\ud7ff\U0010ffff", "../../outside", "/nowhere/outside", "~nobody/x", "a" * 5000),
    *([], {}, [[]], [None], {"": None}, {"name": None}, [0] * 300, [[0, 1], [2]]),
]
DEEP = 100_000  # brackets, one in the other
DIGITS = b"9" * 5000  # more than Python reads as a number


@st.composite
def edited(draw: st.DrawFn, value: Any) -> Any:
    """A tree of dictionaries and lists with one to three things in it deleted, added, put elsewhere, or extreme."""
    value = copy.deepcopy(value)
    for _ in range(draw(st.integers(1, 3))):
        place = draw(st.sampled_from(places(value)))
        inside: Any = value
        for step in place[:-1]:
            inside = inside[step]
        new = draw(st.one_of(st.sampled_from(EXTREMES), st.sampled_from(places(value)).map(Copied), st.floats()))
        new = copy.deepcopy(at(value, new.place) if isinstance(new, Copied) else new)
        if not place:
            value = new
        elif (kind := draw(st.sampled_from(("replace", "delete", "add")))) == "delete":
            del inside[place[-1]]
        elif kind == "add" and isinstance(inside, list):
            inside.insert(place[-1], new)
        elif kind == "add":
            inside[draw(st.sampled_from(("", "extra", "name", "../outside", "é", 0)))] = new
        else:
            inside[place[-1]] = new
    return value


class Copied(NamedTuple):
    """What stands at another place of the same tree."""

    place: tuple[Any, ...]


def places(value: Any, place: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    """The ways to all that is in a tree, the tree itself the first."""
    inner = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    return [place, *(way for key, below in inner for way in places(below, (*place, key)))]


def at(value: Any, place: tuple[Any, ...]) -> Any:
    """What stands there."""
    for step in place:
        value = value[step]
    return value


@st.composite
def scratched(draw: st.DrawFn, valid: bytes) -> bytes:
    """The bytes of a file, cut off, or with some of them changed, taken out, doubled, or made a large number."""
    content = bytearray(valid)
    for _ in range(draw(st.integers(1, 4))):
        start = draw(st.integers(0, len(content)))
        if draw(st.booleans()):  # where headers are
            start = min(start, draw(st.integers(0, 64)))
        length = draw(st.sampled_from((1, 2, 4, 8, 16, 64)))
        kind = draw(st.sampled_from(("change", "cut", "take out", "double", "large")))
        if kind == "change":
            content[start : start + length] = draw(st.binary(min_size=1, max_size=length))
        elif kind == "cut":
            del content[start:]
        elif kind == "take out":
            del content[start : start + length]
        elif kind == "double":
            content[start:start] = content[start : start + length]
        else:
            order = draw(st.sampled_from(("little", "big")))
            size = draw(st.sampled_from((2, 4, 8)))
            number = draw(st.sampled_from((0, 1, 2 ** (4 * size), 2 ** (8 * size - 1), 2 ** (8 * size) - 1)))
            content[start : start + size] = number.to_bytes(size, order)
    return bytes(content)


def mostly(strategy: Bytes) -> Bytes:
    """Of such files some are scratched besides."""
    return st.one_of(strategy, strategy, strategy, strategy.flatmap(scratched))


def as_json(value: Any) -> bytes:
    """Its text, as Python reads and writes it: NaN and Infinity among the numbers."""
    return json.dumps(value, default=str).encode()


def as_yaml(value: Any) -> bytes:
    """Its text."""
    return yaml.safe_dump(value, allow_unicode=True).encode("utf-8", "surrogatepass")


def changed(content: dict[str, Any], **changes: Any) -> dict[str, Any]:
    """A dictionary with other values."""
    return {**content, **changes}


NO_TEXT = [b"", b"\x00", b"\xff\xfe\x00", b"\xef\xbb\xbf", b"a" * 10**6, DIGITS, b'"\\ud800"']
NO_JSON = [b"null", b"[]", b"{}", b"NaN", b"1e999", b'""', b"[" * DEEP, b'{"a":' * DEEP, b'{"a": %b}' % DIGITS]


WRONG: tuple[Any, ...] = (None, [], {}, math.nan, 2**31, 10**30, "x" * 5000)


def every_place(valid: Any, write: Callable[[Any], bytes]) -> list[bytes]:
    """A tree without what stands at each of its places in turn, and with each wrong value there."""
    found = []
    for *before, last in places(valid)[1:]:
        for wrong in (*WRONG, ...):
            other = copy.deepcopy(valid)
            inside = at(other, tuple(before))
            if wrong is ...:
                del inside[last]
            else:
                inside[last] = wrong
            found.append(write(other))
    return found


JSON = Form(
    lambda valid: mostly(edited(json.loads(valid)).map(as_json)),
    lambda valid: [*NO_TEXT, *NO_JSON],
    lambda valid: every_place(json.loads(valid), as_json),
)
JSON_LINES = Form(
    lambda valid: mostly(
        edited([json.loads(line) for line in valid.splitlines()]).map(
            lambda rows: b"\n".join(map(as_json, rows if isinstance(rows, list) else [rows]))
        )
    ),
    lambda valid: [*NO_TEXT, *NO_JSON],
    lambda valid: every_place(json.loads(valid.splitlines()[0]), as_json),
)

ALIASES = b", ".join(b"k%d: &a%d [%b]" % (i, i, b", ".join([b"*a%d" % (i - 1)] * 9)) for i in range(1, 30))
BOMB = b"{k0: &a0 [x, x], " + ALIASES + b"}"  # 9 to the power of 29, by names for what stands there already
ODD_YAML = [
    *(b"!!bool maybe", b"!!int x", b"!!float x", b"!!timestamp x", b"2001-99-99", b"0b_", b"0x_", b"-", b"!!binary x"),
    *(b"!!python/object/apply:os.mkdir [outside]", b"!!set {a, b}", b"? [a]\n: b", b"? {a: b}\n: c", b"1: 2", b"<<: 1"),
    *(b"&a [*a]", b"a: &a {b: *a}", b"*a", b"[" * 5000, b"{a: " * 5000, b"- " * 5000, b"%YAML 9.9\n---\na", b"a: b: c"),
    BOMB,
]


def nasty_yaml(valid: bytes) -> list[bytes]:
    """Of recipes: odd YAML as the whole, and as the value of each key."""
    content = yaml.safe_load(valid)
    if not isinstance(content, dict):
        return [*NO_TEXT, *ODD_YAML]
    rest = as_yaml({key: value for key, value in content.items() if key != "name"})
    names = [b"name: %b\n" % odd + rest for odd in ODD_YAML]
    bombs = [rest.replace(b"name: ", b"odd: %b\n  name: " % BOMB), b"odd: %b\n" % BOMB + valid]
    return [*NO_TEXT, *ODD_YAML, *bombs, *names]


YAML = Form(
    lambda valid: mostly(edited(yaml.safe_load(valid)).map(as_yaml)),
    nasty_yaml,
    lambda valid: every_place(yaml.safe_load(valid), as_yaml),
)

WORDS = ["=", ".", "..", "train", "steps", "train.steps", "a.b.c", "evaluate.also", "name", "null", "[", "{", ": ", "é"]
VALUES = st.one_of(st.sampled_from(WORDS), st.sampled_from(EXTREMES).map(lambda value: as_yaml(value).decode().strip()))


@st.composite
def settings_of(draw: st.DrawFn, valid: bytes) -> bytes:
    """Lines of key=value with keys and values of other lines, odd ones, and whatever text."""
    keys = [line.partition(b"=")[0].decode() for line in valid.splitlines()]
    key = draw(st.one_of(st.sampled_from(keys), st.sampled_from(WORDS), st.text(max_size=8)))
    value = draw(st.one_of(VALUES, st.text(max_size=12)))
    return f"{key}={value}".replace("\n", " ").encode("utf-8", "surrogatepass")


SETTINGS = Form(
    lambda valid: mostly(settings_of(valid)),
    lambda valid: [
        *NO_TEXT,
        *(b"name=" + odd for odd in ODD_YAML),
        *(
            b"",
            b"=",
            b"a",
            b".=1",
            b"..=1",
            b"a..b=1",
            b"name.a=1",
            b"train=1",
            b"train.steps.a=1",
            b"data.root=~nobody",
        ),
        *(b"train.steps=" + value for value in (b"NaN", b"1e99", DIGITS, b"-1", b"[]", b"true", b"'", b"\x00")),
    ],
)
TEXT = Form(scratched, lambda valid: [*NO_TEXT, b"1\n2\n", b"\n" * 1000, b"1 \x00\n", b'"', b"a,b\n" + b'"' * 200_000])


def npy(header: Any, data: bytes, version: bytes = b"\x01\x00") -> bytes:
    """An .npy file with such a header."""
    text = (header if isinstance(header, str) else repr(header)).encode("latin1", "replace")
    size = struct.pack("<H", len(text) % 2**16) if version == b"\x01\x00" else struct.pack("<I", len(text))
    return b"\x93NUMPY" + version + size + text + data


def npy_parts(valid: bytes) -> tuple[dict[str, Any], bytes]:
    """Header and data of an .npy file of version 1."""
    end = 10 + int.from_bytes(valid[8:10], "little")
    header = ast.literal_eval(valid[10:end].decode())
    return {**header, "shape": list(header["shape"])}, valid[end:]


def shaped(header: Any) -> Any:
    """A header whose shape is a tuple again."""
    if isinstance(header, dict) and isinstance(header.get("shape"), list):
        return {**header, "shape": tuple(header["shape"])}
    return header


def nasty_npy(valid: bytes) -> list[bytes]:
    """Object arrays, sizes that are not there, types that are no numbers, and files that are none."""
    header, data = npy_parts(valid)
    shape = tuple(header["shape"])
    shapes: list[Any] = [(), (0,), (-1,), (2**62,), (2**31, 2**31), (10**30,), (*shape, 2**40), shape[1:], (1,) * 40]
    kinds = ["|O", "<i8", "<f8", ">i2", "<c16", "<U9", "|S9", "|b1", "<M8[ns]", "|V3", "|V0", [["a", "<i8"]], "zz", 7]
    packed = io.BytesIO()
    np.savez(packed, a=np.arange(3))
    return [
        *(b"", b"\x93NUMPY", valid[:9], valid[:-1], b"\x93NUMPY\x09\x00", packed.getvalue()),
        *(npy({**header, "shape": other}, data) for other in shapes),
        *(npy({**header, "shape": shape, "descr": kind}, data) for kind in kinds),
        npy({**header, "shape": shape, "descr": "|O"}, evil_pickles()[0]),
        npy({**header, "shape": shape, "fortran_order": True}, data),
        npy("(" * 3000, data),
        npy("{'descr': " + "[" * 150 + "]" * 150 + "}", data),
        npy("9" * 5000, data),
        npy(" " * 60_000, data),
        npy({**header, "shape": shape}, b"\xff" * len(data)),
        npy({**header, "shape": shape}, b"\xff" * len(data), b"\x03\x00"),
        evil_pickles()[0],
    ]


NPY = Form(
    lambda valid: mostly(edited(npy_parts(valid)[0]).map(lambda header: npy(shaped(header), npy_parts(valid)[1]))),
    nasty_npy,
)
RAW = Form(scratched, lambda valid: [b"", valid[:-1], valid + b"\x00", valid[: len(valid) // 2]])


def archived(members: list[tuple[str, bytes]], mode: int = zipfile.ZIP_DEFLATED, link: str = "") -> bytes:
    """A zip archive; `link`: a member of this name is a symbolic link out of it."""
    content = io.BytesIO()
    with zipfile.ZipFile(content, "w", mode) as archive:
        for name, data in members:
            archive.writestr(name, data)
        if link:
            member = zipfile.ZipInfo(link)
            member.create_system, member.external_attr = 3, 0o120777 << 16
            archive.writestr(member, "../../outside")
    return content.getvalue()


def unarchived(valid: bytes) -> list[tuple[str, bytes]]:
    """Name and content of the members of an archive."""
    with zipfile.ZipFile(io.BytesIO(valid)) as archive:
        return [(name, archive.read(name)) for name in archive.namelist()]


def nasty_zip(valid: bytes) -> list[bytes]:
    """Names that lead out, links, members that unpack to far more than they are, headers that lie."""
    members = unarchived(valid)
    name, picture = members[0]
    outside = [
        "../../outside.png",
        "/outside.png",
        "C:\\outside.png",
        "..\\outside.png",
        "a/../../b.png",
        "\x01.png",
        "/",
    ]
    zeros = bytes(64 * 2**20)
    bomb = archived([(name, zeros)])
    long = bytearray(archived([(name, picture)], zipfile.ZIP_STORED))
    entry = long.rindex(b"PK\x01\x02")
    lies = []
    for offset, value in ((24, 2**32 - 1), (20, 2**32 - 1), (24, 2**30), (24, 1), (42, 2**31), (46, 0)):
        lie = bytearray(long)
        lie[entry + offset : entry + offset + 4] = value.to_bytes(4, "little")
        lies.append(bytes(lie))
    for offset, value in ((8, 1), (10, 99), (10, 12), (10, 14), (6, 2**16 - 1), (8, 0x800)):  # locked; odd methods
        lie = bytearray(long)
        lie[entry + offset : entry + offset + 2] = value.to_bytes(2, "little")
        lies.append(bytes(lie))
    return [
        *(b"", b"PK\x05\x06" + bytes(18), valid[:-30], valid[: len(valid) // 2], b"PK\x03\x04" * 9),
        archived([(path, picture) for path in outside]),
        archived([(name.replace(name.split("/")[-1], path), picture) for path in outside]),
        archived(members, link="link.png"),
        archived([(name, picture), (f"{name}/x.png", picture)]),
        bomb,
        *lies,
        archived([(name, valid)]),
        archived([(f"{name}{number}", b"") for number in range(5000)]),
        archived([("é/" + "a" * 3000 + ".png", picture)]),
    ]


@st.composite
def other_zip(draw: st.DrawFn, valid: bytes) -> bytes:
    """An archive with members renamed, left out, scratched, stored another way."""
    found = []
    for name, content in unarchived(valid):
        kind = draw(st.sampled_from(("keep", "keep", "leave out", "rename", "scratch", "double")))
        if kind == "rename":
            name = draw(
                st.sampled_from(("..", "/", "a", name + "/a.png", "../" + name, "/" + name, name.upper(), "é" + name))
            )
        found += [(name, draw(scratched(content)) if kind == "scratch" else content)] * (kind != "leave out")
        found += [(name + "2", content)] * (kind == "double")
    return archived(found, draw(st.sampled_from((zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED, zipfile.ZIP_LZMA))))


ZIP = Form(lambda valid: mostly(other_zip(valid)), nasty_zip)


class Calls:
    """Pickled, it asks for a call."""

    def __init__(self, function: Any, *arguments: Any) -> None:
        self.asked = function, arguments

    def __reduce__(self) -> Any:
        return self.asked


def evil_pickles() -> list[bytes]:
    """Pickles that ask for code to be run, for far more than they hold, or for what never ends."""
    calls = [Calls(os.mkdir, "outside"), Calls(os.system, "touch outside"), Calls(eval, "1"), Calls(getattr, 1, "real")]
    evil = [pickle.dumps(call, protocol) for call in calls for protocol in (0, 2, 4)]
    shared: Any = [0, 1]
    for _ in range(40):
        shared = [shared] * 8
    endless: list[Any] = []
    endless.append(endless)
    numpy = b"\x80\x02cnumpy.core.multiarray\nscalar\ncnumpy\ndtype\nX\x02\x00\x00\x00i8"
    things: tuple[Any, ...] = (shared, endless, calls[0], [], {}, None)
    return [
        *evil,
        *(pickle.dumps({"data": thing, "labels": thing}) for thing in things),
        pickle.dumps([[0] * 9] * 9)[:-1] + b"0" * 9 + b".",
        numpy + b"\x85R\x8a\x08" + (10**11).to_bytes(8, "little") + b"\x86R.",  # so many bytes, by their number
        numpy + b"\x85RX\x01\x00\x00\x00a\x86R.",
        *(
            b"\x80\x04K\x00r%b." % struct.pack("<I", place) for place in (10**6, 3 * 10**8, 2**32 - 1)
        ),  # a place of memory
        *(b"\x80\x04\x8e%b" % struct.pack("<Q", size) for size in (10**6, 2**31, 2**62, 2**64 - 1)),  # bytes to come
        *(b"\x80\x04\x95%bK\x00." % struct.pack("<Q", size) for size in (0, 2**31, 2**64 - 1)),  # a frame
        *(
            b"(" * DEEP,
            b"]" * 9 + b".",
            b"\x80\xff.",
            b"P1\n.",
            b"\x82\x01.",
            b"\x80\x02K\x00Q.",
            b"I" + DIGITS + b"\n.",
        ),
        b"\x80\x02" + b"]" * DEEP + b"a" * (DEEP - 1) + b".",
    ]


PICKLE = Form(
    lambda valid: st.one_of(
        scratched(valid),
        edited(jsonable(pickle.loads(valid))).map(lambda value: pickle.dumps(value, 2)),
        st.sampled_from(evil_pickles()).flatmap(scratched),
    ),
    lambda valid: [b"", valid[:-1], valid[: len(valid) // 2], *evil_pickles()],
)

PICKLE_OR_ZIP = Form(
    scratched,
    lambda valid: [b"", valid[:-1], *evil_pickles(), *(archived([("a/data.pkl", evil)]) for evil in evil_pickles())],
)


def jsonable(value: Any) -> Any:
    """A pickle's content as a tree that can be edited, with arrays as they are."""
    return {key: value[key] for key in value} if isinstance(value, dict) else value


def tensors(header: Any, data: bytes) -> bytes:
    """A file of safetensors."""
    text = header if isinstance(header, bytes) else as_json(header)
    return struct.pack("<Q", len(text)) + text + data


def tensor_parts(valid: bytes) -> tuple[dict[str, Any], bytes]:
    """Header and data of a file of safetensors."""
    end = 8 + int.from_bytes(valid[:8], "little")
    return json.loads(valid[8:end]), valid[end:]


def nasty_tensors(valid: bytes) -> list[bytes]:
    """Headers that claim exabytes, overlap, lie about types; weights that are not numbers."""
    header, data = tensor_parts(valid)
    names = [name for name in header if name != "__metadata__"]
    first = header[names[0]]
    kinds = ["F16", "BF16", "F64", "I64", "U8", "BOOL", "F8_E4M3", "C64", "F4", "nothing"]
    shapes: list[Any] = [[], [0], [2**40, 2**40], [2**63], [-1], [1] * 70, None, "1"]

    def with_first(**changes: Any) -> bytes:
        return tensors(changed(header, **{names[0]: changed(first, **changes)}), data)

    return [
        *(b"", valid[:7], valid[:-1], valid[: len(valid) // 2], valid + b"\x00" * 9),
        *(struct.pack("<Q", size) + valid[8:] for size in (0, 1, 2**30, 2**60, 2**64 - 1)),
        *(tensors(odd, data) for odd in (b"", b"{}", b"[]", b"[" * DEEP, b"\xff", b'{"a": %b}' % DIGITS)),
        *(with_first(dtype=kind) for kind in kinds),
        *(with_first(shape=shape) for shape in shapes),
        *(with_first(data_offsets=place) for place in ([0, 2**60], [2**60, 0], [5, 5], [], None)),
        with_first(shape=[2**40], data_offsets=[0, 2**42]),
        tensors(header, b"\xff" * len(data)),  # NaN
        tensors(header, b"\x7f" * len(data)),  # as large as can be
        tensors(header, bytes(len(data))),
        tensors({name: value for name, value in header.items() if name != names[0]}, data),
        tensors(changed(header, __metadata__={"a": 1}), data),
        tensors(changed(header, __metadata__={"progressed": "[]", "schedule": "{", "card": ""}), data),
        tensors({}, b""),
    ]


TENSORS = Form(
    lambda valid: mostly(edited(tensor_parts(valid)[0]).map(lambda header: tensors(header, tensor_parts(valid)[1]))),
    nasty_tensors,
)


def chunk(kind: bytes, data: bytes) -> bytes:
    """A chunk of a PNG file, its sum right."""
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def png(
    width: int, height: int, depth: int = 8, colour: int = 0, more: bytes = b"", data: bytes = bytes(1000)
) -> bytes:
    """A PNG file whose header claims this; more: chunks before the pixels."""
    header = struct.pack(">IIBBBBB", width, height, depth, colour, 0, 0, 0)
    end = chunk(b"IDAT", zlib.compress(data)) + chunk(b"IEND", b"")
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + more + end


def saved(mode: str, kind: str, size: tuple[int, int] = (16, 12), **options: Any) -> bytes:
    """A picture as a file of this kind."""
    content = io.BytesIO()
    pixels = np.random.default_rng(0).integers(0, 256, (size[1], size[0], 3), np.uint8)
    Image.fromarray(pixels).convert(mode).save(content, kind, **options)
    return content.getvalue()


def pictures() -> list[bytes]:
    """Valid pictures of the formats that cameras and people use."""
    exif = Image.Exif()
    exif[0x0112] = 6
    kinds = [
        *(("RGB", "JPEG"), ("L", "JPEG"), ("CMYK", "JPEG"), ("P", "PNG"), ("RGBA", "PNG"), ("LA", "PNG"), ("1", "PNG")),
        *(("I;16", "PNG"), ("P", "GIF"), ("RGB", "BMP"), ("RGB", "PPM"), ("RGB", "TIFF"), ("F", "TIFF"), ("I", "TIFF")),
        *(("RGB", "WEBP"), ("RGBA", "WEBP"), ("RGB", "ICO"), ("RGB", "TGA"), ("RGB", "PCX"), ("RGB", "JPEG2000")),
    ]
    return [saved("RGB", "JPEG", exif=exif), *(saved(mode, kind) for mode, kind in kinds)]


def nasty_pictures(valid: bytes) -> list[bytes]:
    """Headers that claim far more pixels than there are, chunks that unpack to far more, sides of nothing."""
    text = b"a\x00\x00" + zlib.compress(bytes(50 * 2**20))
    sizes = [
        (0, 0),
        (1, 1),
        (1, 0),
        (2**31 - 1, 2**31 - 1),
        (60_000, 60_000),
        (13_000, 13_000),
        (2**31 - 1, 1),
        (100_000, 1),
    ]
    return [
        *(b"", valid[:8], valid[: len(valid) // 2], valid[:-12], valid * 2),
        *(png(*size) for size in sizes),
        *(png(8, 8, depth, colour) for depth in (0, 1, 3, 16, 255) for colour in (0, 1, 2, 3, 4, 6, 9)),
        png(8, 8, more=chunk(b"zTXt", text)),
        png(8, 8, more=chunk(b"iCCP", text)),
        png(8, 8, more=chunk(b"eXIf", b"II*\x00\xff\xff\xff\xff")),
        png(8, 8, more=chunk(b"tRNS", b"")),
        png(8, 8, more=chunk(b"acTL", struct.pack(">II", 2**31, 0)) + chunk(b"fcTL", bytes(26))),
        png(8, 8, more=chunk(b"IHDR", struct.pack(">IIBBBBB", 9000, 9000, 8, 2, 0, 0, 0))),
        b"P6 99999999 99999999 255\n",
        b"P5\n2 2\n70000\n" + bytes(16),
        b"P6 " + DIGITS + b" 1 255\n",
        b"GIF89a\xff\xff\xff\xff\x80\x00\x00" + bytes(20),
        b"BM" + struct.pack("<IIIIiiHHIIiiII", 99, 0, 54, 40, 2**31 - 1, -(2**31), 1, 24, 0, 0, 0, 0, 0, 0) + bytes(9),
        b"II*\x00\x08\x00\x00\x00\xff\xff" + bytes(40),
        b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n%%EndComments\n(outside) (w) file\n",
        saved("P", "GIF", save_all=True, append_images=[Image.new("P", (3, 3))]),
    ]


PICTURE = Form(lambda valid: st.sampled_from([valid, *pictures()]).flatmap(scratched), nasty_pictures, others=pictures)
MASK = Form(
    scratched,
    lambda valid: [
        *nasty_pictures(valid),
        saved("RGB", "PNG"),
        saved("1", "PNG"),
        saved("I;16", "PNG"),
        saved("RGBA", "PNG"),
    ],
)


def clip(kind: str, codec: str, form: str = "yuv420p", frames: int = 12, size: tuple[int, int] = (32, 24)) -> bytes:
    """A video of noise."""
    content = io.BytesIO()
    with av.open(content, "w", format=kind) as container:
        stream: Any = container.add_stream(codec, rate=25, options={"g": "4"})
        (stream.width, stream.height), stream.pix_fmt = size, form
        random = np.random.default_rng(0)
        for _ in range(frames):
            pixels = random.integers(0, 256, (size[1], size[0], 3), np.uint8)
            container.mux(stream.encode(av.VideoFrame.from_ndarray(pixels, format="rgb24").reformat(format=form)))
        container.mux(stream.encode(None))
    return content.getvalue()


def clips() -> list[bytes]:
    """Valid videos of several containers and codecs."""
    kinds = [
        ("matroska", "ffv1"),
        ("matroska", "mpeg4"),
        ("mpegts", "mpeg2video"),
        ("avi", "mjpeg"),
        ("mpeg", "mpeg1video"),
    ]
    return [*(clip(kind, codec, "yuvj420p" if codec == "mjpeg" else "yuv420p") for kind, codec in kinds), sound()]


def sound() -> bytes:
    """A file of sound alone."""
    content = io.BytesIO()
    with av.open(content, "w", format="matroska") as container:
        stream = container.add_stream("pcm_s16le", rate=8000)
        frame = av.AudioFrame.from_ndarray(np.zeros((1, 800), np.int16), format="s16", layout="mono")
        frame.sample_rate = 8000
        container.mux(stream.encode(frame))
    return content.getvalue()


def nasty_clips(valid: bytes) -> list[bytes]:
    """Cut off, of other sizes than they say, lists that name other files and addresses."""
    raw = clip("avi", "rawvideo", frames=1)
    wide = raw.replace(struct.pack("<ii", 32, 24), struct.pack("<ii", 65_000, 65_000))
    half = raw.replace(struct.pack("<ii", 32, 24), struct.pack("<ii", 12_000, 12_000))
    return [
        *(b"", valid[: len(valid) // 2], valid[:-1], valid[:40], valid[40:], valid + valid, wide, half),
        *(clip("matroska", "ffv1", frames=count) for count in (0, 1, 2)),
        b"#EXTM3U\n#EXT-X-TARGETDURATION:9\n#EXTINF:9,\nhttp://127.0.0.1:9/a.ts\n#EXT-X-ENDLIST\n",
        b"#EXTM3U\n#EXT-X-TARGETDURATION:9\n#EXTINF:9,\nclip.mp4\n#EXT-X-ENDLIST\n",
        b"ffconcat version 1.0\nfile clip.mp4\n",
        b"v=0\no=- 0 0 IN IP4 127.0.0.1\ns=x\nc=IN IP4 127.0.0.1\nt=0 0\nm=video 9 RTP/AVP 96\n",
        *(saved("RGB", kind) for kind in ("PNG", "JPEG", "GIF")),
    ]


VIDEO = Form(lambda valid: st.sampled_from([valid, *clips()]).flatmap(scratched), nasty_clips, others=clips)
