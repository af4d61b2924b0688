from __future__ import annotations

from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from handful.backbones import resnet18
from handful.errors import HandfulError


def published_keys() -> set[str]:
    """Names of the tensors in published ImageNet weights, without the classifier."""
    norms, convolutions = ["bn1"], ["conv1"]
    for stage in (1, 2, 3, 4):
        for block in (0, 1):
            start = f"layer{stage}.{block}"
            convolutions += [f"{start}.conv1", f"{start}.conv2"]
            norms += [f"{start}.bn1", f"{start}.bn2"]
        if stage > 1:
            convolutions.append(f"layer{stage}.0.downsample.0")
            norms.append(f"layer{stage}.0.downsample.1")
    parts = ("weight", "bias", "running_mean", "running_var", "num_batches_tracked")
    return {f"{name}.weight" for name in convolutions} | {f"{name}.{part}" for name in norms for part in parts}


def test_keys_and_parameters_are_the_published_ones() -> None:
    backbone = resnet18()
    assert set(backbone.state_dict()) == published_keys()
    assert len(published_keys()) == 120
    assert sum(p.numel() for p in backbone.parameters()) == 11_689_512 - 513_000  # the classifier's
    assert (backbone.map_shape, backbone.out_features) == ((512, 7, 7), 512)


def test_it_is_the_network_written_out() -> None:
    torch.manual_seed(0)
    backbone = resnet18(input_shape=(3, 45, 64)).double().eval()
    for buffer in backbone.buffers():
        if buffer.dtype.is_floating_point:
            buffer.uniform_(0.5, 1.5)  # statistics that are told apart
    backbone.normalise = False
    state = backbone.state_dict()

    def layer(x: Tensor, conv: str, norm: str, stride: int = 1) -> Tensor:
        weight = state[f"{conv}.weight"]
        x = F.conv2d(x, weight, stride=stride, padding=weight.shape[-1] // 2)
        mean, var, scale, shift = (
            state[f"{norm}.{part}"].view(-1, 1, 1) for part in ("running_mean", "running_var", "weight", "bias")
        )
        return (x - mean) / (var + 1e-5).sqrt() * scale + shift

    images = torch.rand(2, 3, 45, 64, dtype=torch.float64)
    x = F.max_pool2d(layer(images, "conv1", "bn1", 2).clamp(min=0), 3, stride=2, padding=1)
    for stage in (1, 2, 3, 4):
        for block in (0, 1):
            start, stride = f"layer{stage}.{block}", 2 if stage > 1 and block == 0 else 1
            y = layer(x, f"{start}.conv1", f"{start}.bn1", stride).clamp(min=0)
            y = layer(y, f"{start}.conv2", f"{start}.bn2")
            if stride == 2:
                x = layer(x, f"{start}.downsample.0", f"{start}.downsample.1", 2)
            x = (x + y).clamp(min=0)
    torch.testing.assert_close(backbone.maps(images), x)


def test_group_norm_looks_at_one_image_alone() -> None:
    torch.manual_seed(0)
    backbone = resnet18(norm="group", input_shape=(3, 32, 64))
    images = torch.rand(2, 3, 32, 64)
    torch.testing.assert_close(backbone(images)[:1], backbone(images[:1]))
    assert not [m for m in backbone.modules() if isinstance(m, torch.nn.BatchNorm2d)]
    with pytest.raises(HandfulError, match="of a network with batch norm: leave out norm, or weights"):
        resnet18(weights="resnet18.pth", norm="group")


def test_published_weights_load_from_a_file_and_images_are_normalised(tmp_path: Path) -> None:
    start = resnet18(input_shape=(3, 32, 32))
    file = tmp_path / "resnet18.pth"
    torch.save({**start.state_dict(), "fc.weight": torch.rand(1000, 512), "fc.bias": torch.rand(1000)}, file)
    loaded = resnet18(weights=str(file), input_shape=(3, 32, 32))
    assert loaded.seen == "whatever resnet18.pth was trained on"
    images = torch.rand(2, 3, 32, 32)
    mean, std = torch.tensor([0.485, 0.456, 0.406]), torch.tensor([0.229, 0.224, 0.225])
    normalised = (images - mean.view(3, 1, 1)) / std.view(3, 1, 1)
    torch.testing.assert_close(loaded.eval()(images), start.eval()(normalised))
