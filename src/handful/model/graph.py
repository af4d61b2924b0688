"""What a model does to pictures, as operations of torch that can be written as a graph: it gives Pillow's own pixels.

Pillow resizes in two passes, along rows and then along columns.  In each, a pixel is a weighted sum of pixels, whose
weights are rounded to 22 binary places, and the sum is rounded to 8 bits.  Here a pass is one matrix product.  Its
numbers are whole and fit float64, so it is exact, in whatever order it is added up.
"""

from __future__ import annotations

import torch
from torch import Tensor

from handful.model.card import Preprocessing

ONE = 2**22  # a weight of one
LUMA = (19595, 38470, 7471)  # of red, green and blue, in parts of LUMA_ONE
LUMA_ONE = 2**16


def prepared(pictures: Tensor, preprocessing: Preprocessing) -> Tensor:
    """Upright pictures in colour, uint8 [n, H, W, 3] -> the network's images, float32 [n, C, height, width] in [0, 1].

    The same as `Preprocessing` makes of the whole of each.
    """
    colour = pictures.permute(0, 3, 1, 2).double()
    seen = resized_to_fill(grey(colour) if preprocessing.channels == 1 else colour, *preprocessing.size)
    return (255 - seen if preprocessing.invert else seen).float().div(255)


def grey(colour: Tensor) -> Tensor:
    """[n, 3, H, W] -> [n, 1, H, W], as Pillow weighs and rounds."""
    weights = torch.tensor(LUMA, dtype=colour.dtype).view(3, 1, 1)
    return ((colour * weights).sum(1, keepdim=True) / LUMA_ONE + 0.5).floor()


def resized_to_fill(images: Tensor, height: int, width: int) -> Tensor:
    """Whole numbers from 0 to 255, float64 [n, C, H, W] -> [n, C, height, width], of the middle: as `box_of` has it."""
    rows, columns = (torch.full((), side, dtype=torch.float64) for side in images.shape[-2:])
    scale = torch.minimum(columns / width, rows / height)
    across = rounded(images @ shares(columns, images.shape[-1], width, scale).mT)
    return rounded(shares(rows, images.shape[-2], height, scale) @ across)


def shares(full: Tensor, pixels: int, wanted: int, scale: Tensor) -> Tensor:
    """What each of the `wanted` pixels in a line takes of the `pixels` that there are, in parts of `ONE`.

    full: `pixels`, as a tensor; scale: pixels that there are to one that is wanted -> [wanted, pixels].
    """
    side = wanted * scale
    first = (full - side) / 2
    start, end = first.clamp(min=0).float(), torch.minimum(first + side, full).float()  # Pillow has its box in float32
    step = (end - start).double() / wanted
    centres = start.double() + (torch.arange(wanted, dtype=torch.float64) + 0.5) * step
    places = torch.arange(pixels, dtype=torch.float64) + 0.5
    found = bicubic((places - centres.unsqueeze(1)) / step.clamp(min=1))
    return (found / found.sum(1, keepdim=True) * ONE).round()


def bicubic(x: Tensor) -> Tensor:
    """Keys's kernel with a = -1/2, which reaches from -2 to 2."""
    x = x.abs()
    inner, outer = (1.5 * x - 2.5) * x * x + 1, ((-0.5 * x + 2.5) * x - 4) * x + 2
    return torch.where(x < 1, inner, torch.where(x < 2, outer, 0.0))


def rounded(sums: Tensor) -> Tensor:
    """Sums in parts of `ONE` as whole numbers from 0 to 255, halves up."""
    return (sums / ONE + 0.5).floor().clamp(0, 255)
