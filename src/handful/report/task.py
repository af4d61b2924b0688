"""The picture of test tasks of a run: what they were learned from, and how well."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from handful.data.functions import FunctionSplit
from handful.data.pictures import Picture
from handful.data.rails import Frame
from handful.data.rails.store import HEIGHT, WIDTH
from handful.data.store import ClassSplit
from handful.episodes import Episode, EpisodeSampler, FunctionSampler
from handful.errors import HandfulError
from handful.problems import RailLines, VideoAnomaly
from handful.problems.rail_lines import Answer, Lines, answers
from handful.problems.video_anomaly import copied, frame_errors
from handful.recipe import Protocol
from handful.report.curves import fitted_curves
from handful.report.overview import frame_sheet
from handful.report.sheet import contact_sheet
from handful.report.style import save
from handful.report.windows import window_sheet
from handful.run import Run

WINDOWS = 5  # in the picture of a task of clips
CURVES = 6  # tasks in the picture of a regression run
GRID = 201  # points of a drawn curve


def draw_task(run: Run, protocol: Protocol) -> Path:
    """Draw the first test task or tasks of a protocol into `plots/`, as the run's method answers them."""
    split = run.data.test
    if isinstance(split, ClassSplit):
        return _draw_pictures(run, split, protocol)
    if isinstance(split, FunctionSplit):
        return _draw_curves(run, split, protocol)
    if isinstance(problem := run.method.problem, RailLines):
        return _draw_frames(run, problem, protocol)
    if isinstance(problem, VideoAnomaly):
        return _draw_windows(run, problem, protocol)
    raise HandfulError(f"There is no picture of a task of the data set {run.data.name!r}.")


def _draw_pictures(run: Run, split: ClassSplit, protocol: Protocol) -> Path:
    """`contact_sheet.png`: one task as pictures, its mistakes framed."""
    sampler = EpisodeSampler(split, protocol.way, protocol.shot, protocol.query, run.recipe.seed)
    episode = sampler.episodes(0, 1).to(run.method.device)
    predictions = run.method.predict(episode, protocol.inner_steps, protocol.norm_stats)[-1, 0]
    figure = contact_sheet(
        support_x=episode.support_x[0],
        support_y=episode.support_y[0],
        query_x=episode.query_x[0],
        query_y=episode.query_y[0],
        predicted=predictions.argmax(-1),
        class_names=[short_name(split.class_name(index)) for index in sampler.indices(0, 1).classes[0]],
        probability=predictions.softmax(-1).max(-1).values,
    )
    return save(figure, run.folder / "plots" / "contact_sheet.png")


def _draw_curves(run: Run, split: FunctionSplit, protocol: Protocol) -> Path:
    """`fitted_curves.png`: the true curve of each task, its support, and the fit after every inner step."""
    sampler, family = FunctionSampler(split, protocol.shot, protocol.query, run.recipe.seed), split.data
    episode = sampler.episodes(0, CURVES)
    grid = np.broadcast_to(np.linspace(*family.domain, GRID), (CURVES, GRID))
    truth = family.value(sampler.parameters(0, CURVES), grid)
    x, y = (torch.from_numpy(values.copy()).float().unsqueeze(-1) for values in (grid, truth))
    asked = Episode(episode.support_x, episode.support_y, x, y).to(run.method.device)
    fits = run.method.predict(asked, protocol.inner_steps, protocol.norm_stats)
    figure = fitted_curves(
        support_x=episode.support_x[..., 0],
        support_y=episode.support_y[..., 0],
        x=x[..., 0],
        y=truth,
        fits=fits[..., 0],
    )
    return save(figure, run.folder / "plots" / "fitted_curves.png")


def _draw_frames(run: Run, problem: RailLines, protocol: Protocol) -> Path:
    """`frames.png`: the support of the first task, and its queries as they were answered."""
    sampler = problem.sampler(run.data.test, 1, protocol.shot, protocol.query, run.recipe.seed)
    episode = sampler.episodes(0, 1)
    predictions = run.method.predict(episode.to(run.method.device), protocol.inner_steps, protocol.norm_stats).cpu()
    score = problem.score(predictions.movedim(2, 1), episode.query_y.movedim(1, 0))
    frames = [as_frame(x, {}, y) for x, y in zip(episode.support_x[0], episode.support_y[0])]
    captions = ["support"] * protocol.shot
    lines = problem.lines(predictions[-1], episode.query_y)
    for number, found in enumerate(answers(Lines(*(part[0] for part in lines)), WIDTH, HEIGHT)):
        frames.append(as_frame(episode.query_x[0, number], found, episode.query_y[0, number]))
        captions.append(f"IoU {score[0, number]:.2f} before, {score[-1, number]:.2f} after")
    return save(frame_sheet(frames, captions), run.folder / "plots" / "frames.png")


def _draw_windows(run: Run, problem: VideoAnomaly, protocol: Protocol) -> Path:
    """`windows.png`: queries of the first task, and how well they are predicted before and after adaptation."""
    sampler = problem.sampler(run.data.test, 1, protocol.shot, WINDOWS, run.recipe.seed)
    episode = sampler.episodes(0, 1)
    predictions = run.method.predict(episode.to(run.method.device), protocol.inner_steps, run.method.inductive).cpu()
    score = problem.score(predictions.movedim(2, 1), episode.query_y.movedim(1, 0))
    y = episode.query_y[0]
    channels, split = y.shape[1], sampler.split
    frames = predictions[:, 0, :, :channels]
    before, after = (frame_errors(of, y).place.double().numpy() for of in (frames[0], frames[-1]))
    asked = split.target(sampler.drawn(0).query)
    abnormal = split.data.abnormal[asked] if split.data.abnormal is not None else np.zeros(len(asked))
    figure = window_sheet(
        copied(episode.query_x[0], channels).double().numpy(),
        y.double().numpy(),
        frames[-1].double().numpy(),
        before,
        after,
        [f"PSNR {score[0, n]:.1f} before, {score[-1, n]:.1f} after" for n in range(len(y))],
        [bool(odd) for odd in abnormal],
    )
    return save(figure, run.folder / "plots" / "windows.png")


def as_frame(x: Tensor, found: Mapping[str, Answer], target: Tensor) -> Frame:
    """A picture [3, H, W] with the lines that were found in it, and the true ones [L, R, 4]."""
    _, height, width = x.shape
    pixels = (x.movedim(0, -1) * 255).round().to(torch.uint8).numpy()
    on_rows, there = target[None, ..., :2].unbind(-1)
    rows = Lines(on_rows, there, torch.zeros_like(there), torch.ones_like(there))
    lines = {f"true {name}": line.points for name, line in answers(rows, width, height)[0].items()}
    lines |= {name: line.points for name, line in found.items()}
    return Frame(Picture("", "", "", lambda: pixels), width, height, lines)


def short_name(name: str) -> str:
    """`Greek/character03/rot090` -> `character03/rot090`: the folder of a class is no part of its name on a picture."""
    *_, last = parts = name.split("/")
    return "/".join(parts[-2:]) if last.startswith("rot") else last
