"""Methods: each turns a support set into a predictor.  One file each; registered ones can be named in a recipe."""

from handful.methods.maml import MAML as _MAML
from handful.registry import Registry, part

METHODS: Registry = {}
MAML = part(METHODS, "maml")(_MAML)
