"""Every augmentation beside the plain formula, image by image, in float64."""

import math

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from PIL import Image

from handful.data.augment import AUGMENTATIONS, ORDERS, crop, drawings, jitter, photos

Floats = NDArray[np.float64]


def images(count: int, shape: tuple[int, int, int] = (3, 9, 12), seed: int = 0) -> Floats:
    return np.random.default_rng(seed).random((count, *shape))


def numbers(count: int, draws: int, seed: int = 1) -> Floats:
    return np.random.default_rng(seed).random((count, draws))


def interpolated(plane: Floats, row: float, column: float) -> float:
    """A plane [H, W] between its pixels, its border repeated outside."""
    height, width = plane.shape
    row, column = min(max(row, 0), height - 1), min(max(column, 0), width - 1)
    top, left = min(int(row), height - 2), min(int(column), width - 2)
    down, across = row - top, column - left
    above = plane[top, left] * (1 - across) + plane[top, left + 1] * across
    below = plane[top + 1, left] * (1 - across) + plane[top + 1, left + 1] * across
    return float(above * (1 - down) + below * down)


def drawn(image: Floats, u: Floats) -> Floats:
    """One image of `drawings`: each pixel of the result is looked for where the inverse movement puts it."""
    angle, shear, wide, high, right, down = 2 * u - 1
    turn = math.radians(10) * angle
    rotation = np.array([[math.cos(turn), -math.sin(turn)], [math.sin(turn), math.cos(turn)]])
    matrix = np.diag([1 + 0.1 * wide, 1 + 0.1 * high]) @ rotation @ np.array([[1, 0.1 * shear], [0, 1]])
    channels, height, width = image.shape
    out = np.empty_like(image)
    for i in range(height):
        for j in range(width):
            place = np.array([(2 * j + 1) / width - 1, (2 * i + 1) / height - 1])  # pixels lie in [-1, 1]
            x, y = matrix @ place + 2 * 2 / 28 * np.array([right, down])
            at = ((y + 1) * height / 2 - 0.5, (x + 1) * width / 2 - 0.5)
            out[:, i, j] = [interpolated(image[c], *at) for c in range(channels)]
    return out


def test_drawings_are_turned_sheared_scaled_and_shifted() -> None:
    x, u = images(3, (1, 8, 8)), numbers(3, 6)
    expected = np.stack([drawn(image, own) for image, own in zip(x, u)])
    torch.testing.assert_close(drawings(torch.from_numpy(x), u), torch.from_numpy(expected))


def box(u: Floats) -> tuple[float, float]:
    """Shares of width and height that a crop takes."""
    area = 0.08 + 0.92 * u[0]
    room = min(math.log(4 / 3), -math.log(area))
    ratio = math.exp((2 * u[1] - 1) * room)
    return math.sqrt(area * ratio), math.sqrt(area / ratio)


def cropped(image: Floats, u: Floats) -> Floats:
    """One image of `crop`, by Pillow's own resampling of a box, a channel at a time."""
    _, height, width = image.shape
    wide, high = (share * side for share, side in zip(box(u), (width, height)))
    left, top = u[2] * (width - wide), u[3] * (height - high)
    planes = []
    for plane in image.astype(np.float32):
        part = Image.fromarray(plane).resize(
            (width, height), Image.Resampling.BILINEAR, (left, top, left + wide, top + high)
        )
        planes.append(np.asarray(part)[:, ::-1] if u[4] < 0.5 else np.asarray(part))
    return np.stack(planes).astype(np.float64)


def test_crops_are_those_of_pillow() -> None:
    x, u = images(12), numbers(12, 5)
    assert 3 < (u[:, 4] < 0.5).sum() < 9  # both mirrored and not
    expected = np.stack([cropped(image, own) for image, own in zip(x, u)])
    torch.testing.assert_close(crop(torch.from_numpy(x), u), torch.from_numpy(expected), atol=1e-5, rtol=0)


