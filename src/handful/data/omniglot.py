"""omniglot: 1623 handwritten characters of 50 alphabets, 20 drawings each (Lake, Salakhutdinov, Tenenbaum
2015).

    handful data build omniglot --source FOLDER      # FOLDER holds the two published archives
    handful data build omniglot --download

The archives are read where they lie and never unpacked.  Characters are sorted by alphabet and number,
those of `images_background.zip` first.  The split is that of Vinyals et al. (2016) with the validation
classes of Snell et al. (2017): the first 1200 characters are for training, of which the 172 of five
alphabets are held out for validation, and the last 423 are for the test.
"""

from __future__ import annotations

import zipfile
from collections import defaultdict
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from handful.data.download import download, file_digest
from handful.data.pictures import Picture, Survey, archive_members, opened, opened_archive
from handful.data.reader import Reader
from handful.data.store import Contents
from handful.errors import HandfulError

DRAWINGS = 20
TRAINVAL = 1200  # characters; the rest is the test split
VAL_ALPHABETS = ("Armenian", "Bengali", "Early_Aramaic", "Hebrew", "Mkhedruli_(Georgian)")
URL = "https://raw.githubusercontent.com/brendenlake/omniglot/master/python/"


class Archive(NamedTuple):
    """A published archive: its name, its MD5 as published, and the number of characters of each alphabet."""

    name: str
    md5: str
    alphabets: Mapping[str, int]


ARCHIVES = (
    Archive(
        "images_background.zip",
        "68d2efa1b9178cc56df9314c21c6e718",
        {
            "Alphabet_of_the_Magi": 20, "Anglo-Saxon_Futhorc": 29, "Arcadian": 26, "Armenian": 41,
            "Asomtavruli_(Georgian)": 40, "Balinese": 24, "Bengali": 46,
            "Blackfoot_(Canadian_Aboriginal_Syllabics)": 14, "Braille": 26, "Burmese_(Myanmar)": 34,
            "Cyrillic": 33, "Early_Aramaic": 22, "Futurama": 26, "Grantha": 43, "Greek": 24,
            "Gujarati": 48, "Hebrew": 22, "Inuktitut_(Canadian_Aboriginal_Syllabics)": 16,
            "Japanese_(hiragana)": 52, "Japanese_(katakana)": 47, "Korean": 40, "Latin": 26,
            "Malay_(Jawi_-_Arabic)": 40, "Mkhedruli_(Georgian)": 41, "N_Ko": 33,
            "Ojibwe_(Canadian_Aboriginal_Syllabics)": 14, "Sanskrit": 42, "Syriac_(Estrangelo)": 23,
            "Tagalog": 17, "Tifinagh": 55,
        },
    ),
    Archive(
        "images_evaluation.zip",
        "6b91aef0f799c5bb55b94e3f2daec811",
        {
            "Angelic": 20, "Atemayar_Qelisayer": 26, "Atlantean": 26, "Aurek-Besh": 26, "Avesta": 26,
            "Ge_ez": 26, "Glagolitic": 45, "Gurmukhi": 45, "Kannada": 41, "Keble": 26, "Malayalam": 47,
            "Manipuri": 40, "Mongolian": 30, "Old_Church_Slavonic_(Cyrillic)": 45, "Oriya": 46,
            "Sylheti": 28, "Syriac_(Serto)": 23, "Tengwar": 25, "Tibetan": 42, "ULOG": 26,
        },
    ),
)  # fmt: skip


def read(source: Path, image_size: int = 28) -> Contents:
    """Omniglot from the folder of its two archives: 1623 classes of 20 images, uint8 [1, image_size,
    image_size].

    Ink is 255 and paper 0, with the greys between them: the 1-bit drawings become grey first and are then
    resized (bicubic) and inverted, so at 28 pixels the store is 255 minus note 002's array.

    Raises HandfulError: an archive is missing or damaged; an alphabet or a character has another number of
    characters or drawings than it should.
    """
    for archive in ARCHIVES:
        for fault in faults(source, archive):
            raise fault
    tables = {archive.name: drawings(source / archive.name) for archive in ARCHIVES}
    names = [f"{alphabet}/{character}" for table in tables.values() for alphabet, character in table]
    owner = [split_of(index, name) for index, name in enumerate(names)]
    return Contents(
        images=images(source, tables, image_size),
        labels=np.repeat(np.arange(len(names)), DRAWINGS).tolist(),
        image_shape=(1, image_size, image_size),
        class_names=names,
        splits={part: [index for index, own in enumerate(owner) if own == part] for part in ("train", "val", "test")},
        info={"name": "omniglot", "inverted": True, "split": "Vinyals et al. 2016, Snell et al. 2017"},
    )


