"""What is in a folder of clips, and what is wrong with it: every frame of every clip is decoded once."""

from __future__ import annotations

import hashlib
from collections import Counter, defaultdict
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from handful import wording
from handful.data.findings import Report
from handful.data.video.layout import Layout, passed_over, without_normal
from handful.data.video.reading import at_size, frames, rate
from handful.data.video.store import WINDOW, too_short
from handful.errors import HandfulError

SIDE, ACROSS, DOWN = 96, 8, 40  # of a sheet: pixels of a frame, frames of a clip, clips


class Look(NamedTuple):
    """A clip looked through: its frames, (width, height), frames a second, what is wrong, a digest of its pixels."""

    frames: int
    size: tuple[int, int] | None
    rate: float | None
    fault: str | None
    digest: str


def look(clip: Path) -> Look:
    """Decode a clip."""
    digest, count, size, speed, fault = hashlib.sha256(), 0, None, None, None
    try:
        speed = None if clip.is_dir() else rate(clip)
        for frame in frames(clip):
            height, width = frame.pixels.shape[:2]
            count, size = count + 1, (width, height)
            digest.update(frame.pixels.tobytes())
    except HandfulError as error:
        fault = str(error)
    return Look(count, size, speed, fault, digest.hexdigest())


def check_clips(found: Layout, report: Report) -> None:
    """What the clips of a folder are, and all that is wrong with them, their labels and their masks."""
    with ThreadPoolExecutor() as pool:
        looks = list(pool.map(look, found.clips))
    report.kind, report.images = "clips", sum(each.frames for each in looks)
    report.clips = dict(zip(found.names, (each.frames for each in looks)))
    report.splits = {name: len(own) for name, own in found.parts.items() if name and own}
    report.sizes = counted(f"{each.size[0]}x{each.size[1]}" for each in looks if each.size)
    report.rates = counted(f"{each.rate:g}" for each in looks if each.rate)
    report.problems += [each.fault for each in looks if each.fault]
    whole = {name: each for name, each in zip(found.names, looks) if each.fault is None}
    report.problems += [
        str(too_short(name, each.frames, WINDOW)) for name, each in whole.items() if each.frames <= WINDOW
    ]
    report.problems += [told for told in [without_normal(found)] if told]
    tell_identical(whole, report)
    tell_truth(found, [each.frames for each in looks], len(whole) == len(looks), report)
    if len(report.sizes) > 1:
        report.notes.append("The clips have several sizes; all are stretched to one.")
    report.notes += passed_over(found)


def counted(values: Iterable[str]) -> dict[str, int]:
    """How often each comes, the most frequent first."""
    return dict(Counter(values).most_common())


def tell_identical(looks: dict[str, Look], report: Report) -> None:
    """Clips that are the same, frame for frame: a problem, since footage would be learned from and tested."""
    same: dict[str, list[str]] = defaultdict(list)
    for name, each in looks.items():
        same[each.digest].append(name)
    report.problems += [
        f"The same frames are in {' and '.join(names)}; keep one of them." for names in same.values() if len(names) > 1
    ]


def tell_truth(found: Layout, lengths: list[int], whole: bool, report: Report) -> None:
    """What is labelled; whether the labels fit is only known where every clip can be read to its end."""
    if not found.testing:
        report.notes.append("No test clips: all of it is taken for normal.")
    elif not found.labels:
        report.notes.append("No labels: nothing says which test frames are abnormal.")
    elif whole:
        try:
            truth = found.truth(lengths)
        except HandfulError as error:
            report.problems.append(str(error))
            return
        assert truth is not None
        count = wording.count(len(truth.abnormal), "test frame")
        masks = f", with masks of {truth.size[1]}x{truth.size[0]} pixels" if truth.masks is not None else ""
        report.notes.append(f"Labelled abnormal: {truth.abnormal.sum():,} of {count}{masks}.")
    else:
        report.notes.append("The labels were not compared with the frames, since clips cannot be read to their end.")


def clip_samples(found: Layout) -> dict[str, list[NDArray[np.uint8] | None]]:
    """Frames of the first clips, from beginning to end, uint8 [3, 96, 96], None where a clip breaks off."""
    with ThreadPoolExecutor() as pool:
        return dict(zip(found.names, pool.map(glimpses, found.clips[:DOWN])))


def glimpses(clip: Path) -> list[NDArray[np.uint8] | None]:
    """Frames at equal distances; no more than twice as many as are drawn are held."""
    kept: list[NDArray[np.uint8] | None] = []
    step = 1
    try:
        for frame in frames(clip):
            if frame.number % step == 0:
                kept.append(at_size(frame.pixels, SIDE, 3))
            if len(kept) == 2 * ACROSS:
                kept, step = kept[::2], 2 * step
    except HandfulError:
        kept.append(None)
    return [kept[i] for i in np.linspace(0, len(kept) - 1, min(len(kept), ACROSS)).round().astype(int)]
