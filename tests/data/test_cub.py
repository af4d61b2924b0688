import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from handful.data import ImageStore, check, cub, load
from handful.errors import HandfulError

from .conftest import noise

NAMES = [f"{number:03}.Bird_{number}" for number in range(1, 9)]  # eight kinds, two pictures each


@pytest.fixture
def birds(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(cub, "CLASSES", 8)
    monkeypatch.setattr(cub, "IMAGES", 16)
    source = tmp_path / "cub"
    home = source / "CUB_200_2011"
    paths = [f"{name}/{name[4:]}_{number}.jpg" for name in NAMES for number in (1, 2)]
    for seed, path in enumerate(paths):
        (home / "images" / path).parent.mkdir(parents=True, exist_ok=True)
        noise(seed, (30, 20)).save(home / "images" / path, "PNG")
    tables = {
        "classes.txt": NAMES,
        "images.txt": paths,
        "image_class_labels.txt": [str(1 + seed // 2) for seed in range(16)],
        "bounding_boxes.txt": [f"{seed}.0 4.0 12.0 30.0" for seed in range(16)],
    }
    for name, lines in tables.items():
        (home / name).write_text("".join(f"{number} {line}\n" for number, line in enumerate(lines, 1)))
    return source


def numbers(store: ImageStore) -> dict[str, list[int]]:
    """The kinds in each split, by their numbers from 1."""
    return {part: [int(store.class_names[index][:3]) for index in own] for part, own in store.splits.items()}


def test_the_rules_of_closerlook_and_of_frn(birds: Path) -> None:
    closer = load("cub", birds, image_size=8)
    assert numbers(closer) == {"train": [1, 3, 5, 7], "val": [2, 6], "test": [4, 8]}
    assert closer.images.shape == (16, 3, 8, 8)
    frn = load("cub", birds, image_size=8, split="frn")
    assert numbers(frn) == {"train": [2, 4, 6, 8], "val": [1, 5], "test": [3, 7]}
    assert (frn.info["split"], frn.recipe()["split"]) == ("frn", "frn")
    assert "CUB, split 'frn', whole pictures: four splits are in use" in frn.info["note"]
    assert closer.split_hash != frn.split_hash


def test_the_sizes_of_both_rules_are_those_published() -> None:
    names = {number: str(number) for number in range(1, 201)}
    for split, even in (("closerlook", 1), ("frn", 0)):
        parts = list(cub.parts_of_classes(Path(), split, names).values())
        assert [parts.count(part) for part in cub.PARTS] == [100, 50, 50]
        assert all(parts[number - 1] == "train" for number in names if number % 2 == even)


def test_lists_of_the_user(birds: Path) -> None:
    home = birds / "CUB_200_2011"
    for split in ("feat", "easy-few-shot"):
        (home / split).mkdir()
    for part, own in (("train", NAMES[:3]), ("val", NAMES[3:5]), ("test", NAMES[5:7])):
        rows = [f"{name[4:]}_{number}.jpg,{name},6,12" for name in own for number in (1, 2)]
        (home / "feat" / f"{part}.csv").write_text("\n".join(["filename, label, concept_label", *rows]))
        roots = {
            "class_names": [name[4:] for name in own],
            "class_roots": [f"./data/CUB/images/{name}" for name in own],
        }
        (home / "easy-few-shot" / f"{part}.json").write_text(json.dumps(roots))
    expected = {"train": [1, 2, 3], "val": [4, 5], "test": [6, 7]}
    for split in ("feat", "easy-few-shot"):
        store = load("cub", birds, image_size=8, split=split)
        assert numbers(store) == expected
        assert len(store.images) == 14
    (home / "feat" / "test.csv").write_text("filename,label\nBird_1_1.jpg,001.Bird_1\n")
    with pytest.raises(HandfulError, match=r"test.csv lists 001.Bird_1, which is in the train split already"):
        load("cub", birds, split="feat")
    (home / "feat" / "test.csv").write_text("filename,label\nDodo.jpg,dodo\n")
    with pytest.raises(HandfulError, match=r"test.csv lists dodo, which is no class of classes.txt"):
        load("cub", birds, split="feat")
    (home / "feat" / "test.csv").unlink()
    with pytest.raises(HandfulError, match=r"feat/test.csv is missing: it says which pictures are in the test split"):
        load("cub", birds, split="feat")


def test_cropped_pictures_are_cut_to_their_boxes_and_to_the_picture(birds: Path) -> None:
    store = load("cub", birds / "CUB_200_2011", image_size=12, cropped=True)
    assert "pictures cut to the bird" in store.info["note"]
    # The third kind's first picture is picture 4: x from 4, y from 4, 12 wide, 30 high, of which 16 are there.
    whole = np.asarray(noise(4, (30, 20)))
    with Image.fromarray(whole[4:20, 4:16]) as box:
        middle = np.asarray(box)[2:14]
    index = store.class_names.index("003.Bird_3")
    first = int(np.searchsorted(store.labels, index))
    assert np.array_equal(store.images[first], middle.transpose(2, 0, 1))


def test_only_some_classes(birds: Path) -> None:
    store = load("cub", birds, image_size=8, classes=1)
    assert numbers(store) == {"train": [1], "val": [2], "test": [4]}
    assert "CUB, split 'closerlook'" in store.info["note"]
    assert "(1 of 4 train, 1 of 2 val, 1 of 2 test)" in store.info["note"]


def test_what_is_missing_or_damaged(birds: Path) -> None:
    home = birds / "CUB_200_2011"

    def refuse(message: str, **options: str) -> None:
        with pytest.raises(HandfulError, match=message):
            load("cub", birds, image_size=8, **options)  # type: ignore[call-overload]

    refuse(r"There is no split of CUB 'fnr'; did you mean 'frn'\?", split="fnr")
    (home / "images" / "002.Bird_2" / "Bird_2_1.jpg").unlink()
    (home / "images" / "002.Bird_2" / "Bird_2_2.jpg").unlink()
    refuse(r"images lacks 2 pictures, 002.Bird_2/Bird_2_1.jpg the first; unpack CUB_200_2011.tgz anew")
    boxes = (home / "bounding_boxes.txt").read_text()
    (home / "bounding_boxes.txt").write_text(boxes.splitlines()[0])
    refuse(r"The tables of .* are not about the same pictures and classes")
    (home / "bounding_boxes.txt").write_text("one 1.0")
    refuse(r"bounding_boxes.txt is no table of CUB, a number and a text a line \(invalid literal")
    (home / "bounding_boxes.txt").unlink()
    refuse(r"bounding_boxes.txt is missing; unpack")
    (home / "bounding_boxes.txt").write_text(boxes)
    (home / "classes.txt").write_text("1 001.Bird_1")
    refuse(r"lists 1 classes and 16 pictures, not 8 and 16")


def test_check(birds: Path) -> None:
    images = birds / "CUB_200_2011" / "images"
    noise(0, (30, 20)).save(images / "008.Bird_8" / "Bird_8_2.jpg", "BMP")
    (images / "003.Bird_3" / "Bird_3_1.jpg").write_text("no picture")
    report = check(birds)
    assert (report.kind, report.classes, report.images) == ("CUB-200-2011", 8, 16)
    assert report.splits == {"train": 4, "val": 2, "test": 2}
    (twins,) = report.duplicates
    assert (twins.splits, twins.same_bytes) == (["train", "test"], False)
    assert [Path(name).name for name in report.unreadable] == ["Bird_3_1.jpg"]
