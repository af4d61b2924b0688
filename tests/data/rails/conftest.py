"""Small annotated folders, and the real one."""

import json
from pathlib import Path
from typing import Any

import pytest

from tests.data.conftest import noise

LEFT, RIGHT = [[10, 38], [20, 25], [28, 12]], [[50, 38], [40, 25], [32, 12]]


def write(folder: Path, records: list[Any] | None = None, name: str = "annotations.json") -> Path:
    """Three pictures of 64x40 pixels in images/, and records of them, or others, beside."""
    (folder / "images").mkdir(parents=True, exist_ok=True)
    for i in range(3):
        noise(i, (64, 40)).save(folder / "images" / f"{i}.png")
    content = {"records": [record(i) for i in range(3)] if records is None else records}
    (folder / name).write_text(json.dumps(content))
    return folder


def record(number: int = 0, **changes: Any) -> dict[str, Any]:
    """A sound record of ours, with changes."""
    return {
        "image": f"images/{number}.png",
        "width": 64,
        "height": 40,
        "left": LEFT,
        "right": RIGHT,
        **changes,
    }


@pytest.fixture
def annotated(tmp_path: Path) -> Path:
    return write(tmp_path / "line")


@pytest.fixture(scope="session")
def real_rails(real_data: Path) -> Path:
    folder = real_data / "rails"
    if not (folder / "annotations.json").is_file():
        pytest.skip(f"no rail lines: {folder} does not hold annotations.json")
    return folder
