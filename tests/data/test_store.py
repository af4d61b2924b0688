import hashlib
import json
import os
import pickle
import sys
import tracemalloc
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from handful.data import store as store_module
from handful.data.store import ImageStore, has_room, open_store, write_store
from handful.episodes import EpisodeSampler
from handful.errors import HandfulError

AROUND_A_FAULT = 2**17  # bytes that a system may map around one that is asked for


def pixels(count: int, shape: tuple[int, int, int] = (1, 4, 4), seed: int = 0) -> NDArray[np.uint8]:
    return np.random.default_rng(seed).integers(0, 256, (count, *shape), dtype=np.uint8)


def write(folder: Path, images: Any = None, **changes: Any) -> ImageStore:
    contents: dict[str, Any] = {
        "images": pixels(6) if images is None else images,
        "labels": [0, 0, 1, 1, 2, 2],
        "image_shape": (1, 4, 4),
        "class_names": ["a", "b", "c"],
        "splits": {"train": [0], "val": [1], "test": [2]},
        "info": {"name": "toy"},
    }
    return write_store(folder, **{**contents, **changes})


def write_many(folder: Path, count: int) -> None:
    """Ten classes of images [1, 16, 16], all alike."""
    image = np.zeros((1, 16, 16), np.uint8)
    names, splits = list("abcdefghij"), {"train": range(6), "val": range(6, 8), "test": range(8, 10)}
    labels = np.repeat(np.arange(10), count // 10).tolist()
    write(folder, (image for _ in labels), labels=labels, image_shape=image.shape, class_names=names, splits=splits)


def resident(mapped: NDArray[np.uint8]) -> int:
    """Bytes of a mapped array that this process has in memory."""
    assert isinstance(mapped, np.memmap)
    found, address = {}, mapped.ctypes.data
    for line in Path("/proc/self/smaps").read_text().splitlines():
        words = line.split()
        if "-" in words[0] and not words[0].endswith(":"):
            start, end = (int(side, 16) for side in words[0].split("-"))
        elif words[0] == "Rss:" and start <= address < end:
            found[start] = 1024 * int(words[1])
    (size,) = found.values()
    return size


def test_what_was_written_is_read(tmp_path: Path) -> None:
    store = write(tmp_path / "toy")
    assert np.array_equal(store.images, pixels(6))
    assert store.labels.tolist() == [0, 0, 1, 1, 2, 2]
    assert store.class_names == ("a", "b", "c")
    assert store.image_shape == (1, 4, 4)
    assert store.name == "toy"
    assert store.digest == hashlib.sha256(store.labels.tobytes() + pixels(6).tobytes()).hexdigest()
    assert isinstance(store.images, np.memmap)
    assert sorted(path.name for path in (tmp_path / "toy").iterdir()) == [
        "images.npy",
        "labels.npy",
        "store.json",
    ]
    assert os.listdir(tmp_path) == ["toy"]


@pytest.mark.parametrize("rotations", [1, 4])
def test_rotated_classes_are_quarter_turns(tmp_path: Path, rotations: int) -> None:
    write(tmp_path / "toy")
    split = open_store(tmp_path / "toy", rotations).test
    assert len(split) == rotations
    for index in range(rotations):
        ids = split.starts[index] + np.arange(split.counts[index])
        assert np.array_equal(split.fetch(ids).numpy(), np.rot90(pixels(6)[4:], index, (-2, -1)))
        assert split.class_name(index) == "c" + ("", "/rot090", "/rot180", "/rot270")[index]


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="Linux says how much of a file is in memory")
def test_opening_reads_no_image_and_a_batch_reads_its_own(tmp_path: Path) -> None:
    write_many(tmp_path / "toy", 100_000)
    store = open_store(tmp_path / "toy")
    assert resident(store.images) == 0
    store.train.fetch(np.array([0, 30_000]))
    assert 0 < resident(store.images) <= 2 * AROUND_A_FAULT < store.images.nbytes / 10


def test_opening_a_store_and_beginning_to_train_take_no_memory_an_image(tmp_path: Path) -> None:
    peaks = []
    for count in (1_000, 100_000):
        write_many(tmp_path / str(count), count)
        tracemalloc.start()
        store = open_store(tmp_path / str(count))
        EpisodeSampler(store.train, way=5, shot=1, query=5).episodes(0, 4)
        peaks.append(tracemalloc.get_traced_memory()[1])
        tracemalloc.stop()
    assert abs(peaks[1] - peaks[0]) < 10_000  # an array of one byte an image would be 99,000


