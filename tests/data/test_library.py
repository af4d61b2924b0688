import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
from PIL import Image

from handful.data import READERS, cache_dir, folder, load
from handful.errors import HandfulError


@pytest.fixture
def source(photos: Path) -> Path:
    return photos


def built(cache: Path) -> dict[str, int]:
    return {path.name: (path / "store.json").stat().st_mtime_ns for path in cache.iterdir()}


def test_every_reader_says_what_it_is() -> None:
    photographs = ["mini_imagenet", "tiered_imagenet", "cifar_fs", "cub"]
    assert list(READERS) == ["glyphs", "omniglot", *photographs, "folder", "random"]
    for reader in READERS.values():
        assert reader.about
        assert bool(reader.files) == bool(reader.expects) == bool(reader.survey)


@pytest.mark.parametrize("name", ["mini_imagenet", "tiered_imagenet", "cifar_fs", "cub"])
def test_published_photographs_without_a_source(name: str, tmp_path: Path) -> None:
    expects = re.escape(READERS[name].expects)
    with pytest.raises(
        HandfulError, match=f"'{name}' was not built yet: name the folder that holds {expects}, by --so"
    ):
        load(name)
    with pytest.raises(HandfulError, match=f"does not hold {expects}: name the folder that does"):
        load(name, tmp_path)


def test_unknown_names() -> None:
    with pytest.raises(HandfulError, match="no data set 'omniglott'; did you mean 'omniglot'"):
        load("omniglott")


@pytest.mark.parametrize(
    ("name", "options", "message"),
    [
        (
            "glyphs",
            {"rotations": 4},
            r"'glyphs' does not take rotations; leave it out \(it takes no options\)",
        ),
        ("glyphs", {"seed": 3}, "does not take seed"),
        (
            "omniglot",
            {"channels": 3},
            r"does not take channels; leave it out \(it takes rotations, image_size\)",
        ),
        ("random", {"skip_bad": True}, "does not take skip_bad"),
        ("omniglot", {"classes": 3}, "does not take classes"),
        ("mini_imagenet", {"split": "frn"}, r"does not take split; leave it out \(it takes image_size, classes\)"),
        ("cifar_fs", {"cropped": True}, "does not take cropped"),
    ],
)
def test_options_are_refused_and_not_ignored(name: str, options: dict[str, int], message: str) -> None:
    with pytest.raises(HandfulError, match=message):
        load(name, **options)  # type: ignore[call-overload]


def test_no_source_and_no_store() -> None:
    with pytest.raises(
        HandfulError,
        match=r"'omniglot' was not built yet: .*images_background.zip and images_evaluation.zip, by "
        r"--source .*, by data.root .*HANDFUL_DATA, or fetch it: `handful data build omniglot --download`",
    ):
        load("omniglot")
    with pytest.raises(HandfulError, match="There is no folder nowhere: name the folder that holds class folders"):
        folder("nowhere")


def test_a_root_without_the_source(tmp_path: Path) -> None:
    with pytest.raises(HandfulError, match=r"does not hold images_background.zip"):
        load("omniglot", tmp_path)


def test_a_store_is_built_once_and_again_when_the_source_changes(source: Path, cache: Path) -> None:
    folder(source, image_size=8)
    first = built(cache)
    folder(source, image_size=8)
    assert built(cache) == first
    os.utime(source / "bird0" / "0.png", ns=(0, 0))
    folder(source, image_size=8)
    assert built(cache).keys() == first.keys()
    assert built(cache) != first
    Image.new("RGB", (9, 9)).save(source / "bird0" / "new.png")
    assert len(folder(source, image_size=8).images) == 31


def test_sources_are_found_in_and_below_root_and_in_the_environment(
    source: Path, cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    data = source.parent / "data"
    data.mkdir()
    source.rename(data / "folder")
    first = load("folder", data / "folder")
    monkeypatch.setenv("HANDFUL_DATA", str(data))
    assert load("folder").digest == first.digest
    assert len(built(cache)) == 1


def test_a_store_is_opened_without_its_source(omniglot_source: Path, tmp_path: Path, cache: Path) -> None:
    """The store of a session serves where the archives are not at hand, and a damaged one is told."""
    here = load("omniglot", omniglot_source.parent)
    again = load("omniglot", rotations=4)
    assert (again.digest, again.rotations) == (here.digest, 4)
    (cache / "omniglot" / "labels.npy").write_bytes(b"")
    with pytest.raises(HandfulError, match="is damaged"):
        load("omniglot")
    with pytest.raises(HandfulError, match="was not built yet"):
        load("omniglot", rebuild=True)


def test_a_damaged_store_is_built_anew_from_its_source(source: Path, cache: Path) -> None:
    digest = folder(source, image_size=8).digest
    (file,) = cache.glob("*/images.npy")
    file.write_bytes(file.read_bytes()[:500])
    assert folder(source, image_size=8).digest == digest


def test_a_store_says_where_it_came_from(source: Path) -> None:
    info = folder(source, image_size=8, seed=2).info
    assert info["name"] == "folder"
    assert info["source"] == str(source)
    assert info["options"] == {"image_size": 8, "seed": 2}
    json.dumps(info)


def test_cache_dir(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    assert cache_dir() == tmp_path / "cache"
    monkeypatch.delenv("HANDFUL_CACHE")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert cache_dir() == tmp_path / "handful"
    monkeypatch.delenv("XDG_CACHE_HOME")
    monkeypatch.setenv("HOME", str(tmp_path))
    assert cache_dir() == tmp_path / ".cache" / "handful"


def test_importing_is_cheap() -> None:
    code = "import sys, handful.data; print([m for m in ('matplotlib', 'fontTools') if m in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


@pytest.mark.parametrize("root", ["~nobody/x", "a" * 5000, "a\0b"])
def test_a_root_that_no_folder_can_have(root: str) -> None:
    for name in ("folder", "omniglot", "rails", "video_folder"):
        with pytest.raises(HandfulError, match="folder"):
            load(name, root)
