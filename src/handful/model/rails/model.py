"""The fitted model of rail lines: what `fit` makes of a few annotated frames, and `predict` uses."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import torch
from pydantic import ValidationError
from torch import Tensor, nn

from handful.backbones import BACKBONES, weights_to_follow
from handful.data.pictures import Pixels
from handful.data.store import new_folder
from handful.embedders import Embed, embedder
from handful.errors import HandfulError, first_line
from handful.files import read_tensors, to_json, write_tensors, write_text
from handful.model.model import digest, refuse_other_folder
from handful.model.rails.card import LineCard
from handful.model.rails.shots import Shot, resized, shots, sources, together
from handful.model.rails.smoothing import Smoother
from handful.problems import RailLines
from handful.problems.rail_lines import Answer, Lines, answers, lines_of
from handful.registry import build

BATCH = 8


@dataclass
class LinePrediction:
    """The lines of one picture, or of one frame of a video, in its pixels; one that is nowhere is not there."""

    input: str
    lines: dict[str, Answer]
    frame: int | None = None
    time: float | None = None

    def as_dict(self) -> dict[str, Any]:
        """For JSON; `frame` and `time` (seconds) of a video alone."""
        lines = {
            name: {"points": line.points.round(2).tolist(), "confidence": line.confidence}
            for name, line in self.lines.items()
        }
        place = {} if self.frame is None else {"frame": self.frame, "time": self.time}
        return {"input": self.input, **place, "lines": lines}

    def __str__(self) -> str:
        said = [f"{name} {100 * line.confidence:.0f} %" for name, line in self.lines.items()]
        where = self.input if self.frame is None else f"{self.input}, frame {self.frame}"
        return f"{where}: {', '.join(said) or 'no rail'}"


class LineNetwork(nn.Module):
    """Images [n, 3, H, W] -> predictions [n, L, R, C + 1] of an adapted network, the mean line of its support added.

    base: that line's places [L, R]; zeros where the decoder does not build on it.
    """

    base: Tensor
    frozen = True

    def __init__(self, network: nn.Module, base: Tensor, input_shape: tuple[int, ...]) -> None:
        super().__init__()
        self.network, self.input_shape = network, input_shape
        self.register_buffer("base", base)
        self.spec = {"name": "rail_lines"}

    def forward(self, images: Tensor) -> Tensor:
        """[n, 3, H, W] in [0, 1] -> [n, L, R, C + 1]."""
        found = self.network(images)
        if found.shape[-1] > 2:
            return found
        return torch.cat([found[..., :1] + self.base.unsqueeze(-1), found[..., 1:]], -1)


class LineModel:
    """A network fitted to the rails of a line.  Each picture is judged by itself, unless it is asked to smooth."""

    def __init__(self, network: LineNetwork, card: LineCard) -> None:
        self.network = network.eval().requires_grad_(False)
        self.card = card

    def predict(self, inputs: str | Path | Sequence[str | Path], smooth: float = 0.0) -> list[LinePrediction]:
        """The lines of pictures, folders of pictures, and videos.

        smooth: share of what earlier frames of a video said that the next one keeps, 0 to 1.
        """
        given = [inputs] if isinstance(inputs, str | Path) else inputs
        found = [answer for path in given for source in sources(Path(path)) for _, answer in self.watch(source, smooth)]
        if not found:
            raise HandfulError("Nothing to predict: name at least one picture, video or folder.")
        return found

    def watch(self, source: Path, smooth: float = 0.0) -> Iterator[tuple[Shot, LinePrediction]]:
        """The frames of a video, or one picture, as they come, with their lines."""
        if not 0 <= smooth < 1:
            raise HandfulError(f"smooth is {smooth}, but it is a share of at least 0 and below 1; try 0.7.")
        smoother = Smoother(smooth)
        for batch in together(shots(source), BATCH):
            lines = self.lines([shot.pixels for shot in batch])
            for number, shot in enumerate(batch):
                one = Lines(*(part[number] for part in lines))
                if smooth and shot.frame is not None:
                    one = smoother(one)
                height, width = shot.pixels.shape[:2]
                found = answers(Lines(*(part[None] for part in one)), width, height)[0]
                yield shot, LinePrediction(shot.input, found, shot.frame, shot.time)

    def lines(self, pictures: Sequence[Pixels]) -> Lines:
        """Pictures [H, W, 3] of any size -> lines [n, L, R]."""
        images = np.stack([resized(pixels, self.card.width, self.card.height) for pixels in pictures])
        return lines_of(self.run(torch.from_numpy(images)))

    @cached_property
    def run(self) -> Embed:
        """uint8 images [n, 3, H, W] -> predictions: by onnxruntime where it is installed."""
        return embedder(self.network)

    def save(self, folder: str | Path) -> Path:
        """Write the model folder; an older model of that name is replaced once the new one is whole."""
        folder = Path(folder)
        refuse_other_folder(folder)
        card = to_json(self.card.model_dump())
        tensors = {name: value.clone() for name, value in self.network.state_dict().items()}
        with new_folder(folder) as work:
            write_tensors(work / "model.safetensors", tensors, {"card": digest(card)})
            write_text(work / "card.json", card)
        return folder

    @classmethod
    def load(cls, folder: str | Path) -> LineModel:
        """Open a model folder; nothing in it is run."""
        folder = Path(folder)
        file, text = folder / "model.safetensors", (folder / "card.json").read_text(encoding="utf-8")
        try:
            card = LineCard(**json.loads(text))
        except ValidationError as error:
            first = error.errors()[0]
            raise HandfulError(
                f"{folder / 'card.json'} is damaged: {'.'.join(map(str, first['loc']))}: {first['msg']}."
            ) from error
        except (ValueError, TypeError, RecursionError) as error:
            raise HandfulError(f"{folder / 'card.json'} is damaged: {first_line(error)}.") from error
        tensors, told = read_tensors(file)
        if told.get("card", digest(text)) != digest(text):
            raise HandfulError(
                f"{file} does not fit its card.json, which was changed after both were written; fit anew."
            )
        shape = (3, card.height, card.width)
        with weights_to_follow():
            backbone = build("backbone", BACKBONES, card.backbone, input_shape=shape)
        body, head = RailLines(card.decoder).network(backbone, 2)
        base = tensors.get("base", torch.zeros(0))
        network = LineNetwork(joined(body, head), torch.zeros_like(base), shape)
        try:
            network.load_state_dict(tensors)
        except RuntimeError as error:
            raise HandfulError(f"{file} does not fit its card.json: {str(error).splitlines()[-1].strip()}") from error
        return cls(network, card)


def joined(body: nn.Module, head: nn.Module) -> nn.Module:
    """Backbone and head, by the names that a method gives them."""
    network = nn.Sequential()
    network.add_module("backbone", body)
    network.add_module("head", head)
    return network
