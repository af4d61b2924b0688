import os
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from handful.data import class_folders, folder, list_images, load, load_image
from handful.data.folders import split_by_seed
from handful.errors import HandfulError


def save(path: Path, size: tuple[int, int] = (20, 20), mode: str = "RGB", colour: Any = 100, **more: Any) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new(mode, size, colour).save(path, **more)
    return path


def test_ten_classes(photos: Path) -> None:
    store = folder(photos, image_size=16)
    assert store.images.shape == (30, 3, 16, 16)
    assert store.class_names == tuple(f"bird{index}" for index in range(10))
    assert (len(store.train), len(store.val), len(store.test)) == (6, 2, 2)
    assert np.array_equal(store.images[4], load_image(photos / "bird1" / "1.png", (3, 16, 16)))
    assert folder(photos, image_size=16, channels=1).images.shape == (30, 1, 16, 16)


def test_the_split_is_drawn_by_seed_and_written_down(photos: Path) -> None:
    def split(seed: int) -> dict[str, list[int]]:
        store = folder(photos, image_size=8, seed=seed, rebuild=True)
        assert f"seed {seed}" in store.info["split"]
        return {name: classes.tolist() for name, classes in store.splits.items()}

    assert split(0) == split(0) == {name: sorted(part) for name, part in split(0).items()}
    assert split(0) != split(1)
    assert sorted(index for part in split(1).values() for index in part) == list(range(10))


@pytest.mark.parametrize(
    ("classes", "sizes"),
    [(3, (1, 1, 1)), (4, (2, 1, 1)), (5, (3, 1, 1)), (25, (16, 4, 5)), (100, (64, 16, 20))],
)
def test_fractions(classes: int, sizes: tuple[int, int, int]) -> None:
    split = split_by_seed(classes, 0, (0.64, 0.16, 0.2), Path("x"))
    assert tuple(len(split[name]) for name in ("train", "val", "test")) == sizes


def test_every_split_keeps_a_class_whatever_the_fractions() -> None:
    split = split_by_seed(4, 0, (0.02, 0.49, 0.49), Path("x"))
    assert [len(split[name]) for name in ("train", "val", "test")] == [1, 2, 1]


def test_fractions_that_make_no_sense(photos: Path) -> None:
    with pytest.raises(HandfulError, match="three positive numbers that add up to 1, not"):
        folder(photos, fractions=(0.5, 0.5, 0.5))


def test_two_classes_cannot_be_split(tmp_path: Path) -> None:
    for name in ("cat", "dog"):
        save(tmp_path / "pets" / name / "1.png")
    with pytest.raises(HandfulError, match=r"pets holds 2 classes, .* needs 3 at least; .*`handful fit`"):
        folder(tmp_path / "pets")


def test_split_folders(tmp_path: Path) -> None:
    for part, name in (
        ("test", "wren"),
        ("train", "robin"),
        ("train", "owl"),
        ("Validation", "jay"),
        ("extra", "kea"),
    ):
        save(tmp_path / "birds" / part / name / "1.png")
    store = folder(tmp_path / "birds", image_size=8)
    assert store.class_names == ("owl", "robin", "jay", "wren")
    assert {name: part.tolist() for name, part in store.splits.items()} == {
        "train": [0, 1],
        "val": [2],
        "test": [3],
    }
    assert store.info["split"] == "folders"
    save(tmp_path / "birds" / "test" / "owl" / "1.png")
    with pytest.raises(HandfulError, match=r"The class 'owl' of .* lies in both train and test"):
        folder(tmp_path / "birds")
    save(tmp_path / "birds" / "valid" / "kite" / "1.png")
    with pytest.raises(HandfulError, match=r"Validation and .*valid are both the val split"):
        folder(tmp_path / "birds")


def test_a_split_without_validation_has_an_empty_one(tmp_path: Path) -> None:
    for part in ("train", "test"):
        save(tmp_path / part / f"{part} class" / "1.png")
    assert len(folder(tmp_path, image_size=8).val) == 0


