"""From a handful of labelled pictures to a model: fit, check, save, load, predict, export."""

from handful.model.card import NONE_OF_THESE, Card, Check, Preprocessing
from handful.model.exporting import Exported, export
from handful.model.fitting import add, fit
from handful.model.inputs import files
from handful.model.folder import refuse_other_folder
from handful.model.model import Model, Prediction, write_csv

__all__ = [
    "NONE_OF_THESE",
    "Card",
    "Check",
    "Exported",
    "Model",
    "Prediction",
    "Preprocessing",
    "add",
    "export",
    "files",
    "fit",
    "refuse_other_folder",
    "write_csv",
]
