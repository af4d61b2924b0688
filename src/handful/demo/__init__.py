"""The demos: the main job end to end on embedded data, in a few minutes on two CPU cores."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from handful.demo.glyphs import run_demo as glyphs
from handful.demo.rails import run_demo as rails
from handful.run import Run

DEMOS: dict[str, Callable[[Path, float, bool], Run]] = {"classification": glyphs, "rails": rails}

__all__ = ["DEMOS"]
