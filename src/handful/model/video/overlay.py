"""Drawing what is unusual into the frames of a clip."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw

from handful.data.pictures import Pixels
from handful.data.video.reading import RATE, Frame
from handful.model.video.footage import known_rate
from handful.model.video.model import FrameScore
from handful.model.video_writer import VideoWriter

HOT, CALM, MARK, GROUND = (255, 40, 0), (0, 190, 255), (255, 255, 255), (40, 40, 40)
STRONGEST = 0.55  # of what is below, so much is covered then
BAR, BORDER = 40, 60  # parts of the frame's smaller side


class Overlay:
    """An mp4 file of a clip with its scores drawn in; it has its name once it is closed."""

    def __init__(self, path: Path, clip: Path, threshold: float) -> None:
        self.path, self.clip, self.threshold = path, clip, threshold
        self.video: VideoWriter | None = None

    def write(self, frame: Frame, score: FrameScore) -> None:
        """Draw the score of a frame, and add it; HandfulError for a file that cannot be written."""
        if self.video is None:
            self.video = VideoWriter(self.path, known_rate(self.clip) or RATE)
        self.video.write(drawn(frame.pixels, score, self.threshold))

    def close(self) -> None:
        """Finish the file, if there was a frame."""
        if self.video is not None:
            self.video.close()


def drawn(pixels: Pixels, score: FrameScore, threshold: float) -> Pixels:
    """The frame [H, W, 3] or [H, W] with its score, uint8 [H, W, 3].

    What is above the threshold glows red where it is, the most at twice the threshold, or 1 above it if that is more.
    The bar along the lower border is as long as the score, from 0 at the left, and has its mark at the threshold; an
    alarm has a red border.
    """
    image = Image.fromarray(pixels).convert("RGB")
    if score.heat is not None and score.heat.max() > threshold:
        strength = np.clip((score.heat - threshold) / max(threshold, 1.0), 0, 1) * (STRONGEST * 255)
        cover = Image.fromarray(strength.astype(np.uint8)).resize(image.size, Image.Resampling.BILINEAR)
        image.paste(HOT, (0, 0, *image.size), cover)
    pen = ImageDraw.Draw(image)
    width, height = image.size
    colour, thick = HOT if score.alarm else CALM, max(2, min(image.size) // BAR)
    if score.alarm:
        pen.rectangle((0, 0, width - 1, height - 1), outline=HOT, width=max(2, min(image.size) // BORDER))
    if score.score is not None:
        pen.rectangle((0, height - thick, width, height), GROUND)
        end = round(width * np.clip(score.score / scale(threshold), 0, 1))
        pen.rectangle((0, height - thick, end, height), colour)
        mark = round(width * max(threshold, 0) / scale(threshold))
        pen.rectangle((mark, height - 2 * thick, mark + thick // 2, height), MARK)
    return np.asarray(image)


def scale(threshold: float) -> float:
    """The score at which the bar is as long as the frame is wide: twice the threshold, and no less than 2."""
    return 2 * max(threshold, 1.0)
