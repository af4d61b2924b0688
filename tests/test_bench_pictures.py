"""bench/pictures.py draws every picture of the glossary, from any classes."""

from __future__ import annotations

import re
import runpy
from pathlib import Path

from PIL import Image

from handful.data.store import ImageStore

ROOT = Path(__file__).parents[1]


def test_pictures(store: ImageStore, tmp_path: Path) -> None:
    drawn = runpy.run_path(str(ROOT / "bench" / "pictures.py"))["draw"](store.test, tmp_path)
    page = (ROOT / "docs" / "glossary.md").read_text(encoding="utf-8")
    assert {path.name for path in drawn} == set(re.findall(r"\(images/(.+?\.png)\)", page))
    for path in drawn:
        with Image.open(path) as image:
            assert image.width > 1000
            assert len(image.convert("L").getcolors() or []) > 10  # something is on the paper
