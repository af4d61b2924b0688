"""How well the abnormal frames of labelled clips are told from the normal ones, after a few normal windows.

A task is a draw of K support windows from the normal footage of a scene; its queries are all frames of the scene's
test clips.  Its score is the frame AUC of raw errors; the other forms, by what a score goes through, stand beside it,
as do the same of predictors that learned nothing.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from handful import wording
from handful.data.video.store import ClipSplit
from handful.inner_loop import has_batch_norm
from handful.methods import GradientBased, Method
from handful.problems.video_anomaly import ClipTasks
from handful.problems.video_anomaly.floors import floors
from handful.problems.video_anomaly.scores import (
    FrameErrors,
    area,
    causal,
    covering,
    decibels,
    frame_errors,
    smoothed,
    whole_clips,
    within_clip,
)
from handful.problems.video_anomaly.tasks import Support, floats, windows_of
from handful.processes import gathered, share
from handful.recipe import Protocol

METRIC = "frame_auc"
BATCH = 16  # windows at a time
Numbers = NDArray[np.int64]
Floats = NDArray[np.float64]
Figures = dict[str, float]
Measures = dict[str, Floats]  # each figure of every draw
Predict = Callable[[Tensor], Tensor]


class Detected(NamedTuple):
    """Figures of every support draw after 0, 1, ..., S inner steps [S+1][draws], and those of the floors [draws]."""

    by_step: list[list[Figures]]
    floors: dict[str, list[Figures]]
    frames: int


class Draw(NamedTuple):
    """One support: which clips it is for, its windows, and the frames at the head of a clip that are then left out."""

    clips: list[int]
    firsts: Numbers
    skipped: int


class Errors(NamedTuple):
    """Of the n windows of a clip: `FrameErrors` without places; what of these covers the mask, and which have one.

    The last two are empty where no pixels are marked.
    """

    mean: Floats
    local: Floats
    feature: Floats
    covering: Floats
    marked: NDArray[np.uint8]


Supports = list[tuple[Tensor, Tensor]]  # of a draw: the windows and next frames of each scene, or of each clip


@dataclass(frozen=True)
class Column:
    """Predictors that are judged together, one a scene or clip; and the draws whose supports they are the same for."""

    predictors: list[Predict]
    draws: list[Supports]

    def levels(self, body: Predict | None) -> list[list[float]]:
        """The mean local score, in decibels, in the windows of every support, of every draw."""
        return [
            [self.level(predict, body, x, y) for predict, (x, y) in zip(self.predictors, supports)]
            for supports in self.draws
        ]

    def level(self, predict: Predict, body: Predict | None, x: Tensor, y: Tensor) -> float:
        """That of one support."""
        with torch.no_grad():
            seen = body(x) if body else x
        return float(decibels(errors_of(predict, seen, y).local).mean())


def score_clips(
    method: Method, split: ClipSplit, protocol: Protocol, inner_steps: int, seed: int
) -> tuple[Floats, Measures, dict[str, Measures], int]:
    """What a result needs: the raw frame AUC after every inner step [S + 1, draws]; all figures of every draw after the
    last, and those of the floors; how many frames are judged.
    """
    found = detected(method, split, protocol.shot, protocol.tasks, inner_steps, seed, protocol.support)
    scores = np.array([[figures["auc/raw"] for figures in draws] for draws in found.by_step])
    return scores, listed(found.by_step[-1]), {name: listed(of) for name, of in found.floors.items()}, found.frames


def listed(draws: list[Figures]) -> Measures:
    """Each figure of every draw, and the metric among them."""
    return {METRIC: np.array([of["auc/raw"] for of in draws])} | {
        name: np.array([of[name] for of in draws]) for name in draws[0]
    }


def detected(
    method: Method, split: ClipSplit, shot: int, draws: int, inner_steps: int, seed: int, support: Support
) -> Detected:
    """Fit on every draw, of which each process takes some, and judge all frames of the test clips.

    support: `normal`, the footage of training, or `clip_start`, the first windows of each test clip taken for normal,
    as published.
    """
    assert isinstance(method, GradientBased)
    tasks = drawn_supports(split, shot, draws, seed, support)
    own = share(len(tasks))
    of_process = detected_on(method, split, tasks[own.start : own.stop], inner_steps, support) if own else None
    parts = [part for part in gathered(of_process) if part]
    return Detected(
        [[figures for part in parts for figures in part.by_step[step]] for step in range(inner_steps + 1)],
        {name: [figures for part in parts for figures in part.floors[name]] for name in parts[0].floors},
        parts[0].frames,
    )


def detected_on(
    method: GradientBased, split: ClipSplit, tasks: list[list[Draw]], inner_steps: int, support: Support
) -> Detected:
    """The same of some draws.  A body that no support changes looks at each window once, for all heads."""
    supports = [[windows_of(floats(split, draw.firsts, method.device)) for draw in of] for of in tasks]
    body = shared_body(method)
    part = "head" if body else ""
    unmoved = method.inductive == "running" or not has_batch_norm(method.network)  # by a support, without a step
    columns = []
    for step in range(inner_steps + 1):
        groups = [supports] if step == 0 and unmoved and support == "normal" else [[windows] for windows in supports]
        columns += [Column([fitted(method, x, y, step, part) for x, y in of[0]], of) for of in groups]
    found = judged(split, tasks[0], columns, body)
    by_step = [found[at : at + len(tasks)] for at in range(0, len(found), len(tasks))]
    every = [[floors(x, y) for x, y in windows] for windows in supports]
    beside: dict[str, list[Figures]] = {}
    for name in every[0][0]:
        if name == "least squares" or support == "clip_start":
            named = [Column([one[name] for one in of], [windows]) for of, windows in zip(every, supports)]
        else:
            named = [Column([one[name] for one in every[0]], supports)]
        beside[name] = judged(split, tasks[0], named)
    return Detected(by_step, beside, sum(len(part) for _, part in kept_windows(split, tasks[0])))


def shared_body(method: GradientBased) -> Predict | None:
    """What all adapted networks have in common before their heads; None if the support changes it."""
    kept = all(name.startswith("head.") for name in method.inner_names)
    if not kept or (has_batch_norm(method.backbone) and method.inductive != "running"):
        return None
    return method.backbone.eval()


def drawn_supports(split: ClipSplit, shot: int, draws: int, seed: int, support: Support) -> list[list[Draw]]:
    """Of every draw, the supports of all scenes, or of all clips; `clip_start` leaves nothing to draw."""
    if support == "clip_start":
        starts = [Draw([clip], firsts[:shot], shot) for clip, firsts in split.by_clip()]
        return [starts]
    tasks = ClipTasks(split, shot, 1, seed)
    clips = {scene: [c for c in split.clips.tolist() if split.data.scenes[c] == scene] for scene in tasks.scenes}
    return [
        [Draw(clips[scene], tasks.drawn_of(scene, number).support, 0) for scene in tasks.scenes]
        for number in range(draws)
    ]


def hash_of(split: ClipSplit, shot: int, draws: int, seed: int, support: Support) -> str:
    """Names the supports, the clips and their labels."""
    digest = hashlib.sha256(split.data.digest.encode())
    for draw in drawn_supports(split, shot, draws, seed, support):
        digest.update(repr([(clips, firsts.tolist(), skipped) for clips, firsts, skipped in draw]).encode())
    return digest.hexdigest()[:16]


def opening(split: ClipSplit, shot: int) -> str:
    """What a result must say whose supports are the first windows of the tested clips."""
    data, clips = split.data, split.by_clip()
    taught = [split.target(firsts[:shot]) for _, firsts in clips]
    wrong = sum(bool(data.abnormal[frames].any()) for frames in taught) if data.abnormal is not None else 0
    return (
        f"The support is the first {wording.count(shot, 'window')} of each tested clip, as published: in {wrong} of "
        f"{wording.count(len(clips), 'clip')} abnormal frames are taught as normal."
    )


def fitted(method: GradientBased, x: Tensor, y: Tensor, steps: int, part: str) -> Predict:
    """The method's network for a support, on its device, or its head alone."""
    network = method.fit(x, y, steps).to(method.device)
    found: nn.Module = network.get_submodule(part)
    return found


