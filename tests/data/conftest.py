"""Fixtures of the data tests: every test has a cache folder of its own and no HANDFUL_DATA."""

import hashlib
import io
import zipfile
import zlib
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from handful.data import ImageStore, glyphs, mini_imagenet, omniglot, write_store
from handful.data.glyphs import Glyph
from handful.data.omniglot import Archive


@pytest.fixture(autouse=True)
def cache(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    monkeypatch.setenv("HANDFUL_CACHE", str(tmp_path / "cache"))
    monkeypatch.delenv("HANDFUL_DATA", raising=False)
    return tmp_path / "cache"


@pytest.fixture(scope="session")
def omniglot_source(real_data: Path) -> Path:
    folder = real_data / "omniglot"
    if len(omniglot.files(folder)) < 2:
        pytest.skip(f"no Omniglot: {folder} does not hold {omniglot.READER.expects}")
    return folder


@pytest.fixture(scope="session")
def mini_imagenet_source(real_data: Path) -> Path:
    folder = real_data / "mini_imagenet"
    if not mini_imagenet.files(folder):
        pytest.skip(f"no mini-ImageNet: {folder} does not hold {mini_imagenet.READER.expects}")
    return folder


@pytest.fixture(scope="session")
def omniglot_store(omniglot_source: Path, tmp_path_factory: pytest.TempPathFactory) -> ImageStore:
    target = tmp_path_factory.mktemp("stores") / "omniglot"
    return write_store(target, **omniglot.read(omniglot_source)._asdict())


@pytest.fixture(scope="session")
def glyphs_store(tmp_path_factory: pytest.TempPathFactory) -> ImageStore:
    return write_store(tmp_path_factory.mktemp("stores") / "glyphs", **glyphs.read()._asdict())


@pytest.fixture(scope="session")
def rendered() -> list[Glyph]:
    """Every character in every font, before equal shapes are left out."""
    return list(glyphs.render_all())


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    """Ten classes of three pictures, each class of one colour."""
    return make_photos(tmp_path / "photos", 10)


def make_photos(folder: Path, classes: int, images: int = 3) -> Path:
    random = np.random.default_rng(0)
    for index in range(classes):
        (folder / f"bird{index}").mkdir(parents=True)
        for number in range(images):
            pixels = random.integers(0, 256, (30 + number, 40, 3), dtype=np.uint8)
            Image.fromarray(pixels).save(folder / f"bird{index}" / f"{number}.png")
    return folder


@pytest.fixture
def tiny(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Two archives of one alphabet each, of two characters and of one; the cut is after the second."""
    monkeypatch.setattr(omniglot, "ARCHIVES", (Archive("a.zip", "", {"Greek": 2}), Archive("b.zip", "", {"ULOG": 1})))
    monkeypatch.setattr(omniglot, "TRAINVAL", 2)
    source = tmp_path / "omniglot"
    source.mkdir()
    greek = [f"a/Greek/character0{c}/{c}_{d:02}.png" for c in (1, 2) for d in range(20)]
    write_zip(source / "a.zip", greek)
    write_zip(source / "b.zip", [f"b/ULOG/character01/1_{d:02}.png" for d in range(20)])
    return source


def write_zip(path: Path, members: list[str], content: bytes | None = None) -> None:
    """Drawings that differ, or one content for all."""
    with zipfile.ZipFile(path, "w") as archive:
        for member in members:
            bits = np.random.default_rng(zlib.crc32(member.encode())).integers(0, 2, (105, 105)) > 0
            archive.writestr(member, content or encoded(Image.fromarray(bits), "PNG"))


def encoded(image: Image.Image, kind: str) -> bytes:
    """The bytes of a picture's file."""
    buffer = io.BytesIO()
    image.save(buffer, kind)
    return buffer.getvalue()


def noise(seed: int, size: tuple[int, int] = (12, 10)) -> Image.Image:
    """A small picture in colour that no other seed makes."""
    return Image.fromarray(np.random.default_rng(seed).integers(0, 256, (size[1], size[0], 3), dtype=np.uint8))


def digest_of(text: str) -> str:
    """The MD5 of the sorted lines of a list, without its header."""
    lines = sorted(f"{line}\n" for line in text.splitlines()[1:])
    return hashlib.md5("".join(lines).encode()).hexdigest()
