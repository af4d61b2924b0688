from pathlib import Path

import numpy as np
import pytest

from handful.data import ImageStore, load, write_npy, write_store
from handful.errors import HandfulError


def test_omniglot_is_the_notes_array(omniglot_store: ImageStore, tmp_path: Path) -> None:
    array = np.load(write_npy(omniglot_store, tmp_path / "new" / "omniglot.npy"))
    assert array.shape == (1623, 20, 1, 28, 28)
    assert array.dtype == np.uint8
    assert array.nbytes == 25_448_640
    assert np.array_equal(array.reshape(-1, 1, 28, 28), 255 - np.asarray(omniglot_store.images))
    assert [path.name for path in (tmp_path / "new").iterdir()] == ["omniglot.npy"]


def test_other_stores_are_written_as_they_are(tmp_path: Path) -> None:
    write_npy(load("random"), tmp_path / "random.npy")
    assert np.array_equal(np.load(tmp_path / "random.npy").reshape(-1, 1, 28, 28), load("random").images)


def test_unbalanced_classes(tmp_path: Path) -> None:
    store = write_store(
        tmp_path / "toy",
        images=np.zeros((3, 1, 2, 2), np.uint8),
        labels=[0, 0, 1],
        image_shape=(1, 2, 2),
        class_names=["a", "b"],
        splits={},
        info={"name": "toy"},
    )
    with pytest.raises(HandfulError, match="'a' has 2 and 'b' has 1"):
        write_npy(store, tmp_path / "toy.npy")
    assert not (tmp_path / "toy.npy").exists()