def test_another_process_is_sent_the_name_of_what_is_mapped(tmp_path: Path) -> None:
    sizes = []
    for count in (1_000, 100_000):
        write_many(tmp_path / str(count), count)
        sent = pickle.dumps(open_store(tmp_path / str(count)))
        sizes.append(len(sent))
        store = pickle.loads(sent)
        assert isinstance(store.images, np.memmap)
        assert np.array_equal(store.images, open_store(tmp_path / str(count)).images)
        assert store.train.counts.tolist() == [count // 10] * 6
    assert abs(sizes[1] - sizes[0]) < 100
    write_many(tmp_path / "100000", 1_000)
    with pytest.raises(HandfulError, match=r"images\.npy was replaced while it was in use"):
        pickle.loads(sent)


def test_arrays_that_no_file_holds_are_sent_whole(tmp_path: Path) -> None:
    store = write(tmp_path / "toy")
    part = replace(store, images=store.images[1:], labels=store.labels[1:].copy())
    again = pickle.loads(pickle.dumps(part))
    assert np.array_equal(again.images, pixels(6)[1:])
    assert again.labels.tolist() == [0, 1, 1, 2, 2]


@pytest.mark.parametrize("rotations", [1, 4])
def test_ids_and_classes_by_place(tmp_path: Path, rotations: int) -> None:
    labels = [0, 0, 0, 2, 3, 3]  # and of class 1 no image
    splits = {"train": [3, 1, 0], "val": [2], "test": [4]}
    write(tmp_path / "toy", labels=labels, class_names=list("abcde"), splits=splits)
    split = open_store(tmp_path / "toy", rotations).train
    ids, classes = split.at(np.arange(split.size))
    assert ids.tolist() == split.ids.tolist()
    assert classes.tolist() == split.labels.tolist()
    assert split.size == 5 * rotations


def test_an_interrupted_write_leaves_the_old_store(tmp_path: Path) -> None:
    old = write(tmp_path / "toy")

    def stops() -> Iterator[NDArray[np.uint8]]:
        yield pixels(1)[0]
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        write(tmp_path / "toy", stops())
    assert open_store(tmp_path / "toy").digest == old.digest
    assert os.listdir(tmp_path) == ["toy"]


def test_a_new_store_replaces_the_old_one_which_open_views_keep(tmp_path: Path) -> None:
    old = write(tmp_path / "toy")
    new = write(tmp_path / "toy", pixels(6, seed=1))
    assert open_store(tmp_path / "toy").digest == new.digest
    assert np.array_equal(old.images, pixels(6))
    assert os.listdir(tmp_path) == ["toy"]


def test_many_writers_and_readers_of_one_store_do_not_break_each_other(tmp_path: Path) -> None:
    write(tmp_path / "toy")
    digests = {write(tmp_path / f"toy{seed}", pixels(6, seed=seed)).digest for seed in range(8)}

    def work(seed: int) -> str:
        return write(tmp_path / "toy", pixels(6, seed=seed % 8)).digest

    with ThreadPoolExecutor(8) as pool:
        assert set(pool.map(work, range(64))) <= digests
    assert not [name for name in os.listdir(tmp_path) if name.startswith(".")]


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"labels": [0, 1, 0, 1, 2, 2]}, "ascend"),
        ({"labels": [0, 0, 1]}, "6 images for 3 labels"),
        ({"labels": [0] * 7}, "6 images for 7 labels"),
        ({"image_shape": (1, 5, 5)}, r"image 0 is uint8 \(1, 4, 4\), not uint8 \(1, 5, 5\)"),
    ],
)
def test_mistakes_of_a_reader_are_refused(tmp_path: Path, changes: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        write(tmp_path / "toy", **changes)
    assert os.listdir(tmp_path) == []


def test_no_images(tmp_path: Path) -> None:
    with pytest.raises(HandfulError, match="'toy' holds no image"):
        write(tmp_path / "toy", labels=[])


def test_a_class_in_two_splits(tmp_path: Path) -> None:
    with pytest.raises(HandfulError, match="Class 'b' is in the splits 'train' and 'test'"):
        write(tmp_path / "toy", splits={"train": [0, 1], "test": [1, 2]})


def test_a_place_that_cannot_be_written(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(HandfulError, match=r"toy cannot be written in .*file \(.+\); set HANDFUL_CACHE to another"):
        write(tmp_path / "file" / "toy")


@pytest.mark.parametrize("name", ["images.npy", "labels.npy", "store.json"])
def test_truncated_and_missing_files(tmp_path: Path, name: str) -> None:
    write(tmp_path / "toy")
    file = tmp_path / "toy" / name
    file.write_bytes(file.read_bytes()[:-20])
    with pytest.raises(HandfulError, match=r"is damaged .* build it anew with `handful data build`"):
        open_store(tmp_path / "toy")
    file.unlink()
    with pytest.raises(HandfulError, match=f"is not a store: {name} is missing"):
        open_store(tmp_path / "toy")


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"digest": None}, "another version"),
        ({"class_names": ["a", "b"]}, "its labels are not those of 2 classes in ascending order"),
        ({"splits": []}, "another version"),
        ({"splits": {"train": [0, 3]}}, "a split has a class beyond the 3"),
        ({"splits": {"train": [0.5]}}, "another version"),
        ({"info": {}}, "another version"),
        ({"info": {"name": "toy", "options": 3}}, "another version"),
    ],
)
def test_a_record_that_was_changed(tmp_path: Path, changes: dict[str, Any], message: str) -> None:
    write(tmp_path / "toy")
    file = tmp_path / "toy" / "store.json"
    file.write_text(json.dumps({**json.loads(file.read_text()), **changes}))
    with pytest.raises(HandfulError, match=rf"The store .* is damaged .*{message}.*; build it anew"):
        open_store(tmp_path / "toy")


