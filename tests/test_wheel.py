"""The wheel: pure Python, and all of the package is in it.  That it installs and works, `make check-wheel` shows."""

from __future__ import annotations

import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
LEFT_OUT = ("__pycache__", "*.egg-info")


def test_the_wheel_is_pure_python_and_holds_the_package(tmp_path: Path) -> None:
    pytest.importorskip("setuptools", "77", reason="setuptools is not installed: torch brings it")
    source = tmp_path / "source"
    shutil.copytree(ROOT / "src", source / "src", ignore=shutil.ignore_patterns(*LEFT_OUT))
    for name in ("pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, source)
    options = ("--no-deps", "--no-build-isolation", "--no-index", "--wheel-dir", tmp_path)
    ran = subprocess.run([sys.executable, "-m", "pip", "wheel", *options, source], capture_output=True, text=True)
    assert ran.returncode == 0, ran.stdout + ran.stderr
    (wheel,) = tmp_path.glob("*.whl")
    assert wheel.name.endswith("-py3-none-any.whl")
    with zipfile.ZipFile(wheel) as archive:
        names = {name for name in archive.namelist() if name.startswith("handful/")}
    package = (ROOT / "src" / "handful").rglob("*")
    expected = [path for path in package if path.is_file() and not any(path.match(f) for f in LEFT_OUT)]
    assert names == {path.relative_to(ROOT / "src").as_posix() for path in expected if "__pycache__" not in path.parts}
    assert {"handful/py.typed", "handful/backbones/small.safetensors"} <= names
