"""What a person calls a picture: a file, a folder of them, an opened image, an array, a tensor."""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any, TypeAlias, TypeVar

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

from handful.data import list_images
from handful.data.folders import other_files
from handful.data.pictures import Picture
from handful.errors import HandfulError
from handful.wording import printable

Input: TypeAlias = "str | Path | Image.Image | NDArray[Any] | Tensor"

BATCHES_AHEAD = 2
Given = TypeVar("Given")
Made = TypeVar("Made")


def pictures(inputs: Input | Sequence[Input]) -> list[Picture]:
    """Pictures of files and folders of files, and of images, arrays and tensors, in order; one may stand alone.

    Arrays are [H, W] or [H, W, C], tensors [H, W] or [C, H, W], of uint8, or of floats from 0 to 1.
    """
    found: list[Picture] = []
    for number, given in enumerate(listed(inputs)):
        if isinstance(given, str | Path):
            found += [Picture(printable(path), "", "", path.read_bytes) for path in files(Path(given))]
        else:
            name = f"picture {number}"
            found.append(Picture(name, "", "", _held(given, name)))
    return found


def listed(inputs: Any) -> Sequence[Input]:
    """One picture as a list of one: a path, an image, or an array of fewer than four dimensions that holds numbers."""
    if isinstance(inputs, np.ndarray):
        alone = inputs.ndim < 4 and inputs.dtype.kind in "biuf"
    else:
        alone = isinstance(inputs, str | Path | Image.Image) or (isinstance(inputs, Tensor) and inputs.dim() < 4)
    return [inputs] if alone else inputs


def files(path: Path) -> list[Path]:
    """The file itself, or the pictures in a folder and below it."""
    if not path.is_dir():
        if not path.is_file():
            raise HandfulError(f"There is no picture or folder {path}.")
        return [path]
    found = list_images(path)
    if not found:
        raise HandfulError(" ".join([f"The folder {path} holds no pictures.", *other_files(path)]))
    return found


def batches(items: Sequence[Given], function: Callable[[Given], Made], size: int) -> Iterator[list[Made]]:
    """What a function makes of the items, `size` at a time, worked out in threads while earlier batches are used."""
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        waiting: deque[list[Future[Made]]] = deque()
        try:
            for start in range(0, len(items), size):
                waiting.append([pool.submit(function, item) for item in items[start : start + size]])
                if len(waiting) > BATCHES_AHEAD:
                    yield [one.result() for one in waiting.popleft()]
            while waiting:
                yield [one.result() for one in waiting.popleft()]
        finally:
            for one in (one for batch in waiting for one in batch):
                one.cancel()


def lenient(
    function: Callable[[Given], Made], skip_bad: bool
) -> Callable[[Given], Made] | Callable[[Given], Made | HandfulError]:
    """The function; where bad pictures are skipped, it gives the error that it would raise."""

    def tried(given: Given) -> Made | HandfulError:
        try:
            return function(given)
        except HandfulError as error:
            return error

    return tried if skip_bad else function


def _held(given: Any, name: str) -> Callable[[], Any]:
    """The content of a picture that is in memory."""
    if isinstance(given, Image.Image):
        return lambda: given
    if isinstance(given, Tensor):
        array = given.detach().cpu().numpy()
        array = np.moveaxis(array, 0, -1) if array.ndim == 3 else array
    elif isinstance(given, np.ndarray):
        array = given
    else:
        raise HandfulError(
            f"{name} is of type {type(given).__name__}; give a path, a PIL image, an array [H, W, C] or a tensor "
            "[C, H, W]."
        )
    array = array[..., None] if array.ndim == 2 else array
    if array.ndim != 3 or array.shape[-1] not in (1, 3, 4) or not array.size:
        kind = "tensors are [C, H, W]" if isinstance(given, torch.Tensor) else "arrays are [H, W] or [H, W, C]"
        raise HandfulError(f"{name} has the shape {list(given.shape)}; {kind}, with 1, 3 or 4 channels.")
    if array.dtype == np.bool_:
        array = array.astype(np.uint8) * np.uint8(255)
    elif array.dtype != np.uint8:
        if not np.isfinite(array).all() or array.min() < 0 or array.max() > 1:
            raise HandfulError(
                f"{name} holds {array.dtype} from {array.min():g} to {array.max():g}; give uint8, or floats in [0, 1]."
            )
        array = np.round(array * 255).astype(np.uint8)
    pixels = np.ascontiguousarray(array)
    return lambda: pixels
