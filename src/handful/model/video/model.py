"""The model that watches a camera: what `fit` makes of its normal footage, and `predict` uses."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from handful.data.video.reading import Frame, at_size, frames, is_camera
from handful.data.video.store import too_short
from handful.embedders import Embed, embedder
from handful.errors import HandfulError
from handful.model.folder import read_network, write_folder
from handful.model.stages import blank, meanwhile, together
from handful.model.video.card import VideoCard
from handful.model.video.footage import clips_at, known_rate
from handful.model.video.network import Watching, unfitted
from handful.model.video.scores import Normal, Smoother, levels
from handful.problems import VideoAnomaly
from handful.problems.video_anomaly import frame_errors
from handful.wording import printable

BATCH = 8  # frames; several batches are held at a time, whose frames may be large
ASPECT = 0.02  # share by which width over height may differ from that of the normal footage
RATE = 0.1  # share by which frames a second may

Given = str | Path | Sequence[str | Path]
Tell = Callable[[str], object]


class FrameScore(NamedTuple):
    """What is said of a frame.

    frame: its number, from 0; time: seconds from the start of the clip, where it says; score: None of the first frames
    of a clip, which nothing is predicted from yet, and of a frame of one colour; alarm: whether it is above the
    threshold, or shows nothing; heat: how many deviations above the normal level the error around each place lies,
    float32 [size, size] of the frame as the network sees it, None without a score, and if it was not asked for.
    """

    frame: int
    time: float | None
    score: float | None
    alarm: bool
    heat: NDArray[np.float32] | None = None

    def as_dict(self) -> dict[str, Any]:
        """For JSON."""
        score = None if self.score is None else round(self.score, 4)
        time = None if self.time is None else round(self.time, 6)
        return {"frame": self.frame, "time": time, "score": score, "alarm": self.alarm}


@dataclass
class VideoPrediction:
    """The scores of the frames of a clip; error: why there are no more of them."""

    input: str
    frames: list[FrameScore]
    error: str | None = None


class Seen(NamedTuple):
    """Some successive frames; which show nothing; and of those that something is predicted for, `asked`, the windows.

    windows: uint8 [n, T*C, size, size]; targets: the frames themselves, uint8 [n, C, size, size].
    """

    frames: list[Frame]
    dark: list[bool]
    asked: list[int]
    windows: NDArray[np.uint8]
    targets: NDArray[np.uint8]


class Judged(NamedTuple):
    """The same frames; the raw score and the heat of each by its place, where there are any."""

    frames: list[Frame]
    dark: list[bool]
    found: dict[int, tuple[float, NDArray[np.float32] | None]]


class VideoModel:
    """Watches a fixed camera: how much each frame differs from what was to be expected, by the frames before it."""

    def __init__(self, network: nn.Module, card: VideoCard) -> None:
        self.network = network.eval().requires_grad_(False)
        self.card = card
        self.normal = Normal(card.mean, card.deviation)

    def predict(self, inputs: Given, skip_bad: bool = False, tell: Tell | None = None) -> list[VideoPrediction]:
        """The scores of all frames of videos, folders of frames, and folders of such clips.

        skip_bad: the answer to a clip that cannot be read, or breaks off, holds the `error`, and the scores until then.
        As `watch`, which gives them as they come.
        """
        places = [inputs] if isinstance(inputs, str | Path) else inputs
        found = []
        for clip in dict.fromkeys(clip for place in places for clip in clips_at(Path(place))):
            prediction = VideoPrediction(printable(clip), [])
            try:
                prediction.frames.extend(score for _, score in self.watch(clip, tell=tell))
            except HandfulError as error:
                if not skip_bad:
                    raise
                prediction.error = str(error)
            found.append(prediction)
        if not found:
            raise HandfulError("Nothing to predict: name at least one video or folder of frames.")
        return found

    def watch(
        self, clip: str | Path, follow: bool = False, heat: bool = False, tell: Tell | None = None
    ) -> Iterator[tuple[Frame, FrameScore]]:
        """The frames of a clip as they come, in grey if the network sees them so, with their scores.

        Decoding, computing, and what is done with a score go on at the same time; a few frames are held, whatever the
        length of the clip.  follow: each as soon as it is there, of a camera or of a file that grows, until the
        iterator is closed.  heat: say too where in a frame the error is.  tell: is given a line on frames of another
        size or rate than the normal footage.

        Raises HandfulError for what cannot be read, after the scores of all before it; for a clip that is shorter than
        a window and the frame after it.
        """
        clip = Path(clip)
        if is_camera(clip) and not follow:
            raise HandfulError(
                f"{printable(clip)} is a camera, which has no end: follow it, by --follow or follow=True."
            )
        shown = frames(clip, grey=self.card.channels == 1, follow=follow)
        stop = getattr(shown, "close", None) if follow else None  # another thread may be in the decoder otherwise
        smoother, count = Smoother(), 0
        seen = meanwhile(self._seen(shown, 1 if follow else BATCH), stop)
        for batch, dark, found in meanwhile(self._judged(seen, heat), stop):
            for place, frame in enumerate(batch):
                if count == 0 and tell:
                    self.compare(clip, frame, tell)
                count += 1
                if dark[place]:
                    smoother = Smoother()
                raw, hot = found.get(place, (None, None))
                score = None if raw is None else smoother(raw)
                alarm = dark[place] or (score is not None and score > self.card.threshold)
                yield frame, FrameScore(frame.number, frame.time, score, alarm, hot)
        if count <= self.card.window and not follow:
            raise too_short(printable(clip), count, self.card.window)

    def _seen(self, shown: Iterator[Frame], size: int) -> Iterator[Seen]:
        """Frames, a few at a time, with the windows before them; after a frame of one colour all begins anew."""
        card = self.card
        before: deque[NDArray[np.uint8]] = deque(maxlen=card.window)
        for batch in together(shown, size):
            dark, asked, windows, targets = [], list[int](), [], []
            for place, frame in enumerate(batch):
                small = at_size(frame.pixels, card.size, card.channels)
                dark.append(blank(small))
                if dark[-1]:
                    before.clear()
                    continue
                if len(before) == card.window:
                    asked.append(place)
                    windows.append(np.concatenate(before))
                    targets.append(small)
                before.append(small)
            none = np.zeros(0, np.uint8)
            yield Seen(batch, dark, asked, *(np.stack(of) if of else none for of in (windows, targets)))

    def _judged(self, seen: Iterator[Seen], heat: bool) -> Iterator[Judged]:
        """Frames with their raw scores."""
        for batch, dark, asked, windows, targets in seen:
            found = {}
            if asked:
                predicted = self.run(torch.from_numpy(windows))
                errors = frame_errors(predicted, torch.from_numpy(targets).float().div(255))
                raw = self.normal.deviations(levels(errors.local)).tolist()
                hot = self.normal.deviations(levels(errors.place)).astype(np.float32) if heat else [None] * len(raw)
                found = dict(zip(asked, zip(raw, hot)))
            yield Judged(batch, dark, found)

    def compare(self, clip: Path, frame: Frame, tell: Tell) -> None:
        """Tell what of a clip is otherwise than in the normal footage."""
        name, card = printable(clip), self.card
        height, width = frame.pixels.shape[:2]
        known = "{}x{}".format(*card.frame_size)
        if abs(width / height / (card.frame_size[0] / card.frame_size[1]) - 1) > ASPECT:
            tell(
                f"{name} has {width}x{height} pixels and is stretched to the shape of the normal footage, {known}: if "
                "it is of another camera, fit a model to its own normal footage."
            )
        elif (width, height) != card.frame_size:
            tell(f"{name} has {width}x{height} pixels and is scaled: the normal footage has {known}.")
        rate = known_rate(clip)
        if rate and card.frame_rate and abs(rate / card.frame_rate - 1) > RATE:
            tell(
                f"{name} has {rate:.4g} frames a second, the normal footage {card.frame_rate:.4g}: what moves goes "
                "another way from frame to frame, and scores are not comparable; fit on footage at this rate."
            )

    @cached_property
    def run(self) -> Embed:
        """uint8 windows [n, T*C, size, size] -> the frames that are expected [n, C, size, size]."""
        return embedder(self.network if self.card.backbone is None else Watching(self.network, self.card))

    def save(self, folder: str | Path) -> Path:
        """Write the model folder; an older model of that name is replaced once the new one is whole."""
        return write_folder(folder, self.card, self.network)

    @classmethod
    def load(cls, folder: str | Path) -> VideoModel:
        """Open a model folder; nothing in it is run."""
        return cls(*read_network(Path(folder), VideoCard, VideoAnomaly.name, unfitted))

    def __getstate__(self) -> dict[str, Any]:
        """For copies and pickles: without the embedder, which is made anew."""
        return {key: value for key, value in vars(self).items() if key != "run"}
