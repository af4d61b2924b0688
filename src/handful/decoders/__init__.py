"""Decoders: what stands between the maps of a backbone and an answer that is more than a class.

A decoder of lines is a module that takes the rows of a `Pyramid` and remembers the `shapes` of its maps; one of next
frames takes the map of `Windows`.  Those registered here can be named in a recipe.
"""

from handful.decoders.next_frame import NextFrame as next_frame
from handful.decoders.prototype_unit import Encodings, PrototypeUnit
from handful.decoders.pyramid import Pyramid, unpacked
from handful.decoders.row_distributions import RowDistributions as row_distributions
from handful.decoders.row_regression import RowRegression as row_regression
from handful.decoders.windows import Windows
from handful.registry import DECODERS

__all__ = [
    "DECODERS",
    "Encodings",
    "PrototypeUnit",
    "Pyramid",
    "Windows",
    "next_frame",
    "row_distributions",
    "row_regression",
    "unpacked",
]
