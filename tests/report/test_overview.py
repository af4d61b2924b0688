"""The sheet of a folder: what is drawn, what is crossed out, what is only counted."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
from PIL import Image

from handful.data import samples
from handful.errors import HandfulError
from handful.report import class_sheet
from tests.conftest import Command, ok


def test_a_row_a_class(pictures: Path, tmp_path: Path) -> None:
    shutil.copytree(pictures, tmp_path / "p")
    (tmp_path / "p" / "class01" / "3.png").write_text("no picture")
    for i in range(3):
        shutil.copy(pictures / "class02" / "0.png", tmp_path / "p" / "class02" / f"more{i}.png")
    found, counts = samples(tmp_path / "p")
    assert list(found) == sorted(counts)
    assert [picture is None for picture in found["class01"]] == [i == 3 for i in range(8)]
    assert found["class00"][0] is not None
    assert found["class00"][0].shape == (3, 96, 96)
    assert (len(found["class02"]), counts["class02"]) == (8, 11)
    del found["class19"]
    (ax,) = class_sheet(found, counts).axes
    texts = [text.get_text() for text in ax.texts]
    assert texts[:2] == ["20 classes, 163 pictures", "1 further class not drawn"]
    assert "+ 3" in texts
    assert len(ax.images) == 19 * 8 - 1
    assert len(ax.lines) == 2  # one cross


def test_nothing_to_draw(tmp_path: Path) -> None:
    with pytest.raises(HandfulError, match=r"There are no pictures in .* to draw"):
        samples(tmp_path)


def test_the_command(handful: Command, pictures: Path, tmp_path: Path) -> None:
    ok(handful("data", "check", pictures, "--sheet", tmp_path / "sheet.png"))
    with Image.open(tmp_path / "sheet.png") as image:
        assert min(image.size) > 500
