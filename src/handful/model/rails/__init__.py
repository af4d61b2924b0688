"""Models of rail lines: fitted on a few annotated frames, they answer pictures and videos."""

from handful.model.rails.fitting import fit_lines
from handful.model.rails.model import LineModel, LinePrediction
from handful.model.rails.shots import Shot

__all__ = ["LineModel", "LinePrediction", "Shot", "fit_lines"]
