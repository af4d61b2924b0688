"""mini_imagenet: 100 classes of ImageNet, 600 pictures each, 84x84 (Vinyals et al. 2016), in the split of Ravi and
Larochelle (2017).

    handful data build mini_imagenet --source FOLDER

FOLDER holds the three lists train.csv, val.csv and test.csv (`filename,label`) and the pictures in zip archives:
train.zip or train-0.zip, train-1.zip, ..., and likewise val and test.  The archives are read where they lie and never
unpacked; a picture is known by its file name, whatever folder of an archive holds it.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import NamedTuple

from handful.data.lists import picture_list
from handful.data.pictures import Picture, Survey, archive_members, contents
from handful.data.reader import Reader
from handful.data.store import Contents
from handful.errors import HandfulError

WAY_OUT = "docs/data.md says which files are expected"


class Published(NamedTuple):
    """A split as published: the MD5 of its sorted `filename,label` lines, and its classes by their WordNet ids."""

    rows: str
    classes: Mapping[str, str]


SPLITS = {
    "train": Published(
        "ea128b9f8ca45189a7f029cbfd8f3889",
        {
            "n01532829": "house finch", "n01558993": "robin", "n01704323": "triceratops", "n01749939": "green mamba",
            "n01770081": "harvestman", "n01843383": "toucan", "n01910747": "jellyfish", "n02074367": "dugong",
            "n02089867": "Walker hound", "n02091831": "Saluki", "n02101006": "Gordon setter", "n02105505": "komondor",
            "n02108089": "boxer", "n02108551": "Tibetan mastiff", "n02108915": "French bulldog",
            "n02111277": "Newfoundland dog", "n02113712": "miniature poodle", "n02120079": "Arctic fox",
            "n02165456": "ladybug", "n02457408": "three-toed sloth", "n02606052": "rock beauty",
            "n02687172": "aircraft carrier", "n02747177": "ashcan", "n02795169": "barrel", "n02823428": "beer bottle",
            "n02966193": "carousel", "n03017168": "chime", "n03047690": "clog", "n03062245": "cocktail shaker",
            "n03207743": "dishrag", "n03220513": "dome", "n03337140": "file cabinet", "n03347037": "fire screen",
            "n03400231": "frying pan", "n03476684": "hair slide", "n03527444": "holster", "n03676483": "lipstick",
            "n03838899": "oboe", "n03854065": "pipe organ", "n03888605": "parallel bars", "n03908618": "pencil box",
            "n03924679": "photocopier", "n03998194": "prayer rug", "n04067472": "reel", "n04243546": "slot machine",
            "n04251144": "snorkel", "n04258138": "solar dish", "n04275548": "spider web", "n04296562": "stage",
            "n04389033": "tank", "n04435653": "tile roof", "n04443257": "tobacco shop", "n04509417": "unicycle",
            "n04515003": "upright piano", "n04596742": "wok", "n04604644": "worm fence", "n04612504": "yawl",
            "n06794110": "street sign", "n07584110": "consomme", "n07697537": "hotdog", "n07747607": "orange",
            "n09246464": "cliff", "n13054560": "bolete", "n13133613": "ear of corn",
        },
    ),
    "val": Published(
        "22f349ab35612346328eec033f175e9b",
        {
            "n01855672": "goose", "n02091244": "Ibizan hound", "n02114548": "white wolf", "n02138441": "meerkat",
            "n02174001": "rhinoceros beetle", "n02950826": "cannon", "n02971356": "carton", "n02981792": "catamaran",
            "n03075370": "combination lock", "n03417042": "garbage truck", "n03535780": "horizontal bar",
            "n03584254": "iPod", "n03770439": "miniskirt", "n03773504": "missile", "n03980874": "poncho",
            "n09256479": "coral reef",
        },
    ),
    "test": Published(
        "3d4081dfa6bcd9924e3b734dc7ba64ff",
        {
            "n01930112": "nematode", "n01981276": "king crab", "n02099601": "golden retriever", "n02110063": "malamute",
            "n02110341": "dalmatian", "n02116738": "African hunting dog", "n02129165": "lion", "n02219486": "ant",
            "n02443484": "black-footed ferret", "n02871525": "bookshop", "n03127925": "crate", "n03146219": "cuirass",
            "n03272010": "electric guitar", "n03544143": "hourglass", "n03775546": "mixing bowl",
            "n04146614": "school bus", "n04149813": "scoreboard", "n04418357": "theater curtain", "n04522168": "vase",
            "n07613480": "trifle",
        },
    ),
}  # fmt: skip

# One picture under two names, of a training class and of a validation class.  The test classes share none.
LEAKS = (
    ("n0388860500000646.jpg", "n0353578000000512.jpg"),
    ("n0388860500000663.jpg", "n0353578000000484.jpg"),
    ("n0388860500000751.jpg", "n0353578000000601.jpg"),
    ("n0388860500000943.jpg", "n0353578000000253.jpg"),
    ("n0388860500001285.jpg", "n0353578000001275.jpg"),
    ("n0438903300000447.jpg", "n0295082600000439.jpg"),
)


def read(source: Path, image_size: int = 84, classes: int | None = None) -> Contents:
    """mini-ImageNet from its lists and archives: 64, 16, 20 classes of 600 images, uint8 [3, image_size, image_size].

    classes: only the first so many classes of each split, sorted by their WordNet ids.  Pictures that lie in two of
    the splits that are read are told of in info["note"], which every result repeats.

    Raises HandfulError: a list or an archive is missing or damaged, a list is not the published one, a listed picture
    is in no archive or cannot be decoded.
    """
    info = {"name": "mini_imagenet", "part_of": "ImageNet", "split": "Ravi and Larochelle 2017"}
    if shared := leaks(classes):
        info["note"] = (
            f"mini-ImageNet as published has {shared} of its validation pictures among its training pictures, under "
            "other names, so validation figures are a trace too good; the test classes share no picture."
        )
    return contents(survey(source), image_size, classes, **info)


def leaks(classes: int | None = None) -> int:
    """How many pictures the training and validation classes share if so many classes of each split are read."""
    kept = {wnid for split in SPLITS.values() for wnid in sorted(split.classes)[:classes]}
    return sum(all(name[:9] in kept for name in pair) for pair in LEAKS)


def files(folder: Path) -> list[Path]:
    """The lists and archives in a folder; none unless there are both."""
    lists = [folder / f"{part}.csv" for part in SPLITS if (folder / f"{part}.csv").is_file()]
    shards = [path for part in SPLITS for path in archives(folder, part)]
    return [*lists, *shards] if lists and shards else []


def archives(folder: Path, part: str) -> list[Path]:
    """The archives of a split."""
    return sorted([*folder.glob(f"{part}.zip"), *folder.glob(f"{part}-*.zip")])


def survey(source: Path) -> Survey:
    """All listed pictures, and whatever is missing, damaged or not as published."""
    pictures: list[Picture] = []
    problems: list[str] = []
    for part, published in SPLITS.items():
        try:
            listed = check_list(source / f"{part}.csv", published.rows)
            members = find_members(source, part)
        except HandfulError as error:
            problems.append(str(error))
            continue
        for wnid, name in published.classes.items():
            own = sorted(file for file, label in listed if label == wnid)
            there = [file for file in own if file in members]
            if len(there) < len(own):
                lost = next(file for file in own if file not in members)
                problems.append(
                    f"The class {f'{wnid} {name}'!r} has {len(there)} of its {len(own)} pictures in the {part} "
                    f"archives of {source}, and {lost} is the first that is missing; {WAY_OUT}."
                )
            pictures += [Picture(members[file][0], part, f"{wnid} {name}", members[file][1]) for file in there]
    return Survey("mini-ImageNet archives", pictures, problems, mend=f"get its archive anew: {WAY_OUT}")


def check_list(path: Path, expected: str) -> list[tuple[str, str]]:
    """(file name, class) of a list, if it is the published one in whatever order."""
    rows = picture_list(path)
    lines = "".join(sorted(f"{file},{label}\n" for file, label in rows))
    digest = hashlib.md5(lines.encode(), usedforsecurity=False).hexdigest()
    if digest != expected:
        raise HandfulError(
            f"{path} is not the list of Ravi and Larochelle: its {len(rows)} rows, sorted, have the md5 {digest[:8]}, "
            f"not {expected[:8]}; {WAY_OUT}."
        )
    return rows


def find_members(source: Path, part: str) -> dict[str, tuple[str, Callable[[], bytes]]]:
    """File name -> where it lies and its content, of all pictures in the archives of a split."""
    shards = archives(source, part)
    if not shards:
        raise HandfulError(f"{source} holds no {part}.zip and no {part}-0.zip, {part}-1.zip, ...; {WAY_OUT}.")
    return {
        member.rpartition("/")[2]: (f"{shard.name}/{member}", content)
        for shard in shards
        for member, content in archive_members(shard, WAY_OUT).items()
    }


READER = Reader(
    read,
    about="100 classes of ImageNet, 600 photographs each (Vinyals et al. 2016, split by Ravi and Larochelle 2017)",
    expects="train.csv, val.csv, test.csv and the archives train-*.zip, val.zip, test.zip",
    files=files,
    survey=survey,
    options=("image_size", "classes"),
)
