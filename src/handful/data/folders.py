"""folder: your own pictures, one folder a class.

    photos/robin/a.jpg  photos/robin/b.png  photos/wren/c.jpg ...        classes are split by a seed
    photos/train/robin/a.jpg ...  photos/val/...  photos/test/...        classes are split as the folders say

A class is a folder of the top level, and pictures in folders below it are its own too.  Hidden files, files
that are no pictures and folders without any are passed over.  A lone folder around the class folders, as
archives often have, is stepped into.
"""

from __future__ import annotations

import os
import unicodedata
from collections.abc import Collection, Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np

from handful import wording
from handful.data.pictures import Picture, Pixels, Survey, check_size, decode, decoded
from handful.data.reader import Reader
from handful.data.store import Contents
from handful.errors import HandfulError
from handful.wording import printable

SUFFIXES = {".png", ".jpg", ".jpeg", ".bmp", ".gif", ".tif", ".tiff", ".webp", ".avif", ".ppm", ".pgm"}
SPLITS = {"train": "train", "val": "val", "valid": "val", "validation": "val", "test": "test"}  # in order
FRACTIONS = (0.64, 0.16, 0.2)  # of the classes: those of mini-ImageNet
MEND = "mend it or remove it, or leave it out by --skip-bad of `handful fit` or `handful data build`"
TASK = 16  # pictures of a class in a task of 1 shot and 15 queries, those of recipes that say nothing else


def read(
    source: Path,
    image_size: int = 84,
    channels: int = 3,
    seed: int = 0,
    skip_bad: bool = False,
    fractions: Sequence[float] = FRACTIONS,
) -> Contents:
    """The pictures of class folders, uint8 [channels, image_size, image_size], and the split of their classes.

    Each picture is turned as its EXIF orientation says, resized so that its short side is `image_size`, and
    cropped in its centre.  Where the source has `train`, `val` (or `valid`, `validation`) and `test`
    folders they are the split; otherwise a permutation of the sorted class names, drawn by `seed`, is cut
    by `fractions`, each split with one class at least.  Two classes cannot be cut in three, so fewer than 3
    are an error: `handful fit` learns from them directly, with no split.

    skip_bad: leave out pictures that cannot be decoded and list them in info["skipped"].

    Raises HandfulError: no pictures; an undecodable one; fewer than 3 classes; a class in two splits.
    """
    if channels not in (1, 3):
        raise HandfulError(f"channels must be 1 (grey) or 3 (colour), not {channels}.")
    check_size(image_size)
    shape = (channels, image_size, image_size)
    source = unwrapped(source)
    parts = split_folders(source)
    found = {part: class_folders(folder) for part, folder in parts.items()} if parts else {"": class_folders(source)}
    check_disjoint(found, source)
    skipped: list[str] = []
    if skip_bad:
        found, skipped = without_bad(found, shape)
    names = [name for part in found.values() for name in part]
    sizes = [len(paths) for part in found.values() for paths in part.values()]
    splits: Mapping[str, Sequence[int]]
    if parts:
        owner = [part for part, members in found.items() for _ in members]
        splits = {part: [index for index, own in enumerate(owner) if own == part] for part in parts}
    else:
        splits = split_by_seed(len(names), seed, fractions, source)
    return Contents(
        images=decoded(listed(found), shape, MEND),
        labels=np.repeat(np.arange(len(names)), sizes).tolist(),
        image_shape=shape,
        class_names=names,
        splits={"train": [], "val": [], "test": [], **splits},
        info={
            "name": "folder",
            "split": "folders" if parts else f"drawn by seed {seed}, fractions {', '.join(map(str, fractions))}",
            "skipped": skipped,
        },
    )


def list_images(folder: Path, suffixes: Collection[str] = SUFFIXES) -> list[Path]:
    """The pictures in a folder and in the folders below it, told by suffix, sorted, without hidden ones."""
    found: list[Path] = []
    seen: set[str] = set()  # links may run in circles
    for top, folders, names in os.walk(folder, followlinks=True):
        real = os.path.realpath(top)
        folders[:] = [] if real in seen else [name for name in folders if is_visible(name)]
        names = [] if real in seen else names
        seen.add(real)
        found += [Path(top, name) for name in names if is_visible(name) and Path(name).suffix.lower() in suffixes]
    return sorted(found, key=lambda path: path.as_posix())


def class_folders(folder: Path) -> dict[str, list[Path]]:
    """Class name -> its pictures, sorted, for every folder in `folder` that holds any.

    Raises HandfulError: no such folder, or no picture in a folder of its own.
    """
    if not folder.is_dir():
        raise no_folder(folder)
    folder = unwrapped(folder)
    found = {printable(child.name): list_images(child) for child in subfolders(folder)}
    found = {name: paths for name, paths in found.items() if paths}
    if not found:
        loose = len(list_images(folder))
        also = f", also the {loose} that lie there loose" if loose else ""
        told = f"{folder} holds no class folders with pictures: put them into {folder / 'CLASS' / 'NAME.jpg'}{also}."
        raise HandfulError(" ".join([told, *other_files(folder)]))
    return found


