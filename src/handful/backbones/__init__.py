"""Backbones: inputs [n, ...], such as images [n, C, H, W] -> features [n, out_features].

Any nn.Module with `out_features` and `input_shape` will do; those registered here can be named in a recipe.
"""

from handful.backbones.conv4 import Conv4 as conv4
from handful.backbones.mlp import MLP as mlp
from handful.registry import BACKBONES

__all__ = ["BACKBONES", "conv4", "mlp"]
