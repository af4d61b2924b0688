"""`fit` for rail lines: a model from a few annotated frames."""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from importlib.metadata import version
from pathlib import Path, PurePath
from typing import TypeAlias

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from handful import wording
from handful.data.pictures import Unreadable
from handful.data.rails import Frame, Line, load_frames
from handful.data.rails.store import HEIGHT, WIDTH, at_one_size
from handful.errors import HandfulError
from handful.model.rails.card import LineCard, LineCheck, LineFigures
from handful.model.rails.model import LineModel, LineNetwork
from handful.model.rails.start import FromBackbone, FromRun, Start, Support
from handful.model.start import Spec
from handful.problems.rail_lines import NAMES, mirrored, settled
from handful.problems.rail_lines.predictions import Found, cut, limit_error, on_rows, path_iou, points_within
from handful.problems.rail_lines.tasks import BASE_THERE, BASE_X, beside
from handful.run import Run

Sized: TypeAlias = tuple[NDArray[np.uint8], dict[str, Line], str]

SHAPE = 3, HEIGHT, WIDTH
AGREES = 0.5  # of the points that are found in a picture must be found in its mirror image, for both to be asked


def fit_lines(
    support: str | Path | Sequence[Frame],
    run: Run | None = None,
    inner_steps: int | None = None,
    *,
    backbone: Spec | None = None,
    check: bool = True,
    skip_bad: bool = False,
) -> LineModel:
    """Learn where the rails of a line are, from annotated frames: a folder or a file of them.

    run: a run of rail lines to adapt, by inner_steps if not by its own number, and not at all where the check finds
    that frames left out are answered better without, unless inner_steps says so; without it a decoder is trained on a
    frozen backbone, EfficientNet-Lite0 with its ImageNet weights unless another is named, on these frames as other
    cameras see them.  check: fit anew without some of the frames, to see how good the model is: without each in turn,
    of more than five a fifth of them, or without one half and then the other where a decoder is trained.  skip_bad:
    leave out frames whose pictures cannot be read, and say so.

    Raises HandfulError: no frames, a broken annotation, no rails in any, a run of another problem.
    """
    frames = load_frames(support) if isinstance(support, str | Path) else list(support)
    given, notes = read(frames, skip_bad)
    start: Start = FromBackbone(backbone, given) if run is None else FromRun(run, inner_steps, given)
    every = range(len(given.pairs))
    network, steps = start.learn(every), start.steps
    mirror = not start.problem.residual and looks_alike(network, given)
    before = start.unadapted()
    found = left_out(start, given, mirror, before) if check and len(every) > 1 else None
    if found and before and inner_steps is None and not found.helps:
        network, steps = before, 0
        notes.append("It is as it was before, since frames left out are answered better by it than by an adapted one.")
    card = LineCard(
        handful=version("handful"),
        problem="rail_lines",
        lines=[name for name, sides in zip(NAMES, zip(*given.pairs)) if any(line is not None for line in sides)],
        frames=len(every),
        width=WIDTH,
        height=HEIGHT,
        size=(frames[0].width, frames[0].height),
        mirror=mirror,
        backbone=start.backbone,
        decoder=start.problem.decoder,
        method=start.name,
        steps=steps,
        recipe=start.recipe,
        seen=start.seen,
        check=found,
        notes=notes,
    )
    return LineModel(LineNetwork(network, base_of(start, given.rows(every), network), SHAPE, mirror), card)


