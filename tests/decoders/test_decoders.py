"""Decoders on the maps of a backbone: shapes, what moves with the picture, and where they begin."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from handful.backbones import conv4
from handful.decoders import DECODERS, Pyramid, row_distributions, row_regression, unpacked
from handful.errors import HandfulError
from handful.problems import RailLines
from handful.problems.rail_lines.predictions import lines_of
from handful.problems.rail_lines.tasks import BASE_X
from handful.registry import build
from tests.rails import HEIGHT, WIDTH, Tiny, rows, track

SHAPES = [(4, 8, 32), (6, 4, 16), (8, 2, 8)]


def packed(maps: list[Tensor]) -> Tensor:
    return torch.cat([found.flatten(1) for found in maps], 1)


def noise(count: int = 2, seed: int = 0) -> list[Tensor]:
    generator = torch.Generator().manual_seed(seed)
    return [torch.randn(count, *shape, dtype=torch.float64, generator=generator) for shape in SHAPES]


def test_a_pyramid_flattens_maps_and_unpacking_gives_them_back() -> None:
    backbone = Tiny()
    pyramid = Pyramid(backbone)
    assert pyramid.shapes == [(4, 8, 16), (6, 4, 8), (8, 2, 4)]
    images = torch.rand(3, 3, HEIGHT, WIDTH)
    features = pyramid(images)
    assert features.shape == (3, pyramid.out_features)
    for found, expected in zip(unpacked(features, pyramid.shapes), backbone.pyramid(images), strict=True):
        assert torch.equal(found, expected)


def test_a_pyramid_leaves_its_backbone_as_it_was_and_speaks_for_it() -> None:
    backbone = Tiny()
    norm = backbone.first = nn.Sequential(backbone.first, nn.BatchNorm2d(4))  # type: ignore[assignment]
    backbone.seen, backbone.spec = "all of it", {"name": "tiny"}  # type: ignore[assignment]
    backbone.train()
    pyramid = Pyramid(backbone)
    assert backbone.training
    counted = norm[1].num_batches_tracked
    assert isinstance(counted, Tensor)
    assert counted.item() == 0
    assert pyramid.seen == "all of it"
    assert vars(pyramid)["spec"] == {"name": "tiny"}
    assert pyramid.input_shape == (3, HEIGHT, WIDTH)


def test_a_backbone_without_maps() -> None:
    backbone = conv4(channels=4, input_shape=(3, 16, 16))
    with pytest.raises(
        HandfulError, match=r"gives no maps at strides 8, 16 and 32, .*; use efficientnet_lite0 or resn"
    ):
        RailLines().network(backbone, 2)


@pytest.mark.parametrize(
    ("spec", "shape"),
    [
        ({"name": "row_distributions", "channels": 16}, (8, 33)),
        ({"name": "row_regression", "rows": 36, "channels": 2, "hidden": 5}, (36, 2)),
    ],
)
def test_each_gives_lines_on_rows(spec: dict[str, object], shape: tuple[int, int]) -> None:
    for lines in (2, 3):
        decoder = build("decoder", DECODERS, spec, shapes=SHAPES, lines=lines).double()
        assert decoder.out_features == lines
        found = decoder(packed(noise()))
        assert found.shape == (2, lines, *shape)
        torch.testing.assert_close(decoder(packed(noise())[1:]), found[1:])  # no batch mate changes it


def test_a_recipes_decoder_stands_on_the_maps() -> None:
    body, head = RailLines({"name": "row_distributions", "channels": 8}).network(Tiny(), 2)
    assert head(body(torch.rand(1, 3, HEIGHT, WIDTH))).shape == (1, 2, 8, 17)
    again, _ = RailLines().network(body, 2)
    assert again is body


def test_distributions_move_with_the_picture() -> None:
    """Away from the borders, if the decoder is not told where it is; the group norm's means move along."""
    torch.manual_seed(0)
    decoder = row_distributions(channels=16, lines=2, shapes=SHAPES).double()
    first = decoder.trunk[0]
    assert isinstance(first, nn.Conv2d)
    maps = [torch.zeros_like(found) for found in noise(1)]
    for blank, full in zip(maps, noise(1)):
        width = blank.shape[-1] // 8
        blank[..., 3 * width : 4 * width] = full[..., 3 * width : 4 * width]  # something in the fourth eighth
    moved = [torch.roll(found, found.shape[-1] // 8, -1) for found in maps]

    def columns(of: list[Tensor]) -> Tensor:
        found: Tensor = decoder(packed(of))[..., :-1]
        return found

    step = SHAPES[0][2] // 8
    inside = slice(8, 24)  # what its two convolutions see is 3 columns to either side
    shifted = slice(8 + step, 24 + step)
    before, after = columns(maps)[..., inside], columns(moved)[..., shifted]
    assert (before - after).abs().max() > 1e-3  # it is told, by its coordinates
    with torch.no_grad():
        first.weight[:, -2:] = 0
    torch.testing.assert_close(columns(maps)[..., inside], columns(moved)[..., shifted], rtol=0, atol=1e-9)
    assert columns(maps)[..., inside].std() > 1e-2
    assert not torch.allclose(columns(maps), columns(moved))


def test_whether_a_line_is_there_is_read_where_it_is() -> None:
    torch.manual_seed(0)
    decoder = row_distributions(channels=16, shapes=SHAPES).double()
    features = packed(noise(2))
    with torch.no_grad():
        found = decoder(features)
        maps = unpacked(features, SHAPES)
        x = decoder.lateral[2](maps[2])
        for level in (1, 0):
            x = decoder.lateral[level](maps[level]) + x.repeat_interleave(2, -1).repeat_interleave(2, -2)
        places = decoder.get_buffer("places").expand(2, -1, -1, -1)
        x = decoder.trunk(torch.cat([x, places], 1))
        bias = dict(decoder.named_parameters())["columns.bias"]
        logits = torch.einsum("lc,nchw->nlhw", decoder.columns.weight[..., 0, 0], x) + bias[:, None, None]
        at_line = torch.einsum("nlhw,nchw->nlhc", logits.softmax(-1), x)
        there = torch.einsum("nlhc,lc->nlh", at_line, decoder.there.weight) + decoder.there.bias[:, None]
    torch.testing.assert_close(found, torch.cat([logits, there[..., None]], -1))


@pytest.mark.parametrize(("residual", "start"), [(True, 0.0), (False, 0.5)])
def test_regressed_places_are_in_64ths_of_the_width(residual: bool, start: float) -> None:
    decoder = row_regression(rows=36, residual=residual, shapes=SHAPES).double()
    x, there = decoder(packed(noise())).unbind(-1)
    torch.testing.assert_close(x, torch.full_like(x, start))
    with torch.no_grad():
        decoder.rows_of.bias.add_(1)
    moved, present = decoder(packed(noise())).unbind(-1)
    torch.testing.assert_close(moved - x, torch.full_like(x, 1 / 64))
    torch.testing.assert_close(present - there, torch.ones_like(there))


def test_a_residual_regression_begins_at_the_mean_line_of_the_support() -> None:
    problem = RailLines({"name": "row_regression", "rows": 144})
    body, head = problem.network(Tiny(), 2)
    predictions = head(body(torch.rand(3, 3, HEIGHT, WIDTH)))[None]
    assert not predictions.any()
    targets = rows([track(60), track(70), track(64, 30)])
    whole = problem.whole(predictions, targets)
    assert torch.equal(lines_of(whole).x, targets[..., BASE_X])
    assert torch.equal(whole[..., 1], predictions[..., 1])
    plain = RailLines({"name": "row_regression", "residual": False})
    assert torch.equal(plain.whole(predictions, targets), predictions)
    coarse = RailLines({"name": "row_regression", "rows": 36})
    few = coarse.network(Tiny(), 2)[1](body(torch.rand(3, 3, HEIGHT, WIDTH)))[None]
    straight = lines_of(coarse.whole(few, targets)).x[..., 18:]  # rows that all lines are in
    torch.testing.assert_close(straight, targets[..., BASE_X].unflatten(-1, (36, 4)).mean(-1)[..., 18:])


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: row_distributions(channels=60, shapes=SHAPES), "decoder.channels is 60, .*; use a multiple of 8"),
        (lambda: row_distributions(channels=0, shapes=SHAPES), "decoder.channels is 0, .*; use a multiple of 8"),
        (lambda: row_regression(rows=40, shapes=SHAPES), "decoder.rows is 40, .*144 rows .*; use 36, 48 or 72"),
        (lambda: row_regression(rows=0, shapes=SHAPES), "decoder.rows is 0"),
        (lambda: RailLines({"name": "row_distribution"}), "no decoder 'row_distribution'; did you mean 'row_distri"),
        (lambda: RailLines({"name": "row_regression", "row": 4}), "no option of decoder 'row_regression' 'row'"),
    ],
)
def test_what_they_refuse(make: object, message: str) -> None:
    assert callable(make)
    with pytest.raises(HandfulError, match=message):
        make()