def test_nested_empty_hidden_and_foreign_files(tmp_path: Path) -> None:
    root = tmp_path / "photos"
    save(root / "cat" / "2019" / "may" / "A.JPG")
    save(root / "cat" / "b.png")
    save(root / "cat" / "._b.png")
    save(root / "dog" / "c.JPeG")
    save(root / "__MACOSX" / "cat" / "d.png")
    save(root / ".thumbnails" / "e.png")
    (root / "dog" / "notes.txt").write_text("x")
    (root / "empty").mkdir()
    found = class_folders(root)
    assert {name: [path.name for path in paths] for name, paths in found.items()} == {
        "cat": ["A.JPG", "b.png"],
        "dog": ["c.JPeG"],
    }
    assert class_folders(tmp_path) == found  # a lone folder around the classes is stepped into
    assert [path.name for path in list_images(root)] == ["A.JPG", "b.png", "c.JPeG"]


def test_links_are_followed_and_circles_are_not(tmp_path: Path) -> None:
    save(tmp_path / "store" / "cat" / "1.png")
    (tmp_path / "photos").mkdir()
    os.symlink(tmp_path / "store" / "cat", tmp_path / "photos" / "cat")
    os.symlink(tmp_path / "store" / "cat", tmp_path / "store" / "cat" / "again")
    assert [len(paths) for paths in class_folders(tmp_path / "photos").values()] == [1]


def test_folders_that_are_no_data(tmp_path: Path) -> None:
    with pytest.raises(HandfulError, match=r"There is no folder .*nowhere"):
        class_folders(tmp_path / "nowhere")
    save(tmp_path / "loose" / "1.png")
    with pytest.raises(HandfulError, match=r"holds no class folders .*, also the 1 that lie there loose"):
        class_folders(tmp_path / "loose")
    (tmp_path / "phone" / "cat").mkdir(parents=True)
    (tmp_path / "phone" / "cat" / "IMG_1.HEIC").write_bytes(b"")
    with pytest.raises(HandfulError, match=r"NAME\.jpg\. Passed over: 1 file .* Convert HEIC pictures to JPEG first\."):
        class_folders(tmp_path / "phone")


def test_short_side_resized_and_centre_cropped(tmp_path: Path) -> None:
    pixels = np.zeros((20, 60, 3), np.uint8)
    pixels[:, 20:40] = 255
    Image.fromarray(pixels).save(tmp_path / "a.png")
    image = load_image(tmp_path / "a.png", (3, 10, 10))
    assert image.dtype == np.uint8
    assert image.shape == (3, 10, 10)
    assert image[:, :, 1:-1].min() > 200  # only the white middle third is left
    assert load_image(tmp_path / "a.png", (1, 5, 15)).shape == (1, 5, 15)


def test_exif_orientation(tmp_path: Path) -> None:
    pixels = np.zeros((40, 40, 3), np.uint8)
    pixels[:20] = 255
    exif = Image.Exif()
    exif[0x0112] = 6  # the camera was turned: rotate by 270 degrees to show
    Image.fromarray(pixels).save(tmp_path / "a.jpg", exif=exif, quality=95)
    Image.fromarray(np.rot90(pixels, -1).copy()).save(tmp_path / "b.png")
    turned = load_image(tmp_path / "a.jpg", (1, 10, 10)).astype(int)
    assert np.abs(turned - load_image(tmp_path / "b.png", (1, 10, 10))).max() < 20


def test_modes_of_pictures(tmp_path: Path) -> None:
    """Transparent is white, 16 bits keep their upper eight, palettes, CMYK and 1 bit are converted."""
    cases: list[tuple[str, str, Any, list[int]]] = [
        ("rgba.png", "RGBA", (255, 0, 0, 0), [255, 255, 255]),
        ("la.png", "LA", (0, 255), [0, 0, 0]),
        ("grey16.png", "I;16", 0x80FF, [128, 128, 128]),
        ("cmyk.jpg", "CMYK", (0, 0, 0, 0), [255, 255, 255]),
        ("bit.png", "1", 1, [255, 255, 255]),
        ("grey.jpg", "L", 50, [50, 50, 50]),
        ("rgb.webp", "RGB", (0, 0, 0), [0, 0, 0]),
    ]
    for name, mode, colour, expected in cases:
        path = save(tmp_path / name, mode=mode, colour=colour)
        assert load_image(path, (3, 4, 4))[:, 2, 2].tolist() == expected, name
        assert load_image(path, (1, 4, 4))[:, 2, 2].tolist() == expected[:1], name
    palette = Image.new("P", (9, 9), 0)
    palette.putpalette([10, 20, 30] * 256)
    palette.save(tmp_path / "p.png", transparency=bytes([0] * 256))
    assert load_image(tmp_path / "p.png", (3, 4, 4))[:, 0, 0].tolist() == [255, 255, 255]


