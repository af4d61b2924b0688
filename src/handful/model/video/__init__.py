"""Models that watch a fixed camera: fitted on its normal footage, they score every frame of what follows."""

from handful.model.video.fitting import fit_video
from handful.model.video.model import FrameScore, VideoModel, VideoPrediction

__all__ = ["FrameScore", "VideoModel", "VideoPrediction", "fit_video"]
