"""What a person may call a picture."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from handful.data.pictures import decode
from handful.errors import HandfulError
from handful.model.inputs import batches, pictures

SHAPE = (3, 6, 8)


def test_files_images_arrays_and_tensors_are_the_same_picture(tmp_path: Path) -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (6, 8, 3), dtype=np.uint8)
    image = Image.fromarray(pixels)
    image.save(tmp_path / "a.png")
    chw = torch.from_numpy(pixels).permute(2, 0, 1)
    given: list[Any] = [tmp_path / "a.png", str(tmp_path / "a.png"), image, pixels, pixels / 255, chw, chw / 255]
    found = pictures(given)
    assert [picture.name for picture in found] == [
        *[str(tmp_path / "a.png")] * 2,
        *(f"picture {index}" for index in range(2, 7)),
    ]
    for picture in found:
        assert np.array_equal(decode(picture, SHAPE, "x"), chw.numpy())
    assert np.array_equal(np.asarray(image), pixels)  # the image is left as it was


def test_one_picture_may_stand_alone(tmp_path: Path) -> None:
    Image.new("L", (4, 4)).save(tmp_path / "a.png")
    alone: list[Any] = [tmp_path / "a.png", str(tmp_path / "a.png"), Image.new("L", (4, 4))]
    alone += [np.zeros((4, 4)), np.zeros((4, 4, 3), np.uint8), torch.zeros(3, 4, 4)]
    for given in alone:
        assert len(pictures(given)) == 1
    for several in (np.zeros((2, 4, 4, 3)), torch.zeros(2, 3, 4, 4), np.array([str(tmp_path / "a.png")] * 2)):
        assert len(pictures(several)) == 2


def test_grey_boolean_and_transparent_arrays() -> None:
    grey = np.arange(48, dtype=np.uint8).reshape(6, 8)
    clear = np.zeros((6, 8, 4), np.uint8)
    for given, expected in ((grey, grey), (grey[..., None], grey), (grey > 9, 255 * (grey > 9)), (clear, 255)):
        (picture,) = pictures([given])
        assert np.array_equal(decode(picture, SHAPE, "x"), np.broadcast_to(expected, SHAPE))


def test_a_folder_is_its_pictures_in_order(tmp_path: Path) -> None:
    for name in ("b/2.png", "a.png", "b/1.png"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        Image.new("L", (3, 3)).save(tmp_path / name)
    found = pictures([tmp_path])
    assert [Path(picture.name).name for picture in found] == ["a.png", "1.png", "2.png"]


@pytest.mark.parametrize(
    ("given", "message"),
    [
        (["nowhere.png"], r"There is no picture or folder nowhere\.png\."),
        ([3], r"picture 0 is of type int; give a path, a PIL image"),
        ([np.zeros(5)], r"picture 0 has the shape \[5\]; arrays are \[H, W\] or \[H, W, C\], with 1, 3 or 4"),
        ([np.zeros((3, 8, 8))], r"the shape \[3, 8, 8\]; arrays"),
        ([torch.zeros(8, 8, 3)], r"the shape \[8, 8, 3\]; tensors are \[C, H, W\]"),
        ([np.zeros((0, 8))], r"the shape \[0, 8\]"),
        ([np.full((4, 4), 2.0)], r"holds float64 from 2 to 2; give uint8, or floats in"),
        ([np.full((4, 4), np.nan)], "holds float64 from nan"),
        ([np.full((4, 4), -1)], "holds int64 from -1 to -1"),
    ],
)
def test_what_is_no_picture_is_refused(given: list[Any], message: str) -> None:
    with pytest.raises(HandfulError, match=message):
        pictures(given)


def test_a_folder_of_pictures_that_nothing_here_reads(tmp_path: Path) -> None:
    (tmp_path / "IMG_1.HEIC").write_bytes(b"")
    with pytest.raises(HandfulError, match=r"holds no pictures\. Passed over: 1 file .* Convert HEIC pictures to JPEG"):
        pictures(tmp_path)


def test_batches_are_worked_out_ahead_in_order() -> None:
    started: list[int] = []

    def slow(item: int) -> int:
        started.append(item)
        return item * item

    made = batches(list(range(10)), slow, 3)
    assert next(made) == [0, 1, 4]
    for _ in range(200):
        if len(started) >= 9:
            break
        time.sleep(0.01)
    assert len(started) >= 9  # while the first batch is used, the two after it are made
    assert [*made] == [[9, 16, 25], [36, 49, 64], [81]]


def test_an_error_in_a_batch_is_raised_where_it_is_asked_for() -> None:
    def fails(item: int) -> int:
        return 1 // (item - 4)

    made = batches(list(range(6)), fails, 2)
    assert [next(made), next(made)] == [[-1, -1], [-1, -1]]
    with pytest.raises(ZeroDivisionError):
        next(made)