def kept_windows(split: ClipSplit, draws: Sequence[Draw]) -> Iterator[tuple[int, Numbers]]:
    """For the windows of each clip that are judged, the number of the support that they are judged by."""
    firsts = dict(split.by_clip())
    for number, draw in enumerate(draws):
        for clip in draw.clips:
            yield number, firsts[clip][draw.skipped :]


def judged(
    split: ClipSplit, draws: Sequence[Draw], columns: Sequence[Column], body: Predict | None = None
) -> list[Figures]:
    """The figures of each draw of each column, one after another: areas under ROC curves, by score and form.

    auc: of the mean error of a frame; local_auc: of the largest box; online_auc: of that less its mean over the support
    windows, smoothed by the past alone; prototypes_auc: of the mean error and the distance from the prototypes, each
    within its clip, in equal parts.
    """
    asked = list(kept_windows(split, draws))
    labels = [split.data.abnormal[split.target(firsts)] for _, firsts in asked if split.data.abnormal is not None]
    clips: list[list[Errors]] = [[] for _ in columns]
    for number, firsts in asked:
        found = watched(split, firsts, [column.predictors[number] for column in columns], body)
        for column, errors in zip(clips, found):
            column.append(errors)
    return [
        figures(errors, labels, [levels[number] for number, _ in asked])
        for errors, column in zip(clips, columns)
        for levels in column.levels(body)
    ]