@pytest.mark.parametrize(
    ("name", "array", "message"),
    [
        ("images.npy", pixels(6)[:, 0], r"images.npy holds uint8 \[6, 4, 4\]"),
        ("images.npy", pixels(6).astype(np.float32), r"images.npy holds float32"),
        ("images.npy", pixels(5), r"labels.npy holds int64 \[6\] for 5 images"),
        ("labels.npy", np.arange(6.0), r"labels.npy holds float64"),
        ("labels.npy", np.array([0, 0, 2, 1, 2, 2]), "ascending"),
        ("labels.npy", np.array([0, 0, 1, 1, 2, 3]), "its labels are not those of 3 classes"),
        ("labels.npy", np.array([-1, 0, 1, 1, 2, 2]), "its labels are not those of 3 classes"),
    ],
)
def test_arrays_that_do_not_fit(tmp_path: Path, name: str, array: np.ndarray, message: str) -> None:
    write(tmp_path / "toy")
    np.save(tmp_path / "toy" / name, array)
    with pytest.raises(HandfulError, match=rf"is damaged \(.*{message}"):
        open_store(tmp_path / "toy")


def test_a_store_of_another_format(tmp_path: Path) -> None:
    write(tmp_path / "toy")
    file = tmp_path / "toy" / "store.json"
    file.write_text(json.dumps({**json.loads(file.read_text()), "format": 99}))
    with pytest.raises(HandfulError, match="another version"):
        open_store(tmp_path / "toy")


def test_rotations_that_cannot_be(tmp_path: Path) -> None:
    write(tmp_path / "toy")
    with pytest.raises(HandfulError, match="rotations must be 1 or 4, not 2"):
        open_store(tmp_path / "toy", 2)
    write(tmp_path / "wide", pixels(6, (1, 4, 6)), image_shape=(1, 4, 6))
    with pytest.raises(HandfulError, match="rotations=4 needs square images"):
        open_store(tmp_path / "wide", 4)


@pytest.mark.parametrize("rotations", [1, 4])
def test_a_device_with_room_holds_the_store_once_and_gathers_the_same(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, rotations: int
) -> None:
    write(tmp_path / "toy")
    store = open_store(tmp_path / "toy", rotations)
    ids = np.array([[5, 0, 0], [6 * rotations - 1, 2, 4]])
    plain = store.train.fetch(ids)
    assert store._resident == {store_module.CPU: None}
    monkeypatch.setattr(store_module, "has_room", lambda device, size: size == 6 * 16)
    monkeypatch.setattr(store_module, "UPLOADED_AT_ONCE", 4)  # less than the store, and no divisor of it
    store._resident.clear()
    assert torch.equal(store.train.fetch(ids), plain)
    held = store._resident[store_module.CPU]
    assert held is not None
    assert torch.equal(store.val.fetch(ids), plain)
    assert store._resident[store_module.CPU] is held  # nothing is sent again
    store.train.fetch(ids).zero_()
    assert torch.equal(store.train.fetch(ids), plain)  # what is fetched is a copy


def test_images_are_on_the_device_that_is_asked_for(tmp_path: Path) -> None:
    split = write(tmp_path / "toy").test
    meta = split.fetch(np.array([[1, 2]]), torch.device("meta"))
    assert (meta.device.type, meta.shape, meta.dtype) == ("meta", (1, 2, 1, 4, 4), torch.uint8)
    turned = open_store(tmp_path / "toy", 4).test.fetch(np.array([23, 5]), torch.device("meta"))
    assert turned.shape == (2, 1, 4, 4)


def test_room_is_half_of_what_is_free_on_a_gpu_and_none_on_a_cpu(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda device: (1000, 9000))
    cuda = torch.device("cuda", 0)
    assert (has_room(cuda, 500), has_room(cuda, 501), has_room(torch.device("cpu"), 1)) == (True, False, False)


def test_unknown_split(tmp_path: Path) -> None:
    with pytest.raises(HandfulError, match="no split 'tests'; did you mean 'test'"):
        write(tmp_path / "toy").split("tests")
