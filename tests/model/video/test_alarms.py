"""Scores as a person takes them in: alarms, and a timeline of bounded length."""

from __future__ import annotations

import pytest

from handful.model.video import FrameScore
from handful.model.video.alarms import MOST, Alarm, Alarms, Timeline


def scored(frame: int, score: float | None, alarm: bool = False, timed: bool = True) -> FrameScore:
    return FrameScore(frame, frame / 10 if timed else None, score, alarm)


def test_alarms_with_short_gaps_are_one() -> None:
    alarms, over, begun = Alarms(gap=3), list[Alarm](), list[int]()
    for frame in range(40):
        begins, ended = alarms.add(scored(frame, float(frame), frame in (5, 6, 9, 20, 36)))
        begun += [frame] if begins else []
        over += [ended] if ended else []
    assert begun == [5, 20, 36]
    assert [(alarm.first.frame, alarm.last.frame, alarm.highest) for alarm in over] == [(5, 9, 9.0), (20, 20, 20.0)]
    assert alarms.now is not None
    assert alarms.now.first.frame == 36
    assert str(alarms) == "3 alarms (5 frames)"
    assert str(Alarms()) == "no alarm"


@pytest.mark.parametrize(
    ("alarm", "said"),
    [
        (
            Alarm(scored(310, 3.0), scored(375, 4.0), 9.214),
            "alarm from 31.0 s to 37.5 s (frames 310 to 375), score up to",
        ),
        (Alarm(scored(310, 3.0), scored(310, 3.0), 3.0), "alarm at 31.0 s (frame 310), score up to 3.00"),
        (
            Alarm(scored(1, 3.0, timed=False), scored(2, 3.0, timed=False), 3.0),
            "alarm, frames 1 to 2, score up to 3.00",
        ),
        (Alarm(scored(5, None), scored(6, None), None), "alarm from 0.5 s to 0.6 s (frames 5 to 6), nothing to see"),
    ],
)
def test_what_is_said_of_an_alarm(alarm: Alarm, said: str) -> None:
    assert str(alarm).startswith(said)


def test_an_alarm_may_begin_in_the_dark() -> None:
    alarms = Alarms(gap=1)
    alarms.add(scored(0, None, True))
    alarms.add(scored(1, 4.0, True))
    alarms.add(scored(2, 2.0, True))
    assert alarms.now is not None
    assert alarms.now.highest == 4.0


@pytest.mark.parametrize("count", [1, MOST, MOST + 1, 5 * MOST + 3])
def test_a_timeline_is_bounded_and_loses_no_alarm_and_no_peak(count: int) -> None:
    line = Timeline()
    alarms = {count // 2, count - 1}
    for frame in range(count):
        line.add(scored(frame, None if frame % 7 == 0 else float(frame % 13), frame in alarms))
    assert len(line.points) <= MOST
    assert sum(point.alarm for point in line.points) == len(alarms)
    places = [round(10 * point.place) for point in line.points]
    assert places == list(range(0, count, line.frames_each))
    for begin, point in zip(places, line.points):
        known = [float(f % 13) for f in range(begin, min(begin + line.frames_each, count)) if f % 7]
        assert point.score == max(known, default=None)
    assert line.timed


def test_a_timeline_of_frames_without_times() -> None:
    line = Timeline()
    for frame in range(3):
        line.add(scored(frame, 1.0, timed=False))
    assert not line.timed
    assert [point.place for point in line.points] == [0, 1, 2]