def figures(clips: Sequence[Errors], labels: Sequence[NDArray[np.uint8]], normal: Sequence[float]) -> Figures:
    """Of one predictor, from its errors in every clip; normal: its level in the support windows of each."""
    every = np.concatenate(labels)
    found = {f"auc/{name}": value for name, value in whole_clips([decibels(e.mean) for e in clips], labels).items()}
    local = whole_clips([decibels(e.local) for e in clips], labels)
    found |= {f"local_auc/{name}": value for name, value in local.items()}
    if len(marked := np.concatenate([e.marked for e in clips])):
        found["auc/pixel"] = area(marked, np.concatenate([e.covering for e in clips]))
    online = [causal(decibels(e.local) - level) for e, level in zip(clips, normal)]
    found["online_auc/raw"] = area(every, np.concatenate(online))
    if all(e.feature.any() for e in clips):
        both = [smoothed((within_clip(decibels(e.mean)) + within_clip(decibels(e.feature))) / 2) for e in clips]
        found["prototypes_auc/minmax_smoothed"] = area(every, np.concatenate(both))
    return found


def watched(split: ClipSplit, firsts: Numbers, predictors: Sequence[Predict], body: Predict | None) -> list[Errors]:
    """The errors of each predictor in the windows of a clip, some at a time."""
    parts: list[list[Errors]] = [[] for _ in predictors]
    masks = split.data.masks
    for begin in range(0, len(firsts), BATCH):
        some = firsts[begin : begin + BATCH]
        marks = None if masks is None else masks.of(split.target(some))
        x, y = windows_of(floats(split, some, device_of(body or predictors[0])))
        with torch.no_grad():
            seen = body(x) if body else x
        for part, predict in zip(parts, predictors):
            errors = errors_of(predict, seen, y)
            covered = [covering(place, mask) for place, mask in zip(errors.place, marks)] if marks is not None else []
            marked = np.array([mask.any() for mask in marks] if marks is not None else [], np.uint8)
            part.append(Errors(errors.mean, errors.local, errors.feature, np.array(covered), marked))
    return [Errors(*(np.concatenate(column) for column in zip(*part))) for part in parts]


class Told(NamedTuple):
    """`FrameErrors` in numpy, float64."""

    mean: Floats
    local: Floats
    feature: Floats
    place: Floats


def errors_of(predict: Predict, x: Tensor, y: Tensor) -> Told:
    """What is wrong with the predictions for windows."""
    with torch.no_grad():
        found: FrameErrors = frame_errors(predict(x), y)
    return Told(*(part.double().cpu().numpy() for part in found))


def device_of(predict: Predict) -> torch.device:
    """Where a predictor's weights are, if it has any."""
    parameters = predict.parameters() if isinstance(predict, nn.Module) else iter(())
    return next((p.device for p in parameters), torch.device("cpu"))