def load_image(path: Path, image_shape: tuple[int, int, int]) -> Pixels:
    """A picture of a file as uint8 [C, H, W], as `handful.data.pictures.decode` says; HandfulError if it is none."""
    if not path.is_file():
        raise HandfulError(f"There is no picture {path}.")
    return decode(Picture(printable(path), "", "", path.read_bytes), image_shape, "mend it or remove it")


def listed(found: Mapping[str, Mapping[str, Sequence[Path]]]) -> list[Picture]:
    """The pictures of class folders, split after split and class after class."""
    return [
        Picture(printable(path), part, name, path.read_bytes)
        for part, classes in found.items()
        for name, paths in classes.items()
        for path in paths
    ]


def survey(source: Path) -> Survey:
    """All pictures of class folders, and what is wrong with the folders: empty, in two splits, too few, passed over."""
    kind = "class folders"
    try:
        source = unwrapped(source)
        parts = split_folders(source) or {"": source}
        found = {part: class_folders(folder) for part, folder in parts.items()}
    except HandfulError as error:
        return Survey(kind, [], [str(error)])
    problems = []
    try:
        check_disjoint(found, source)
    except HandfulError as error:
        problems.append(str(error))
    problems += alike(name for classes in found.values() for name in classes)
    empty = [child for folder in parts.values() for child in empty_folders(folder)]
    problems += [nothing_in(child, source) for child in empty]
    problems += loose_pictures(source, parts)
    notes = [*other_files(source), *(possible(found[""]) if "" in found else small(found))]
    return Survey(kind, listed(found), problems, [printable(child) for child in empty], MEND, notes)


def possible(found: Mapping[str, Sequence[Path]]) -> list[str]:
    """What can be done with class folders that no split is laid down for."""
    single = [name for name, paths in found.items() if len(paths) == 1]
    checked = f", and cannot check those of one picture: {wording.named(single)}" if single else ""
    fit = f"`handful fit` can learn {wording.count(len(found), 'class')} from these pictures{checked}."
    if len(found) < 3:
        return [fit, "`handful train` splits the classes into train, val and test, which takes 3 at least."]
    sizes = {part: len(own) for part, own in split_by_seed(len(found), 0, FRACTIONS, Path()).items()}
    into = ", ".join(f"{size} {part}" for part, size in sizes.items())
    if (way := min(sizes.values())) < 2:
        return [fit, f"`handful train` would split the classes into {into}, and a task needs 2; give 10 classes."]
    train = f"`handful train` splits the classes into {into}: tasks of up to {way} ways can be validated."
    return [fit, train, *small({"": found})]


def small(found: Mapping[str, Mapping[str, Sequence[Path]]]) -> list[str]:
    """A sentence for the classes that have too few pictures for a task of most recipes, if there are any."""
    few = [name for classes in found.values() for name, paths in classes.items() if len(paths) < TASK]
    more = f"fewer than the {TASK} pictures that `handful train` draws for a task of 1 shot and 15 queries"
    return [f"{wording.count(len(few), 'class')} with {more}: {wording.named(few)}."] if few else []


def empty_folders(folder: Path) -> list[Path]:
    """The folders in a folder that hold no picture."""
    return [child for child in subfolders(folder) if not list_images(child)]


def nothing_in(folder: Path, source: Path) -> str:
    """The sentence for a folder of a source that holds no picture."""
    return f"{printable(folder.relative_to(source))} holds no picture; it is passed over."


def no_folder(path: Path) -> HandfulError:
    """The error for what is no folder."""
    if path.is_file():
        return HandfulError(f"{path} is a file and not a folder; if it is an archive, unpack it and name the folder.")
    return HandfulError(f"There is no folder {path}.")


def loose_pictures(source: Path, parts: Mapping[str, Path]) -> list[str]:
    """A sentence for the pictures that lie in no class folder, if there are any."""
    classed = {top for folder in parts.values() for top in subfolders(folder)}
    loose = [path for path in list_images(source) if classed.isdisjoint(path.parents)]
    where = " or ".join(f"{part}/" for part in parts if part)
    return [
        f"Passed over: {wording.count(len(loose), 'picture')} in no class folder{f' of {where}' if where else ''}, "
        f"{printable(path.relative_to(source))} the first."
        for path in loose[:1]
    ]


def other_files(folder: Path, suffixes: Collection[str] = SUFFIXES) -> list[str]:
    """A sentence for the visible files in a folder and below it that are no pictures by their suffix."""
    files = (path for path in folder.rglob("*") if all(map(is_visible, path.relative_to(folder).parts)))
    found = (path for path in files if "__MACOSX" not in path.parts and path.is_file())
    others = sorted(path for path in found if path.suffix.lower() not in suffixes)
    kinds = sorted({path.suffix.lower() or "none" for path in others})
    heic = " Convert HEIC pictures to JPEG first." if {".heic", ".heif"} & {*kinds} else ""
    return [
        f"Passed over: {wording.count(len(others), 'file')} whose suffix is no picture's ({', '.join(kinds[:8])}), "
        f"{printable(path.relative_to(folder))} the first.{heic}"
        for path in others[:1]
    ]


