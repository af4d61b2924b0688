"""Views of a picture, against Pillow's own cropping."""

from __future__ import annotations

import zipfile
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageOps

from handful.data.pictures import WHOLE, Picture, View, archive_members, box_of, decode, decode_views
from handful.errors import HandfulError

BICUBIC = Image.Resampling.BICUBIC


def picture(width: int, height: int, seed: int = 0) -> tuple[Image.Image, Picture]:
    pixels = np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8)
    return Image.fromarray(pixels), Picture("a", "", "", lambda: pixels)


@pytest.mark.parametrize("size", [(40, 30), (31, 77), (7, 7), (5, 200)])
@pytest.mark.parametrize("wanted", [(16, 16), (9, 24), (50, 11)])
def test_the_whole_is_what_pillow_fits(size: tuple[int, int], wanted: tuple[int, int]) -> None:
    image, given = picture(*size)
    found = decode(given, (3, wanted[1], wanted[0]), "x")
    assert np.array_equal(found.transpose(1, 2, 0), np.asarray(ImageOps.fit(image, wanted, BICUBIC)))


def test_views_are_parts_of_the_whole() -> None:
    """A 40x20 picture for square images: its middle 20x20 counts."""
    image, given = picture(40, 20)
    corner, middle, mirrored = View(0.5, 0, 0), View(0.6), View(0.5, 1, 1, mirrored=True)
    assert box_of(corner, (40, 20), (8, 8)) == (10, 0, 20, 10)
    assert box_of(middle, (40, 20), (8, 8)) == pytest.approx((14, 4, 26, 16))
    assert box_of(mirrored, (40, 20), (8, 8)) == (20, 10, 30, 20)
    found = decode_views(given, (3, 8, 8), "x", [WHOLE, corner, middle, mirrored])
    assert np.array_equal(found[0], decode(given, (3, 8, 8), "x"))
    for seen, box in zip(found[1:3], ((10, 0, 20, 10), (14, 4, 26, 16))):
        assert np.array_equal(seen.transpose(1, 2, 0), np.asarray(image.resize((8, 8), BICUBIC, box)))
    last = image.resize((8, 8), BICUBIC, (20, 10, 30, 20))
    assert np.array_equal(found[3].transpose(1, 2, 0), np.asarray(ImageOps.mirror(last)))


def test_a_bomb_in_an_archive_is_refused_before_it_is_unpacked(tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "a.zip", "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("small.png", b"a")
        with archive.open("huge.png", "w", force_zip64=True) as member:
            for _ in range(257):
                member.write(bytes(2**20))
    assert (tmp_path / "a.zip").stat().st_size < 2**20
    with pytest.raises(HandfulError, match=r"huge.png in .* unpacks to 257 MiB, more than a picture has \(256\); x"):
        archive_members(tmp_path / "a.zip", "x")


def test_of_an_animation_the_first_picture_counts(tmp_path: Path) -> None:
    frames = [Image.new("RGB", (20, 20), colour) for colour in ("red", "blue")]
    for name in ("a.gif", "a.webp", "a.png"):
        frames[0].save(tmp_path / name, save_all=True, append_images=frames[1:], lossless=True)
        seen = decode(Picture(name, "", "", (tmp_path / name).read_bytes), (3, 8, 8), "mend it")
        assert seen[:, 4, 4].tolist() == [255, 0, 0]


def test_no_format_is_read_whose_decoder_starts_another_program() -> None:
    page = b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n%%EndComments\nshowpage\n"
    with pytest.raises(HandfulError, match=r"a is no readable picture \(of no known format"):
        decode(Picture("a", "", "", lambda: page), (3, 8, 8), "mend it")


@pytest.mark.parametrize(("offset", "value"), [(6, 0xFFFF), (46, 0xFFFF)])
def test_an_archive_with_a_damaged_header(tmp_path: Path, offset: int, value: int) -> None:
    with zipfile.ZipFile(tmp_path / "a.zip", "w") as archive:
        archive.writestr("é.png", b"a")
    content = bytearray((tmp_path / "a.zip").read_bytes())
    entry = content.rindex(b"PK\x01\x02") + offset
    content[entry : entry + 2] = value.to_bytes(2, "little")
    (tmp_path / "a.zip").write_bytes(content)
    with pytest.raises(HandfulError, match=r"a\.zip is no whole zip archive .*; x"):
        archive_members(tmp_path / "a.zip", "x")
