import json
from pathlib import Path

import pytest

from handful.data.lists import class_folder, class_list, picture_list
from handful.errors import HandfulError


def test_a_list_of_pictures(tmp_path: Path) -> None:
    path = tmp_path / "train.csv"
    path.write_text('filename, label, concept\n"a, b.jpg",crow,3,4\nc.jpg, owl \n\n')
    assert picture_list(path) == [("a, b.jpg", "crow"), ("c.jpg", "owl")]


def test_lists_of_classes(tmp_path: Path) -> None:
    (tmp_path / "train.txt").write_text("apple\n\n bottle \n")
    assert class_list(tmp_path / "train.txt") == ["apple", "bottle"]
    (tmp_path / "val.json").write_text(json.dumps({"class_names": ["x"], "class_roots": ["./data/x", "y"]}))
    assert class_list(tmp_path / "val.json") == ["./data/x", "y"]


def test_class_folders_of_another_machine(tmp_path: Path) -> None:
    (tmp_path / "train" / "owl").mkdir(parents=True)
    (tmp_path / "owl").mkdir()
    listed = tmp_path / "train.json"
    assert class_folder(tmp_path, "/home/someone/data/train/owl", listed) == tmp_path / "train" / "owl"
    assert class_folder(tmp_path, "../elsewhere/owl", listed) == tmp_path / "owl"
    with pytest.raises(HandfulError, match=r"has no class folder data/crow, which .*train.json lists; unpack it there"):
        class_folder(tmp_path, "data/crow", listed)


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("train.csv", b"", "The first line of .*train.csv is ''; a list of pictures begins with filename,label"),
        ("train.csv", b"filename,label\na.jpg,crow\nb.jpg\n", "Line 3 of .*train.csv has 1 column, and a list"),
        ("train.csv", b"\xff\xfe", "train.csv cannot be read as a table"),
        ("train.csv", None, "train.csv is missing: it says which pictures are in the train split"),
        ("val.txt", None, "val.txt is missing: it says which classes are in the val split"),
        ("val.json", b"[]", r"val.json is no list of classes \(TypeError.*it should hold {\"class_roots\""),
        ("val.json", b"{", r"val.json is no list of classes \(JSONDecodeError"),
        ("val.json", b"{}", r"val.json is no list of classes \(KeyError"),
    ],
)
def test_what_is_no_list(tmp_path: Path, name: str, content: bytes | None, message: str) -> None:
    path = tmp_path / name
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(HandfulError, match=message):
        picture_list(path) if path.suffix == ".csv" else class_list(path)
