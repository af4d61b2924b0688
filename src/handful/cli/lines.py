"""predict, of rail lines: answers as they come, however long a video is."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from contextlib import nullcontext
from pathlib import Path
from typing import TYPE_CHECKING

from handful import wording
from handful.cli.shared import say, show_each

if TYPE_CHECKING:
    from handful.model import LineModel, LinePrediction


def predict_lines(
    model: LineModel, inputs: Sequence[Path], overlay: Path | None, smooth: float, skip_bad: bool, as_json: bool
) -> None:
    """Find the rails in pictures and videos, draw them into an overlay folder if one is named, and say how fast.

    What came before an input that cannot be read, or before a video breaks off, is answered and written.
    """
    from handful.data.folders import other_files
    from handful.model.rails.overlay import Overlay
    from handful.model.rails.shots import SEEN, sources

    for folder in filter(Path.is_dir, inputs):
        for sentence in other_files(folder, SEEN):
            say(f"{folder}: {sentence}")
    seen = list(dict.fromkeys(source for given in inputs for source in sources(given)))
    answered = model.watch(seen, smooth, skip_bad, say)
    model.run  # noqa: B018  # made now, so that it is no part of the time
    count, started = 0, time.perf_counter()

    def answers(drawing: Overlay | None) -> Iterator[LinePrediction]:
        nonlocal count
        for shot, answer in answered:
            if drawing is not None:
                drawing.write(shot, answer.lines)
            count += 1
            yield answer

    try:
        with Overlay(overlay, seen) if overlay else nullcontext() as drawing:
            show_each(answers(drawing), as_json)
    finally:
        if count:
            rate = count / (time.perf_counter() - started)
            line = f"{wording.count(count, 'picture')}, {rate:.1f} a second{', drawn and written' if overlay else ''}"
            (say if as_json else print)(line)
