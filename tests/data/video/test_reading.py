"""Frames of videos, of folders and of files that grow; and what cannot be read, in one sentence each."""

from __future__ import annotations

import threading
import time
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from handful.data.video import Frame, frames, rate
from handful.data.video.reading import Following, at_size, decoded, ends_with_its_index
from handful.errors import HandfulError
from tests.data.video.conftest import HEIGHT, WIDTH, footage, write_folder, write_video


def test_a_video_without_loss_gives_its_very_frames(tmp_path: Path) -> None:
    shown = footage(12)
    video = write_video(tmp_path / "a.mkv", shown)
    found = list(frames(video, grey=True))
    np.testing.assert_array_equal([frame.pixels for frame in found], shown)
    assert [frame.number for frame in found] == list(range(12))
    assert [frame.time for frame in found] == pytest.approx(np.arange(12) / 10, abs=1e-3)
    colour = next(frames(video)).pixels
    assert colour.shape == (HEIGHT, WIDTH, 3)
    assert colour.dtype == np.uint8
    np.testing.assert_allclose(colour.astype(int), shown[0, ..., None].repeat(3, 2), atol=2)
    assert rate(video) == 10


@pytest.mark.parametrize("name", ["a.mp4", "a.avi", "a.ts"])
def test_other_videos_come_close_and_begin_at_zero(tmp_path: Path, name: str) -> None:
    shown = footage(12)
    found = list(frames(write_video(tmp_path / name, shown, "mpeg4"), grey=True))
    assert len(found) == 12
    assert np.abs(found[3].pixels.astype(int) - shown[3]).mean() < 30
    assert found[0].time == 0
    assert found[-1].time == pytest.approx(1.1)


def test_a_folder_of_frames_is_read_by_the_numbers_in_its_names(tmp_path: Path) -> None:
    shown = footage(12)
    folder = write_folder(tmp_path / "clip", shown)  # 1.png, 10.png, 11.png, 12.png, 2.png, ...
    (folder / "notes.txt").write_text("no frame")
    Image.fromarray(shown[0]).save(folder / ".hidden.png")
    found = list(frames(folder, grey=True))
    np.testing.assert_array_equal([frame.pixels for frame in found], shown)
    assert {frame.time for frame in found} == {None}
    assert next(frames(folder)).pixels.shape == (HEIGHT, WIDTH, 3)
    assert rate(folder) == 25
    mixed = write_folder(tmp_path / "mixed", shown[:3], ["b10.png", "a20.png", "b9.png"])
    np.testing.assert_array_equal([frame.pixels for frame in frames(mixed, grey=True)], shown[[1, 2, 0]])


def test_a_frame_at_the_size_of_a_network() -> None:
    pixels = footage(1, size=(32, 32))[0]
    grey = at_size(pixels, 16, 1)  # by area: the mean of four pixels
    np.testing.assert_allclose(grey[0], pixels.reshape(16, 2, 16, 2).mean((1, 3)), atol=1)
    np.testing.assert_array_equal(at_size(pixels, 16, 3), grey.repeat(3, 0))
    larger = np.asarray(Image.fromarray(pixels).resize((40, 40), Image.Resampling.BILINEAR))
    np.testing.assert_array_equal(at_size(pixels, 40, 1), larger[None])
    assert at_size(footage(1)[0], 16, 1).shape == (1, 16, 16)  # the sides are stretched
    colour = np.random.default_rng(0).integers(0, 256, (16, 16, 3), np.uint8)
    np.testing.assert_array_equal(at_size(colour, 16, 3), colour.transpose(2, 0, 1))


