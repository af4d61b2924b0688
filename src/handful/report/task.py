"""The picture of one test task of a run, its mistakes framed."""

from __future__ import annotations

from pathlib import Path

from handful.episodes import EpisodeSampler
from handful.recipe import Protocol
from handful.report.sheet import contact_sheet
from handful.report.style import save
from handful.run import Run


def draw_task(run: Run, protocol: Protocol) -> Path:
    """Draw the first test task of a protocol, as the run's method names it, to `plots/contact_sheet.png`."""
    split = run.data.test
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


def short_name(name: str) -> str:
    """`Greek/character03/rot090` -> `character03/rot090`: the folder of a class is no part of its name on a picture."""
    *_, last = parts = name.split("/")
    return "/".join(parts[-2:]) if last.startswith("rot") else last
