"""Any image model of timm (pip install 'handful[timm]'), without its classifier."""

from __future__ import annotations

from importlib import import_module
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from handful.backbones.images import colour, image_shape
from handful.backbones.weights import follows, load_weights
from handful.errors import HandfulError, first_line
from handful.registry import BACKBONES, part


@part(BACKBONES, "timm")
class Timm(nn.Module):
    """A model of timm: images [n, C, H, W] -> features [n, out_features], pooled as timm does it.

    model: its name in timm; weights: `pretrained`, those that timm fetches for it, `none`, random, or a .safetensors or
    .pth file with its keys; frozen: no parameter is learned, and `train()` leaves the module in eval mode.

    Raises HandfulError: timm or the torchvision that it needs cannot be imported; it knows no such model, or cannot
    fetch its weights; no file of its weights.
    """

    def __init__(
        self,
        model: str,
        weights: str = "pretrained",
        frozen: bool = True,
        input_shape: tuple[int, ...] = (3, 224, 224),
    ) -> None:
        super().__init__()
        image_shape("timm", input_shape, channels=(1, 3))
        fetched = weights == "pretrained"
        timm = imported()
        if follows() and model not in timm.list_models():  # other names are places that timm would fetch from
            raise HandfulError(f"timm has no model {model!r}, which a run or a model names.")
        try:
            self.model: Any = timm.create_model(model, pretrained=fetched and not follows(), num_classes=0)
        except Exception as error:  # timm and its hub raise many kinds
            raise HandfulError(
                f"timm cannot make the model {model!r} with weights {weights!r} ({first_line(error)}); see "
                "`timm.list_models()`, or name a file of weights."
            ) from error
        self.frozen, self.input_shape = frozen, input_shape
        self.out_features: int = self.model.num_features
        if hasattr(self.model, "head_hidden_size"):  # of models whose head goes on to more features before the classes
            self.out_features = self.model.head_hidden_size
        config: dict[str, Any] = self.model.pretrained_cfg
        for name in ("mean", "std"):
            self.register_buffer(name, torch.tensor(config[name]).view(3, 1, 1), persistent=False)
        self.seen: str | None = f"whatever timm's {model} was trained on" if fetched else None
        if weights not in ("pretrained", "none"):
            self.seen = f"whatever {Path(weights).name} was trained on"
            load_weights(self.model, model, Path(weights), ignored=("classifier.", "head.fc.", "fc."))
        if frozen:
            self.requires_grad_(False).eval()

    mean: Tensor
    std: Tensor

    def train(self, mode: bool = True) -> Timm:
        """As for any module, but that frozen weights stay in eval mode."""
        return super().train(mode and not self.frozen)

    def forward(self, images: Tensor) -> Tensor:
        """[n, C, H, W] in [0, 1] -> [n, out_features]."""
        features: Tensor = self.model((colour(images) - self.mean) / self.std)
        return features


def imported() -> Any:
    """timm; it imports torchvision, which fails beside a torch of another build."""
    try:
        return import_module("timm")
    except Exception as error:  # RuntimeError too: an operator that torch does not have
        raise HandfulError(
            f"timm cannot be imported ({first_line(error)}): pip install 'handful[timm]', with "
            "a torchvision of the same version and build as torch, for the CPU or for CUDA."
        ) from error
