import json
import os
import shutil
import zipfile
from pathlib import Path

import pytest
from PIL import Image

from handful.data import check, folder, mini_imagenet
from handful.data.findings import Identical
from handful.data.mini_imagenet import LEAKS
from handful.errors import HandfulError
from tests.conftest import Command, ok, refused

from .conftest import digest_of, write_zip


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
    twins = [str(photos / "bird0" / "0.png"), str(photos / "bird9" / "same.png")]
    report = check(photos)
    assert report.per_class == (3, 3.0, 4)
    assert report.unreadable == [str(photos / "bird1" / "2.png")]
    assert report.empty == [str(photos / "nest")]
    assert report.duplicates == [Identical(twins, [], ["bird0", "bird9"], same_bytes=True)]
    told = "\n".join(report.problems)
    assert len(report.problems) == 4
    first = "class folders, 10 classes, 31 images of 40x30 to 40x32 pixels, 3 to 4 a class (median 3)"
    assert str(report).splitlines()[0] == f"{photos}: {first}"
    assert len(str(report).splitlines()) == 5 + len(report.notes)
    for words in (
        "nest holds no picture",
        "Passed over: 1 picture in no class folder",
        "2.png is no readable",
        "leave it out by --skip-bad of `handful fit` or `handful data build`.",
        "Identical (the same file) in the classes 'bird0' and 'bird9'",
    ):
        assert words in told
    assert "bird0/0.png" in report.problems[0]  # what spoils a measurement comes first


def test_identical_pictures_by_pixels_and_by_bytes(photos: Path) -> None:
    """Another format or another depth is another file; the pixels tell."""
    for part, first in (("train", 0), ("val", 4), ("test", 7)):
        (photos / part).mkdir()
        for index in range(first, first + 3 + (part == "train")):
            (photos / f"bird{index}").rename(photos / part / f"bird{index}")
    shutil.copy(photos / "train" / "bird1" / "1.png", photos / "train" / "bird1" / "again.png")
    shutil.copy(photos / "train" / "bird1" / "2.png", photos / "train" / "bird2" / "other.png")
    with Image.open(photos / "train" / "bird0" / "0.png") as image:
        image.save(photos / "test" / "bird8" / "copy.bmp")
        image.transpose(Image.Transpose.FLIP_LEFT_RIGHT).save(photos / "test" / "bird8" / "mirrored.png")
    report = check(photos)
    across, classes, within = report.duplicates
    assert (across.splits, across.classes, across.same_bytes) == (["train", "test"], ["bird0", "bird8"], False)
    assert [Path(name).name for name in across.names] == ["0.png", "copy.bmp"]
    assert (classes.splits, classes.classes, classes.same_bytes) == (["train"], ["bird1", "bird2"], True)
    assert (within.splits, within.classes, within.spoils) == (["train"], ["bird1"], False)
    assert report.problems == [str(across), str(classes)]
    assert "(the pixels, in files that differ) in the splits train and test, which should share nothing" in str(across)
    assert f"- {within}" in str(report).splitlines()
    assert "in the class 'bird1', so a task may ask for a picture that its support shows" in str(within)


def test_a_picture_twice_in_a_class_is_told_and_is_no_problem(photos: Path) -> None:
    for name in "abcdefgh":
        shutil.copy(photos / "bird1" / "1.png", photos / "bird1" / f"{name}.png")
    report = check(photos)
    assert report.ok
    assert len(report.duplicates[0].names) == 9
    assert " and 3 more." in str(report)


def test_split_folders(photos: Path) -> None:
    for part, first in (("train", 0), ("val", 4), ("test", 7)):
        (photos / part).mkdir()
        for index in range(first, first + 3):
            (photos / f"bird{index}").rename(photos / part / f"bird{index}")
    report = check(photos)
    assert report.splits == {"train": 3, "val": 3, "test": 3}
    assert report.notes[0].startswith("9 classes with fewer than the 16 pictures")
    assert "Passed over: 3 pictures in no class folder of train/ or val/ or test/" in report.problems[0]  # bird3
    shutil.copytree(photos / "train" / "bird0", photos / "test" / "bird0")
    assert any("lies in both train and test" in problem for problem in check(photos).problems)


