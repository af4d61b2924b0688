"""The fitted model of rail lines: what `fit` makes of a few annotated frames, and `predict` uses."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from handful.backbones import BACKBONES
from handful.data.pictures import Pixels
from handful.embedders import Embed, embedder
from handful.errors import HandfulError
from handful.model.folder import read_network, write_folder
from handful.model.rails.card import LineCard
from handful.model.rails.shots import Shot, Source, resized, shots, sources
from handful.model.rails.smoothing import Smoother
from handful.model.stages import blank, meanwhile, together
from handful.problems import RailLines
from handful.problems.rail_lines import Answer, Lines, answers, mirrored, settled
from handful.registry import build
from handful.wording import printable

BATCH = 4  # frames; several batches are held at a time, whose frames may be large
ASPECT = 0.02  # share by which width over height may differ from that of the annotated frames

Given = str | Path | Sequence[str | Path]
Tell = Callable[[str], object]


@dataclass
class LinePrediction:
    """The lines of one picture, or of one frame of a video, in its pixels; one that is nowhere is not there.

    frame: its number in the video, from 0; time: seconds from the video's start; error: why there is no answer.
    """

    input: str
    lines: dict[str, Answer] = field(default_factory=dict)
    frame: int | None = None
    time: float | None = None
    error: str | None = None

    def as_dict(self) -> dict[str, Any]:
        """For JSON: `frame` and `time` of a video alone; the input and its error alone, if there is one."""
        if self.error is not None:
            return {"input": self.input, "error": self.error}
        lines = {
            name: {"points": line.points.round(2).tolist(), "confidence": round(line.confidence, 4)}
            for name, line in self.lines.items()
        }
        place = {} if self.frame is None else {"frame": self.frame, "time": self.time}
        return {"input": self.input, **place, "lines": lines}

    def __str__(self) -> str:
        if self.error is not None:
            return self.error
        said = [f"{name} {100 * line.confidence:.0f} %" for name, line in self.lines.items()]
        where = self.input if self.frame is None else f"{self.input}, frame {self.frame}"
        return f"{where}: {', '.join(said) or 'no rail'}"


class LineNetwork(nn.Module):
    """Images [n, 3, H, W] in [0, 1] -> predictions [n, L, R, C + 1] of an adapted network.

    base: places [L, R] of the mean line of its support, which what it says is added to; none where it stands alone.
    mirror: answer with the mean of what it says of the picture and of its mirror image.
    """

    base: Tensor
    frozen = True  # so that onnxruntime may run it

    def __init__(self, network: nn.Module, base: Tensor, input_shape: tuple[int, ...], mirror: bool) -> None:
        super().__init__()
        self.network, self.input_shape, self.mirror = network, input_shape, mirror
        self.register_buffer("base", base)
        self.spec = {"name": "rail_lines", "mirror": mirror}

    def forward(self, images: Tensor) -> Tensor:
        """[n, 3, H, W] -> [n, L, R, C + 1]."""
        found: Tensor = self.network(images)
        if self.mirror:
            found = (found + mirrored(self.network(images.flip(-1)))) / 2
        if not self.base.numel():
            return found
        return torch.cat([found[..., :1] + self.base.unsqueeze(-1), found[..., 1:]], -1)


class LineModel:
    """A network fitted to the rails of a line.  Each picture is judged by itself, unless it is asked to smooth."""

    def __init__(self, network: LineNetwork, card: LineCard) -> None:
        self.network = network.eval().requires_grad_(False)
        self.card = card

    def predict(
        self, inputs: Given, smooth: float = 0.0, skip_bad: bool = False, tell: Tell | None = None
    ) -> list[LinePrediction]:
        """The lines of pictures, folders of pictures and videos, and of every frame of videos, all at once.

        As `watch`, which gives them as they come.
        """
        return [answer for _, answer in self.watch(inputs, smooth, skip_bad, tell)]

    def watch(
        self, inputs: Given | Sequence[Source], smooth: float = 0.0, skip_bad: bool = False, tell: Tell | None = None
    ) -> Iterator[tuple[Shot, LinePrediction]]:
        """Pictures, and the frames of videos, as they come, with their lines.

        Decoding, computing, and what is done with an answer go on at the same time; a few frames are held, whatever
        the length of a video.  smooth: the share of what earlier frames of a video said that the next one keeps, 0 to
        1.  skip_bad: the answer to what cannot be read, and to the rest of a video that breaks off, holds the `error`,
        and the others are answered all the same.  tell: is given a line on pictures of another size than the annotated
        ones.  Raises HandfulError: nothing to see, or nothing to smooth; and for what cannot be read, after the answers
        to all before it.
        """
        listed = seen_in(inputs)
        if not listed:
            raise HandfulError("Nothing to predict: name at least one picture, video or folder.")
        if not 0 <= smooth < 1:
            raise HandfulError(f"smooth is {smooth}, but it is a share of at least 0 and below 1; try 0.7.")
        if smooth and not any(source.is_video for source in listed):
            raise HandfulError("smooth is about the frames of a video, and none is among the inputs; leave it out.")
        return self._watch(listed, smooth, skip_bad, tell)

    def _watch(
        self, listed: Sequence[Source], smooth: float, skip_bad: bool, tell: Tell | None
    ) -> Iterator[tuple[Shot, LinePrediction]]:
        """As `watch`, once it is clear that it can be done."""
        smoother, smoothed = Smoother(smooth), None
        sizes = {self.card.size}
        for batch, lines in meanwhile(self._judged(meanwhile(self._prepared(listed, skip_bad)))):
            for number, shot in enumerate(batch):
                name = printable(shot.source.file)
                if shot.error is not None:
                    yield shot, LinePrediction(name, error=shot.error)
                    continue
                height, width = shot.pixels.shape[:2]
                if tell and (width, height) not in sizes:
                    sizes.add((width, height))
                    tell(self.other_size(name, width, height))
                one = Lines(*(part[number] for part in lines))
                if smooth and shot.frame is not None:
                    if smoothed != shot.source:
                        smoother, smoothed = Smoother(smooth), shot.source
                    one = smoother(one)
                found = answers(Lines(*(part[None] for part in one)), width, height)[0]
                kept: dict[str, Answer] = {side: found[side] for side in self.card.lines if side in found}
                yield shot, LinePrediction(name, kept, shot.frame, shot.time)

    def lines(self, pictures: Sequence[Pixels]) -> Lines:
        """Pictures [H, W, 3] of any size -> lines [n, L, R], each by itself."""
        return self.judged(np.stack([self.resized(pixels) for pixels in pictures]))

    def judged(self, images: NDArray[np.uint8]) -> Lines:
        """Pictures at the network's size [n, 3, height, width] -> lines [n, L, R]; none where nothing is shown."""
        lines = settled(self.run(torch.from_numpy(images)))
        empty = torch.tensor([blank(image) for image in images])
        return lines._replace(there=lines.there.masked_fill(empty.view(-1, 1, 1), 0))

    def resized(self, pixels: Pixels) -> NDArray[np.uint8]:
        """[H, W, 3] -> [3, height, width]; black where there is no picture."""
        width, height = self.card.width, self.card.height
        return resized(pixels, width, height) if pixels.size else np.zeros((3, height, width), np.uint8)

    def _prepared(self, listed: Sequence[Source], skip_bad: bool) -> Iterator[tuple[list[Shot], NDArray[np.uint8]]]:
        """Shots, a few at a time, with their pictures at the network's size."""
        for batch in together(shots(listed, skip_bad), BATCH):
            yield batch, np.stack([self.resized(shot.pixels) for shot in batch])

    def _judged(self, prepared: Iterator[tuple[list[Shot], NDArray[np.uint8]]]) -> Iterator[tuple[list[Shot], Lines]]:
        """Shots with their lines."""
        for batch, images in prepared:
            yield batch, self.judged(images)

    def other_size(self, name: str, width: int, height: int) -> str:
        """A sentence on a picture of another size than that of the annotated frames."""
        known = "{}x{}".format(*self.card.size)
        aspect = width / height / (self.card.size[0] / self.card.size[1])
        if abs(aspect - 1) <= ASPECT:
            return f"{name} has {width}x{height} pixels and is scaled: the annotated frames have {known}."
        return (
            f"{name} has {width}x{height} pixels and is stretched to the shape of the annotated frames, {known}: if it "
            "is of another camera, annotate some of its frames too, or else crop it as they were."
        )

    @cached_property
    def run(self) -> Embed:
        """uint8 images [n, 3, H, W] -> predictions: by onnxruntime where it is installed."""
        return embedder(self.network)

    def save(self, folder: str | Path) -> Path:
        """Write the model folder; an older model of that name is replaced once the new one is whole."""
        return write_folder(folder, self.card, self.network)

    @classmethod
    def load(cls, folder: str | Path) -> LineModel:
        """Open a model folder; nothing in it is run."""
        return cls(*read_network(Path(folder), LineCard, RailLines.name, unfitted))

    def __getstate__(self) -> dict[str, Any]:
        """For copies and pickles: without the embedder, which is made anew."""
        return {key: value for key, value in vars(self).items() if key != "run"}


def seen_in(inputs: Given | Sequence[Source]) -> list[Source]:
    """The pictures and videos of files and folders, each once."""
    given = [inputs] if isinstance(inputs, str | Path) else inputs
    listed = [found for one in given for found in ([one] if isinstance(one, Source) else sources(Path(one)))]
    return list({source.file: source for source in listed}.values())


def unfitted(card: LineCard) -> LineNetwork:
    """The network of a card, whose weights are to be filled in."""
    shape = (3, card.height, card.width)
    problem = RailLines(card.decoder)
    backbone: nn.Module = build("backbone", BACKBONES, card.backbone, input_shape=shape)
    body, head = problem.network(backbone, 2)
    rows: Any = getattr(head, "rows", 0)
    return LineNetwork(
        joined(body, head), torch.zeros(2, rows) if problem.residual else torch.zeros(0), shape, card.mirror
    )


def joined(body: nn.Module, head: nn.Module) -> nn.Module:
    """Backbone and head, by the names that a method gives them."""
    network = nn.Sequential()
    network.add_module("backbone", body)
    network.add_module("head", head)
    return network
