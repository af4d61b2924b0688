"""timm models as backbones, with a stand-in for timm, which does not import beside every torch."""

from __future__ import annotations

import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any, ClassVar

import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor, nn

import handful as hf
from handful.backbones.weights import weights_to_follow
from handful.errors import HandfulError

MEAN, STD = (0.5, 0.4, 0.3), (0.1, 0.2, 0.3)


class Made(nn.Module):
    """What timm.create_model gives, as far as it matters."""

    num_features: ClassVar[int] = 6
    pretrained_cfg: ClassVar[dict[str, Any]] = {"mean": MEAN, "std": STD}

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 6, 3)
        self.norm = nn.BatchNorm2d(6)

    def forward(self, images: Tensor) -> Tensor:
        out: Tensor = self.norm(self.conv(images)).mean((2, 3))
        return out


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch) -> list[dict[str, Any]]:
    calls: list[dict[str, Any]] = []

    def create_model(name: str, **options: Any) -> Made:
        if name != "small":
            raise RuntimeError(f"Unknown model ({name})\nand more")
        calls.append(options)
        return Made()

    monkeypatch.setitem(sys.modules, "timm", SimpleNamespace(create_model=create_model, list_models=lambda: ["small"]))
    return calls


def test_features_of_normalised_pictures(asked: list[dict[str, Any]]) -> None:
    backbone = hf.backbones.timm("small", input_shape=(3, 16, 16))
    images = torch.rand(2, 3, 16, 16)
    normalised = (images - torch.tensor(MEAN).view(3, 1, 1)) / torch.tensor(STD).view(3, 1, 1)
    torch.testing.assert_close(backbone(images), backbone.model(normalised))
    assert asked == [{"pretrained": True, "num_classes": 0}]
    assert backbone.out_features == 6
    assert backbone.seen == "whatever timm's small was trained on"
    assert not backbone.train().training
    assert not any(p.requires_grad for p in backbone.parameters())
    assert hf.backbones.timm("small", weights="none", frozen=False).train().training
    torch.testing.assert_close(backbone(images[:, :1]), backbone(images[:, :1].expand(-1, 3, -1, -1)))


def test_weights_of_a_file_or_that_follow(asked: list[dict[str, Any]], tmp_path: Path) -> None:
    given = Made().state_dict()
    save_file({**given, "classifier.weight": torch.zeros(2, 6)}, tmp_path / "w.safetensors")
    backbone = hf.backbones.timm("small", weights=str(tmp_path / "w.safetensors"))
    assert torch.equal(backbone.model.conv.weight, given["conv.weight"])
    assert backbone.seen == "whatever w.safetensors was trained on"
    with weights_to_follow():
        hf.backbones.timm("small")
    assert [options["pretrained"] for options in asked] == [False, False]


def test_a_model_is_fitted_saved_and_opened(asked: list[dict[str, Any]], pictures: Path, tmp_path: Path) -> None:
    found = {name: [pictures / name / f"{i}.png" for i in range(2)] for name in ("class03", "class08")}
    model = hf.fit(found, backbone={"name": "timm", "model": "small"})
    opened = hf.Model.load(model.save(tmp_path / "m"))
    queries = [pictures / "class03" / "5.png", pictures / "class08" / "5.png"]
    assert opened.predict(queries) == model.predict(queries)


def test_what_cannot_be_made_is_said(asked: list[dict[str, Any]], monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(HandfulError, match=r"timm cannot make the model 'smal' .*Unknown model \(smal\)\); see"):
        hf.backbones.timm("smal")

    def fail(name: str) -> None:
        raise RuntimeError("operator torchvision::nms does not exist")

    monkeypatch.setattr(sys.modules["handful.backbones.timm"], "import_module", fail)
    with pytest.raises(HandfulError, match=r"torchvision::nms does not exist\): pip install 'handful\[timm\]', with"):
        hf.backbones.timm("small")