def test_what_the_classes_are_enough_for(photos: Path) -> None:
    (photos / "bird9" / "1.png").unlink()
    (photos / "bird9" / "2.png").unlink()
    assert check(photos).notes == [
        "`handful fit` can learn 10 classes from these pictures, and cannot check those of one picture: bird9.",
        "`handful train` splits the classes into 6 train, 2 val, 2 test: tasks of up to 2 ways can be validated.",
        "10 classes with fewer than the 16 pictures that `handful train` draws for a task of 1 shot and 15 queries: "
        "bird0, bird1, bird2, bird3, bird4, bird5 and 4 more.",
    ]
    for number in range(3, 16):
        Image.new("RGB", (9, 9), (number, 3, 3)).save(photos / "bird4" / f"{number}.png")
    assert "bird3, bird5" in check(photos).notes[2]  # the fifth has 16
    for index in range(5, 10):
        shutil.rmtree(photos / f"bird{index}")
    assert "into 3 train, 1 val, 1 test, and a task needs 2; give 10 classes" in check(photos).notes[-1]
    for index in range(2, 5):
        shutil.rmtree(photos / f"bird{index}")
    report = check(photos)
    assert report.ok  # two classes are enough to fit
    assert "takes 3 at least" in report.notes[1]
    shutil.rmtree(photos / "bird1")
    assert str(check(photos)).splitlines()[0].endswith("1 class, 3 images of 40x30 to 40x32 pixels, 3 a class")


def test_files_of_other_suffixes_are_told(photos: Path) -> None:
    (photos / "bird0" / "notes.txt").write_text("a bird")
    assert "1 file whose suffix is no picture's (.txt), " in check(photos).notes[0]
    assert "HEIC" not in check(photos).notes[0]
    (photos / "bird0" / "IMG_1.HEIC").write_bytes(b"")
    report = check(photos)
    assert report.ok
    assert "2 files whose suffix is no picture's (.heic, .txt), " in report.notes[0]
    assert report.notes[0].endswith("IMG_1.HEIC the first. Convert HEIC pictures to JPEG first.")


def test_a_class_twice_in_another_case_or_code(photos: Path) -> None:
    shutil.copytree(photos / "bird0", photos / "Bird0")
    for image in (photos / "Bird0").iterdir():
        Image.new("RGB", (9, 9), (len(image.name), 3, int(image.stem))).save(image)
    shutil.copytree(photos / "Bird0", photos / "\u00e9")
    shutil.copytree(photos / "Bird0", photos / "e\u0301")
    told = [problem for problem in check(photos).problems if "differ in case or in the code" in problem]
    assert len(told) == 2
    assert "'Bird0' and 'bird0'" in told[0]


def test_names_that_are_no_utf8_can_be_printed(photos: Path) -> None:
    odd = os.fsencode(photos) + b"/w\xfcrger"
    try:
        os.mkdir(odd)
    except OSError:
        pytest.skip("this file system takes only names in UTF-8")
    for index in range(2):
        Image.new("RGB", (9, 9), (index, 7, 7)).save(os.fsdecode(odd + b"/\xfc%d.png" % index))
    Path(os.fsdecode(odd + b"/\xff.png")).write_text("no picture")
    report = check(photos)
    assert report.unreadable == [str(photos / "w\\xfcrger" / "\\xff.png")]
    str(report).encode()


def test_a_store(photos: Path, cache: Path) -> None:
    folder(photos, image_size=8)
    (store,) = cache.iterdir()
    report = check(store)
    assert (report.kind, report.classes, report.images) == ("store", 10, 30)
    assert report.splits == {"train": 6, "val": 2, "test": 2}
    assert report.ok
    index = folder(photos, image_size=8).splits["test"][0]
    shutil.copy(photos / "bird0" / "0.png", photos / f"bird{index}" / "z.png")
    folder(photos, image_size=8)
    (twins,) = check(store).duplicates
    assert twins.names == ["image 0", f"image {3 * index + 3}"]
    assert (twins.classes, twins.same_bytes) == (["bird0", f"bird{index}"], None)
    assert "test" in twins.splits
    content = bytearray((store / "images.npy").read_bytes())
    content[-1] ^= 1
    (store / "images.npy").write_bytes(content)
    assert any("are not those that were written" in problem for problem in check(store).problems)
    (store / "labels.npy").unlink()
    assert check(store).problems == [
        f"{store} is not a store: labels.npy is missing; build it with `handful data build`."
    ]


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
    assert report.splits == {"train": 1028, "val": 172, "test": 423}
    (twins,) = report.duplicates  # in the published archive
    assert [name[-11:] for name in twins.names] == ["0192_03.png", "0192_19.png"]
    assert (twins.classes, twins.same_bytes) == (["Braille/character01"], True)


