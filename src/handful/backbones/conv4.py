"""Conv-4: four blocks of 3x3 convolution, batch norm and ReLU, halved by max-pooling or by stride.

The network of Matching Networks (Vinyals et al. 2016), MAML (Finn et al. 2017) and ProtoNet (Snell et al. 2017).
"""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field
from torch import Tensor, nn

from handful.backbones.images import Pooling, image_shape, pool, pooled_length
from handful.backbones.norms import Norm, norm_layer
from handful.errors import HandfulError
from handful.registry import BACKBONES, part

Downsample = Literal["pool", "stride"]


@part(BACKBONES, "conv4")
class Conv4(nn.Module):
    """Conv-4: images [n, C, H, W] -> features [n, out_features]; 0.1 million parameters with 64 channels.

    downsample: `pool` halves by max-pooling after each block (mini-ImageNet, ProtoNet), `stride` by convolution
    stride 2 (MAML on Omniglot).  pooling: `mean` averages the last map over its positions (MAML on Omniglot),
    `flatten` keeps them.  norm: `batch`, or `group` norm, which looks at one image alone, so that predictions never
    depend on batch mates and there is nothing to choose in `norm_stats`.  Initialised as in MAML: Xavier-uniform
    convolutions, zero biases.

    maps: [n, 3, 84, 84] -> [n, 64, 5, 5].
    """

    def __init__(
        self,
        channels: Annotated[int, Field(ge=1)] = 64,
        input_shape: tuple[int, ...] = (3, 84, 84),
        downsample: Downsample = "pool",
        pooling: Pooling = "flatten",
        norm: Norm = "batch",
    ) -> None:
        super().__init__()
        in_channels, height, width = image_shape("Conv-4", input_shape)
        if downsample == "pool" and min(height, width) < 16:
            raise HandfulError(
                "Conv-4 halves its input four times by pooling, so images need at least 16x16 pixels, "
                f"not {height}x{width}; use downsample='stride'."
            )
        stride = 2 if downsample == "stride" else 1
        blocks: list[nn.Module] = []
        for block in range(4):
            blocks += [
                nn.Conv2d(in_channels if block == 0 else channels, channels, 3, stride=stride, padding=1),
                norm_layer(norm, channels),
                nn.ReLU(),
            ]
            if downsample == "pool":
                blocks.append(nn.MaxPool2d(2))
            height, width = (-(-height // 2), -(-width // 2)) if downsample == "stride" else (height // 2, width // 2)
        self.blocks = nn.Sequential(*blocks)
        self.pooling: Pooling = pooling
        self.input_shape = input_shape
        self.map_shape = (channels, height, width)
        self.out_features = pooled_length(self.map_shape, pooling)
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.xavier_uniform_(module.weight)
                nn.init.zeros_(module.bias)  # type: ignore[arg-type]

    def maps(self, images: Tensor) -> Tensor:
        """[n, C, H, W] in [0, 1] -> [n, *map_shape]."""
        maps: Tensor = self.blocks(images)
        return maps

    def forward(self, images: Tensor) -> Tensor:
        """[n, C, H, W] in [0, 1] -> [n, out_features]."""
        return pool(self.maps(images), self.pooling)
