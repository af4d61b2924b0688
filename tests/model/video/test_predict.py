"""`predict` of video: what is printed and written, what is refused, and a camera that is followed."""

from __future__ import annotations

import csv
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import threading
import time
from functools import partial
from pathlib import Path
from typing import Any

import av
import pytest
from PIL import Image

from handful.model.video import VideoModel
from tests.conftest import Command, ok, refused
from tests.model.rails.conftest import half_of, write_video
from tests.model.video.conftest import ODD, filmed, frames_in


def test_json_and_table_hold_every_frame(handful: Command, saved: Path, clips: Path, tmp_path: Path) -> None:
    odd, other = clips / "odd.mp4", clips / "other.mp4"
    ran = ok(handful("predict", saved, odd, other, "--json", "--csv", tmp_path / "out" / "scores.csv"))
    first, second = json.loads(ran.out)
    assert [first["input"], second["input"]] == [str(odd), str(other)]
    assert set(first) == {"input", "frames", "fps"}
    assert first["fps"] > 0
    assert [frame["frame"] for frame in first["frames"]] == list(range(48))
    assert [frame["time"] for frame in first["frames"]] == pytest.approx([number / 10 for number in range(48)])
    assert first["frames"][3] == {"frame": 3, "time": pytest.approx(0.3), "score": None, "alarm": False}
    assert isinstance(first["frames"][4]["score"], float)
    assert first["frames"][ODD + 5]["alarm"] is True
    lines = ran.err.splitlines()
    assert re.fullmatch(
        rf"{re.escape(str(odd))}: 48 frames, \d+ alarms? \(\d+ frames\); [\d.]+ frames a second", lines[0]
    )
    assert len(lines) == 2
    with (tmp_path / "out" / "scores.csv").open(encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    assert list(rows[0]) == ["input", "frame", "time", "score", "alarm"]
    told = [(name["input"], frame) for name in (first, second) for frame in name["frames"]]
    assert len(rows) == 96
    for row, (name, frame) in zip(rows, told):
        assert (row["input"], int(row["frame"]), float(row["time"])) == (name, frame["frame"], frame["time"])
        assert row["score"] == ("" if frame["score"] is None else str(frame["score"]))
        assert row["alarm"] == str(int(frame["alarm"]))


def test_on_the_screen_are_alarms_alone(handful: Command, saved: Path, clips: Path) -> None:
    lines = ok(handful("predict", saved, clips / "odd.mp4")).out.splitlines()
    assert 2 <= len(lines) <= 4
    alarm = r"odd\.mp4: alarm from \d\.\d s to 4\.7 s \(frames (\d+) to 47\), score up to \d+\.\d\d$"
    first = re.findall(alarm, lines[-2])
    assert ODD - 10 <= int(first[0]) <= ODD + 2  # a false one less than a second before is taken for its beginning
    assert re.search(r"odd\.mp4: 48 frames, \d alarms? \(\d+ frames\); [\d.]+ frames a second$", lines[-1])


def test_overlay_and_timeline(handful: Command, saved: Path, clips: Path, tmp_path: Path) -> None:
    plain = json.loads(ok(handful("predict", saved, clips / "odd.mp4", "--json")).out)[0]["frames"]
    ran = ok(
        handful(
            *("predict", saved, clips / "odd.mp4", "--json", "--video", tmp_path / "o.mp4"),
            *("--timeline", tmp_path / "t.png"),
        )
    )
    assert json.loads(ran.out)[0]["frames"] == plain  # what is drawn changes no score
    with av.open(str(tmp_path / "o.mp4")) as video:
        assert len(list(video.decode(video=0))) == 48
    with Image.open(tmp_path / "t.png") as image:
        assert image.width > 1000
    assert {path.name for path in tmp_path.iterdir() if path.suffix == ".tmp"} == set()


def test_a_folder_of_frames_and_a_folder_of_clips(handful: Command, saved: Path, clips: Path, tmp_path: Path) -> None:
    folder = frames_in(tmp_path / "frames", filmed(12))
    (found,) = json.loads(ok(handful("predict", saved, folder, "--json", "--video", tmp_path / "o.mp4")).out)
    assert (found["input"], len(found["frames"]), found["frames"][5]["time"]) == (str(folder), 12, None)
    with av.open(str(tmp_path / "o.mp4")) as video:
        assert video.streams.video[0].average_rate == 25
    assert [of["input"] for of in json.loads(ok(handful("predict", saved, clips, "--json")).out)] == [
        str(clips / f"{name}.mp4") for name in ("normal", "odd", "other")
    ]
    assert "alarm" in ok(handful("predict", saved, folder)).out


def test_a_clip_that_breaks_off(handful: Command, saved: Path, clips: Path, tmp_path: Path) -> None:
    cut = half_of(write_video(tmp_path / "whole.avi", filmed(60), "mpeg4"), tmp_path / "cut.avi")
    written = ("--csv", tmp_path / "s.csv")
    ran = handful("predict", saved, cut, clips / "odd.mp4", "--json", *written)
    assert ran.code == 2
    (found,) = json.loads(ran.out)
    count = len(found["frames"])
    assert count > 10
    assert found["error"].startswith(f"{cut} breaks off after {count} frames")
    assert ran.err.splitlines()[-1] == f"handful: {found['error']}"
    assert len((tmp_path / "s.csv").read_text(encoding="utf-8").splitlines()) == count + 1
    alone = handful("predict", saved, cut, "--video", tmp_path / "o.mp4", "--timeline", tmp_path / "t.png")
    assert alone.code == 2
    with av.open(str(tmp_path / "o.mp4")) as video:
        assert len(list(video.decode(video=0))) == count
    assert (tmp_path / "t.png").exists()
    ran = ok(handful("predict", saved, cut, clips / "odd.mp4", "--json", "--skip-bad"))
    assert [("error" in of, len(of["frames"])) for of in json.loads(ran.out)] == [(True, count), (False, 48)]
    assert f"{cut} breaks off" in ran.err


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "cannot be read as a video"),
        (b"no video", "cannot be read as a video"),
        (None, "has 3 frames, but a window"),
    ],
)
def test_what_is_no_clip(handful: Command, saved: Path, tmp_path: Path, content: bytes | None, message: str) -> None:
    clip = tmp_path / "a.mp4"
    if content is None:
        write_video(clip, filmed(3))
    else:
        clip.write_bytes(content)
    ran = handful("predict", saved, clip, "--json")
    assert ran.code == 2
    assert message in ran.err.splitlines()[-1]
    assert message in json.loads(ran.out)[0]["error"]
    assert ok(handful("predict", saved, clip, "--skip-bad")).err.count(message) == 1


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--video", "o.avi"], "--video names the file to write, which ends in .mp4; 'o.avi' does not"),
        (["--timeline", "t.jpg"], "--timeline names the file to write, which ends in .png; 't.jpg' does not"),
        (["other.mp4", "--video", "o.mp4"], "--video is of one clip, and there are 2; ask for one at a time"),
        (["other.mp4", "--timeline", "t.png"], "--timeline is of one clip, and there are 2"),
        (["other.mp4", "--follow"], "--follow is of one camera, and there are 2 clips; start one for each"),
        (["--video", "odd.mp4"], "odd.mp4 would be written over the clip itself; give it another name"),
        (["--csv", "odd.mp4"], "odd.mp4 would be written over the clip itself"),
        (["--csv", "odd.mp4/s.csv"], "s.csv cannot be written (File exists); name another place for it"),
        (["--video", "odd.mp4/o.mp4"], "cannot be written ("),
        (["--top", "3"], "--top is about classes, and "),
        (["--smooth", "0.5"], "--overlay and --smooth are about rail lines, and "),
        (["--overlay", "out"], " watches a camera; leave them out."),
        (["nowhere.mp4"], "There is no video and no folder nowhere.mp4."),
        (["empty"], "The folder empty holds no videos and no frames."),
    ],
)
def test_what_is_refused(
    handful: Command, saved: Path, clips: Path, monkeypatch: pytest.MonkeyPatch, options: list[str], message: str
) -> None:
    monkeypatch.chdir(clips)
    (clips / "empty").mkdir(exist_ok=True)
    before = (clips / "odd.mp4").read_bytes()
    try:
        ran = handful("predict", saved, "odd.mp4", *options)
    finally:
        (clips / "empty").rmdir()
    assert ran.code == 2
    assert message in ran.err
    assert ran.err.splitlines()[-1].startswith("handful: ")
    assert (clips / "odd.mp4").read_bytes() == before