def test_a_truncated_video_gives_what_comes_before(tmp_path: Path) -> None:
    whole = write_video(tmp_path / "a.avi", np.random.default_rng(0).integers(0, 255, (40, 48, 64), np.uint8), "mpeg4")
    cut = tmp_path / "cut.avi"
    cut.write_bytes(whole.read_bytes()[: whole.stat().st_size // 2])
    found: list[Frame] = []
    with pytest.raises(
        HandfulError, match=r"cut\.avi breaks off after \d+ frames \(.*\); mend it, or cut it off there"
    ):
        found.extend(frames(cut))
    assert 5 < len(found) < 40


def sound(path: Path) -> Path:
    """A file with sound alone."""
    import wave

    with wave.open(str(path.with_suffix(".wav")), "wb") as file:
        file.setnchannels(1)
        file.setsampwidth(2)
        file.setframerate(8000)
        file.writeframes(bytes(16000))
    return path.with_suffix(".wav").rename(path)


def test_what_is_no_clip_is_said_in_one_sentence(tmp_path: Path) -> None:
    (tmp_path / "text.mp4").write_text("no video")
    (tmp_path / "nothing.mp4").write_bytes(b"")
    (tmp_path / "empty").mkdir()
    broken = write_folder(tmp_path / "broken", footage(3))
    (broken / "2.png").write_bytes((broken / "2.png").read_bytes()[:60])
    for source, message in (
        (tmp_path / "text.mp4", r"text\.mp4 cannot be read as a video \(.*\); mend it or leave it out"),
        (tmp_path / "nothing.mp4", r"nothing\.mp4 cannot be read as a video"),
        (tmp_path / "absent.mp4", r"absent\.mp4 cannot be read as a video"),
        (sound(tmp_path / "sound.avi"), r"sound\.avi holds no pictures, only other streams; give a video"),
        (tmp_path / "empty", r"The folder .*empty holds no frames; give one of pictures, or a video"),
        (broken, r"2\.png is no readable picture \(.*\); mend it or leave it out"),
    ):
        with pytest.raises(HandfulError, match=message):
            list(frames(source))
    with pytest.raises(HandfulError, match=r"text\.mp4 cannot be read"):
        rate(tmp_path / "text.mp4")


def test_a_video_without_a_frame(tmp_path: Path) -> None:
    video = write_video(tmp_path / "a.avi", footage(1), "mpeg4")
    content = video.read_bytes()
    video.write_bytes(content[: content.index(b"movi") + 4])
    with pytest.raises(
        HandfulError, match=r"a\.avi (is a video without a frame; leave it out|cannot be read as a video)"
    ):
        list(frames(video))


def test_a_size_that_changes_within_a_clip(tmp_path: Path) -> None:
    folder = write_folder(tmp_path / "clip", footage(3))
    Image.fromarray(footage(1, size=(40, 30))[0]).save(folder / "4.png")
    found: list[Frame] = []
    message = r"clip changes its size: frame 3 has 40x30 pixels, those before have 32x24; .*cut the clip there"
    with pytest.raises(HandfulError, match=message):
        found.extend(frames(folder))
    assert len(found) == 3
    parts = [write_video(tmp_path / f"{k}.ts", footage(10, size=(32 * k, 24 * k)), "mpeg4") for k in (1, 2)]
    both = tmp_path / "both.ts"
    both.write_bytes(b"".join(part.read_bytes() for part in parts))
    with pytest.raises(HandfulError, match=r"both\.ts changes its size: frame \d+ has 64x48 pixels, those before have"):
        list(frames(both))
    assert {frame.pixels.shape for frame in decoded(both, grey=True)} == {(24, 32), (48, 64)}


def test_a_growing_file_is_followed_until_it_is_closed(tmp_path: Path) -> None:
    content = write_video(tmp_path / "whole.ts", footage(60), "mpeg4").read_bytes()
    growing = tmp_path / "growing.ts"
    growing.write_bytes(content[: len(content) // 2])
    following = frames(growing, grey=True, follow=True)
    found: list[Frame] = []
    reader = threading.Thread(target=lambda: found.extend(following))
    reader.start()
    wait_for(lambda: len(found) > 10)
    before = len(found)
    with growing.open("ab") as file:
        file.write(content[len(content) // 2 :])
    wait_for(lambda: len(found) > max(before, 50))
    assert reader.is_alive()
    assert isinstance(following, Following)
    following.close()
    reader.join(10)
    assert not reader.is_alive()
    assert [frame.number for frame in found] == list(range(len(found)))
    assert list(following) == []


def test_the_wait_for_a_first_frame_can_be_ended(tmp_path: Path) -> None:
    (tmp_path / "a.ts").write_bytes(b"")
    following = frames(tmp_path / "a.ts", follow=True)
    found: list[Frame] = []
    reader = threading.Thread(target=lambda: found.extend(following))
    reader.start()
    time.sleep(0.3)
    assert isinstance(following, Following)
    following.close()
    reader.join(10)
    assert not reader.is_alive()
    assert found == []


def test_an_interruption_is_not_lost_in_the_decoder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupted(self: threading.Event, seconds: float) -> bool:
        raise KeyboardInterrupt

    growing = write_video(tmp_path / "a.ts", footage(30), "mpeg4")
    monkeypatch.setattr(threading.Event, "wait", interrupted)
    found: list[Frame] = []
    with pytest.raises(KeyboardInterrupt):
        found.extend(frames(growing, follow=True))
    assert len(found) > 20


def wait_for(done: object, seconds: float = 20) -> None:
    end = time.monotonic() + seconds
    while not done():  # type: ignore[operator]
        assert time.monotonic() < end, "nothing came"
        time.sleep(0.05)


def test_what_cannot_be_followed(tmp_path: Path) -> None:
    late = write_video(tmp_path / "late.mp4", footage(8), "mpeg4")
    assert ends_with_its_index(late)
    with pytest.raises(HandfulError, match=r"late\.mp4 is an mp4 file whose index is written last.*as fragmented mp4"):
        next(frames(late, follow=True))
    early = write_video(tmp_path / "early.mp4", footage(8), "mpeg4", options={"movflags": "faststart"})
    pieces = write_video(tmp_path / "pieces.mp4", footage(8), "mpeg4", options={"movflags": "frag_keyframe+empty_moov"})
    assert not ends_with_its_index(early)
    assert not ends_with_its_index(pieces)
    assert next(frames(pieces, follow=True)).number == 0
    with pytest.raises(HandfulError, match=r"is a folder, which cannot be followed; give a file that grows, or a cam"):
        next(frames(tmp_path, follow=True))
    with pytest.raises(HandfulError, match=r"absent\.ts cannot be opened \(No such file.*\); give a file"):
        next(frames(tmp_path / "absent.ts", follow=True))
    with pytest.raises(HandfulError, match=r"/dev/null cannot be read as a video"):  # a device, and no camera
        next(frames(Path("/dev/null"), follow=True))


def test_a_title_that_is_no_text(tmp_path: Path) -> None:
    file = write_video(tmp_path / "a.mkv", footage(3))
    content = file.read_bytes()
    assert content.count(b"Lavf") > 1
    file.write_bytes(content.replace(b"Lavf", b"\xffavf"))
    assert len(list(frames(file))) == 3
