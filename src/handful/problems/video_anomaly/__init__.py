"""Video anomalies: the problem, its tasks, the scores of frames, and what learned nothing."""

from handful.problems.video_anomaly.floors import copied, extrapolated, least_squares
from handful.problems.video_anomaly.problem import VideoAnomaly
from handful.problems.video_anomaly.scores import (
    FrameErrors,
    decibels,
    frame_errors,
    smoothed,
    whole_clips,
    within_clip,
)
from handful.problems.video_anomaly.tasks import ClipTasks, WindowSampler

__all__ = [
    "ClipTasks",
    "FrameErrors",
    "VideoAnomaly",
    "WindowSampler",
    "copied",
    "decibels",
    "extrapolated",
    "frame_errors",
    "least_squares",
    "smoothed",
    "whole_clips",
    "within_clip",
]
