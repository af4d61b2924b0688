"""The scores of a clip as a person takes them in: alarms from when to when, and a line over time of bounded length."""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

from handful import wording
from handful.model.video.model import FrameScore

MOST = 2000  # points of a timeline


@dataclass
class Alarm:
    """Frames above the threshold that follow on each other, with short gaps; highest: of their scores, if any."""

    first: FrameScore
    last: FrameScore
    highest: float | None

    def __str__(self) -> str:
        """`alarm from 12.4 s to 15.0 s (frames 310 to 375), score up to 9.21`."""
        frames = (
            f"frame{'s' if self.last.frame > self.first.frame else ''} {between(self.first.frame, self.last.frame)}"
        )
        score = "nothing to see" if self.highest is None else f"score up to {self.highest:.2f}"
        if self.first.time is None or self.last.time is None:
            return f"alarm, {frames}, {score}"
        times = [f"{time:.1f} s" for time in (self.first.time, self.last.time)]
        when = f"from {times[0]} to {times[1]}" if times[0] != times[1] else f"at {times[0]}"
        return f"alarm {when} ({frames}), {score}"


def between(first: int, last: int) -> str:
    """`3 to 5`, or `3`."""
    return f"{first} to {last}" if last > first else f"{first}"


class Alarms:
    """Counts alarms as scores come.  Those of which one begins within `gap` frames of the one before are one."""

    def __init__(self, gap: int = 0) -> None:
        self.gap = gap
        self.now: Alarm | None = None
        self.count = self.frames = 0

    def __str__(self) -> str:
        """`2 alarms (66 frames)`."""
        return (
            f"{wording.count(self.count, 'alarm')} ({wording.count(self.frames, 'frame')})"
            if self.count
            else "no alarm"
        )

    def add(self, score: FrameScore) -> tuple[bool, Alarm | None]:
        """Whether an alarm begins with a score, and the one that is over by it."""
        over = None
        if self.now and score.frame - self.now.last.frame > self.gap:
            over, self.now = self.now, None
        if not score.alarm:
            return False, over
        self.frames += 1
        if self.now is None:
            self.now, self.count = Alarm(score, score, score.score), self.count + 1
            return True, over
        self.now.last = score
        if score.score is not None:
            self.now.highest = max(score.score, self.now.highest if self.now.highest is not None else score.score)
        return False, over


class Point(NamedTuple):
    """What a timeline says of some successive frames: where the first is, their highest score if any, any alarm."""

    place: float
    score: float | None
    alarm: bool


class Timeline:
    """Scores over time in at most `MOST` points, however long a clip is: a point is of ever more frames."""

    def __init__(self) -> None:
        self.points: list[Point] = []
        self.timed = True
        self.frames_each, self.in_last = 1, 0

    def add(self, score: FrameScore) -> None:
        """The next frame."""
        if score.time is None:
            self.timed = False
        place = score.frame if score.time is None else score.time
        new = Point(place, score.score, score.alarm)
        if self.points and self.in_last < self.frames_each:
            self.points[-1], self.in_last = merged(self.points[-1], new), self.in_last + 1
            return
        if len(self.points) == MOST:
            self.points = [merged(*pair) for pair in zip(self.points[::2], self.points[1::2])]
            self.frames_each *= 2
        self.points.append(new)
        self.in_last = 1


def merged(first: Point, second: Point) -> Point:
    """One point of two."""
    scores = [score for score in (first.score, second.score) if score is not None]
    return Point(first.place, max(scores, default=None), first.alarm or second.alarm)
