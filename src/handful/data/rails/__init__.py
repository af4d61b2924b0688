"""Rail lines: pictures from a cab with the rails drawn in them, read from files or rendered with their exact lines."""

from handful.data.rails.frame import Frame, Line, line_of, pairs
from handful.data.rails.reading import Annotations, load_frames, survey_frames

__all__ = ["Annotations", "Frame", "Line", "line_of", "load_frames", "pairs", "survey_frames"]
