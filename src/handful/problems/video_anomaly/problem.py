"""Video anomalies: x is a window of frames, y the frame after it; what cannot be predicted well is abnormal."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from handful.data.augment import Augment
from handful.data.dataset import Split
from handful.data.video.store import ClipSplit
from handful.decoders import DECODERS, Windows
from handful.episodes import Episode
from handful.errors import HandfulError
from handful.problems.video_anomaly.floors import floors
from handful.problems.video_anomaly.scores import QUIETEST
from handful.problems.video_anomaly.tasks import ClipTasks, WindowSampler
from handful.registry import build, check_options

DECODER = {"name": "next_frame"}


class VideoAnomaly:
    """Predicting the next frame of normal footage; tasks are judged by how well (PSNR), labelled clips by frame AUC.

    decoder: which one stands on the backbone's map, by its name and options (`handful list decoders`): whether it has
    prototypes, and what it adds to.
    """

    name = "video_anomaly"
    metric = "psnr"

    def __init__(self, decoder: Mapping[str, Any] | None = None) -> None:
        self.decoder = dict(decoder or DECODER)
        options = check_options("decoder", DECODERS, self.decoder)
        if "edges" not in options:
            raise HandfulError(
                f"The decoder {self.decoder['name']!r} gives no frames, which video anomalies need; use next_frame."
            )
        self.edges, self.compactness, self.separateness = (
            float(options[name]) for name in ("edges", "compactness", "separateness")
        )
        self.colours = 1  # of a frame, until the network is known

    def sampler(
        self, split: Split, way: int, shot: int, query: int, seed: int = 0, augment: Augment = "none"
    ) -> ClipTasks:
        """Tasks of one scene each."""
        if way != 1:
            raise HandfulError(f"A task of video anomalies has no classes, so way must be 1, not {way}.")
        return ClipTasks(clips_of(split), shot, query, seed, varied(augment))

    def examples(self, split: Split, seed: int, augment: Augment) -> WindowSampler:
        """Windows for ordinary training, each with its next frame."""
        return WindowSampler(clips_of(split), seed, varied(augment))

    def outputs(self, way: int) -> int:
        """A decoder has one frame."""
        return 1

    def network(self, backbone: nn.Module, outputs: int) -> tuple[nn.Module, nn.Module]:
        """The backbone's map with the frames' linear extrapolation beside it, and the decoder on both."""
        body = backbone if isinstance(backbone, Windows) else Windows(backbone)
        self.colours = body.frame[0]
        return body, build("decoder", DECODERS, self.decoder, features=body.features, frame=body.frame)

    def loss(self, predictions: Tensor, targets: Tensor) -> Tensor:
        """Loss of each task: predictions [B, n, C or C + 2, H, W], targets [B, n, C, H, W] -> [B].

        Mean squared error, absolute error of the differences between neighbouring pixels times `edges` (Mathieu et al.,
        ICLR 2016), and of a decoder with prototypes the distance of each place from the nearest one times
        `compactness`, and what prototypes are too near to each other times `separateness` (MPN, equations of its loss).
        All on values in [-1, 1], as in the published code.
        """
        channels = self.checked(targets)
        difference = 2 * (predictions[..., :channels, :, :] - targets)
        total = difference.square().mean((1, 2, 3, 4))
        if self.edges:
            wanted, found = 2 * targets, 2 * predictions[..., :channels, :, :]
            for axis in (-1, -2):
                apart = found.diff(dim=axis).abs() - wanted.diff(dim=axis).abs()
                total = total + self.edges * apart.abs().mean((1, 2, 3, 4))
        if predictions.shape[-3] > channels:
            near, apart = (predictions[..., channels + place, :, :].mean((1, 2, 3)) for place in (0, 1))
            total = total + self.compactness * near + self.separateness * apart
        return total

    def checked(self, targets: Tensor) -> int:
        """The channels of frames [..., C, H, W]; HandfulError if the network predicts another number."""
        if (channels := targets.shape[-3]) != self.colours:
            raise HandfulError(
                f"Frames have {channels} channels, but the backbone predicts {self.colours}; set backbone.channels to "
                f"{channels}, or data.channels to {self.colours}."
            )
        return channels

    def score(self, predictions: Tensor, targets: Tensor) -> Tensor:
        """Mean PSNR of a task's frames in decibels: [..., B, n, C or C + 2, H, W], [B, n, C, H, W] -> [..., B]."""
        frames = predictions[..., : self.checked(targets), :, :]
        errors = (frames - targets).double().square().mean((-1, -2, -3)).clamp(min=QUIETEST)
        return (-10 * torch.log10(errors)).mean(-1)

    def measures(self, predictions: Tensor, targets: Tensor) -> dict[str, Tensor]:
        """The PSNR says it all."""
        return {}

    def floors(self, episode: Episode) -> dict[str, dict[str, Tensor]]:
        """What predictors that learned next to nothing score, [B]."""
        tasks = range(len(episode.query_x))
        named = [floors(episode.support_x[task], episode.support_y[task]) for task in tasks]
        return {
            name: {
                self.metric: self.score(
                    torch.stack([named[task][name](episode.query_x[task]) for task in tasks]), episode.query_y
                )
            }
            for name in named[0]
        }


def clips_of(split: Split) -> ClipSplit:
    """A split of clips; HandfulError for another."""
    if not isinstance(split, ClipSplit):
        raise HandfulError(f"Video anomalies need clips, but the data set {split.data.name!r} holds none.")
    return split


def varied(augment: Augment) -> bool:
    """Whether windows are mirrored."""
    if augment not in ("none", "clips"):
        raise HandfulError(f"augment varies clips as clips, and not by {augment}: set it to clips or none.")
    return augment == "clips"
