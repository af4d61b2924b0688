"""The demos: the main job end to end on embedded data, in a few minutes on two CPU cores."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from handful.demo import glyphs, rails, video
from handful.run import Run

DEMOS: dict[str, Callable[[Path, float, bool], Run]] = {
    "classification": glyphs.run_demo,
    "rails": rails.run_demo,
    "video": video.run_demo,
}

__all__ = ["DEMOS"]
