"""A model folder from a stranger, or one that was changed, is refused in one sentence before anything large is made."""

from __future__ import annotations

import copy
import json
import pickle
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from handful.errors import HandfulError
from handful.files import read_tensors, write_tensors
from handful.model import Model, fit
from handful.model.folder import digest

Content = dict[str, Any]


@pytest.fixture
def folder(pictures: Path, tmp_path: Path) -> Path:
    """Ridge on a small Conv-4: 3 and 2 and 1 pictures of three classes."""
    found = {
        f"class{i:02}": sorted((pictures / f"class{i:02}").iterdir())[:count] for i, count in ((3, 3), (8, 2), (11, 1))
    }
    return fit(found, backbone={"name": "conv4", "channels": 4}).save(tmp_path / "model")


def rewrite(folder: Path, change: Callable[[Content, dict[str, Tensor]], object]) -> None:
    """Change a card and its weights as somebody would who knows how they belong together."""
    card = json.loads((folder / "card.json").read_text(encoding="utf-8"))
    tensors, _ = read_tensors(folder / "model.safetensors")
    change(card, tensors)
    text = json.dumps(card)
    (folder / "card.json").write_text(text, encoding="utf-8")
    write_tensors(folder / "model.safetensors", tensors, {"card": digest(text)})


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (
            lambda c, t: c["backbone"].update(channels=12_000),
            r"weight is \[4, 3, 3, 3\] there, .* for \[12000, 3, 3, 3\]",
        ),
        (lambda c, t: c["backbone"].update(channels=2**60), "backbone conv4 is too large to be made"),
        (lambda c, t: c["method"].update(name="maml", inner_steps=3), r"option of method 'maml'"),
        (lambda c, t: (t.pop("labels"), c["support"].update(class03=10**12)), "a support without labels"),
        (lambda c, t: c["support"].update(class03=10**12), r"holds 42 images, and the card says 7000000000021"),
        (lambda c, t: t.update(labels=torch.tensor(1)), r"its labels are \[\] and its support"),
        (lambda c, t: t["labels"].add_(7), "other numbers of images in a class than the card says"),
        (lambda c, t: c["classes"].reverse(), "other numbers of images in a class than the card says"),
        (lambda c, t: t["support"].fill_(torch.nan), "support holds values that are not finite"),
        (lambda c, t: t["labels"].fill_(2**62), "other numbers of images in a class than the card says"),
        (lambda c, t: t.update(odd=torch.zeros([1] * 70)), r"damaged: odd has 70 dimensions"),
        (lambda c, t: c["check"]["worst"][0].pop("label"), r"damaged: check.worst.0.label: Field required"),
        (lambda c, t: c["check"].update(accuracy=None), r"damaged: check.accuracy: Input should be a valid number"),
        (lambda c, t: c.update(accuracy={"mean": 1.0}), r"damaged: accuracy.ci95: Field required"),
        (lambda c, t: c.update(temperature=1e308), "card.json is damaged: temperature: Input should be less than"),
        (
            lambda c, t: c.update(problem="rail_lines"),
            "is a model of rail_lines, and one of classification is wanted here; `handful predict` and `hf.load_model`",
        ),
        (lambda c, t: c.update(classes=[], support={}), "card.json is damaged: classes: List should have at least 1"),
        (lambda c, t: c["preprocessing"].update(channels=1), r"weight is \[4, 3, 3, 3\] there, .* for \[4, 1, 3, 3\]"),
    ],
)
def test_what_does_not_fit_is_refused(
    folder: Path, change: Callable[[Content, dict[str, Tensor]], object], message: str
) -> None:
    rewrite(folder, change)
    with pytest.raises(HandfulError, match=message):
        Model.load(folder)


def test_parts_that_ask_for_far_more_than_the_file_holds(folder: Path) -> None:
    rewrite(folder, lambda c, t: c.update(method={"name": "glofa"}, backbone={"name": "mlp", "hidden": [10**5, 10**5]}))
    with pytest.raises(HandfulError, match=r"does not fit its card.json|takes points|wants"):
        Model.load(folder)


