"""glyphs: the embedded default data set, characters drawn on the spot from the fonts that matplotlib ships.

A character is a class.  Its 20 drawings come from the fonts that have it, each written with a pen of another
width and bent by a small random affine map and a smooth random displacement, 1x28x28, white ink on black.

No shape occurs twice.  Every character is drawn in every font that has it, cropped and brought to one size,
and two characters whose bitmaps correlate by more than `ALIKE` in any font count as one shape, which the
first of them in the order of `SCRIPTS` keeps: A, Alpha and the Cyrillic A are one class.  The split is by
script, so no script of the test classes is seen in training.
"""

from __future__ import annotations

import unicodedata
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont, features

from handful.data.reader import Reader
from handful.data.store import Contents
from handful.errors import HandfulError

DRAWINGS = 20
SIZE = 28  # pixels of a drawing's side
FRAME = 64  # pixels of the side of the square in which a character is prepared
EXTENT = 46  # pixels of the frame that the longer side of a character fills
EM = 96  # font size at which characters are rendered before they are fitted into the frame
ALIKE = 0.88  # correlation of two bitmaps above which they are one shape
INK = (0.02, 0.4)  # least and greatest part of the frame that is ink: no dots, no black boxes
SMALLEST = 40  # pixels of the longer side at EM size; below it a glyph is a speck of punctuation

FONTS = (
    "DejaVuSans", "DejaVuSans-Oblique", "DejaVuSans-Bold", "DejaVuSans-BoldOblique",
    "DejaVuSerif", "DejaVuSerif-Italic", "DejaVuSerif-Bold", "DejaVuSerif-BoldItalic",
    "DejaVuSansMono", "DejaVuSansMono-Oblique", "DejaVuSansMono-Bold", "DejaVuSansMono-BoldOblique",
    "STIXGeneral", "STIXGeneralItalic", "STIXGeneralBol", "STIXGeneralBolIta",
)  # fmt: skip


class Script(NamedTuple):
    """A script, the split that its characters belong to, and its ranges of code points, ends included."""

    name: str
    split: str
    ranges: tuple[tuple[int, int], ...]


# The order decides which of two scripts keeps a shape that they share.
SCRIPTS = (
    Script("Digits", "train", ((0x30, 0x39),)),
    Script("Latin", "train", ((0x41, 0x5A), (0x61, 0x7A), (0xC0, 0x24F))),
    Script("Greek", "train", ((0x370, 0x3E1),)),
    Script("Hebrew", "val", ((0x5D0, 0x5EA),)),
    Script("Armenian", "val", ((0x531, 0x587),)),
    Script("Lao", "val", ((0xE81, 0xEDD),)),
    Script("Tifinagh", "val", ((0x2D30, 0x2D67),)),
    Script("Georgian", "test", ((0x10A0, 0x10FF), (0x2D00, 0x2D2F))),
    Script("Arabic", "test", ((0x621, 0x6D5),)),
    Script("NKo", "test", ((0x7C0, 0x7EA),)),
    Script("Cyrillic", "train", ((0x400, 0x52F), (0xA640, 0xA66E))),
    Script("Phonetic", "train", ((0x250, 0x2AF),)),
    Script("Canadian", "train", ((0x1401, 0x1676),)),
    Script("Currency", "train", ((0x20A0, 0x20BF),)),
    Script("Arrows", "train", ((0x2190, 0x21FF),)),
    Script("Mathematical", "train", ((0x2200, 0x22FF),)),
    Script("Technical", "train", ((0x2300, 0x23CE),)),
    Script("Symbols", "train", ((0x2600, 0x26B1),)),
)


class Glyph(NamedTuple):
    """A character: its script, itself, and one frame a font that has it, uint8 [fonts, FRAME, FRAME]."""

    script: Script
    character: str
    frames: NDArray[np.uint8]
    fonts: tuple[int, ...]

    @property
    def name(self) -> str:
        """Such as `Greek/GREEK SMALL LETTER ZETA`."""
        return f"{self.script.name}/{unicodedata.name(self.character)}"


def read() -> Contents:
    """The drawings, uint8 1x28x28, 20 a class, the same on every call; the split is by script.

    Another version of matplotlib's fonts or of FreeType may draw a few pixels differently, and with them
    the digest of the store.  Raises HandfulError where matplotlib's fonts are not where matplotlib keeps
    them.
    """
    glyphs = distinct(list(render_all()))
    return Contents(
        images=(drawing for glyph in glyphs for drawing in draw(glyph)),
        labels=np.repeat(np.arange(len(glyphs)), DRAWINGS).tolist(),
        image_shape=(1, SIZE, SIZE),
        class_names=[glyph.name for glyph in glyphs],
        splits={
            split: [index for index, glyph in enumerate(glyphs) if glyph.script.split == split]
            for split in ("train", "val", "test")
        },
        info={
            "name": "glyphs",
            "inverted": True,
            "scripts": {script.name: script.split for script in SCRIPTS},
            "freetype": features.version("freetype2"),
        },
    )


