"""predict, of video: scores as they come, however long a clip is."""

from __future__ import annotations

import csv
import io
import json
import time
from collections.abc import Sequence
from contextlib import ExitStack, closing
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from handful import wording
from handful.cli.shared import say
from handful.errors import HandfulError
from handful.wording import printable

if TYPE_CHECKING:
    from handful.model import FrameScore, VideoModel
    from handful.model.video.alarms import Alarm, Timeline

COLUMNS = ("input", "frame", "time", "score", "alarm")


@dataclass(frozen=True)
class Wanted:
    """What is to be written: a table of all scores; an overlay and a timeline, each of one clip."""

    csv: Path | None = None
    video: Path | None = None
    timeline: Path | None = None

    def check(self, clips: Sequence[Path], follow: bool) -> None:
        """Raises HandfulError, before anything is decoded, for what cannot be written, or would be in a clip."""
        for option, path, suffix in (("--video", self.video, ".mp4"), ("--timeline", self.timeline, ".png")):
            if path is not None and path.suffix.lower() != suffix:
                raise HandfulError(f"{option} names the file to write, which ends in {suffix}; {str(path)!r} does not.")
            if path is not None and len(clips) > 1:
                raise HandfulError(f"{option} is of one clip, and there are {len(clips)}; ask for one at a time.")
        if follow and len(clips) > 1:
            raise HandfulError(f"--follow is of one camera, and there are {len(clips)} clips; start one for each.")
        known = {clip.resolve(): clip for clip in clips}
        for path in filter(None, (self.csv, self.video, self.timeline)):
            place = path.resolve()
            if place in known:
                raise HandfulError(f"{path} would be written over the clip itself; give it another name.")
            if among := next((known[folder] for folder in place.parents if folder in known and folder.is_dir()), None):
                raise HandfulError(
                    f"{path} would be written among the frames of {printable(among)}; name a place outside of it."
                )


def predict_video(
    model: VideoModel, inputs: Sequence[Path], wanted: Wanted, follow: bool, skip_bad: bool, as_json: bool
) -> None:
    """Score every frame of clips, write what is wanted, and say how fast.

    What came before a clip breaks off, or before Ctrl-C ends the following of a camera, is told and written.
    """
    from handful.model.video.footage import clips_at

    clips = list(dict.fromkeys(clip for given in inputs for clip in clips_at(given)))
    wanted.check(clips, follow)
    with ExitStack() as stack:
        table = stack.enter_context(closing(Table(wanted.csv))) if wanted.csv else None
        told = stack.enter_context(closing(AsJson(follow) if as_json else AsText(follow)))
        for clip in clips:
            try:
                watch_clip(model, clip, wanted, table, told, follow)
            except HandfulError as error:
                if not skip_bad:
                    raise
                say(str(error))


def watch_clip(
    model: VideoModel, clip: Path, wanted: Wanted, table: Table | None, told: AsText | AsJson, follow: bool
) -> None:
    """Score the frames of one clip."""
    from handful.data.video.reading import RATE
    from handful.model.video.alarms import Alarms, Timeline
    from handful.model.video.footage import known_rate
    from handful.model.video.overlay import Overlay

    name = printable(clip)
    drawing = Overlay(wanted.video, clip, model.card.threshold) if wanted.video else None
    alarms, line, why, count, started = Alarms(), Timeline(), None, 0, time.perf_counter()
    told.begin(name)
    try:
        for frame, score in model.watch(clip, follow, drawing is not None, say):
            if count == 0:
                alarms.gap = round(known_rate(clip) or RATE)
            count += 1
            begins, over = alarms.add(score)
            told.frame(score, begins, over)
            line.add(score)
            if table is not None:
                table.write(name, score)
            if drawing is not None:
                drawing.write(frame, score)
    except KeyboardInterrupt:
        if not follow:
            raise
    except HandfulError as error:
        why = str(error)
        raise
    finally:
        rate = count / (time.perf_counter() - started)
        summary = f"{name}: {wording.count(count, 'frame')}, {alarms}; {rate:.1f} frames a second" if count else ""
        told.end(alarms.now, summary, rate, why)
        if drawing is not None:
            drawing.close()
        if wanted.timeline is not None and count:
            draw_timeline(wanted.timeline, line, model.card.threshold)


