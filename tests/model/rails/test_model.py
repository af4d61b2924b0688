"""The model folder of rail lines: saved, opened, run by onnxruntime, and refused where it does not fit."""

from __future__ import annotations

import copy
import json
import pickle
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

import handful as hf
from handful.embedders import OnnxEmbedder, TorchEmbedder
from handful.errors import HandfulError
from handful.model.rails import LineModel
from handful.model.rails.model import LineNetwork, unfitted
from handful.onnx import absent
from handful.problems.rail_lines import mirrored
from tests.model.rails.conftest import RANDOM, blank_card, painted, save_picture
from tests.model.test_strangers import Content, rewrite

IMAGES = torch.rand(3, 3, 64, 128, generator=torch.Generator().manual_seed(0))


def test_saved_and_opened(untrained: LineModel, tmp_path: Path) -> None:
    again = hf.load_model(untrained.save(tmp_path / "line"))
    assert isinstance(again, hf.LineModel)
    assert again.card == untrained.card
    torch.testing.assert_close(again.network(IMAGES), untrained.network(IMAGES))


def test_the_picture_and_its_mirror_image_are_asked() -> None:
    torch.manual_seed(0)
    card = blank_card(mirror=True)
    network = unfitted(card).eval()
    with torch.no_grad():
        plain, turned = network.network(IMAGES), network.network(IMAGES.flip(-1))
        found = network(IMAGES)
        torch.testing.assert_close(found, (plain + mirrored(turned)) / 2)
        assert not torch.allclose(found, plain)
        torch.testing.assert_close(network(IMAGES.flip(-1)), mirrored(found))  # so it is the same in a mirror


@pytest.mark.skipif(bool(absent()), reason="handful[onnx] is not installed")
@pytest.mark.parametrize("decoder", [{"name": "row_distributions", "channels": 16}, {"name": "row_regression"}])
def test_onnxruntime_says_the_same(decoder: dict[str, Any], capfd: pytest.CaptureFixture[str]) -> None:
    torch.manual_seed(0)
    mirror = decoder["name"] == "row_distributions"
    model = LineModel(unfitted(blank_card(mirror=mirror, decoder=decoder)), blank_card(mirror=mirror, decoder=decoder))
    model.network.base.add_(0.3)
    assert isinstance(model.run, OnnxEmbedder)
    torch.testing.assert_close(model.run(IMAGES), model.network(IMAGES), atol=1e-4, rtol=1e-4)
    assert capfd.readouterr().out == ""  # where JSON goes; an exporter that fails tells its graph there


def test_the_mean_line_is_added_to_what_is_regressed() -> None:
    decoder = {"name": "row_regression", "rows": 36}
    network = unfitted(blank_card(decoder=decoder)).eval()
    base = torch.rand(2, 36)
    with torch.no_grad():
        alone = network(IMAGES)
        whole = LineNetwork(network.network, base, (3, 64, 128), mirror=False)(IMAGES)
    torch.testing.assert_close(whole[..., 0], alone[..., 0] + base)
    torch.testing.assert_close(whole[..., 1], alone[..., 1])


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda c, t: c["decoder"].update(channels=80_000), r"is \[16, 40, 1, 1\] there, .* for \[80000, 40, 1, 1\]"),
        (
            lambda c, t: c["decoder"].update(channels=24),
            r"lateral\.0\.weight is \[16, 40, 1, 1\] there, .* for \[24, 40",
        ),
        (
            lambda c, t: c["decoder"].update(name="row_regression", channels=-8),
            r"its parts cannot be made \(.*negative",
        ),
        (
            lambda c, t: (c["decoder"].update(name="row_regression", hidden=10**9), t.update(base=torch.zeros(2, 36))),
            r"the card asks for \d+ numbers, and it holds \d+\.",
        ),
        (
            lambda c, t: c.update(width=5000),
            r"card\.json is damaged: width: Input should be less than or equal to 1024",
        ),
        (lambda c, t: c.update(size=[0, 5]), r"card\.json is damaged: size\.0: Input should be greater"),
        (
            lambda c, t: c.update(lines=["middle"]),
            r"card\.json is damaged: lines\.0: Input should be 'left' or 'right'",
        ),
        (lambda c, t: c.update(backbone={"weights": "x"}), r"its backbone or its decoder has no name"),
        (lambda c, t: c.update(backbone={"name": "conv4"}), "gives no maps at strides 8, 16 and 32"),
        (lambda c, t: c.update(problem="classification"), "damaged: classes: Field required"),
        (lambda c, t: t["network.head.there.bias"].fill_(torch.nan), r"there\.bias holds values that are not finite"),
        (lambda c, t: t.update(base=torch.zeros(2, 7)), r"base is \[2, 7\] there, and the card asks for \[0\]"),
        (lambda c, t: t.pop("network.head.there.bias"), "does not fit its card.json"),
    ],
)
def test_what_does_not_fit_is_refused(
    untrained: LineModel, tmp_path: Path, change: Callable[[Content, dict[str, Tensor]], object], message: str
) -> None:
    folder = untrained.save(tmp_path / "line")
    rewrite(folder, change)
    with pytest.raises(HandfulError, match=message):
        hf.load_model(folder)


def test_a_card_that_was_changed_alone(untrained: LineModel, tmp_path: Path) -> None:
    folder = untrained.save(tmp_path / "line")
    text = (folder / "card.json").read_text(encoding="utf-8")
    (folder / "card.json").write_text(text.replace('"steps": 1', '"steps": 2'), encoding="utf-8")
    with pytest.raises(HandfulError, match="which was changed after both were written"):
        LineModel.load(folder)


def test_a_model_of_classes_is_none_of_lines(untrained: LineModel, tmp_path: Path) -> None:
    folder = untrained.save(tmp_path / "line")
    card = json.loads((folder / "card.json").read_text(encoding="utf-8"))
    (folder / "card.json").write_text(json.dumps({**card, "problem": "classification"}), encoding="utf-8")
    with pytest.raises(HandfulError, match="is a model of classification, and one of rail_lines is wanted here"):
        LineModel.load(folder)
    with pytest.raises(HandfulError, match=r"nowhere is not a model folder \(no card\.json\)"):
        hf.load_model(tmp_path / "nowhere")


def test_copies_and_pickles(model: LineModel, untrained: LineModel, tmp_path: Path) -> None:
    asked = save_picture(tmp_path / "a.png", painted())
    (expected,) = model.predict(asked)  # and it has an embedder now
    for other in (copy.deepcopy(model), pickle.loads(pickle.dumps(model))):
        assert other.predict(asked)[0].lines["left"].points == pytest.approx(expected.lines["left"].points)


def test_a_backbone_that_a_card_names_is_opened_without_its_weights(tmp_path: Path) -> None:
    card = blank_card(backbone={**RANDOM, "weights": "imagenet"})
    torch.manual_seed(0)
    model = LineModel(unfitted(blank_card()), card)
    again = LineModel.load(model.save(tmp_path / "line"))  # of which ImageNet's are not asked
    torch.testing.assert_close(TorchEmbedder(again.network)(IMAGES), TorchEmbedder(model.network)(IMAGES))