def test_a_picture_is_refused_before_anything_else_is_said(handful: Command, saved: Path, tmp_path: Path) -> None:
    (tmp_path / "still.PNG").touch()
    refused(handful("predict", saved, tmp_path / "still.PNG"), "still.PNG is a picture; what watches a camera takes")


@pytest.mark.parametrize(
    "output", [("--timeline", "2.png"), ("--csv", "new/scores.csv"), ("--video", "overlay.mp4"), ("--csv", ".")]
)
@pytest.mark.parametrize("given", ["stills", "."])
def test_nothing_is_written_among_the_frames_of_an_input(
    handful: Command, saved: Path, tmp_path: Path, output: tuple[str, str], given: str
) -> None:
    stills = frames_in(tmp_path / "in" / "stills", filmed(9))
    (tmp_path / "link").symlink_to(stills)
    before = {path.name: path.read_bytes() for path in stills.iterdir()}
    for place in (stills, tmp_path / "link"):
        written = place / output[1]
        ran = handful("predict", saved, tmp_path / "in" / given, output[0], written)
        told = f"would be written among the frames of {stills}; name a place outside of it."
        refused(ran, f"{written} {told if output[1] != '.' else 'would be written over the clip itself'}")
    assert {path.name: path.read_bytes() for path in stills.iterdir()} == before
    ok(handful("predict", saved, tmp_path / "in" / given, output[0], tmp_path / "in" / f"a{Path(output[1]).suffix}"))