@pytest.mark.parametrize(
    ("content", "message"), [("[" * 100_000, "card.json is damaged: "), ("[]", "card.json is damaged: ")]
)
def test_json_that_is_no_card(folder: Path, content: str, message: str) -> None:
    (folder / "card.json").write_text(content, encoding="utf-8")
    with pytest.raises(HandfulError, match=message):
        Model.load(folder)


def test_a_card_that_is_a_folder(folder: Path) -> None:
    (folder / "card.json").unlink()
    (folder / "card.json").mkdir()
    with pytest.raises(HandfulError, match=r"card\.json is damaged: .*directory"):
        Model.load(folder)


def test_a_file_where_a_model_folder_belongs(pictures: Path) -> None:
    with pytest.raises(HandfulError, match=r"0\.png is not a model folder \(no card\.json\); `handful fit` makes one"):
        Model.load(pictures / "class03" / "0.png")


def test_a_card_that_was_changed_alone(folder: Path) -> None:
    text = (folder / "card.json").read_text(encoding="utf-8")
    (folder / "card.json").write_text(text.replace("class03", "class33"), encoding="utf-8")
    with pytest.raises(HandfulError, match=r"does not fit its card\.json, which was changed after both were written"):
        Model.load(folder)


@pytest.mark.parametrize("kept", [0.3, 0.999])
def test_weights_that_were_cut_off(folder: Path, kept: float) -> None:
    whole = (folder / "model.safetensors").read_bytes()
    (folder / "model.safetensors").write_bytes(whole[: int(kept * len(whole))])
    with pytest.raises(HandfulError, match="damaged or not a safetensors file"):
        Model.load(folder)


def test_a_name_that_timm_would_fetch(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    class Asked:
        def list_models(self) -> list[str]:
            return ["resnet10t"]

        def create_model(self, *arguments: object, **options: object) -> None:
            pytest.fail("timm was asked for it")

    monkeypatch.setitem(sys.modules, "timm", Asked())
    rewrite(folder, lambda c, t: c.update(backbone={"name": "timm", "model": "hf-hub:stranger/any"}))
    with pytest.raises(HandfulError, match="timm has no model 'hf-hub:stranger/any'"):
        Model.load(folder)


def test_a_model_is_not_saved_over_other_files(folder: Path) -> None:
    model = Model.load(folder)
    (folder / "notes.txt").write_text("mine", encoding="utf-8")
    with pytest.raises(HandfulError, match=r"holds more than a model \(notes.txt\), which would be lost"):
        model.save(folder)
    assert (folder / "notes.txt").exists()


def test_copies_and_pickles(folder: Path, pictures: Path) -> None:
    model = Model.load(folder)
    asked = pictures / "class03" / "5.png"
    (expected,) = model.predict(asked)  # and it has an embedder now
    for other in (copy.deepcopy(model), pickle.loads(pickle.dumps(model))):
        assert other.predict(asked)[0].probabilities == pytest.approx(expected.probabilities)


def test_weights_that_are_tied(pictures: Path, tmp_path: Path) -> None:
    class Tied(nn.Module):
        input_shape, out_features = (1, 16, 16), 256

        def __init__(self) -> None:
            super().__init__()
            self.one = nn.Linear(256, 256)
            self.other = nn.Linear(256, 256)
            self.other.weight = self.one.weight

        def forward(self, images: Tensor) -> Tensor:
            found: Tensor = self.other(self.one(images.flatten(1)))
            return found

    found = {name: [pictures / name / "0.png"] for name in ("class03", "class08")}
    model = fit(found, backbone=Tied())
    again = Model.load(model.save(tmp_path / "model"), backbone=Tied())
    asked = pictures / "class03" / "1.png"
    assert again.predict(asked)[0].probabilities == pytest.approx(model.predict(asked)[0].probabilities)
