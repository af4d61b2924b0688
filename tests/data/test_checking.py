import shutil
from pathlib import Path

import pytest
from PIL import Image

from handful.data import check, folder
from handful.errors import HandfulError

from .conftest import write_zip


def test_sound_class_folders(photos: Path) -> None:
    report = check(photos)
    assert (report.kind, report.classes, report.images, report.per_class) == (
        "class folders",
        10,
        30,
        (3, 3.0, 3),
    )
    assert report.ok


def test_everything_wrong_with_class_folders(photos: Path) -> None:
    (photos / "bird1" / "2.png").write_text("no picture")
    (photos / "nest").mkdir()
    shutil.copy(photos / "bird0" / "0.png", photos / "bird9" / "same.png")
    shutil.copy(photos / "bird0" / "1.png", photos / "loose.png")
    report = check(photos)
    assert report.per_class == (3, 3.0, 4)
    assert report.unreadable == [str(photos / "bird1" / "2.png")]
    assert report.empty == [str(photos / "nest")]
    assert report.duplicates == [[str(photos / "bird0" / "0.png"), str(photos / "bird9" / "same.png")]]
    told = "\n".join(report.problems)
    assert len(report.problems) == 4
    assert str(report).splitlines()[0].endswith("class folders, 10 classes, 31 images, 3 to 4 a class (median 3)")
    assert len(str(report).splitlines()) == 5
    for words in (
        "nest holds no picture",
        "1 pictures lie in no class",
        "2.png is no readable",
        "are the same: ",
    ):
        assert words in told


def test_split_folders(photos: Path) -> None:
    for part, first in (("train", 0), ("val", 4), ("test", 7)):
        (photos / part).mkdir()
        for index in range(first, first + 3):
            (photos / f"bird{index}").rename(photos / part / f"bird{index}")
    report = check(photos)
    assert report.splits == {"train": 3, "val": 3, "test": 3}
    assert "3 pictures lie in no class folder of train/ or val/ or test/" in report.problems[0]  # bird3
    shutil.copytree(photos / "train" / "bird0", photos / "test" / "bird0")
    assert any("lies in both train and test" in problem for problem in check(photos).problems)


def test_too_few_classes(photos: Path) -> None:
    for index in range(2, 10):
        shutil.rmtree(photos / f"bird{index}")
    assert "2 classes cannot be split" in check(photos).problems[0]


def test_a_store(photos: Path, cache: Path) -> None:
    folder(photos, image_size=8)
    (store,) = cache.iterdir()
    report = check(store)
    assert (report.kind, report.classes, report.images) == ("store", 10, 30)
    assert report.splits == {"train": 6, "val": 2, "test": 2}
    assert report.ok
    content = bytearray((store / "images.npy").read_bytes())
    content[-1] ^= 1
    (store / "images.npy").write_bytes(content)
    assert "are not those that were written" in check(store).problems[0]
    (store / "labels.npy").unlink()
    assert "labels.npy is missing" in check(store).problems[0]


def test_archives(tiny: Path) -> None:
    report = check(tiny)
    assert (report.kind, report.classes, report.images, report.per_class) == (
        "omniglot archives",
        3,
        60,
        (20, 20.0, 20),
    )
    assert report.ok
    write_zip(tiny / "b.zip", ["b/ULOG/character01/1_00.png", "b/Klingon/character01/1_00.png"], b"no picture")
    report = check(tiny)
    assert len(report.problems) == 5  # a foreign alphabet, too few drawings twice, two that are none
    assert len(report.unreadable) == 2
    (tiny / "b.zip").unlink()
    assert "b.zip is missing" in check(tiny).problems[0]


def test_real_archives_are_sound(omniglot_source: Path) -> None:
    report = check(omniglot_source)
    assert (report.classes, report.images, report.ok) == (1623, 32460, True)


def test_what_is_nothing(tmp_path: Path) -> None:
    (tmp_path / "notes.txt").write_text("x")
    report = check(tmp_path)
    assert report.kind == "unknown"
    assert "no pictures" in report.problems[0]
    with pytest.raises(HandfulError, match="There is no folder"):
        check(tmp_path / "nowhere")
    Image.new("L", (9, 9)).save(tmp_path / "loose.png")
    assert "holds no class folders" in check(tmp_path).problems[0]
