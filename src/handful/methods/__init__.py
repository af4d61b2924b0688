"""Methods: each turns a support set into a predictor.  One file each; registered ones can be named in a recipe."""

from handful.methods.maml import MAML
from handful.methods.method import Method, Outcome
from handful.registry import METHODS

__all__ = ["MAML", "METHODS", "Method", "Outcome"]