def test_crops_lie_in_the_image_and_have_the_area_and_ratio_asked_for() -> None:
    """On an image of its own coordinates, in [0, 1]: how far apart neighbours are tells the size of the crop."""
    side = 40
    line = (np.arange(side) + 0.5) / side
    coordinates = np.stack(np.meshgrid(line, line))[None].repeat(500, 0)
    u = numbers(500, 5)
    u[:4, :2] = [[1, 0], [1, 1], [0, 0], [0, 1]]
    found = crop(torch.from_numpy(coordinates), u).numpy()
    wide = abs(found[:, 0, 20, 30] - found[:, 0, 20, 10]) * side / 20
    high = (found[:, 1, 30, 20] - found[:, 1, 10, 20]) * side / 20
    np.testing.assert_allclose(wide * high, 0.08 + 0.92 * u[:, 0])
    assert (wide / high).min() >= 3 / 4 - 1e-9
    assert (wide / high).max() <= 4 / 3 + 1e-9
    assert (wide / high)[2:4] == pytest.approx([3 / 4, 4 / 3])  # the small ones use the whole range
    middle = (found[:, :, 19, 19] + found[:, :, 20, 20]) / 2  # the centre of the crop
    assert (np.abs(middle - 0.5) <= (1 - np.stack([wide, high], 1)) / 2 + 1e-9).all()


def jittered(image: Floats, u: Floats) -> Floats:
    """One image of `jitter`, change after change."""
    for kind in [(0, 1, 2), (0, 2, 1), (1, 0, 2), (1, 2, 0), (2, 0, 1), (2, 1, 0)][int(6 * u[3])]:
        f = 0.6 + 0.8 * u[kind]
        grey = 0.299 * image[0] + 0.587 * image[1] + 0.114 * image[2] if len(image) == 3 else image[0]
        if kind == 0:
            image = f * image
        elif kind == 1:
            image = f * image + (1 - f) * grey.mean()
        else:
            image = f * image + (1 - f) * grey
        image = np.clip(image, 0, 1)
    return image


@pytest.mark.parametrize("channels", [1, 3])
def test_jitter_is_the_plain_formula_in_every_order(channels: int) -> None:
    x, u = images(30, (channels, 5, 4)), numbers(30, 4)
    u[:, 3] = (np.arange(30) % 6 + 0.5) / 6
    expected = np.stack([jittered(image, own) for image, own in zip(x, u)])
    torch.testing.assert_close(jitter(torch.from_numpy(x), u), torch.from_numpy(expected))
    assert len(ORDERS) == 6


def test_photos_are_cropped_then_coloured() -> None:
    x, u = torch.from_numpy(images(4)), numbers(4, 9)
    torch.testing.assert_close(photos(x, u), jitter(crop(x, u[:, :5]), u[:, 5:]))
    whole = np.array([[1.0, 0.3, 0.3, 0.9, 0.5, 0.5, 0.5, 0.5, 0.7]] * 4)  # all of it, not mirrored, factors of 1
    torch.testing.assert_close(photos(x, whole), x)
    whole[:, 4] = 0.49
    torch.testing.assert_close(photos(x, whole), x.flip(3))


@pytest.mark.parametrize("name", list(AUGMENTATIONS))
def test_an_image_is_varied_alike_in_any_batch_and_any_precision(name: str) -> None:
    augmentation = AUGMENTATIONS[name]
    x, u = torch.from_numpy(images(6)), numbers(6, augmentation.draws)
    whole = augmentation.function(x.float(), u)
    assert whole.dtype == torch.float32
    torch.testing.assert_close(whole.double(), augmentation.function(x, u), atol=1e-5, rtol=0)
    for index in range(6):
        own = slice(index, index + 1)
        torch.testing.assert_close(augmentation.function(x[own].float(), u[own]), whole[own], atol=1e-6, rtol=0)
    assert whole.min() >= 0
    assert whole.max() <= 1
    assert augmentation.function(x.to("meta"), u).shape == x.shape  # and on any device
