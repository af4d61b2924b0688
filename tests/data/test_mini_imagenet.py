import hashlib
import io
import json
import zipfile
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageOps
from typer.testing import CliRunner

from handful.cli import app
from handful.data import load, mini_imagenet
from handful.data.mini_imagenet import SPLITS, Published, leaks, read
from handful.errors import HandfulError

from .conftest import digest_of, encoded, noise

CLASSES = {"train": ["n03", "n01", "n02"], "val": ["n05", "n04"], "test": ["n06", "n07"]}


@pytest.fixture
def mini(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Seven classes of two pictures: the training classes in two archives, and what else may lie in one."""
    source = tmp_path / "mini_imagenet"
    source.mkdir()
    published = {}
    for part, wnids in CLASSES.items():
        names = {wnid: [f"{wnid}{number}.jpg" for number in (2, 1)] for wnid in wnids}
        text = "\n".join(["filename,label", *(f"{name},{wnid}" for wnid in wnids for name in names[wnid])])
        (source / f"{part}.csv").write_text(text)
        published[part] = Published(digest_of(text), {wnid: f"kind {wnid[-1]}" for wnid in sorted(wnids)})
        shards = {f"{part}-0.zip": wnids[:2], f"{part}-1.zip": wnids[2:]} if part == "train" else {f"{part}.zip": wnids}
        for shard, own in shards.items():
            with zipfile.ZipFile(source / shard, "w") as archive:
                archive.writestr("images/", "")
                archive.writestr("images/unlisted.jpg", "x")
                for wnid in own:
                    for name in names[wnid]:
                        archive.writestr(f"images/{wnid}/{name}", encoded(noise(int(name[1:4])), "JPEG"))
    monkeypatch.setattr(mini_imagenet, "SPLITS", published)
    return source


def rewrite(path: Path, leave: str = "", change: str = "") -> None:
    """The archive anew, without one of its files, or with another one's content gone."""
    with zipfile.ZipFile(path) as archive:
        held = {name: archive.read(name) for name in archive.namelist() if not leave or not name.endswith(leave)}
    with zipfile.ZipFile(path, "w") as archive:
        for name, content in held.items():
            archive.writestr(name, b"no picture" if change and name.endswith(change) else content)


def test_the_lists_are_those_of_ravi_and_larochelle() -> None:
    """The digests that the lists of five repositories share."""
    rows = {"train": "ea128b9f", "val": "22f349ab", "test": "3d4081df"}
    labels = {"train": "a9adeb5c", "val": "3ef9970e", "test": "9a1f0630"}
    for part, published in SPLITS.items():
        assert published.rows.startswith(rows[part])
        lines = "".join(f"{wnid}\n" for wnid in sorted(published.classes))
        assert hashlib.md5(lines.encode()).hexdigest().startswith(labels[part])
    assert [len(published.classes) for published in SPLITS.values()] == [64, 16, 20]
    assert len({wnid for published in SPLITS.values() for wnid in published.classes}) == 100


def test_pictures_and_splits(mini: Path) -> None:
    store = load("mini_imagenet", mini, image_size=8)
    assert store.images.shape == (14, 3, 8, 8)
    assert store.class_names == tuple(f"n0{number} kind {number}" for number in range(1, 8))
    assert {part: classes.tolist() for part, classes in store.splits.items()} == {
        "train": [0, 1, 2],
        "val": [3, 4],
        "test": [5, 6],
    }
    assert store.labels.tolist() == np.repeat(np.arange(7), 2).tolist()
    assert "note" not in store.info
    for index, name in ((0, "n011"), (5, "n032"), (13, "n072")):  # a class's pictures are sorted by name
        with Image.open(io.BytesIO(encoded(noise(int(name[1:4])), "JPEG"))) as image:
            expected = np.asarray(ImageOps.fit(image, (8, 8), Image.Resampling.BICUBIC))
        assert np.array_equal(store.images[index], expected.transpose(2, 0, 1)), name


def test_the_order_of_a_list_changes_nothing(mini: Path) -> None:
    before = load("mini_imagenet", mini, image_size=8).digest
    header, *rows = (mini / "train.csv").read_text().splitlines()
    (mini / "train.csv").write_text("\r\n".join([header, *reversed(rows), ""]))
    assert load("mini_imagenet", mini, image_size=8).digest == before


def test_the_first_classes_of_each_split(mini: Path) -> None:
    store = load("mini_imagenet", mini, image_size=8, classes=2)
    assert [name[:3] for name in store.class_names] == ["n01", "n02", "n04", "n05", "n06", "n07"]
    assert store.info["note"].startswith("Not all classes were read (2 of 3 train, 2 of 2 val, 2 of 2 test)")
    assert store.recipe()["classes"] == 2
    assert "note" not in load("mini_imagenet", mini, image_size=8, classes=3).info
    with pytest.raises(HandfulError, match="classes must be at least 1, not 0"):
        load("mini_imagenet", mini, classes=0)
    with pytest.raises(HandfulError, match="image_size must be at least 1 pixel, not 0"):
        load("mini_imagenet", mini, image_size=0)


def test_pictures_in_two_splits_are_told_where_both_classes_are_read() -> None:
    assert [leaks(classes) for classes in (None, 50, 49, 40, 39)] == [6, 6, 5, 5, 0]


def test_what_is_missing_or_damaged(mini: Path) -> None:
    def refuse(message: str) -> None:
        with pytest.raises(HandfulError, match=message):
            load("mini_imagenet", mini, image_size=8)

    rewrite(mini / "train-1.zip", change="n021.jpg")
    refuse(r"train-1.zip/images/n02/n021.jpg is no readable picture .*; get its archive anew: docs/data.md says which")
    rewrite(mini / "train-1.zip", leave="n021.jpg")
    refuse(
        r"class 'n02 kind 2' has 1 of its 2 pictures in the train archives of .*, and n021.jpg is the first that is m"
    )
    (mini / "train-1.zip").write_bytes((mini / "train-1.zip").read_bytes()[:50])
    refuse(r"train-1.zip is no whole zip archive")
    (mini / "train-0.zip").unlink()
    (mini / "train-1.zip").unlink()
    refuse(r"holds no train.zip and no train-0.zip, train-1.zip, ...; docs/data.md")
    text = (mini / "train.csv").read_text()
    (mini / "train.csv").write_text(text.replace("n021.jpg,n02", "n021.jpg,n01"))
    refuse(
        r"train.csv is not the list of Ravi and Larochelle: its 6 rows, sorted, have the md5 [0-9a-f]{8}, not [0-9a-f]"
    )
    (mini / "train.csv").write_text(text.replace("filename,label", "class_name,image_name"))
    refuse(r"The first line of .*train.csv is 'class_name,image_name'; a list of pictures begins with filename,label")
    (mini / "train.csv").unlink()
    refuse(r"train.csv is missing: it says which pictures are in the train split")


def test_the_command_line_says_what_every_result_will_say(mini: Path) -> None:
    words = ["data", "build", "mini_imagenet", "--source", str(mini), "--image-size", "8", "--classes", "2"]
    done = CliRunner().invoke(app, words)
    assert done.exit_code == 0
    built, note = done.output.splitlines()
    assert built.startswith("mini_imagenet: 12 images [3, 8, 8] in 6 classes (2 train, 2 val, 2 test), ")
    assert note.startswith("Not all classes were read")
    told = json.loads(CliRunner().invoke(app, [*words, "--json"]).output)
    assert (told["images"], told["note"]) == (12, note)
    assert CliRunner().invoke(app, ["data", "check", str(mini)]).exit_code == 0
    (mini / "val.zip").unlink()
    checked = CliRunner().invoke(app, ["data", "check", str(mini), "--json"])
    assert checked.exit_code == 2
    assert "holds no val.zip" in json.loads(checked.output)["problems"][0]


def test_the_real_archives(mini_imagenet_source: Path) -> None:
    found = mini_imagenet.survey(mini_imagenet_source)
    assert found.problems == []
    counts = {part: sum(picture.split == part for picture in found.pictures) for part in SPLITS}
    assert counts == {"train": 38400, "val": 9600, "test": 12000}
    contents = read(mini_imagenet_source, classes=1)
    assert contents.class_names == ["n01532829 house finch", "n01855672 goose", "n01930112 nematode"]
    assert [contents.labels.count(index) for index in range(3)] == [600, 600, 600]
    assert "Not all classes were read (1 of 64 train, 1 of 16 val, 1 of 20 test)" in contents.info["note"]
    assert "6 of its validation pictures" in read(mini_imagenet_source).info["note"]
    with zipfile.ZipFile(mini_imagenet_source / "train-0.zip") as archive:
        member = archive.read("images/n01532829/n0153282900000005.jpg")
    with Image.open(io.BytesIO(member)) as image:
        assert image.size == (84, 84)
        expected = np.asarray(image.convert("RGB")).transpose(2, 0, 1)
    assert np.array_equal(next(iter(contents.images)), expected)  # at 84 pixels nothing is resampled