def files(folder: Path) -> list[Path]:
    """Those of the two archives that are in a folder."""
    return [folder / archive.name for archive in ARCHIVES if (folder / archive.name).is_file()]


def fetch(folder: Path) -> Path:
    """Download those of the two archives that are not in `folder` as published, and return `folder`.

    What is checked on the way is the published MD5, the only digest that we know of: it tells a broken
    transfer, not a forged file.  The reader then decodes every drawing and counts them.
    """
    for archive in ARCHIVES:
        target = folder / archive.name
        if not target.is_file() or file_digest(target, "md5") != archive.md5:
            download(URL + archive.name, target, md5=archive.md5)
    return folder


def drawings(path: Path) -> dict[tuple[str, str], list[str]]:
    """(alphabet, character) -> names of its drawings in the archive, all sorted as note 002 sorts folders."""
    with opened_archive(path, way_out(path)) as archive:
        members = sorted(archive.namelist())
    table: dict[tuple[str, str], list[str]] = defaultdict(list)
    for member in members:
        *_, alphabet, character, file = ["", "", *member.split("/")]
        if character.startswith("character") and file.endswith(".png") and not file.startswith("."):
            table[alphabet, character].append(member)
    return dict(sorted(table.items()))


def faults(source: Path, archive: Archive) -> Iterator[HandfulError]:
    """Everything about the counts of an archive that is not as it should be."""
    path = source / archive.name
    table = drawings(path)
    characters: dict[str, int] = defaultdict(int)
    for alphabet, _ in table:
        characters[alphabet] += 1
    for alphabet in sorted(archive.alphabets.keys() | characters.keys()):
        found, expected = characters[alphabet], archive.alphabets.get(alphabet, 0)
        if found != expected:
            yield HandfulError(
                f"The alphabet {alphabet!r} has {found} characters in {path}, {expected} expected; {way_out(path)}."
            )
    for (alphabet, character), members in table.items():
        if len(members) != DRAWINGS:
            yield HandfulError(
                f"The character {f'{alphabet}/{character}'!r} has {len(members)} drawings in {path}, "
                f"{DRAWINGS} expected; {way_out(path)}."
            )


def split_of(index: int, name: str) -> str:
    """The split of a character, by its place among all that are sorted and by its name."""
    if index >= TRAINVAL:
        return "test"
    return "val" if name.split("/")[0] in VAL_ALPHABETS else "train"


def survey(source: Path) -> Survey:
    """All drawings of both archives, and everything about their counts that is not as it should be."""
    pictures: list[Picture] = []
    problems: list[str] = []
    characters = 0
    for archive in ARCHIVES:
        path = source / archive.name
        try:
            problems += [str(fault) for fault in faults(source, archive)]
            content = archive_members(path, way_out(path))
        except HandfulError as error:
            problems.append(str(error))
            continue
        for (alphabet, character), members in drawings(path).items():
            label = f"{alphabet}/{character}"
            part = split_of(characters, label)
            pictures += [Picture(f"{path.name}/{member}", part, label, content[member]) for member in members]
            characters += 1
    return Survey(
        "omniglot archives", pictures, problems, mend="get it anew with `handful data build omniglot --download`"
    )


def images(
    source: Path, tables: Mapping[str, Mapping[tuple[str, str], list[str]]], image_size: int
) -> Iterator[NDArray[np.uint8]]:
    """The drawings of both archives, decoded one by one, uint8 [1, image_size, image_size]."""
    for name, table in tables.items():
        with opened_archive(source / name, way_out(source / name)) as archive:
            for members in table.values():
                for member in members:
                    yield 255 - decode(archive, member, image_size)[None]


def decode(archive: zipfile.ZipFile, member: str, image_size: int) -> NDArray[np.uint8]:
    """A drawing as note 002 makes it, black ink on white, uint8 [image_size, image_size]."""
    try:
        with opened(archive.read(member)) as image:
            # Grey first: Pillow resizes a 1-bit image by nearest neighbour, whatever filter it is given.
            grey = image.convert("L").resize((image_size, image_size), Image.Resampling.BICUBIC)
            return np.asarray(grey)
    except Exception as error:  # zipfile, zlib and Pillow raise nearly anything for damaged bytes
        path = Path(str(archive.filename))
        raise HandfulError(f"{member} in {path} cannot be decoded ({error}); {way_out(path)}.") from error


def way_out(path: Path) -> str:
    """How to get an archive."""
    return f"get it from {URL}{path.name} or with `handful data build omniglot --download`"


READER = Reader(
    read,
    about="1623 handwritten characters of 50 alphabets, 20 drawings each",
    expects="images_background.zip and images_evaluation.zip",
    files=files,
    survey=survey,
    options=("rotations", "image_size"),
    fetch=fetch,
)