@pytest.fixture(scope="module")
def leaking(mini_imagenet_source: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The pictures of mini-ImageNet that are known to be there twice, in archives of their own."""
    source = tmp_path_factory.mktemp("mini")
    pictures = mini_imagenet.survey(mini_imagenet_source).pictures
    known = {name for pair in LEAKS for name in pair}
    known |= {"n0209183100000748.jpg", "n0209183100001256.jpg", "n0210855100000121.jpg", "n0211127700000207.jpg"}
    for part in mini_imagenet.SPLITS:
        rows = ["filename,label"]
        with zipfile.ZipFile(source / f"{part}.zip", "w") as archive:
            for picture in pictures:
                if picture.split == part and (name := picture.name[-21:]) in known:
                    content = picture.content()
                    assert isinstance(content, bytes)
                    archive.writestr(name, content)
                    rows.append(f"{name},{name[:9]}")
        (source / f"{part}.csv").write_text("\n".join(rows))
    return source


def test_the_known_leaks_of_mini_imagenet_are_found(leaking: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    lists = {part: digest_of((leaking / f"{part}.csv").read_text()) for part in mini_imagenet.SPLITS}
    cut = {part: split._replace(rows=lists[part]) for part, split in mini_imagenet.SPLITS.items()}
    monkeypatch.setattr(mini_imagenet, "SPLITS", cut)
    report = check(leaking)
    assert (report.kind, report.images, report.unreadable) == ("mini-ImageNet archives", 16, [])
    groups = [tuple(name[-21:] for name in group.names) for group in report.duplicates]
    assert groups[:6] == list(LEAKS)
    assert groups[6:] == [
        ("n0210855100000121.jpg", "n0211127700000207.jpg"),  # of two training classes
        ("n0209183100000748.jpg", "n0209183100001256.jpg"),  # of one
    ]
    assert all(group.same_bytes for group in report.duplicates)
    assert all("in the splits train and val" in problem for problem in report.problems[:6])
    assert len(report.problems) == 7


def test_what_is_nothing(tmp_path: Path) -> None:
    (tmp_path / "notes.txt").write_text("x")
    report = check(tmp_path)
    assert report.kind == "unknown"
    assert report.problems[0].startswith(f"{tmp_path} holds no pictures (.avif, ")
    assert report.problems[0].endswith("no store, and no files of a data set that `handful data list` names.")
    assert report.notes == ["Passed over: 1 file whose suffix is no picture's (.txt), notes.txt the first."]
    with pytest.raises(HandfulError, match="There is no folder"):
        check(tmp_path / "nowhere")
    Image.new("L", (9, 9)).save(tmp_path / "loose.png")
    assert "holds no class folders" in check(tmp_path).problems[0]


def test_a_picture_of_one_size(tmp_path: Path) -> None:
    (tmp_path / "bird").mkdir()
    for grey in range(2):
        Image.new("L", (9, 7), grey).save(tmp_path / "bird" / f"{grey}.png")
    report = check(tmp_path)
    assert report.pixels == ((9, 7), (9, 7))
    assert str(report).splitlines()[0].endswith("2 images of 9x7 pixels, 2 a class")


def test_the_command_says_where_the_sheet_is(handful: Command, photos: Path, tmp_path: Path) -> None:
    sheet = tmp_path / "sheet.png"
    assert ok(handful("data", "check", photos, "--sheet", sheet)).out.endswith(f"written to {sheet}\n")
    assert json.loads(ok(handful("data", "check", photos, "--json")).out)["written"] == []
    assert json.loads(ok(handful("data", "check", photos, "--sheet", sheet, "--json")).out)["written"] == [str(sheet)]
    refused(handful("data", "check", photos, "--sheet", tmp_path / "sheet.pdf"), "ends in .png; '", "sheet.pdf' does")
    assert not (tmp_path / "sheet.pdf").exists()
