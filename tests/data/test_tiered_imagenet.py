import json
import pickle
from pathlib import Path

import numpy as np
import pytest

from handful.data import check, load, tiered_imagenet
from handful.errors import HandfulError

from .conftest import encoded, noise

CLASSES = {"train": 3, "val": 2, "test": 2}


@pytest.fixture(autouse=True)
def small(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tiered_imagenet, "CLASSES", CLASSES)


@pytest.fixture
def pickles(tmp_path: Path) -> Path:
    """Classes of two pictures, which come in turns; classes 0 and 1 are of one category, class 2 of another."""
    for part, count in CLASSES.items():
        specific = np.tile(np.arange(count), 2)
        images = [np.frombuffer(encoded(noise(100 * len(part) + i), "PNG"), np.uint8) for i in range(2 * count)]
        columns = [image[:, None] if i % 2 else image for i, image in enumerate(images)]  # as some encoders leave them
        (tmp_path / f"{part}_images_png.pkl").write_bytes(pickle.dumps(columns, 2))
        labels = {"label_general": specific // 2, "label_specific": specific}
        (tmp_path / f"{part}_labels.pkl").write_bytes(pickle.dumps(labels, 2))
    return tmp_path


def test_pickles(pickles: Path) -> None:
    store = load("tiered_imagenet", pickles, image_size=10)
    assert store.images.shape == (14, 3, 10, 10)
    assert store.class_names[:4] == ("train/00/000", "train/00/001", "train/01/002", "val/00/000")
    assert [len(classes) for classes in store.splits.values()] == [3, 2, 2]
    for index, seed in ((0, 500), (1, 503), (4, 502), (13, 403)):
        assert np.array_equal(store.images[index], np.asarray(noise(seed))[:, 1:11].transpose(2, 0, 1)), index
    report = check(pickles)
    assert (report.kind, report.images, report.ok) == ("tiered-ImageNet", 14, True)


def test_lists_and_folders(tmp_path: Path) -> None:
    for part, count in CLASSES.items():
        for number in range(count):
            (tmp_path / part / f"n{number}{part}").mkdir(parents=True)
            noise(number).save(tmp_path / part / f"n{number}{part}" / "1.jpg", "PNG")
        roots = [f"/data/tiered/{part}/n{number}{part}" for number in reversed(range(count))]
        (tmp_path / f"{part}.json").write_text(json.dumps({"class_names": roots, "class_roots": roots}))
    store = load("tiered_imagenet", tmp_path, image_size=10)
    assert store.class_names[:4] == ("n0train", "n1train", "n2train", "n0val")
    assert np.array_equal(store.images[2], np.asarray(noise(2))[:, 1:11].transpose(2, 0, 1))
    (tmp_path / "val.json").unlink()
    with pytest.raises(HandfulError, match=r"does not hold {train,val,test}_images_png.pkl"):
        load("tiered_imagenet", tmp_path)


def test_what_is_missing_or_damaged(pickles: Path) -> None:
    def refuse(value: object, message: str) -> None:
        (pickles / "val_labels.pkl").write_bytes(pickle.dumps(value))
        with pytest.raises(HandfulError, match=message):
            load("tiered_imagenet", pickles)

    refuse({"label_general": [0] * 4, "label_specific": [0] * 4}, r"The val split of .* has 1 classes, 2 expected")
    refuse({"label_specific": [0] * 4}, r"val_images_png.pkl and val_labels.pkl do not fit together \(KeyError")
    refuse(
        {"label_general": [0], "label_specific": [0]}, r"do not fit together \(ValueError: 4 pictures for 1 labels\)"
    )
    refuse({"label_general": [0], "label_specific": [0] * 4}, r"do not fit together \(ValueError")
    refuse(np.zeros(4), r"do not fit together \(IndexError")
    refuse(Path("/"), r"val_labels.pkl is no pickle of plain data \(it asks for pathlib")
    (pickles / "val_labels.pkl").unlink()
    with pytest.raises(HandfulError, match=r"val_labels.pkl is missing"):
        load("tiered_imagenet", pickles)
    content = (pickles / "train_images_png.pkl").read_bytes()
    (pickles / "train_images_png.pkl").write_bytes(content.replace(b"IHDR", b"IDHR", 1))
    (pickles / "val_labels.pkl").write_bytes(
        pickle.dumps({"label_general": [0, 0, 0, 0], "label_specific": [0, 1, 0, 1]})
    )
    with pytest.raises(HandfulError, match=r"train_images_png.pkl\[0\] is no readable picture"):
        load("tiered_imagenet", pickles)
