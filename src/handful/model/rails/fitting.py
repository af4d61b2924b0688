"""`fit` for rail lines: a model from a few annotated frames."""

from __future__ import annotations

from collections.abc import Sequence
from importlib.metadata import version
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from handful import wording
from handful.data.rails import Frame, load_frames
from handful.data.rails.store import HEIGHT, WIDTH, at_one_size
from handful.episodes import Episode
from handful.errors import HandfulError
from handful.model.rails.card import LineCard, LineCheck
from handful.model.rails.model import LineModel, LineNetwork
from handful.model.rails.start import FromBackbone, FromRun, Start, Support
from handful.problems.rail_lines.predictions import on_rows
from handful.problems.rail_lines.tasks import BASE_THERE, BASE_X, beside
from handful.run import Run


def fit_lines(
    support: str | Path | Sequence[Frame], run: Run | None = None, inner_steps: int | None = None, check: bool = True
) -> LineModel:
    """Learn where the rails of a line are, from annotated frames: a folder or a file of them.

    run: a run of rail lines to adapt; without it a decoder is trained on the frozen backbone, on these frames as other
    cameras see them.  check: fit anew with each frame left out, to see how good the model is.

    Raises HandfulError: no frames, a broken annotation, no rails in any, a run of another problem.
    """
    frames = load_frames(support) if isinstance(support, str | Path) else list(support)
    start: Start = FromBackbone() if run is None else FromRun(run, inner_steps)
    given, notes = read(frames)
    network = start.learn(given)
    card = LineCard(
        handful=version("handful"),
        problem="rail_lines",
        frames=len(frames),
        width=WIDTH,
        height=HEIGHT,
        size=(frames[0].width, frames[0].height),
        backbone=start.backbone,
        decoder=start.problem.decoder,
        method=start.name,
        steps=start.steps,
        recipe=start.recipe,
        seen=start.seen,
        check=left_out(start, given) if check and len(frames) > 1 else None,
        notes=notes,
    )
    return LineModel(LineNetwork(network, base_of(start, given, network), (3, HEIGHT, WIDTH)), card)


def read(frames: Sequence[Frame]) -> tuple[Support, list[str]]:
    """Frames at the network's size, and what a person should know of them."""
    if not frames:
        raise HandfulError("There are no annotated frames to learn from; docs/rails.md says how to make some.")
    notes = []
    counts = {name: sum(name in frame.lines for frame in frames) for name in ("left", "right")}
    if not any(counts.values()):
        named = ", ".join(sorted({name for frame in frames for name in frame.lines})) or "none"
        raise HandfulError(f"No frame has a line `left` or `right`, the rails to learn; there are: {named}.")
    for name, count in counts.items():
        if count < len(frames):
            notes.append(f"The {name} rail is in {count} of {wording.count(len(frames), 'frame')}.")
    sizes = {(frame.width, frame.height) for frame in frames}
    if len(sizes) > 1:
        told = ", ".join(f"{width}x{height}" for width, height in sorted(sizes))
        notes.append(f"The frames have several sizes ({told}): are they of one camera?")
    pictures, lines = zip(*(at_one_size(frame)[:2] for frame in frames))
    images = torch.from_numpy(np.stack(pictures)).float().div(255)
    return Support(images, [(found.get("left"), found.get("right")) for found in lines]), notes


def base_of(start: Start, support: Support, network: nn.Module) -> Tensor:
    """The mean line [L, R'] that the network's predictions are to be added to; nothing if they stand alone."""
    if not start.problem.residual:
        return torch.zeros(0)
    with torch.no_grad():
        rows = network(support.images[:1]).shape[-2]
    return on_rows(support.rows()[0, 0][..., [BASE_X, BASE_THERE]], rows)[..., 0]


def left_out(start: Start, support: Support) -> LineCheck:
    """Each frame answered by a model of the others."""
    asked = {"path_iou": 0.0, "points_20px": 0.0, "limit_error": 0.0}
    found = {name: dict(asked) for name in ("adapted", "unadapted", "floor")}
    count, targets = len(support.pairs), support.rows()[..., :2]
    for number in range(count):
        others = support.without(number)
        x, y = support.images[number : number + 1], targets[:, number : number + 1]
        y = beside(y, others.rows()[..., :2])
        answered = {"adapted": start.learn(others), "unadapted": start.unadapted(others)}
        for name, network in answered.items():
            if network is None:
                continue
            with torch.no_grad():
                predictions = network(x)[None]
            score = {"path_iou": start.problem.score(predictions, y), **start.problem.measures(predictions, y)}
            add(found[name], score, count)
        add(found["floor"], start.problem.floors(Episode(x, y, x, y))["support mean"], count)
    unadapted = found["unadapted"] if start.unadapted(support) is not None else None
    return LineCheck(frames=count, **found["adapted"], unadapted=unadapted, floor=found["floor"])


def add(total: dict[str, float], score: dict[str, Tensor], count: int) -> None:
    """Add one frame's share of the means."""
    for name in total:
        total[name] += float(score[name]) / count
