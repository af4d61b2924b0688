"""Video: clips of fixed cameras, read from files, folders of frames and cameras, or rendered with their odd movers."""

from handful.data.video.reading import VIDEOS, Frame, frames, rate

__all__ = ["VIDEOS", "Frame", "frames", "rate"]