def characters(script: Script) -> Iterator[str]:
    """The letters, digits and symbols of a script that are not others with a mark or in another style."""
    for first, last in script.ranges:
        for character in map(chr, range(first, last + 1)):
            category = unicodedata.category(character)
            plain = category[0] in "LNS" and category not in ("Lm", "Sk")  # modifiers are half blank
            if plain and not unicodedata.decomposition(character):
                yield character


def render_all() -> Iterator[Glyph]:
    """Every character of every script in every font that has it, but the near blank and the near full."""
    from fontTools.ttLib import TTFont  # type: ignore[import-untyped]

    paths = [font_path(font) for font in FONTS]
    # A font draws a box for a character that it lacks, so its character map is asked first.  BASIC layout:
    # the other one, Raqm, is not installed everywhere, and joins Arabic letters.
    maps = []
    for path in paths:
        with TTFont(path, lazy=True) as font:
            maps.append(font.getBestCmap())
    faces = [ImageFont.truetype(str(path), EM, layout_engine=ImageFont.Layout.BASIC) for path in paths]
    for script in SCRIPTS:
        for character in characters(script):
            frames = {
                number: frame(character, face)
                for number, (cmap, face) in enumerate(zip(maps, faces))
                if ord(character) in cmap
            }
            good = {number: image for number, image in frames.items() if image is not None}
            if good:
                yield Glyph(script, character, np.stack(list(good.values())), tuple(good))


def font_path(font: str) -> Path:
    """Where matplotlib keeps a font."""
    import matplotlib

    path = Path(matplotlib.get_data_path()) / "fonts" / "ttf" / f"{font}.ttf"
    if not path.is_file():
        raise HandfulError(
            f"The glyphs are drawn with fonts that matplotlib ships, but {path} is missing; reinstall "
            "matplotlib with pip."
        )
    return path


