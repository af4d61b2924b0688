"""From a few pictures, annotated frames, or normal footage to a model: fit, check, save, load, predict, export."""

from handful.model.card import NONE_OF_THESE, Card, Check, Preprocessing
from handful.model.exporting import Exported, export
from handful.model.fitting import add
from handful.model.folder import refuse_other_folder
from handful.model.inputs import files
from handful.model.model import Model, Prediction, write_csv
from handful.model.opening import fit, load_model
from handful.model.rails import LineModel, LinePrediction, fit_lines
from handful.model.video import FrameScore, VideoModel, VideoPrediction, fit_video

__all__ = [
    "NONE_OF_THESE",
    "Card",
    "Check",
    "Exported",
    "FrameScore",
    "LineModel",
    "LinePrediction",
    "Model",
    "Prediction",
    "Preprocessing",
    "VideoModel",
    "VideoPrediction",
    "add",
    "export",
    "files",
    "fit",
    "fit_lines",
    "fit_video",
    "load_model",
    "refuse_other_folder",
    "write_csv",
]