def read(frames: Sequence[Frame], skip_bad: bool = False) -> tuple[Support, list[str]]:
    """Frames at the network's size, and what a person should know of them."""
    if not frames:
        raise HandfulError("There are no annotated frames to learn from; docs/rails.md says how to make some.")

    def tried(frame: Frame) -> Sized | Unreadable:
        try:
            return at_one_size(frame)
        except Unreadable as error:
            return error

    sized: list[Sized] = []
    skipped: list[str] = []
    with ThreadPoolExecutor() as pool:
        for frame, found in zip(frames, pool.map(tried, frames)):
            if not isinstance(found, Unreadable):
                sized.append(found)
            elif skip_bad:
                skipped.append(PurePath(frame.picture.name).name)
            else:
                raise found
    if not sized:
        raise HandfulError(f"The pictures of all {wording.count(len(frames), 'frame')} cannot be read; mend them.")
    pictures, lines, _ = zip(*sized)
    support = Support(
        torch.from_numpy(np.stack(pictures)).float().div(255), [(of.get("left"), of.get("right")) for of in lines]
    )
    if not any(line is not None for pair in support.pairs for line in pair):
        named = ", ".join(sorted({name for of in lines for name in of})) or "none"
        raise HandfulError(f"No frame has a line `left` or `right`, the rails to learn; there are: {named}.")
    notes = [f"Left out, since they cannot be read: {', '.join(skipped)}."] if skipped else []
    for name, side in zip(NAMES, zip(*support.pairs)):
        if there := sum(line is not None for line in side):
            lacks = "" if there == len(side) else f"The {name} rail is in {there} of {len(side)} frames."
        else:
            lacks = f"The {name} rail is in no frame, so it is not looked for."
        notes += [lacks] if lacks else []
    sizes = sorted({(frame.width, frame.height) for frame in frames})
    if len(sizes) > 1:
        listed = ", ".join(f"{width}x{height}" for width, height in sizes)
        notes.append(f"The frames have several sizes ({listed}): are they of one camera?")
    return support, notes


def base_of(start: Start, rows: Tensor, network: nn.Module) -> Tensor:
    """The mean line [L, R'] in targets [n, L, R, 4] that predictions are added to; nothing if they stand alone."""
    if not start.problem.residual:
        return torch.zeros(0)
    count: int = network.get_submodule("head").rows  # type: ignore[assignment]  # a decoder that regresses has them
    return on_rows(rows[0][..., [BASE_X, BASE_THERE]], count)[..., 0]


def looks_alike(network: nn.Module, support: Support) -> bool:
    """Whether the network finds the lines of its support in mirror images too.

    It does not where the track on one side was asked for, or one of two ways, or one rail.
    """
    targets = support.rows(range(len(support.pairs)))[..., :2]
    with torch.no_grad():
        plain, turned = network(support.images), mirrored(network(support.images.flip(-1)))
    found, other = (float(points_within(lines_in(said, targets), targets).mean()) for said in (plain, turned))
    return other >= AGREES * found


def left_out(start: Start, support: Support, mirror: bool, unadapted: nn.Module | None) -> LineCheck:
    """Each part of the support answered by a model of the others, and by the network that it begins with, if any."""
    count = len(support.pairs)
    both = all(any(line is not None for line in side) for side in zip(*support.pairs))
    scores: dict[str, list[dict[str, float]]] = {name: [] for name in ("fitted", "unadapted", "floor")}
    for part in range(start.folds):
        asked = range(part, count, start.folds)
        others = [number for number in range(count) if number not in asked]
        x, targets = support.images[list(asked)], support.rows(asked)[..., :2]
        mean = beside(targets[None], support.rows(others)[None, ..., :2])[0]
        for name, network in (("fitted", start.learn(others)), ("unadapted", unadapted)):
            if network is not None:
                whole = LineNetwork(network, base_of(start, mean, network), SHAPE, mirror)
                with torch.no_grad():
                    scores[name] += figures(lines_in(whole(x), targets), targets)
        scores["floor"] += figures(cut(mean[..., BASE_X], mean[..., BASE_THERE], mean.shape[-2]), targets)
    found = {
        name: {figure: sum(one[figure] for one in of) / count for figure in of[0]} for name, of in scores.items() if of
    }
    told = {name: LineFigures(**{**of, "path_iou": of["path_iou"] if both else None}) for name, of in found.items()}
    return LineCheck(
        frames=count, folds=start.folds, fitted=told["fitted"], unadapted=told.get("unadapted"), floor=told["floor"]
    )


def lines_in(predictions: Tensor, targets: Tensor) -> Found:
    """Predictions [n, L, R', C + 1] as lines on the rows of the targets [n, L, R, 2]."""
    lines = settled(predictions)
    return cut(lines.x, lines.there, targets.shape[-2])


def figures(found: Found, targets: Tensor) -> list[dict[str, float]]:
    """What is said of each frame."""
    measures = {"path_iou": path_iou, "points_20px": points_within, "limit_error": limit_error}
    values = {name: measure(found, targets).tolist() for name, measure in measures.items()}
    return [dict(zip(values, row)) for row in zip(*values.values())]
