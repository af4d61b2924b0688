import io
import shutil
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

import handful as hf
from handful.data import ImageStore, build, load, omniglot, open_store
from handful.episodes import EpisodeSampler
from handful.errors import HandfulError
from handful.model import Model

from .conftest import write_zip


def test_counts_and_splits(omniglot_store: ImageStore) -> None:
    store = omniglot_store
    assert store.images.shape == (32460, 1, 28, 28)
    assert (np.bincount(store.labels) == 20).all()
    assert (len(store.train), len(store.val), len(store.test)) == (1028, 172, 423)
    assert len({name.split("/")[0] for name in store.class_names}) == 50


def test_split_is_the_one_of_vinyals_and_snell(omniglot_store: ImageStore) -> None:
    store = omniglot_store
    first = set(store.splits["train"].tolist()) | set(store.splits["val"].tolist())
    assert first == set(range(1200))
    assert store.splits["test"].tolist() == list(range(1200, 1623))
    assert {store.class_names[c].split("/")[0] for c in store.splits["val"]} == set(omniglot.VAL_ALPHABETS)
    # The cut falls inside Gurmukhi.
    assert store.class_names[1199:1201] == ("Gurmukhi/character41", "Gurmukhi/character42")
    assert store.class_names[0] == "Alphabet_of_the_Magi/character01"
    assert store.class_names[964] == "Angelic/character01"


def test_store_is_the_notes_array_inverted(omniglot_store: ImageStore, omniglot_source: Path) -> None:
    """`img.convert('L').resize((28, 28))` of note 002, on characters of both archives."""
    for archive, index in (("images_background", 0), ("images_background", 963), ("images_evaluation", 1622)):
        with zipfile.ZipFile(omniglot_source / f"{archive}.zip") as opened:
            prefix = f"{archive}/{omniglot_store.class_names[index]}/"
            members = sorted(name for name in opened.namelist() if name.startswith(prefix))
            assert len(members) == 20
            for number, member in enumerate(members):
                with Image.open(io.BytesIO(opened.read(member))) as image:
                    notes = np.array(image.convert("L").resize((28, 28)))
                assert np.array_equal(255 - omniglot_store.images[20 * index + number, 0], notes)


def test_ink_is_bright_and_has_greys(omniglot_store: ImageStore) -> None:
    some = omniglot_store.images[::100]
    assert np.median(some) == 0
    assert some.max() == 255
    assert len(np.unique(some)) > 60


def test_rotations(omniglot_store: ImageStore) -> None:
    assert isinstance(omniglot_store.images, np.memmap)
    store = open_store(Path(str(omniglot_store.images.filename)).parent, rotations=4)
    assert (len(store.train), len(store.val), len(store.test)) == (4112, 688, 1692)
    for turn in range(4):
        index = turn * 423 + 7
        assert store.test.class_name(index) == store.class_names[1207] + ("", "/rot090", "/rot180", "/rot270")[turn]
        ids = store.test.starts[index] + np.arange(20)
        turned = np.rot90(store.images[1207 * 20 : 1208 * 20], turn, (-2, -1))
        assert np.array_equal(store.test.fetch(ids).numpy(), turned)


def test_a_missing_archive(tmp_path: Path) -> None:
    (tmp_path / "images_evaluation.zip").write_bytes(b"")
    with pytest.raises(HandfulError, match=r"images_background.zip is missing; get it from https://\S+ or .*download"):
        omniglot.read(tmp_path)


