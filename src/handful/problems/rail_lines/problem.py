"""Rail lines: x is a frame [3, H, W], y its two lines on rows [2, R, 2]; the metric is the IoU of the path."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from handful.data.augment import Augment
from handful.data.dataset import Split
from handful.data.rails.store import HEIGHT, WIDTH, RailSplit
from handful.decoders import DECODERS, Pyramid
from handful.episodes import Episode
from handful.errors import HandfulError
from handful.problems.rail_lines.predictions import (
    Found,
    Lines,
    cut,
    f1,
    gauge_error,
    limit_error,
    on_rows,
    path_iou,
    points_within,
    row_losses,
    settled,
)
from handful.problems.rail_lines.tasks import BASE_THERE, BASE_X, FrameSampler, FrameTasks
from handful.registry import build, check_options

DECODER = {"name": "row_distributions"}
ASPECT = WIDTH / HEIGHT


class RailLines:
    """Finding a pair of rails in frames, from a few in which they are drawn.

    decoder: which one stands on the backbone's maps, by its name and options (`handful list decoders`).
    """

    name = "rail_lines"
    metric = "path_iou"

    def __init__(self, decoder: Mapping[str, Any] | None = None) -> None:
        self.decoder = dict(decoder or DECODER)
        self.residual = bool(check_options("decoder", DECODERS, self.decoder).get("residual", False))

    def sampler(
        self, split: Split, way: int, shot: int, query: int, seed: int = 0, augment: Augment = "none"
    ) -> FrameTasks:
        """Tasks of annotated frames."""
        if way != 1:
            raise HandfulError(f"A task of rail lines has no classes, so way must be 1, not {way}.")
        return FrameTasks(frames_of(split), shot, query, seed, varied(augment))

    def examples(self, split: Split, seed: int, augment: Augment) -> FrameSampler:
        """Frames for ordinary training, with the rails of the train's own track.

        Raises HandfulError where a decoder needs a support, which a single frame has not.
        """
        if self.residual:
            raise HandfulError(
                f"The decoder {self.decoder['name']!r} adds to the mean line of a support, which single frames have "
                "not: leave pretrain out, or set decoder.residual to false."
            )
        return FrameSampler(frames_of(split), seed, varied(augment))

    def outputs(self, way: int) -> int:
        """A decoder has two lines."""
        return 2

    def network(self, backbone: nn.Module, outputs: int) -> tuple[nn.Module, nn.Module]:
        """The backbone's maps, and the decoder on them."""
        body = backbone if isinstance(backbone, Pyramid) else Pyramid(backbone)
        return body, build("decoder", DECODERS, self.decoder, shapes=body.shapes, lines=outputs)

    def loss(self, predictions: Tensor, targets: Tensor) -> Tensor:
        """Mean over the frames of a task: [B, n, L, R', C + 1], [B, n, L, R, 4] -> [B]."""
        return row_losses(self.whole(predictions, targets), targets).mean(1)

    def score(self, predictions: Tensor, targets: Tensor) -> Tensor:
        """Mean IoU of the path a task: [..., B, n, L, R', C + 1], [B, n, L, R, 4] -> [..., B]."""
        return path_iou(self.found(predictions, targets), targets).double().mean(-1)

    def measures(self, predictions: Tensor, targets: Tensor) -> dict[str, Tensor]:
        """Further figures of each task [B], all shares: of predictions [B, n, L, R', C + 1]."""
        return measured(self.found(predictions, targets), targets)

    def floors(self, episode: Episode) -> dict[str, dict[str, Tensor]]:
        """What the mean line of the support scores, [B]: `support mean`, with the further figures."""
        targets = episode.query_y
        found = cut(targets[..., BASE_X], targets[..., BASE_THERE], targets.shape[-2])
        score = path_iou(found, targets).double().mean(-1)
        return {"support mean": {self.metric: score, **measured(found, targets)}}

    def whole(self, predictions: Tensor, targets: Tensor) -> Tensor:
        """Predictions with the support's mean line added, if the decoder gives what is to be added to it."""
        if not self.residual:
            return predictions
        base = on_rows(targets[..., [BASE_X, BASE_THERE]], predictions.shape[-2])[..., 0]
        return torch.cat([predictions[..., :1] + base.unsqueeze(-1), predictions[..., 1:]], -1)

    def lines(self, predictions: Tensor, targets: Tensor) -> Lines:
        """What is predicted, as lines on rows."""
        return settled(self.whole(predictions, targets.expand(*predictions.shape[:-3], *targets.shape[-3:])))

    def found(self, predictions: Tensor, targets: Tensor) -> Found:
        """Predicted lines on the rows of the targets."""
        lines = self.lines(predictions, targets)
        return cut(lines.x, lines.there, targets.shape[-2])


def frames_of(split: Split) -> RailSplit:
    """A split of annotated frames; HandfulError for another."""
    if not isinstance(split, RailSplit):
        raise HandfulError(f"Rail lines need annotated frames, but the data set {split.data.name!r} holds none.")
    return split


def varied(augment: Augment) -> bool:
    """Whether frames are seen by other cameras."""
    if augment not in ("none", "cameras"):
        raise HandfulError(f"augment varies frames by cameras, and not by {augment}: set it to cameras or none.")
    return augment == "cameras"


def measured(found: Found, targets: Tensor) -> dict[str, Tensor]:
    """Means over the frames of each task, [B]."""
    figures = {
        "points_20px": points_within(found, targets),
        "f1": f1(found, targets, ASPECT),
        "gauge_error": gauge_error(found, targets),
        "limit_error": limit_error(found, targets),
    }
    return {name: value.double().mean(-1) for name, value in figures.items()}
