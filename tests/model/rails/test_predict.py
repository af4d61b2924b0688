"""What a model of rail lines says of pictures and videos, and of what cannot be read."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch

from handful.errors import HandfulError
from handful.model.rails import LineModel, LinePrediction
from tests.conftest import Command, ok, refused
from tests.model.rails.conftest import HEIGHT, WIDTH, Painted, half_of, painted, save_picture, write_video


def foot(answer: object) -> float:
    """Where a line begins."""
    points = answer["points"] if isinstance(answer, dict) else answer.points  # type: ignore[attr-defined]
    return float(points[0][0])


def test_a_picture(model: LineModel, tmp_path: Path) -> None:
    (answer,) = model.predict(save_picture(tmp_path / "a.png", painted()))
    found = answer.as_dict()
    assert found["input"] == str(tmp_path / "a.png")
    assert set(found) == {"input", "lines"}
    assert set(found["lines"]) == {"left", "right"}
    for side, place in (("left", 0.3), ("right", 0.7)):
        line = found["lines"][side]
        assert set(line) == {"points", "confidence"}
        assert 0 <= line["confidence"] <= 1
        points = np.array(line["points"])
        assert points[0] == pytest.approx([place * WIDTH, HEIGHT - 0.5], abs=4)
        assert points[-1, 1] == pytest.approx(HEIGHT / 4, abs=5)  # as high as it was painted
        assert (np.diff(points[:, 1]) < 0).all()  # bottom to top
    assert str(answer) == f"{tmp_path / 'a.png'}: left {100 * answer.lines['left'].confidence:.0f} %, " + (
        f"right {100 * answer.lines['right'].confidence:.0f} %"
    )


def test_frames_of_another_size_are_scaled_and_of_another_shape_warned_of(model: LineModel, tmp_path: Path) -> None:
    told: list[str] = []
    save_picture(tmp_path / "a.png", painted())
    save_picture(tmp_path / "b.png", painted(size=(4 * WIDTH, 4 * HEIGHT)))
    save_picture(tmp_path / "c.png", painted(size=(WIDTH, 2 * HEIGHT)))
    save_picture(tmp_path / "d.png", painted(size=(WIDTH, 2 * HEIGHT)))
    small, large, *_ = model.predict(tmp_path, tell=told.append)
    assert foot(large.lines["left"]) == pytest.approx(4 * foot(small.lines["left"]), abs=4)
    assert told == [  # each size once
        f"{tmp_path / 'b.png'} has 512x256 pixels and is scaled: the annotated frames have 128x64.",
        f"{tmp_path / 'c.png'} has 128x128 pixels and is stretched to the shape of the annotated frames, 128x64: if it "
        "is of another camera, annotate some of its frames too, or else crop it as they were.",
    ]


@pytest.mark.parametrize("side", ["left", "right"])
def test_a_rail_that_cannot_be_seen_has_no_line(model: LineModel, tmp_path: Path, side: str) -> None:
    (answer,) = model.predict(save_picture(tmp_path / "a.png", painted(sides=side)))
    assert set(answer.lines) == {side}


def test_a_rail_out_of_the_picture_has_no_line(model: LineModel, tmp_path: Path) -> None:
    (answer,) = model.predict(save_picture(tmp_path / "a.png", painted(shift=0.6 * WIDTH)))
    assert set(answer.lines) == {"left"}


def test_a_rail_that_no_frame_had_is_not_looked_for(model: LineModel, tmp_path: Path) -> None:
    model = LineModel(model.network, model.card.model_copy(update={"lines": ["left"]}))
    (answer,) = model.predict(save_picture(tmp_path / "a.png", painted()))
    assert set(answer.lines) == {"left"}


@pytest.mark.parametrize("grey", [0, 200])
def test_a_picture_of_one_colour_has_no_line(model: LineModel, tmp_path: Path, grey: int) -> None:
    everywhere = Painted()(torch.from_numpy(painted()[None].copy()).permute(0, 3, 1, 2) / 255)
    model.run = lambda images: everywhere.expand(len(images), -1, -1, -1)  # it sees rails in whatever it is given
    noisy = np.random.default_rng(0).integers(grey, grey + 4, (HEIGHT, WIDTH, 3)).astype(np.uint8)
    dark, lit = model.predict([save_picture(tmp_path / "a.png", noisy), save_picture(tmp_path / "b.png", painted())])
    assert dark.lines == {}
    assert str(dark) == f"{tmp_path / 'a.png'}: no rail"
    assert set(lit.lines) == {"left", "right"}
    frames = model.predict(write_video(tmp_path / "ride.mp4", [painted(), np.zeros_like(noisy), painted()]))
    assert [len(answer.lines) for answer in frames] == [2, 0, 2]


def test_every_frame_of_a_video_has_its_number_and_its_time(model: LineModel, tmp_path: Path) -> None:
    frames = [painted(shift=shift) for shift in range(0, 22, 2)]
    answers = model.predict(write_video(tmp_path / "ride.mp4", frames))
    found = [answer.as_dict() for answer in answers]
    assert [answer["frame"] for answer in found] == list(range(11))
    assert [answer["time"] for answer in found] == pytest.approx([0.1 * number for number in range(11)])
    assert set(found[0]) == {"input", "frame", "time", "lines"}
    feet = [foot(answer["lines"]["right"]) for answer in found]
    assert feet[-1] - feet[0] == pytest.approx(20, abs=4)
    assert str(answers[3]).startswith(f"{tmp_path / 'ride.mp4'}, frame 3: left ")


def test_answers_are_those_of_each_picture_by_itself(model: LineModel, tmp_path: Path) -> None:
    paths = [save_picture(tmp_path / f"{i}.png", painted(shift=3 * i)) for i in range(6)]
    together = model.predict(paths)
    for path, answer in zip(paths, together):
        (alone,) = model.predict(path)
        assert alone.lines["left"].points == pytest.approx(answer.lines["left"].points)


@pytest.mark.parametrize(
    ("name", "codec", "options"), [("a.mp4", "libx264", {"movflags": "faststart"}), ("a.avi", "mpeg4", None)]
)
def test_a_video_that_ends_in_the_middle(
    model: LineModel, tmp_path: Path, name: str, codec: str, options: dict[str, str] | None
) -> None:
    noise = np.random.default_rng(0).integers(0, 255, (HEIGHT, WIDTH, 3), np.uint8)
    whole = write_video(tmp_path / name, [np.roll(noise, i, 1) for i in range(40)], codec, options)
    cut = half_of(whole, tmp_path / f"cut{whole.suffix}")
    answers: list[LinePrediction] = []
    with pytest.raises(HandfulError, match=r"cut.* breaks off after \d+ frames \(.*\); mend it, or cut it off there"):
        answers.extend(answer for _, answer in model.watch(cut))
    skipped = model.predict(cut, skip_bad=True)
    assert [answer.frame for answer in answers] == [answer.frame for answer in skipped[:-1]]
    assert "breaks off" in skipped[-1].as_dict()["error"]
    assert 5 < len(skipped) < 40
    assert [answer.frame for answer in skipped[:-1]] == list(range(len(skipped) - 1))


@pytest.mark.parametrize(("content", "message"), [(b"", "cannot be read as a video"), (b"no video", "cannot be read")])
def test_what_is_no_video(model: LineModel, tmp_path: Path, content: bytes, message: str) -> None:
    (tmp_path / "a.mp4").write_bytes(content)
    with pytest.raises(HandfulError, match=rf"a\.mp4 {message}.*mend it or leave it out"):
        model.predict(tmp_path)


def test_a_frame_size_that_changes(model: LineModel, tmp_path: Path) -> None:
    parts = [
        write_video(tmp_path / f"{factor}.ts", [painted(size=(factor * WIDTH, factor * HEIGHT))] * 10)
        for factor in (1, 2)
    ]
    both = tmp_path / "both.ts"
    both.write_bytes(b"".join(part.read_bytes() for part in parts))
    sizes = [(shot.pixels.shape[1], foot(answer.lines["left"])) for shot, answer in model.watch(both)]
    assert {width for width, _ in sizes} == {WIDTH, 2 * WIDTH}
    assert sizes[-1][1] == pytest.approx(2 * sizes[0][1], abs=4)


def test_what_is_no_picture(model: LineModel, tmp_path: Path) -> None:
    save_picture(tmp_path / "a.png", painted())
    (tmp_path / "b.png").write_bytes(b"no picture")
    save_picture(tmp_path / "c.png", painted())
    with pytest.raises(HandfulError, match=r"b\.png is no readable picture \(of no known format.*leave it out\."):
        model.predict(tmp_path)
    answers = model.predict(tmp_path, skip_bad=True)
    assert [answer.error is None for answer in answers] == [True, False, True]
    assert set(answers[1].as_dict()) == {"input", "error"}
    assert foot(answers[2].lines["left"]) == foot(answers[0].lines["left"])


@pytest.mark.parametrize(
    ("inputs", "options", "message"),
    [
        ([], {}, "Nothing to predict: name at least one picture, video or folder"),
        (["empty"], {}, r"The folder .*empty holds no pictures and no videos\. Passed over: 1 file .*notes\.txt"),
        (["nowhere"], {}, r"There is no picture, video or folder .*nowhere"),
        (["a.png"], {"smooth": 0.5}, "smooth is about the frames of a video, and none is among the inputs"),
        (["a.png"], {"smooth": 1.0}, "smooth is 1.0, but it is a share of at least 0 and below 1"),
    ],
)
def test_what_cannot_be_asked(
    model: LineModel, tmp_path: Path, inputs: list[str], options: dict[str, float], message: str
) -> None:
    save_picture(tmp_path / "a.png", painted())
    (tmp_path / "empty").mkdir()
    (tmp_path / "empty" / "notes.txt").write_text("mine", encoding="utf-8")
    with pytest.raises(HandfulError, match=message):
        model.predict([tmp_path / name for name in inputs], **options)  # type: ignore[arg-type]


def test_smoothing_is_for_the_frames_of_videos(model: LineModel, tmp_path: Path) -> None:
    still, ride = tmp_path / "still.png", tmp_path / "ride.mp4"
    save_picture(still, painted(shift=20))
    write_video(ride, [painted(), painted(shift=20), painted()])
    first, *_, picture = model.predict([ride, still], smooth=0.8)
    raw_first, raw_second, _, raw_picture = model.predict([ride, still])
    assert foot(first.lines["left"]) == pytest.approx(foot(raw_first.lines["left"]))
    assert foot(picture.lines["left"]) == foot(raw_picture.lines["left"])
    smoothed = model.predict(ride, smooth=0.8)[1]
    assert foot(smoothed.lines["left"]) < foot(raw_second.lines["left"]) - 5


def test_the_command(handful: Command, saved: Path, tmp_path: Path) -> None:
    save_picture(tmp_path / "in" / "a.png", painted())
    ride = write_video(tmp_path / "in" / "ride.mp4", [painted()] * 6)
    (tmp_path / "in" / "notes.txt").write_text("mine", encoding="utf-8")
    ran = ok(handful("predict", saved, tmp_path / "in", "--json"))
    answers = json.loads(ran.out)
    assert [answer.get("frame") for answer in answers] == [None, *range(6)]
    assert "Passed over: 1 file whose suffix is no picture's (.txt)" in ran.err
    assert "7 pictures, " in ran.err
    assert " a second\n" in ran.err
    told = ok(handful("predict", saved, ride, "--smooth", 0.5)).out.splitlines()
    assert len(told) == 7
    assert told[0].startswith(f"{ride}, frame 0: left ")
    assert told[-1].startswith("6 pictures, ")


def test_the_command_answers_what_came_before_a_video_breaks_off(handful: Command, saved: Path, tmp_path: Path) -> None:
    noise = np.random.default_rng(0).integers(0, 255, (HEIGHT, WIDTH, 3), np.uint8)
    whole = write_video(tmp_path / "a.avi", [np.roll(noise, i, 1) for i in range(40)], "mpeg4")
    cut = half_of(whole, tmp_path / "cut.avi")
    ran = handful("predict", saved, cut, "--json", "--overlay", tmp_path / "out")
    assert ran.code == 2
    count = len(json.loads(ran.out))
    assert count > 5
    last = ran.err.splitlines()[-1]
    assert last.startswith(f"handful: {cut} breaks off after {count} frames")
    assert (tmp_path / "out" / "cut.mp4").stat().st_size > 1000
    assert ok(handful("predict", saved, cut, "--skip-bad")).out.count("frame") >= count


def test_the_command_refuses_what_is_about_classes(handful: Command, saved: Path, tmp_path: Path) -> None:
    picture = save_picture(tmp_path / "a.png", painted())
    refused(handful("predict", saved, picture, "--top", 2), "--top and --csv are about classes", "leave them out")
    (tmp_path / "b.png").write_bytes(b"no picture")
    ran = handful("predict", saved, tmp_path / "b.png", "--json")
    refused(ran, "b.png is no readable picture", "as --skip-bad does.")
    assert json.loads(ran.out) == []
    refused(handful("export", saved), "is a model of rail_lines, and one of classification is wanted here")
    refused(handful("serve", saved), "is a model of rail_lines, and one of classification is wanted here")
