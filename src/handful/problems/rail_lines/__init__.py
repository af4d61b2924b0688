"""Rail lines: the problem, its tasks, and what a network's numbers mean as lines."""

from handful.problems.rail_lines.answers import NAMES, Answer, answers
from handful.problems.rail_lines.predictions import Lines, mirrored, settled
from handful.problems.rail_lines.problem import RailLines
from handful.problems.rail_lines.tasks import FrameSampler, FrameTasks

__all__ = ["NAMES", "Answer", "FrameSampler", "FrameTasks", "Lines", "RailLines", "answers", "mirrored", "settled"]