def draw_timeline(path: Path, line: Timeline, threshold: float) -> None:
    """Write the timeline of a clip."""
    from handful.report import save, score_timeline

    places, scores, alarms = zip(*line.points)
    save(score_timeline(places, scores, alarms, threshold, line.timed), path)


class Table:
    """A CSV file of scores, a row a frame, each there as soon as it is known; HandfulError if it cannot be written."""

    def __init__(self, path: Path) -> None:
        self.path = path
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            self.file = path.open("wb", buffering=0)
        except OSError as error:
            raise self.unwritten(error) from error
        self.add(COLUMNS)

    def write(self, name: str, score: FrameScore) -> None:
        """A row, of a frame without a score with nothing in its place; an alarm is 1, none 0."""
        self.add([name, *{**score.as_dict(), "alarm": int(score.alarm)}.values()])

    def add(self, row: Sequence[object]) -> None:
        """Any row."""
        text = io.StringIO()
        csv.writer(text).writerow(row)
        try:
            self.file.write(text.getvalue().encode("utf-8"))
        except OSError as error:
            self.close()
            raise self.unwritten(error) from error

    def close(self) -> None:
        """Close the file."""
        self.file.close()

    def unwritten(self, error: OSError) -> HandfulError:
        """The error for a file that cannot be written."""
        return HandfulError(f"{self.path} cannot be written ({error.strerror or error}); name another place for it.")


class AsText:
    """Says when there was an alarm, and of a camera at once when one begins; and at the end of a clip how many."""

    def __init__(self, live: bool) -> None:
        self.live, self.name = live, ""

    def begin(self, name: str) -> None:
        """What follows is of this clip."""
        self.name = name

    def frame(self, score: FrameScore, begins: bool, over: Alarm | None) -> None:
        """A frame, whether an alarm begins with it, and the alarm that is over by it."""
        if over is not None:
            print(f"{self.name}: {over}", flush=True)
        if begins and self.live:
            when = f"frame {score.frame}" if score.time is None else f"{score.time:.1f} s"
            print(f"{self.name}: ALARM at {when}", flush=True)

    def end(self, now: Alarm | None, summary: str, rate: float, why: str | None) -> None:
        """The end of the clip: the alarm that still was; why there is no more of it is told by whoever stops."""
        if now is not None:
            print(f"{self.name}: {now}")
        if summary:
            print(summary, flush=True)

    def close(self) -> None:
        """Nothing is left to say."""


class AsJson:
    """A list with an object a clip, written as the scores come; it is whole whatever happens to a later clip."""

    def __init__(self, live: bool) -> None:
        self.live = live
        self.before_clip = self.before_frame = "["

    def begin(self, name: str) -> None:
        """Open the object of a clip."""
        print(f'{self.before_clip}{{"input": {json.dumps(name, ensure_ascii=False)}, "frames": [', end="")
        self.before_clip, self.before_frame = ",\n", "\n"

    def frame(self, score: FrameScore, begins: bool, over: Alarm | None) -> None:
        """A line a frame."""
        print(f"{self.before_frame}{json.dumps(score.as_dict())}", end="", flush=self.live)
        self.before_frame = ",\n"

    def end(self, now: Alarm | None, summary: str, rate: float, why: str | None) -> None:
        """Close the object of the clip."""
        error = "" if why is None else f', "error": {json.dumps(why, ensure_ascii=False)}'
        print(f'], "fps": {rate:.1f}{error}}}', end="")
        if summary:
            say(summary)

    def close(self) -> None:
        """Close the list."""
        print("[]" if self.before_clip == "[" else "]")
