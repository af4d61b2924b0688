"""The decoder of next frames: where it begins, what its planes are, and the published form."""

from __future__ import annotations

from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from handful.decoders import DECODERS, next_frame
from handful.decoders.prototype_unit import compactness, separateness
from handful.errors import HandfulError
from handful.registry import build, check_options

FRAME = (3, 6, 4)


def maps(seed: int = 0) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(2, 5 + FRAME[0], *FRAME[1:], dtype=torch.float64, generator=generator)


def made(**options: Any) -> Any:
    torch.manual_seed(0)
    return build("decoder", DECODERS, {"name": "next_frame", **options}, features=5, frame=FRAME).double()


@pytest.mark.parametrize("options", [{}, {"prototypes": 4}, {"hidden": [7, 6]}, {"prototypes": 4, "hidden": [7]}])
def test_untrained_it_is_the_extrapolation_exactly(options: dict[str, Any]) -> None:
    found = made(**options)(maps())
    assert found.shape == (2, 3 + 2 * ("prototypes" in options), 6, 4)
    assert torch.equal(found[:, :3], maps()[:, 5:])


def test_its_last_layer_adds_to_the_extrapolation() -> None:
    head = made(hidden=[7])
    weights = [torch.randn_like(value) for value in head.parameters()]
    for value, drawn in zip(head.parameters(), weights):
        value.data.copy_(drawn)
    hidden = F.conv2d(maps()[:, :5], weights[0], weights[1], padding=1).clamp(min=0)
    expected = maps()[:, 5:] + F.conv2d(hidden, weights[2], weights[3], padding=1)
    torch.testing.assert_close(head(maps()), expected)


def test_without_the_residual_it_is_a_tanh_in_0_to_1() -> None:
    head = made(residual=False, hidden=[7])
    found = head(maps())
    assert ((found > 0) & (found < 1)).all()
    torch.testing.assert_close(2 * found - 1, head.readout(maps()[:, :5]).tanh())
    assert torch.equal(found, head(torch.cat([maps()[:, :5], torch.zeros(2, *FRAME)], 1)))


def test_its_planes_are_compactness_and_separateness() -> None:
    head = made(prototypes=4)
    with torch.no_grad():
        for value in head.readout.parameters():
            value.normal_()
    found, encodings = head(maps()), head.encodings(maps())
    torch.testing.assert_close(found[:, 3].flatten(1), compactness(encodings))
    torch.testing.assert_close(found[:, 4], separateness(encodings)[:, None, None].expand(2, 6, 4))
    aggregated = encodings.aggregation.transpose(1, 2).reshape(2, 5, 6, 4)
    torch.testing.assert_close(found[:, :3], maps()[:, 5:] + head.readout(aggregated))


def test_its_parameters_are_named_unit_and_readout() -> None:
    assert {name.split(".")[0] for name, _ in made(prototypes=4).named_parameters()} == {"unit", "readout"}
    assert {name.split(".")[0] for name, _ in made().named_parameters()} == {"readout"}
    assert made().out_features == 1


def test_it_remembers_its_options() -> None:
    options = {"prototypes": 4, "temperature": 0.5, "residual": False, "hidden": (7,), "edges": 0.0}
    assert made(**options).spec == {"name": "next_frame", "compactness": 1.0, "separateness": 1e-4, **options}


def test_without_prototypes_there_are_no_encodings() -> None:
    with pytest.raises(HandfulError, match=r"no prototypes to look at; train one with decoder\.prototypes=10"):
        made().encodings(maps())


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"prototypes": -1}, r"decoder\.prototypes is -1 in the recipe, .* greater than or equal to 0"),
        ({"temperature": 0}, r"decoder\.temperature is 0 in the recipe, .* greater than 0"),
        ({"prototype": 10}, r"There is no option of decoder 'next_frame' 'prototype'; did you mean 'prototypes'"),
        ({"features": 3}, r"There is no option of decoder 'next_frame' 'features'"),
    ],
)
def test_options_that_it_has_not(options: dict[str, Any], message: str) -> None:
    with pytest.raises(HandfulError, match=message):
        check_options("decoder", DECODERS, {"name": "next_frame", **options})


def test_float32_on_the_published_map() -> None:
    head = next_frame(prototypes=10, residual=False, hidden=(64, 64), features=128, frame=(3, 32, 32)).eval()
    maps = torch.rand(1, 131, 32, 32)
    with torch.no_grad():
        torch.testing.assert_close(head(maps), head.double()(maps.double()).float(), rtol=1e-4, atol=1e-5)
