import unicodedata
from pathlib import Path

import numpy as np
import pytest

from handful.data import ImageStore, glyphs
from handful.data.glyphs import Glyph
from handful.errors import HandfulError


def test_size_and_polarity(glyphs_store: ImageStore) -> None:
    store = glyphs_store
    assert len(store.class_names) >= 800
    assert store.image_shape == (1, 28, 28)
    assert (np.bincount(store.labels) == 20).all()
    assert (len(store.train), len(store.val) >= 60, len(store.test) >= 60) >= (600, True, True)
    ink = store.images.reshape(len(store.images), -1).mean(1) / 255
    assert ink.min() > 0.01  # no drawing is blank
    assert ink.max() < 0.7  # the ground is black
    assert store.images.max() == 255


def test_no_script_is_in_two_splits(glyphs_store: ImageStore) -> None:
    scripts = {
        split: {glyphs_store.class_names[index].split("/")[0] for index in classes}
        for split, classes in glyphs_store.splits.items()
    }
    assert scripts["train"] >= {"Latin", "Greek", "Cyrillic"}
    assert not scripts["train"] & scripts["val"]
    assert not scripts["train"] & scripts["test"]
    assert not scripts["val"] & scripts["test"]


def test_names_are_unicode_names(glyphs_store: ImageStore) -> None:
    assert "Greek/GREEK SMALL LETTER ZETA" in glyphs_store.class_names
    assert len(set(glyphs_store.class_names)) == len(glyphs_store.class_names)
    for name in glyphs_store.class_names:
        assert unicodedata.category(unicodedata.lookup(name.split("/")[1]))[0] in "LNS"


def test_a_shape_is_there_once(glyphs_store: ImageStore) -> None:
    """Characters that Unicode holds to be confusable are one class, and no two prototypes are the same."""
    names = set(glyphs_store.class_names)
    assert "Latin/LATIN CAPITAL LETTER A" in names
    assert not names & {"Greek/GREEK CAPITAL LETTER ALPHA", "Cyrillic/CYRILLIC CAPITAL LETTER A"}
    assert not {"Latin/LATIN SMALL LETTER O", "Latin/LATIN CAPITAL LETTER O"} <= names
    means = glyphs_store.images.reshape(-1, 20, 784).mean(1)
    means -= means.mean(1, keepdims=True)
    means /= np.linalg.norm(means, axis=1, keepdims=True)
    assert np.triu(means @ means.T, 1).max() < 0.99


def test_the_drawings_of_a_class_differ(glyphs_store: ImageStore) -> None:
    drawings = glyphs_store.images.reshape(-1, 20, 784)
    assert all(len({drawing.tobytes() for drawing in group}) == 20 for group in drawings)


def test_a_drawing_is_a_function_of_its_character(glyphs_store: ImageStore, rendered: list[Glyph]) -> None:
    """Rendered again, the same classes are kept, and some drawn out of order are the same to the bit."""
    by_name = {glyph.name: glyph for glyph in rendered}
    for index in (700, 0, 33):
        again = glyphs.draw(by_name[glyphs_store.class_names[index]])
        assert np.array_equal(again, glyphs_store.images[20 * index : 20 * index + 20])
    kept = [glyph.name for glyph in glyphs.distinct(rendered)]
    assert tuple(kept) == glyphs_store.class_names


def test_no_font_draws_a_character_that_it_lacks(rendered: list[Glyph]) -> None:
    """The Arabic letters are in DejaVu Sans and its Mono alone; another font would draw them as boxes."""
    fonts = {glyphs.FONTS[font] for glyph in rendered if glyph.script.name == "Arabic" for font in glyph.fonts}
    assert fonts
    assert all(font.startswith("DejaVuSans") for font in fonts)


def test_missing_fonts_are_named(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr("matplotlib.get_data_path", lambda: str(tmp_path))
    with pytest.raises(HandfulError, match=r"DejaVuSans.ttf is missing; reinstall matplotlib"):
        glyphs.read()


def test_deformation_keeps_what_it_reads_between_pixels() -> None:
    """`bilinear` at whole positions is the frame, and halfway between two pixels their mean."""
    frames = np.random.default_rng(0).random((2, glyphs.FRAME, glyphs.FRAME))
    row, column = np.meshgrid(np.arange(64.0), np.arange(63.0), indexing="ij")
    rows, columns = np.broadcast_to(row, (2, 64, 63)), np.broadcast_to(column, (2, 64, 63))
    np.testing.assert_allclose(glyphs.bilinear(frames, rows, columns), frames[:, :, :63])
    between = (frames[:, :, :63] + frames[:, :, 1:]) / 2
    np.testing.assert_allclose(glyphs.bilinear(frames, rows, columns + 0.5), between)
    assert not glyphs.bilinear(frames, rows - 500, columns).any()
