"""Backbones: inputs [n, ...], such as images [n, C, H, W] in [0, 1] -> features [n, out_features].

Any nn.Module with `out_features` will do; those registered here can be named in a recipe.  If one says which
`input_shape` it takes, data of another shape is refused.  One that ends in a feature map also gives that, before it is
pooled or flattened: `maps(images)` [n, d, h, w], with `map_shape` = (d, h, w); and a deep one those at strides 8, 16
and 32: `pyramid(images)`, with their `pyramid_channels`.  One whose weights were learned elsewhere says on what:
`seen`, which is None for random weights.
"""

from handful.backbones.conv4 import Conv4 as conv4
from handful.backbones.efficientnet_lite0 import EfficientNetLite0 as efficientnet_lite0
from handful.backbones.mlp import MLP as mlp
from handful.backbones.resnet12 import ResNet12 as resnet12
from handful.backbones.resnet18 import ResNet18 as resnet18
from handful.backbones.small import Small as small
from handful.backbones.timm import Timm as timm
from handful.backbones.unet import UNet as unet
from handful.backbones.weights import weights_to_follow
from handful.registry import BACKBONES

__all__ = [
    "BACKBONES",
    "conv4",
    "efficientnet_lite0",
    "mlp",
    "resnet12",
    "resnet18",
    "small",
    "timm",
    "unet",
    "weights_to_follow",
]
