"""Writing a video: frame by frame, and only whole under its name."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest

from handful.errors import HandfulError
from handful.model.video_writer import VideoWriter

GREY = np.full((64, 128, 3), 60, np.uint8)


def test_frames_are_written_at_their_rate_and_under_another_name_until_all_are(tmp_path: Path) -> None:
    writer = VideoWriter(tmp_path / "out" / "a.mp4", 12.5)
    for grey in (60, 120, 180):
        writer.write(np.full((65, 129, 3), grey, np.uint8))  # of odd sides the last row and column go
    assert not (tmp_path / "out" / "a.mp4").exists()
    writer.close()
    assert [path.name for path in (tmp_path / "out").iterdir()] == ["a.mp4"]
    with av.open(str(tmp_path / "out" / "a.mp4")) as video:
        frames = [frame.to_ndarray(format="rgb24") for frame in video.decode(video=0)]
        assert video.streams.video[0].average_rate == 12.5
    assert [frame.shape for frame in frames] == [(64, 128, 3)] * 3
    assert [frame.mean() for frame in frames] == pytest.approx([60, 120, 180], abs=3)


def test_a_frame_of_another_size_is_refused(tmp_path: Path) -> None:
    writer = VideoWriter(tmp_path / "a.mp4", 10)
    writer.write(GREY)
    with pytest.raises(HandfulError, match="has 1 frame of 128x64 pixels, and then one of 64x128 follows; a video has"):
        writer.write(np.zeros((128, 64, 3), np.uint8))


def test_a_video_that_cannot_be_written(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"")
    with pytest.raises(HandfulError, match=r"ride\.mp4 cannot be written \(.*\); name another place for it"):
        VideoWriter(tmp_path / "file" / "ride.mp4", 10)
    (tmp_path / "ride.mp4").mkdir()
    writer = VideoWriter(tmp_path / "ride.mp4", 10)
    writer.write(GREY)
    with pytest.raises(HandfulError, match=r"ride\.mp4 cannot be written"):
        writer.close()
    assert [path.name for path in tmp_path.iterdir() if path.suffix == ".tmp"] == []
    writer.close()  # there is nothing left to finish


class Full:
    """A container on a disk that is full."""

    def __init__(self, container: Any) -> None:
        self.container, self.calls = container, list[str]()

    def mux(self, packets: object) -> None:
        self.calls.append("mux")
        raise OSError(28, "No space left on device")

    def close(self) -> None:
        self.calls.append("close")
        self.container.close()


def test_a_failed_write_closes_the_file_and_closing_says_nothing_more(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    writer = VideoWriter(tmp_path / "a.mp4", 10)
    writer.write(GREY)
    full = Full(writer.container)
    monkeypatch.setattr(writer, "container", full)
    with pytest.raises(HandfulError, match=r"a\.mp4 cannot be written \(.*No space left on device\); name another"):
        writer.write(GREY)
    assert full.calls == ["mux", "close"]
    writer.close()
    assert full.calls == ["mux", "close"]
    assert list(tmp_path.iterdir()) == []


def test_a_build_without_the_encoder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("handful.model.video_writer.CODEC", "libnone")
    writer = VideoWriter(tmp_path / "a.mp4", 10)
    with pytest.raises(HandfulError, match=r"this build of PyAV has no H\.264 encoder \(libnone\); install one that"):
        writer.write(GREY)
    writer.close()
    assert list(tmp_path.iterdir()) == []