def test_a_disk_that_is_full(handful: Command, saved: Path, clips: Path) -> None:
    if not Path("/dev/full").exists():
        pytest.skip("there is no /dev/full")
    ran = handful("predict", saved, clips / "odd.mp4", "--csv", "/dev/full")
    assert ran.code == 2
    assert "/dev/full cannot be written (No space left on device)" in ran.err.splitlines()[-1]


@pytest.mark.parametrize("option", [("--video", "o.mp4"), ("--timeline", "t.png"), ("--follow",)])
def test_options_of_a_camera_are_refused_by_other_models(
    handful: Command, pictures: Path, clips: Path, tmp_path: Path, option: tuple[str, ...]
) -> None:
    for name in ("class00", "class01"):
        shutil.copytree(pictures / name, tmp_path / "support" / name)
    network = "{name: conv4, channels: 4, downsample: stride}"
    ok(handful("fit", tmp_path / "support", "--out", tmp_path / "names", "--backbone", network, "--no-check"))
    ran = handful("predict", tmp_path / "names", clips / "odd.mp4", *option)
    refused(ran, "--video, --timeline and --follow are about video, and ", "names pictures; leave them out.")


class Recorder(threading.Thread):
    """Writes a clip to a file as a camera does: some bytes at a time."""

    def __init__(self, clip: Path, to: Path) -> None:
        super().__init__()
        self.content, self.to, self.halfway, self.go_on = clip.read_bytes(), to, threading.Event(), threading.Event()

    def run(self) -> None:
        half = len(self.content) // 2
        with self.to.open("ab", buffering=0) as file:
            for start in range(0, len(self.content), 4096):
                if start >= half and not self.halfway.is_set():
                    self.halfway.set()
                    self.go_on.wait(20)
                file.write(self.content[start : start + 4096])
                time.sleep(0.002)


