import pickle
from pathlib import Path

import numpy as np
import pytest

from handful.data import check, cifar_fs, load
from handful.errors import HandfulError

from .conftest import noise

CLASSES = {"train": 3, "val": 2, "test": 2}


@pytest.fixture(autouse=True)
def small(monkeypatch: pytest.MonkeyPatch) -> None:
    """Seven classes of four pictures."""
    monkeypatch.setattr(cifar_fs, "CLASSES", CLASSES)
    monkeypatch.setattr(cifar_fs, "IMAGES", 4)


@pytest.fixture
def folders(tmp_path: Path) -> Path:
    lists = tmp_path / "splits" / "bertinetto"
    lists.mkdir(parents=True)
    for part, count in CLASSES.items():
        names = [f"{part}_thing{number}" for number in range(count)]
        (lists / f"{part}.txt").write_text("\n".join(reversed(names)) + "\n")
        for name in names:
            (tmp_path / "data" / name).mkdir(parents=True)
            for number in range(4):
                seed = int.from_bytes(f"{name}{number}".encode()[-9:], "big")
                noise(seed, (32, 32)).save(tmp_path / "data" / name / f"{number}.png")
    (tmp_path / "data" / "unlisted").mkdir()
    return tmp_path


@pytest.fixture
def pickles(tmp_path: Path) -> Path:
    random = np.random.default_rng(0)
    for part, count in CLASSES.items():
        images = random.integers(0, 256, (4 * count, 32, 32, 3), dtype=np.uint8)
        held = {"data": images, "labels": np.tile(np.arange(count), 4).tolist()}
        (tmp_path / f"CIFAR_FS_{part}.pickle").write_bytes(pickle.dumps(held, 2))
    return tmp_path


def test_folders(folders: Path) -> None:
    store = load("cifar_fs", folders)
    assert store.images.shape == (28, 3, 32, 32)
    assert store.class_names[:4] == ("train_thing0", "train_thing1", "train_thing2", "val_thing0")
    assert [len(classes) for classes in store.splits.values()] == [3, 2, 2]
    seed = int.from_bytes(b"al_thing01"[-9:], "big")
    assert np.array_equal(store.images[13], np.asarray(noise(seed, (32, 32))).transpose(2, 0, 1))


def test_pickles(pickles: Path) -> None:
    store = load("cifar_fs", pickles)
    assert store.images.shape == (28, 3, 32, 32)
    assert store.class_names == ("train/00", "train/01", "train/02", "val/00", "val/01", "test/00", "test/01")
    held = pickle.loads((pickles / "CIFAR_FS_val.pickle").read_bytes())
    of_class_1 = [image.transpose(2, 0, 1) for image, label in zip(held["data"], held["labels"]) if label == 1]
    assert np.array_equal(store.images[16:20], np.stack(of_class_1))
    report = check(pickles)
    assert (report.kind, report.splits, report.ok) == ("CIFAR-FS", CLASSES, True)


def test_what_is_missing_or_damaged_in_folders(folders: Path) -> None:
    def refuse(message: str) -> None:
        with pytest.raises(HandfulError, match=message):
            load("cifar_fs", folders)

    (folders / "data" / "val_thing1" / "3.png").unlink()
    refuse(r"The class 'val_thing1' of .* has 3 pictures, 4 expected; docs/data.md says which files are expected")
    lists = folders / "splits" / "bertinetto"
    (lists / "test.txt").write_text("test_thing1\n")
    refuse(r"The test split of .* has 1 classes, 2 expected")
    (lists / "test.txt").write_text("test_thing1\ntest_thing9\n")
    refuse(r"data/test_thing9 is missing, a class of .*test.txt")
    (lists / "test.txt").unlink()
    refuse(r"test.txt is missing: it says which classes are in the test split")


def test_what_is_missing_or_damaged_in_pickles(pickles: Path) -> None:
    def refuse(value: object, message: str) -> None:
        (pickles / "CIFAR_FS_test.pickle").write_bytes(pickle.dumps(value))
        with pytest.raises(HandfulError, match=message):
            load("cifar_fs", pickles)

    images = np.zeros((8, 32, 32, 3), np.uint8)
    refuse({"data": images}, r"CIFAR_FS_test.pickle holds no data and labels \(KeyError: 'labels'\); docs")
    refuse(
        {"data": images, "labels": [1]}, r"holds uint8 \[8, 32, 32, 3\] for 1 labels, not uint8 \[n, h, w, 3\] for n"
    )
    refuse({"data": images / 255, "labels": [0] * 8}, r"holds float64 \[8, 32, 32, 3\] for 8 labels")
    refuse([images], r"CIFAR_FS_test.pickle holds no data and labels \(TypeError")
    refuse(images, r"CIFAR_FS_test.pickle holds no data and labels \(IndexError")
    refuse(Path("/"), r"CIFAR_FS_test.pickle is no pickle of plain data \(it asks for pathlib")
    (pickles / "CIFAR_FS_test.pickle").unlink()
    with pytest.raises(HandfulError, match=r"CIFAR_FS_test.pickle is missing"):
        load("cifar_fs", pickles)