def alike(names: Iterable[str]) -> list[str]:
    """A sentence for every class name that differs from an earlier one by case or by its accents' code alone."""
    first: dict[str, str] = {}
    told = []
    for name in names:
        other = first.setdefault(unicodedata.normalize("NFC", name).casefold(), name)
        if other != name:
            told.append(
                f"The classes {other!r} and {name!r} differ in case or in the code of their letters alone; put their "
                "pictures into one folder, or name one of them otherwise."
            )
    return told


def without_bad(
    found: Mapping[str, Mapping[str, list[Path]]], shape: tuple[int, int, int]
) -> tuple[dict[str, dict[str, list[Path]]], list[str]]:
    """The classes without the pictures that cannot be decoded, and the names of these.

    Each picture is decoded once more for that: a store's size must be known before the first is written.
    """
    skipped: list[str] = []

    def is_good(path: Path) -> bool:
        try:
            load_image(path, shape)
        except HandfulError:
            return False
        return True

    good: dict[str, dict[str, list[Path]]] = {}
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        for part, classes in found.items():
            good[part] = {}
            for name, paths in classes.items():
                verdicts = list(pool.map(is_good, paths))
                skipped += [printable(path) for path, fine in zip(paths, verdicts) if not fine]
                if any(verdicts):
                    good[part][name] = [path for path, fine in zip(paths, verdicts) if fine]
    return good, skipped


def split_by_seed(classes: int, seed: int, fractions: Sequence[float], source: Path) -> dict[str, list[int]]:
    """Class indices drawn into train, val and test; each gets one at least, train what rounding leaves."""
    if len(fractions) != 3 or min(fractions) <= 0 or abs(sum(fractions) - 1) > 1e-6:
        raise HandfulError(f"fractions must be three positive numbers that add up to 1, not {list(fractions)}.")
    if classes < 3:
        raise HandfulError(
            f"{source} holds {classes} class{'es' * (classes != 1)}, and a split into train, val and test "
            "needs 3 at least; add classes, or use `handful fit`, which needs no split."
        )
    val, test = (max(1, round(fraction * classes)) for fraction in fractions[1:])
    val, test = min(val, classes - 2), min(test, classes - 1 - min(val, classes - 2))
    order = np.argsort(np.random.Generator(np.random.Philox(key=seed)).random(classes)).tolist()
    return {
        "train": sorted(order[val + test :]),
        "val": sorted(order[:val]),
        "test": sorted(order[val : val + test]),
    }


def split_folders(folder: Path) -> dict[str, Path]:
    """Split name -> folder, in the order train, val, test; {} unless `folder` holds `train` and another."""
    found: dict[str, Path] = {}
    for child in subfolders(folder):
        part = SPLITS.get(child.name.lower())
        if part in found:
            raise HandfulError(f"{found[part]} and {child} are both the {part} split; leave one of them.")
        if part:
            found[part] = child
    return {part: found[part] for part in SPLITS if part in found} if "train" in found and len(found) > 1 else {}


def check_disjoint(found: Mapping[str, Mapping[str, list[Path]]], source: Path) -> None:
    """Refuse a class that lies in two split folders."""
    owner: dict[str, str] = {}
    for part, classes in found.items():
        for name in classes:
            if name in owner:
                raise HandfulError(
                    f"The class {name!r} of {source} lies in both {owner[name]} and {part}; a class belongs "
                    "to one split, or accuracy is measured on classes seen in training."
                )
            owner[name] = part


def unwrapped(folder: Path) -> Path:
    """The folder that holds the class folders: `folder`, or the last of a chain of lone folders in it."""
    while True:
        children = subfolders(folder)
        if len(children) != 1 or has_pictures(folder) or has_pictures(children[0]) or not subfolders(children[0]):
            return folder
        folder = children[0]


def has_pictures(folder: Path) -> bool:
    """Whether pictures lie directly in a folder."""
    return any(is_visible(name) and os.path.splitext(name)[1].lower() in SUFFIXES for name in os.listdir(folder))


def subfolders(folder: Path) -> list[Path]:
    """The visible folders in a folder, sorted by name."""
    return sorted(
        (child for child in folder.iterdir() if child.is_dir() and is_visible(child.name)),
        key=lambda p: p.name,
    )


def is_visible(name: str) -> bool:
    """Whether a name is neither hidden nor the litter of an archiver."""
    return not name.startswith(".") and name != "__MACOSX"


READER = Reader(
    read,
    about="your own pictures, one folder a class",
    expects="class folders of pictures, CLASS/NAME.jpg",
    files=list_images,
    survey=survey,
    options=("rotations", "image_size", "channels", "seed", "skip_bad", "fractions"),
    by_path=True,
)