def test_a_truncated_archive(tmp_path: Path, omniglot_source: Path) -> None:
    whole = (omniglot_source / "images_background.zip").read_bytes()
    (tmp_path / "images_background.zip").write_bytes(whole[: len(whole) // 2])
    with pytest.raises(HandfulError, match=r"images_background.zip is no whole zip archive .*--download"):
        omniglot.read(tmp_path)


def test_what_else_is_in_an_archive_is_passed_over(tiny: Path) -> None:
    with zipfile.ZipFile(tiny / "a.zip", "a") as archive:
        archive.writestr("a/", "")
        archive.writestr("a/Greek/.DS_Store", "x")
        archive.writestr("__MACOSX/a/Greek/character01/._1_00.png", "x")
    assert load("omniglot", tiny).class_names == (
        "Greek/character01",
        "Greek/character02",
        "ULOG/character01",
    )


def test_an_alphabet_too_small(tiny: Path) -> None:
    write_zip(tiny / "a.zip", [f"a/Greek/character01/1_{d:02}.png" for d in range(20)])
    with pytest.raises(HandfulError, match=r"The alphabet 'Greek' has 1 characters in .*a.zip, 2 expected"):
        omniglot.read(tiny)


def test_a_foreign_alphabet(tiny: Path) -> None:
    shutil.copy(tiny / "a.zip", tiny / "b.zip")
    with pytest.raises(HandfulError, match=r"The alphabet 'Greek' has 2 characters in .*b.zip, 0 expected"):
        omniglot.read(tiny)


def test_a_character_with_a_drawing_missing(tiny: Path) -> None:
    write_zip(tiny / "b.zip", [f"b/ULOG/character01/1_{d:02}.png" for d in range(19)])
    with pytest.raises(HandfulError, match=r"'ULOG/character01' has 19 drawings in .*b.zip, 20 expected"):
        omniglot.read(tiny)


def test_a_drawing_that_is_none(tiny: Path, cache: Path) -> None:
    write_zip(tiny / "b.zip", [f"b/ULOG/character01/1_{d:02}.png" for d in range(20)], b"no picture")
    with pytest.raises(HandfulError, match=r"b/ULOG/character01/1_00.png in .*b.zip cannot be decoded .*--download"):
        load("omniglot", tiny)
    assert list(cache.iterdir()) == []


def test_damaged_bytes_in_an_archive(tiny: Path) -> None:
    path = tiny / "b.zip"
    content = bytearray(path.read_bytes())
    content[100:110] = b"0123456789"
    path.write_bytes(content)
    with pytest.raises(HandfulError, match=r"1_00.png in .*b.zip cannot be decoded \(Bad CRC-32"):
        build("omniglot", tiny)


def test_other_sizes_are_other_stores(tiny: Path) -> None:
    assert load("omniglot", tiny, image_size=105).image_shape == (1, 105, 105)
    assert load("omniglot", tiny).image_shape == (1, 28, 28)
    assert load("omniglot", tiny, image_size=28).image_shape == (1, 28, 28)


@pytest.mark.parametrize("method", [hf.methods.MAML, hf.methods.ProtoNet])
def test_fit_and_predict_through_files_are_evaluate(
    method: Any, omniglot_store: ImageStore, omniglot_source: Path, tmp_path: Path
) -> None:
    """Tasks of characters never seen, whose drawings are taken from the archive and lie in class folders."""
    tasks, query = 3, 4
    backbone = hf.backbones.conv4(channels=16, downsample="stride", pooling="mean", input_shape=(1, 28, 28))
    short: dict[str, Any] = {
        "steps": 2,
        "tasks_per_step": 2,
        "validation_tasks": 2,
        "evaluate": {"tasks": 2},
        "quiet": True,
    }
    run = hf.train(method(backbone), omniglot_store, way=5, shot=1, query=query, out=tmp_path / "run", **short)
    expected = hf.evaluate(run, omniglot_store.test, query=query, tasks=tasks, seed=3, inductive=True).per_task

    drawn = EpisodeSampler(omniglot_store.test, 5, 1, query, seed=3).indices(0, tasks)
    path = omniglot_source / "images_evaluation.zip"
    table = omniglot.drawings(path)
    found = []
    with zipfile.ZipFile(path) as archive:
        for task in range(tasks):
            for part, ids in (("support", drawn.support[task]), ("new", drawn.query[task])):
                for place, images in enumerate(ids):
                    alphabet, character = omniglot_store.class_names[omniglot_store.labels[images[0]]].split("/")
                    # An adapted network has an output a class: folders are numbered to be in the order of the task.
                    folder = tmp_path / str(task) / part / f"{place} {alphabet} {character}"
                    folder.mkdir(parents=True)
                    for image in images:
                        member = table[alphabet, character][image % 20]
                        (folder / Path(member).name).write_bytes(archive.read(member))
            hf.fit(tmp_path / str(task) / "support", run=run).save(tmp_path / "model")
            answers = Model.load(tmp_path / "model").predict(tmp_path / str(task) / "new")
            found.append(np.mean([Path(answer.input).parent.name == answer.label for answer in answers]))
    assert found == pytest.approx(expected)
