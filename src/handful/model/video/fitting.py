"""`fit` for video: a model that watches a camera, from a few minutes of its normal footage."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Sequence
from functools import partial
from importlib.metadata import version
from pathlib import Path
from typing import NamedTuple

import numpy as np
from torch import Tensor

from handful import wording
from handful.data.video.reading import is_camera
from handful.embedders import TorchEmbedder
from handful.errors import HandfulError
from handful.model.video.card import VideoCard, VideoCheck
from handful.model.video.footage import Footage, Numbers, clips_at
from handful.model.video.model import VideoModel
from handful.model.video.network import LINEAR
from handful.model.video.scores import Floats, crossed, levels, normal_of, scores, threshold
from handful.model.video.start import FromNothing, FromRun, Start
from handful.problems.video_anomaly import copied, decibels, extrapolated, frame_errors
from handful.run import Run

FALSE_ALARMS = 0.01  # of normal frames
BATCH = 16  # windows at a time

Predict = Callable[[Tensor], Tensor]


def fit_video(
    normal: str | Path | Sequence[str | Path],
    run: Run | None = None,
    inner_steps: int | None = None,
    *,
    false_alarms: float = FALSE_ALARMS,
    check: bool = True,
    skip_bad: bool = False,
) -> VideoModel:
    """Learn what is normal before a fixed camera, from footage in which nothing else happens.

    normal: a video, a folder of frames, a folder of such clips, or several of these.  run: a run of video anomalies,
    adapted by inner_steps if not by its own number to as many windows as a task of its training had, spread over the
    first half of the frames; without it what moves is expected to go on as it did.  false_alarms: the share of normal
    frames that may be taken for abnormal; the threshold is told by frames that nothing was adapted to: the second half,
    and without a run all.  check: say how well these are predicted, beside what learned nothing.  skip_bad: go on
    without what cannot be read, use what breaks off as far as it goes, and say so.

    Raises HandfulError: no footage, or too little; what cannot be read; a run of another problem.
    """
    if not 0 < false_alarms < 1:
        raise HandfulError(
            f"false_alarms is {false_alarms:g}, but it is the share of normal frames that may be taken for abnormal, "
            "between 0 and 1; try 0.01."
        )
    places = [normal] if isinstance(normal, str | Path) else normal
    clips = list(dict.fromkeys(clip for place in places for clip in clips_at(Path(place))))
    if not clips:
        raise HandfulError("There is no footage to learn from; name at least one video or folder of frames.")
    if cameras := [clip for clip in clips if is_camera(clip)]:
        raise HandfulError(f"{cameras[0]} is a camera; record a few minutes of it to a file, and fit on that.")
    start: Start = FromNothing() if run is None else FromRun(run, inner_steps)
    with tempfile.TemporaryDirectory(prefix="handful-") as work:
        footage = Footage(Path(work) / "footage", clips, start.size, start.channels, start.window, skip_bad)
        support, held_out = halves(footage, start.shot)
        x, y = (part.float().div(255) for part in footage.fetch(support))
        network = start.learn(x, y)
        errors = errors_in(TorchEmbedder(network), footage, held_out)
        found_levels = [part.level for part in errors]
        usual = normal_of(found_levels)
        found = np.concatenate(scores(found_levels, usual))
        told = None
        if check:
            before = start.unadapted(x, y)
            told = VideoCheck(
                psnr=psnr(errors),
                unadapted=None if before is None else psnr(errors_in(TorchEmbedder(before), footage, held_out)),
                floors={name: psnr(errors_in(of, footage, held_out)) for name, of in floors(start).items()},
                crossed=crossed(found, false_alarms),
            )
    limit = threshold(found, false_alarms)
    card = VideoCard(
        handful=version("handful"),
        problem="video_anomaly",
        window=start.window,
        channels=start.channels,
        size=start.size,
        frame_size=next(iter(footage.sizes)),
        frame_rate=footage.rate,
        frames=len(footage.frames),
        support=len(support),
        held_out_frames=len(found),
        mean=usual.mean,
        deviation=usual.deviation,
        threshold=limit.value,
        false_alarms=false_alarms,
        promised=limit.promised,
        backbone=start.backbone,
        decoder=start.decoder,
        method=start.name,
        steps=start.steps,
        recipe=start.recipe,
        seen=start.seen,
        check=told,
        notes=[*footage.notes(), *beaten(told), *fewer(start, len(support))],
    )
    return VideoModel(network, card)


def halves(footage: Footage, shot: int) -> tuple[Numbers, list[Numbers]]:
    """Windows to adapt to [K], spread evenly over the first half of the frames, and the runs of the second.

    shot: K, at most; with 0 there is nothing to adapt, and all frames are held out.
    """
    total, window = len(footage.frames), footage.window
    if footage.blank.all():
        raise HandfulError("All frames of the normal footage are of one colour; give footage that shows something.")
    middle = total // 2 if shot else 0
    known, held_out = footage.runs(0, middle), footage.runs(middle, total)
    if (shot and not known) or sum(map(len, held_out)) < 2:
        adapted = f"{window + 1} to adapt to and {window + 2} more" if shot else f"{window + 2}"
        raise HandfulError(
            f"The normal footage has {wording.count(total, 'frame')}, but {adapted} to set the threshold by are "
            "needed, in one piece each; give more, a minute at least."
        )
    every = np.concatenate([np.zeros(0, np.int64), *known])
    count = min(shot, len(every))
    return every[((np.arange(count) + 0.5) / max(count, 1) * len(every)).astype(int)], held_out


class Errors(NamedTuple):
    """Of the n windows of a run, in decibels [n]: of the whole frame, minus the PSNR; and of its worst box."""

    mean: Floats
    level: Floats


def errors_in(predict: Predict, footage: Footage, runs: Sequence[Numbers]) -> list[Errors]:
    """What is wrong with predictions in runs of windows; predict: uint8 windows -> frames."""
    found = []
    for run in runs:
        parts = []
        for begin in range(0, len(run), BATCH):
            x, y = footage.fetch(run[begin : begin + BATCH])
            errors = frame_errors(predict(x), y.float().div(255))
            parts.append((decibels(errors.mean.double().numpy()), levels(errors.local)))
        found.append(Errors(*map(np.concatenate, zip(*parts))))
    return found


def psnr(errors: Sequence[Errors]) -> float:
    """The mean over all frames."""
    return -float(np.concatenate([run.mean for run in errors]).mean())


def floors(start: Start) -> dict[str, Predict]:
    """What learned nothing, by name."""
    named: dict[str, Callable[..., Tensor]] = {LINEAR: extrapolated, "copy": copied}
    if start.backbone is None:
        del named[LINEAR]  # it is what predicts
    return {name: partial(from_bytes, of, channels=start.channels) for name, of in named.items()}


def from_bytes(predict: Callable[..., Tensor], windows: Tensor, channels: int) -> Tensor:
    """What a floor says of uint8 windows."""
    return predict(windows.float().div(255), channels)


def beaten(check: VideoCheck | None) -> list[str]:
    """What to do about a network that predicts worse than what learned nothing."""
    if check is None or check.psnr >= check.floors.get(LINEAR, check.psnr):
        return []
    return [
        f"The {LINEAR} predicts better than the network does; a model without a run is simpler, and may watch as well."
    ]


def fewer(start: Start, support: int) -> list[str]:
    """That there were fewer windows than the run was trained to adapt to."""
    if support >= start.shot:
        return []
    return [
        f"The first half has {wording.count(support, 'window')}, and the run was trained to adapt to {start.shot}: "
        "give more footage."
    ]