def test_a_large_jpeg_is_what_it_would_be_without_the_short_cut(tmp_path: Path) -> None:
    ramp = np.linspace(0, 255, 800).astype(np.uint8)
    Image.fromarray(np.broadcast_to(ramp, (600, 800)).copy()).save(tmp_path / "a.jpg", quality=95)
    image = load_image(tmp_path / "a.jpg", (1, 30, 30)).astype(float)
    middle = ramp[100:700].reshape(30, 20).mean(1)
    assert np.abs(image[0] - middle).max() < 4


def write_bad(path: Path, kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    if kind == "text":
        path.write_text("no picture")
    elif kind == "empty":
        path.write_bytes(b"")
    elif kind == "truncated":
        Image.fromarray(np.random.default_rng(0).integers(0, 256, (64, 64), dtype=np.uint8)).save(path)
        path.write_bytes(path.read_bytes()[:2000])
    elif kind == "bomb":
        monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 5000)
        save(path, (200, 200))


@pytest.mark.parametrize("kind", ["text", "empty", "truncated", "bomb"])
def test_bad_pictures(photos: Path, kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    bad = photos / "bird3" / "9.png"
    write_bad(bad, kind, monkeypatch)
    with pytest.raises(HandfulError, match=r"bird3/9.png is no readable picture \(.+\); .*--skip-bad"):
        folder(photos, image_size=8)
    store = folder(photos, image_size=8, skip_bad=True)
    assert len(store.images) == 30
    assert store.info["skipped"] == [str(bad)]
    with pytest.raises(HandfulError, match="no readable picture"):  # the store without it is not the one asked for
        folder(photos, image_size=8)


def test_a_class_of_bad_pictures_is_left_out(photos: Path) -> None:
    for path in (photos / "bird3").iterdir():
        path.write_text("no picture")
    store = folder(photos, image_size=8, skip_bad=True)
    assert len(store.class_names) == 9
    assert len(store.info["skipped"]) == 3


def test_no_such_picture(tmp_path: Path) -> None:
    with pytest.raises(HandfulError, match=r"There is no picture .*a.png"):
        load_image(tmp_path / "a.png", (3, 8, 8))


@pytest.mark.parametrize(
    ("options", "message"), [({"channels": 2}, "channels must be 1"), ({"image_size": 0}, "at least 1")]
)
def test_shapes_that_cannot_be(photos: Path, options: dict[str, int], message: str) -> None:
    with pytest.raises(HandfulError, match=message):
        folder(photos, **options)


def test_defaults_are_one_store(photos: Path, cache: Path) -> None:
    assert load("folder", photos).digest == folder(photos, image_size=84, channels=3).digest
    assert len(list(cache.iterdir())) == 1
    shutil.copytree(photos, photos.parent / "elsewhere" / "photos")
    folder(photos.parent / "elsewhere" / "photos")
    assert len(list(cache.iterdir())) == 2


def test_real_photographs(real_data: Path, tmp_path: Path) -> None:
    source = real_data / "groceries" / "images"
    if not source.is_dir():
        pytest.skip(f"no groceries: {source} is absent")
    names = sorted(path.name for path in source.iterdir())[:6]
    for name in names:
        shutil.copytree(source / name, tmp_path / "shop" / name)
    store = folder(tmp_path / "shop", image_size=32)
    assert store.images.shape == (96, 3, 32, 32)
    assert 40 < store.images.mean() < 215


def test_numbers_whose_white_nobody_knows(tmp_path: Path) -> None:
    Image.fromarray(np.full((4, 4), 0.5, np.float32)).save(tmp_path / "floats.tiff")
    with pytest.raises(HandfulError, match=r"floats\.tiff is no readable picture \(its pixels are floats; save"):
        load_image(tmp_path / "floats.tiff", (1, 4, 4))
    Image.fromarray(np.full((4, 4), 200, np.int32)).save(tmp_path / "eight.tiff")
    assert load_image(tmp_path / "eight.tiff", (1, 4, 4))[0, 2, 2] == 200
    Image.fromarray(np.full((4, 4), 70_000, np.int32)).save(tmp_path / "more.tiff")
    with pytest.raises(HandfulError, match=r"its pixels go from 70000 to 70000; save it in 8 bits"):
        load_image(tmp_path / "more.tiff", (1, 4, 4))
