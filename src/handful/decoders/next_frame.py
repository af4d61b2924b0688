"""A decoder that predicts the next frame from a map as fine as a frame, through prototypes of what is normal if asked.

The published form (MPN, CVPR 2021) predicts the frame itself, by a tanh; the residual one adds to the frame that steady
movement would bring, and starts as that alone.
"""

from __future__ import annotations

from itertools import pairwise
from typing import Annotated

import torch
from pydantic import Field
from torch import Tensor, nn

from handful.decoders.prototype_unit import Encodings, PrototypeUnit, compactness, separateness
from handful.errors import HandfulError
from handful.registry import DECODERS, part

Weight = Annotated[float, Field(ge=0)]


@part(DECODERS, "next_frame")
class NextFrame(nn.Module):
    """Maps of `Windows` [n, F + C, H, W] -> the next frame [n, C, H, W], and what its prototypes are like.

    prototypes: how many a window has (`PrototypeUnit`), none by default; temperature: of its softmaxes.  hidden:
    channels of the 3x3 convolutions before the last.  residual: the frame is the extrapolation plus what the last one
    gives, which starts at zero; else (tanh + 1) / 2 of it.  The rest are weights of the loss, which the problem takes:
    edges, of differences between pixels; compactness and separateness, of what prototypes add.

    With prototypes the result is [n, C + 2, H, W]: behind the frame how far each place is from its nearest prototype,
    and how much too near to each other the prototypes are, the same at every place.
    """

    out_features = 1  # one frame

    def __init__(
        self,
        prototypes: Annotated[int, Field(ge=0)] = 0,
        temperature: Annotated[float, Field(gt=0)] = 1.0,
        residual: bool = True,
        hidden: tuple[Annotated[int, Field(ge=1)], ...] = (),
        edges: Weight = 0.01,
        compactness: Weight = 1.0,
        separateness: Weight = 1e-4,
        features: int = 0,
        frame: tuple[int, int, int] = (1, 0, 0),
    ) -> None:
        super().__init__()
        self.features, self.frame, self.residual = features, frame, residual
        self.edges, self.compactness, self.separateness = edges, compactness, separateness
        self.unit = PrototypeUnit(features, prototypes, temperature) if prototypes else None
        widths = (features, *hidden, frame[0])
        layers = [nn.Conv2d(before, after, 3, padding=1) for before, after in pairwise(widths)]
        if residual:
            for value in layers[-1].parameters():
                nn.init.zeros_(value)
        activated = [module for layer in layers[:-1] for module in (layer, nn.ReLU())]
        self.readout = nn.Sequential(*activated, layers[-1])

    def forward(self, maps: Tensor) -> Tensor:
        """[n, F + C, H, W] -> [n, C or C + 2, H, W]."""
        if self.unit is None:
            return self.read(maps, maps[:, : self.features])
        found = self.encodings(maps)
        near = compactness(found).reshape(-1, 1, *maps.shape[2:])
        apart = separateness(found)[:, None, None, None].expand_as(near)
        return torch.cat([self.read(maps, self.aggregated(maps, found)), near, apart], 1)

    def frame_of(self, maps: Tensor) -> Tensor:
        """[n, F + C, H, W] -> [n, C, H, W]: the next frame alone, for whoever only watches."""
        seen = maps[:, : self.features] if self.unit is None else self.aggregated(maps, self.encodings(maps))
        return self.read(maps, seen)

    def aggregated(self, maps: Tensor, found: Encodings) -> Tensor:
        """What the unit makes of a map, as a map [n, F, H, W]."""
        return found.aggregation.transpose(1, 2).reshape(-1, self.features, *maps.shape[2:])

    def read(self, maps: Tensor, seen: Tensor) -> Tensor:
        """The frame, from what is seen of it [n, F, H, W]."""
        found: Tensor = self.readout(seen)
        return maps[:, self.features :] + found if self.residual else (found.tanh() + 1) / 2

    def encodings(self, maps: Tensor) -> Encodings:
        """What the prototype unit makes of maps [n, F + C, H, W]; HandfulError without one."""
        if self.unit is None:
            raise HandfulError("This decoder has no prototypes to look at; train one with decoder.prototypes=10.")
        found: Encodings = self.unit(maps[:, : self.features])
        return found