def frame(character: str, face: ImageFont.FreeTypeFont) -> NDArray[np.uint8] | None:
    """A character fitted and centred in a square, uint8 [FRAME, FRAME]; None if it is a speck or a box."""
    left, top, right, bottom = (int(edge) for edge in face.getbbox(character))
    canvas = Image.new("L", (right - left + 4, bottom - top + 4))
    ImageDraw.Draw(canvas).text((2 - left, 2 - top), character, fill=255, font=face)
    box = canvas.getbbox()
    if box is None or max(box[2] - box[0], box[3] - box[1]) < SMALLEST:
        return None
    glyph = canvas.crop(box)
    glyph.thumbnail((EXTENT, EXTENT), Image.Resampling.BOX)
    square = Image.new("L", (FRAME, FRAME))
    square.paste(glyph, ((FRAME - glyph.width) // 2, (FRAME - glyph.height) // 2))
    pixels = np.asarray(square)
    return pixels if INK[0] < pixels.mean() / 255 < INK[1] else None


def distinct(glyphs: list[Glyph]) -> list[Glyph]:
    """The glyphs whose shape no glyph before them has in any font."""
    alike = np.zeros((len(glyphs), len(glyphs)), dtype=bool)
    for font in range(len(FONTS)):
        having = [index for index, glyph in enumerate(glyphs) if font in glyph.fonts]
        frames = np.stack([glyphs[index].frames[glyphs[index].fonts.index(font)] for index in having])
        alike[np.ix_(having, having)] |= correlations(frames) > ALIKE
    kept: list[int] = []
    for index in range(len(glyphs)):
        if not alike[index, kept].any():
            kept.append(index)
    return [glyphs[index] for index in kept]


def correlations(frames: NDArray[np.uint8]) -> NDArray[np.float64]:
    """Correlation of every pair of bitmaps, blurred a little so that a shift by a pixel is no difference.

    frames uint8 [n, FRAME, FRAME] -> [n, n].
    """
    small = frames.reshape(len(frames), FRAME // 2, 2, FRAME // 2, 2).mean((2, 4))
    rows = np.pad(small, ((0, 0), (1, 1), (0, 0)))
    rows = rows[:, :-2] + rows[:, 1:-1] + rows[:, 2:]
    both = np.pad(rows, ((0, 0), (0, 0), (1, 1)))
    flat = (both[..., :-2] + both[..., 1:-1] + both[..., 2:]).reshape(len(frames), -1)
    flat -= flat.mean(1, keepdims=True)
    flat /= np.linalg.norm(flat, axis=1, keepdims=True)
    product: NDArray[np.float64] = flat @ flat.T
    return product


def draw(glyph: Glyph) -> NDArray[np.uint8]:
    """The drawings of a character, uint8 [DRAWINGS, 1, SIZE, SIZE]; a function of the character alone."""
    random = np.random.Generator(np.random.Philox(key=ord(glyph.character)))
    order = np.argsort(random.random(len(glyph.frames)))
    frames = glyph.frames[np.resize(order, DRAWINGS)].astype(np.float64)
    inked = bilinear(thicken(frames, random), *bent_grid(random))
    # Two samples a pixel each way: their mean is the pixel.
    pixels = inked.reshape(DRAWINGS, SIZE, 2, SIZE, 2).mean((2, 4))
    drawings: NDArray[np.uint8] = np.rint(pixels).astype(np.uint8)[:, None]
    return drawings


def thicken(frames: NDArray[np.float64], random: np.random.Generator) -> NDArray[np.float64]:
    """Strokes widened to that of a random pen; those that are wide already stay as they are."""
    edges = np.abs(np.diff(frames, axis=1)).sum((1, 2)) + np.abs(np.diff(frames, axis=2)).sum((1, 2))
    width = 2 * frames.sum((1, 2)) / edges  # of a stroke: its area over half of its outline
    pen = 3.0 + 4.0 * random.random(len(frames))
    missing = np.clip((pen - width) / 2, 0, 2)[:, None, None]  # pixels on each side
    once = grown(frames)
    twice = grown(once)
    first, second = np.minimum(missing, 1), np.maximum(missing - 1, 0)
    wide: NDArray[np.float64] = frames + first * (once - frames) + second * (twice - once)
    return wide


def grown(frames: NDArray[np.float64]) -> NDArray[np.float64]:
    """Every pixel the brightest of itself and its four neighbours."""
    out = frames.copy()
    np.maximum(out[:, 1:], frames[:, :-1], out=out[:, 1:])
    np.maximum(out[:, :-1], frames[:, 1:], out=out[:, :-1])
    np.maximum(out[:, :, 1:], frames[:, :, :-1], out=out[:, :, 1:])
    np.maximum(out[:, :, :-1], frames[:, :, 1:], out=out[:, :, :-1])
    return out


def bent_grid(random: np.random.Generator) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Where in the frame each sample of each drawing looks: rows and columns, [DRAWINGS, 2*SIZE, 2*SIZE].

    A random affine map (12 degrees, scale 0.85 to 1.15 each way, shear 0.2, shift 2 pixels of the drawing),
    then a displacement of up to a few pixels of the frame, smooth because it is a sum of the four lowest
    cosines each way.
    """
    samples, n = 2 * SIZE, DRAWINGS

    def uniform(limit: float, *shape: int) -> NDArray[np.float64]:
        return limit * (2 * random.random((n, *shape)) - 1)

    angle, shear = uniform(np.deg2rad(12)), uniform(0.2)
    scale, shift = 1 + uniform(0.15, 2), uniform(2 * FRAME / SIZE, 2)
    cos, sin = np.cos(angle), np.sin(angle)
    matrix = np.array([[cos, -sin], [sin, cos + shear]]) / scale.T[:, None]  # [2, 2, n]
    line = (np.arange(samples) + 0.5) * FRAME / samples - FRAME / 2
    row, column = np.meshgrid(line, line, indexing="ij")
    waves = np.cos(np.pi * np.arange(4)[:, None] * (np.arange(samples) + 0.5) / samples)  # [4, samples]
    bends = [waves.T @ uniform(1.7, 4, 4) @ waves for _ in range(2)]
    at = [
        matrix[axis, 0][:, None, None] * row + matrix[axis, 1][:, None, None] * column
        + (bends[axis] - shift[:, axis, None, None] + FRAME / 2 - 0.5)
        for axis in range(2)
    ]  # fmt: skip
    return at[0], at[1]


def bilinear(frames: NDArray[np.float64], row: NDArray[np.float64], column: NDArray[np.float64]) -> NDArray[np.float64]:
    """frames [n, FRAME, FRAME] read between pixels at row, column [n, h, w]; black outside."""
    padded = np.pad(frames, ((0, 0), (1, 1), (1, 1)))
    row, column = np.clip(row + 1, 0, FRAME), np.clip(column + 1, 0, FRAME)
    top, left = row.astype(np.int64), column.astype(np.int64)
    down, across = row - top, column - left
    number = np.arange(len(frames))[:, None, None]
    upper = padded[number, top, left] * (1 - across) + padded[number, top, left + 1] * across
    lower = padded[number, top + 1, left] * (1 - across) + padded[number, top + 1, left + 1] * across
    blend: NDArray[np.float64] = upper * (1 - down) + lower * down
    return blend


READER = Reader(
    read,
    about=f"characters of {len(SCRIPTS)} scripts drawn from matplotlib's fonts, {DRAWINGS} drawings each",
)
