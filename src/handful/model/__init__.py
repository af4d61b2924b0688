"""From a handful of labelled pictures, or annotated frames, to a model: fit, check, save, load, predict, export."""

from handful.model.card import NONE_OF_THESE, Card, Check, Preprocessing
from handful.model.exporting import Exported, export
from handful.model.fitting import add
from handful.model.folder import refuse_other_folder
from handful.model.inputs import files
from handful.model.model import Model, Prediction, write_csv
from handful.model.opening import fit, load_model
from handful.model.rails import LineModel, LinePrediction, fit_lines

__all__ = [
    "NONE_OF_THESE",
    "Card",
    "Check",
    "Exported",
    "LineModel",
    "LinePrediction",
    "Model",
    "Prediction",
    "Preprocessing",
    "add",
    "export",
    "files",
    "fit",
    "fit_lines",
    "load_model",
    "refuse_other_folder",
    "write_csv",
]
