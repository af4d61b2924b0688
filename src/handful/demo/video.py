"""Video on rendered scenes: meta-train, then watch a new scene from forty seconds of it, and find an odd mover."""

from __future__ import annotations

import time
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from handful import wording
from handful.data.pictures import Pixels
from handful.data.video.sprites import render
from handful.demo.ending import show_end
from handful.model.video import VideoModel, fit_video
from handful.model.video.alarms import Timeline
from handful.model.video.overlay import Overlay
from handful.model.video_writer import VideoWriter
from handful.problems.video_anomaly.scores import area
from handful.recipe import load_recipe
from handful.report import save, score_timeline
from handful.run import Run
from handful.training import train_recipe

RECIPE = "sprites-mpn"
CHANGES: list[str] = []  # a test makes it shorter
SEED, SCENE = 2026, 1  # of a scene that no split has
NORMAL, ODD = 5, 240  # clips of normal footage, some with few people and some with many; frames of the other one
FRAME_RATE, SIZE = 15.0, 256


class Found(NamedTuple):
    """How the frames of a clip were judged: which have a score; these; which are alarms; which are truly odd."""

    scores: NDArray[np.float64]
    alarms: NDArray[np.bool_]
    odd: NDArray[np.bool_]

    @property
    def auc(self) -> float:
        """Area under the ROC curve."""
        return area(self.odd.astype(np.uint8), self.scores)


def run_demo(out: Path, max_minutes: float, fresh: bool = False) -> Run:
    """Render scenes, train on them, evaluate; then fit on normal clips of a new scene, and watch another."""
    started = time.perf_counter()
    run, _ = train_recipe(load_recipe(RECIPE, CHANGES), out / "run", max_minutes=max_minutes, fresh=fresh)
    normal, odd = out / "normal", out / "odd.mp4"
    for number in range(NORMAL):
        write_clip(normal / f"{number}.mp4", [shown.pixels for shown in render(SEED, SCENE, number, size=SIZE)])
    clip = list(render(SEED, SCENE, NORMAL, odd=True, frames=ODD, size=SIZE))
    write_clip(odd, [shown.pixels for shown in clip])
    truth = np.array([shown.odd.any() for shown in clip])
    model, floor = fit_video(normal, run), fit_video(normal)
    model.save(out / "watcher")
    print(f"\n{model.card}")
    found = watched(model, odd, truth, out)
    beside = watched(floor, odd, truth)
    hits, false = (found.alarms & found.odd).sum(), (found.alarms & ~found.odd).sum()
    print(
        f"In {odd}, {wording.count(len(truth), 'frame')}, an odd mover is seen in {truth.sum()}: {hits} of these are "
        f"alarms, and {false} of the others. AUC {wording.measured(found.auc)}; without a network "
        f"{wording.measured(beside.auc)}."
    )
    print(f"Look at:  {out / 'overlay.mp4'}  {out / 'timeline.png'}")
    print(f"Try:  handful predict {out / 'watcher'} {odd} --csv {out / 'scores.csv'}")
    show_end(run, out, started)
    return run


def write_clip(path: Path, frames: Sequence[Pixels]) -> None:
    """A clip as a camera would record it."""
    writer = VideoWriter(path, FRAME_RATE)
    for pixels in frames:
        writer.write(pixels)
    writer.close()


def watched(model: VideoModel, clip: Path, truth: NDArray[np.bool_], out: Path | None = None) -> Found:
    """Watch a clip; out: the folder for its overlay and its timeline, if there are to be any."""
    drawing = Overlay(out / "overlay.mp4", clip, model.card.threshold) if out else None
    line, judged = Timeline(), []
    for frame, score in model.watch(clip, heat=out is not None):
        line.add(score)
        judged.append(score)
        if drawing is not None:
            drawing.write(frame, score)
    if drawing is not None and out is not None:
        drawing.close()
        places, scores, alarms = zip(*line.points)
        save(score_timeline(places, scores, alarms, model.card.threshold, line.timed), out / "timeline.png")
    scored = [(one.score, one.alarm, odd) for one, odd in zip(judged, truth) if one.score is not None]
    return Found(*map(np.array, zip(*scored)))