@pytest.mark.parametrize("suffix", [".ts", ".mkv"])
def test_a_file_that_grows_is_followed_frame_by_frame(watcher: VideoModel, tmp_path: Path, suffix: str) -> None:
    whole = write_video(tmp_path / f"whole{suffix}", filmed(90, 45, seed=2))
    expected = [score.score for _, score in watcher.watch(whole)]
    growing = tmp_path / f"live{suffix}"
    growing.touch()
    recorder = Recorder(whole, growing)
    recorder.start()
    followed = watcher.watch(growing, follow=True)
    found = []
    for _, score in followed:
        found.append(score)
        if recorder.halfway.is_set() and not recorder.go_on.is_set() and len(found) >= 10:
            recorder.go_on.set()  # scores came while the other half was not there yet
        if len(found) == 75:
            break
    assert recorder.go_on.is_set()
    started = time.monotonic()
    followed.close()  # type: ignore[attr-defined]  # it waits for no more frames
    assert time.monotonic() - started < 5
    recorder.join()
    assert [score.score for score in found[4:]] == pytest.approx(expected[4:75], abs=1e-4)


def test_ctrl_c_ends_the_following_and_all_is_written(saved: Path, tmp_path: Path) -> None:
    whole = write_video(tmp_path / "whole.ts", filmed(60, 30, seed=2))
    growing = tmp_path / "live.ts"
    growing.write_bytes(whole.read_bytes())
    words = ["predict", saved, growing, "--follow", "--csv", tmp_path / "s.csv", "--video", tmp_path / "o.mp4"]
    words += ["--timeline", tmp_path / "t.png"]
    command = [sys.executable, "-c", "from handful.cli import main; main()", *map(str, words)]
    heard = partial(signal.signal, signal.SIGINT, signal.SIG_DFL)  # what a shell starts in the background ignores it
    pipes: dict[str, Any] = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
    with subprocess.Popen(command, **pipes, env=os.environ, preexec_fn=heard) as ran:
        try:
            until = time.monotonic() + 60
            while time.monotonic() < until and lines_in(tmp_path / "s.csv") < 50:
                time.sleep(0.05)
            assert lines_in(tmp_path / "s.csv") >= 50  # rows are there as they come
            assert not (tmp_path / "o.mp4").exists()
            time.sleep(0.5)  # it waits for more by now
            ran.send_signal(signal.SIGINT)
            out, err = ran.communicate(timeout=30)
        finally:
            ran.kill()
    assert ran.returncode == 0, err
    lines = out.splitlines()
    assert any(re.search(r"live\.ts: ALARM at [\d.]+ s$", line) for line in lines)
    count = lines_in(tmp_path / "s.csv") - 1
    assert re.search(rf"live\.ts: {count} frames, \d alarms? \(\d+ frames\); [\d.]+ frames a second$", lines[-1])
    with av.open(str(tmp_path / "o.mp4")) as video:
        assert len(list(video.decode(video=0))) == count
    assert (tmp_path / "t.png").exists()


def lines_in(path: Path) -> int:
    return len(path.read_text(encoding="utf-8").splitlines()) if path.exists() else 0


def test_what_cannot_be_followed(handful: Command, saved: Path, clips: Path, tmp_path: Path) -> None:
    folder = frames_in(tmp_path / "frames", filmed(6))
    ran = handful("predict", saved, folder, "--follow")
    refused(ran, "frames is a folder, which cannot be followed; give a file that grows, or a camera")
    refused(handful("predict", saved, "/dev/null"), "/dev/null is a camera, which has no end: follow it, by --follow")
    ran = handful("predict", saved, clips / "odd.mp4", "--follow")
    refused(ran, "odd.mp4 is an mp4 file whose index is written last")
