"""Decoders: what stands between the maps of a backbone and an answer that is more than a class.

A decoder is a module that takes the rows of a `Pyramid` and remembers the `shapes` of its maps; those registered here
can be named in a recipe.
"""

from handful.decoders.pyramid import Pyramid, unpacked
from handful.decoders.row_distributions import RowDistributions as row_distributions
from handful.decoders.row_regression import RowRegression as row_regression
from handful.registry import DECODERS

__all__ = ["DECODERS", "Pyramid", "row_distributions", "row_regression", "unpacked"]
