"""A model of a camera: which frames it is adapted to, which tell the threshold, and what it says of itself."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch

import handful as hf
from handful.data.video.reading import at_size, frames
from handful.errors import HandfulError
from handful.model.rails import LineModel
from handful.model.video import VideoModel, fit_video
from handful.model.video.fitting import halves
from handful.model.video.footage import Footage, clips_at
from handful.problems.video_anomaly import copied, extrapolated, frame_errors
from handful.run import Run
from tests.conftest import Command, ok, refused
from tests.model.rails.conftest import half_of, write_video
from tests.model.video.conftest import HEIGHT, WIDTH, filmed, frames_in


def decoded(path: Path, size: int) -> torch.Tensor:
    """All frames as a network takes them, float64 [n, 1, size, size]."""
    pixels = [at_size(frame.pixels, size, 1) for frame in frames(path, grey=True)]
    return torch.from_numpy(np.stack(pixels)).double() / 255


def footage(clip: Path, folder: Path, size: int = 32) -> Footage:
    return Footage(folder / "footage", clips_at(clip), size, 1, 4, False)


def test_without_a_run_every_frame_tells_the_threshold_of_the_extrapolation(clips: Path, watcher: VideoModel) -> None:
    seen, card = decoded(clips / "normal.mp4", 128), watcher.card
    predicted, targets = 2 * seen[3:-1] - seen[2:-2], seen[4:]
    found = 10 * np.log10(frame_errors(predicted, targets).local.numpy())
    assert card.held_out_frames == len(found) == 116
    assert (card.mean, card.deviation) == pytest.approx((found.mean(), found.std()), abs=1e-3)
    scores, last = [], None
    for raw in (found - found.mean()) / found.std():
        last = raw if last is None else 0.7 * last + 0.3 * raw
        scores.append(last)
    assert card.threshold == pytest.approx(np.sort(scores)[int(np.ceil(117 * 0.98)) - 1], abs=1e-3)
    assert card.promised
    assert (card.backbone, card.decoder, card.recipe, card.support, card.steps) == (None, None, None, 0, 0)
    assert card.check is not None
    psnr = -10 * np.log10((predicted.clamp(0, 1) - targets).square().mean((1, 2, 3)).numpy()).mean()
    copy = -10 * np.log10((seen[3:-1] - targets).square().mean((1, 2, 3)).numpy()).mean()
    assert card.check.psnr == pytest.approx(psnr, abs=1e-3)
    assert card.check.floors == {"copy": pytest.approx(copy, abs=1e-3)}
    assert card.check.unadapted is None


def test_what_the_card_says(watcher: VideoModel) -> None:
    first, second, third = str(watcher.card).splitlines()
    assert first == (
        f"From 120 frames of normal footage (12 s) of {WIDTH}x{HEIGHT} pixels. No network: what moves is expected to "
        "go on as it did (--from RUN adds one)."
    )
    assert second.startswith("It predicts 116 held-out frames with a PSNR of ")
    assert " dB (floors: copy " in second
    assert third.startswith(f"Alarm above a score of {watcher.card.threshold:.2f}: 2 % of normal frames (72 s an hour)")
    assert "Half of those judged by the other half: " in third


def test_a_run_is_adapted_to_windows_of_the_first_half_and_the_second_tells_the_threshold(
    clips: Path, run: Run, tmp_path: Path
) -> None:
    model = fit_video(clips / "normal.mp4", run, false_alarms=0.1)
    seen, card = decoded(clips / "normal.mp4", 32).float(), model.card
    firsts = [int((place + 0.5) / 3 * 56) for place in range(3)]  # 60 frames, of which 56 begin a window
    x = torch.stack([seen[first : first + 4].flatten(0, 1) for first in firsts])
    y = torch.stack([seen[first + 4] for first in firsts])
    network = run.method.fit(x, y, 1)
    held_out = range(60, 116)
    windows = torch.stack([seen[first : first + 4].flatten(0, 1) for first in held_out])
    targets = seen[64:]
    with torch.no_grad():
        errors = frame_errors(network(windows), targets)
    found = 10 * np.log10(errors.local.double().numpy())
    assert (card.support, card.held_out_frames, card.steps, card.method) == (3, 56, 1, "maml")
    assert (card.mean, card.deviation) == pytest.approx((found.mean(), found.std()), abs=2e-3)
    assert card.check is not None
    assert card.check.psnr == pytest.approx(-10 * np.log10(errors.mean.double().numpy()).mean(), abs=2e-3)
    before = run.method.fit(x, y, 0)
    for name, predict in (("linear extrapolation", extrapolated), ("copy", copied), ("unadapted", before)):
        with torch.no_grad():
            level = -10 * np.log10(frame_errors(predict(windows), targets).mean.double().numpy()).mean()
        said = card.check.unadapted if name == "unadapted" else card.check.floors[name]
        assert said == pytest.approx(level, abs=2e-3)
    assert (card.recipe, card.window, card.channels, card.size) == ("tiny-video", 4, 1, 32)
    assert "by 1 step of maml from the run tiny-video on 3 windows of its first half" in str(card)
    assert "before it was adapted; floors: linear extrapolation " in str(card)
    again = hf.load_model(model.save(tmp_path / "watcher"))
    assert isinstance(again, VideoModel)
    assert again.card == card
    one, other = (of.predict(clips / "odd.mp4")[0].frames for of in (model, again))
    assert [score.score for score in one] == [score.score for score in other]


def test_no_frame_is_both_adapted_to_and_held_out(clips: Path, tmp_path: Path) -> None:
    taken = footage(clips, tmp_path)  # three clips one after another, 216 frames
    support, held_out = halves(taken, 200)
    learned = {frame for first in support for frame in range(first, first + 5)}
    judged = {frame for run in held_out for first in run for frame in range(first, first + 5)}
    assert max(learned) < 108 <= min(judged)
    assert len(support) == 104  # all that there are
    assert sum(map(len, held_out)) == (12 - 4) + 2 * 44
    borders = [120, 168]
    for run in held_out:
        assert not any(first < border < first + 5 for border in borders for first in run)


def test_windows_are_spread_evenly(clips: Path, tmp_path: Path) -> None:
    taken = footage(clips / "normal.mp4", tmp_path)
    assert halves(taken, 1)[0].tolist() == [28]
    assert halves(taken, 4)[0].tolist() == [7, 21, 35, 49]
    none, every = halves(taken, 0)
    assert (len(none), [len(run) for run in every]) == (0, [116])


def test_frames_of_one_colour_are_passed_over(tmp_path: Path) -> None:
    shown = filmed(60)
    for number in (0, 1, 30):
        shown[number] = np.full_like(shown[0], 10)
    clip = frames_in(tmp_path / "clip", shown)
    taken = footage(clip, tmp_path)
    assert [(int(run[0]), int(run[-1])) for run in taken.runs(0, 60)] == [(2, 25), (31, 55)]
    card = fit_video(clip).card
    assert card.held_out_frames == 24 + 25
    assert card.frame_rate is None
    assert "3 frames of one colour passed over; such a frame is an alarm, as it shows nothing." in card.notes


def test_too_few_frames_for_the_rate_are_no_promise(clips: Path) -> None:
    card = fit_video(clips / "other.mp4", false_alarms=0.01).card
    assert not card.promised
    assert "the highest of 44 held-out frames, which are too few to tell 1 % of false alarms; that takes 99." in str(
        card
    )
    assert card.check is not None
    assert card.check.crossed is None


def test_a_network_that_predicts_worse_than_no_network_says_so(clips: Path, run: Run) -> None:
    damaged = fit_video(clips / "normal.mp4", run, inner_steps=0)
    worse = run.method.network.get_submodule("head.readout")
    kept = {name: value.clone() for name, value in worse.state_dict().items()}
    try:
        with torch.no_grad():
            for value in worse.parameters():
                value.add_(0.5)
        card = fit_video(clips / "normal.mp4", run, inner_steps=0).card
    finally:
        worse.load_state_dict(kept)
    note = "The linear extrapolation predicts better than the network does; a model without a run is simpler"
    assert any(told.startswith(note) for told in card.notes)
    assert damaged.card.check is not None
    assert card.check is not None
    assert card.check.psnr < damaged.card.check.psnr
    assert fit_video(clips / "normal.mp4", run, check=False).card.check is None


def test_still_pictures_are_normal_too(tmp_path: Path) -> None:
    still = frames_in(tmp_path / "still", [filmed(1)[0]] * 20)
    model = fit_video(still)
    assert (model.card.deviation, model.card.threshold) == (0.5, 0.0)
    (answer,) = model.predict(still)
    assert not any(score.alarm for score in answer.frames)
    (answer,) = model.predict(frames_in(tmp_path / "moved", [filmed(1)[0]] * 10 + filmed(10)))
    assert any(score.alarm for score in answer.frames)


def test_a_folder_of_clips_and_of_several_sizes(tmp_path: Path) -> None:
    (tmp_path / "in").mkdir()
    write_video(tmp_path / "in" / "a.mp4", filmed(20))
    frames_in(tmp_path / "in" / "b", filmed(20, size=(64, 64)))
    (tmp_path / "in" / "notes.txt").write_text("mine", encoding="utf-8")
    card = fit_video(tmp_path / "in").card
    assert (card.frames, card.held_out_frames, card.frame_size) == (40, 32, (WIDTH, HEIGHT))
    assert f"The clips have several sizes ({WIDTH}x{HEIGHT}, 64x64): are they of one camera?" in card.notes
    assert fit_video([tmp_path / "in" / "a.mp4", tmp_path / "in" / "b", tmp_path / "in"]).card.frames == 40  # each once


def test_what_cannot_be_read_is_named_or_left_out(tmp_path: Path) -> None:
    (tmp_path / "in").mkdir()
    write_video(tmp_path / "in" / "a.mp4", filmed(30))
    whole = write_video(tmp_path / "whole.avi", filmed(40), "mpeg4")
    cut = half_of(whole, tmp_path / "in" / "cut.avi")
    (tmp_path / "in" / "none.mp4").write_bytes(b"no video")
    write_video(tmp_path / "in" / "short.mp4", filmed(3))
    for name, message in (
        ("cut.avi", "breaks off after"),
        ("none.mp4", "cannot be read as a video"),
        ("short.mp4", ""),
    ):
        with pytest.raises(HandfulError, match=message or r"The clip .*short\.mp4 has 3 frames, but a window of 4 and"):
            fit_video(tmp_path / "in" / name)
    card = fit_video(tmp_path / "in", skip_bad=True).card
    assert card.held_out_frames > 30  # those before the break too
    frames_in(tmp_path / "in" / "sizes", [*filmed(9), *filmed(3, size=(64, 64))])
    card = fit_video(tmp_path / "in", skip_bad=True).card
    for found, start, message in zip(
        card.notes,
        ["Used as far as it goes", "Left out", "Left out", "Used as far as it goes"],
        ["cut.avi breaks off after", "none.mp4 cannot be read as", "short.mp4 has 3 frames", "sizes changes its size"],
    ):
        assert found.startswith(f"{start}: ")
        assert message in found
    early = frames_in(tmp_path / "in" / "stops", [*filmed(2), *filmed(3, size=(64, 64))])  # before a window is full
    assert [told for told in fit_video(tmp_path / "in", skip_bad=True).card.notes if str(early) in told] == [
        f"Left out: {early} changes its size: frame 2 has 64x64 pixels, those before have {WIDTH}x{HEIGHT}; a camera "
        "has one size, so cut the clip there."
    ]
    with pytest.raises(HandfulError, match=r"No frame of the normal footage can be read: .*none\.mp4 cannot be read"):
        fit_video(tmp_path / "in" / "none.mp4", skip_bad=True)
    assert cut.exists()


@pytest.mark.parametrize("share", [0.0, 1.0, -0.1, 3.0])
def test_shares_that_are_none(clips: Path, share: float) -> None:
    with pytest.raises(HandfulError, match=r"false_alarms is .*, but it is the share of normal frames .*; try 0\.01"):
        fit_video(clips / "normal.mp4", false_alarms=share)


def test_too_little_footage(clips: Path, run: Run, tmp_path: Path) -> None:
    few = frames_in(tmp_path / "few", filmed(10))
    with pytest.raises(HandfulError, match=r"has 10 frames, but 5 to adapt to and 6 more to set the threshold by are"):
        fit_video(few, run)
    assert fit_video(frames_in(tmp_path / "enough", filmed(11)), run).card.support == 1
    with pytest.raises(HandfulError, match=r"has 5 frames, but 6 to set the threshold by are needed, in one piece"):
        fit_video(frames_in(tmp_path / "five", filmed(5)))
    dark = frames_in(tmp_path / "dark", [np.zeros((HEIGHT, WIDTH, 3), np.uint8)] * 9)
    with pytest.raises(HandfulError, match="All frames of the normal footage are of one colour"):
        fit_video(dark)
    (tmp_path / "empty").mkdir()
    with pytest.raises(HandfulError, match=r"The folder .*empty holds no videos and no frames"):
        fit_video(tmp_path / "empty")
    with pytest.raises(HandfulError, match=r"There is no video and no folder .*nowhere\.mp4"):
        fit_video(tmp_path / "nowhere.mp4")
    with pytest.raises(HandfulError, match="There is no footage to learn from"):
        fit_video([])
    with pytest.raises(HandfulError, match="/dev/null is a camera; record a few minutes of it to a file"):
        fit_video("/dev/null")  # a device as a camera is


def test_fewer_windows_than_a_task_had_are_said(run: Run, tmp_path: Path) -> None:
    card = fit_video(frames_in(tmp_path / "clip", filmed(13)), run).card
    assert card.support == 2
    assert "The first half has 2 windows, and the run was trained to adapt to 3: give more footage." in card.notes


def test_one_fit_knows_video_by_what_it_is(clips: Path, run: Run, tmp_path: Path) -> None:
    stills = frames_in(tmp_path / "stills", filmed(30))
    for support, options in (
        (clips / "normal.mp4", {}),
        (str(clips), {}),
        (stills, {"false_alarms": 0.05}),
        (stills, {"run": run}),
    ):
        assert isinstance(hf.fit(support, **options), VideoModel)
    with pytest.raises(HandfulError, match=r"say --false-alarms 0\.01 if they are the frames of a clip"):
        hf.fit(stills)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"backbone": "conv4"}, "backbone is about pictures, and this is video; leave it out"),
        ({"method": "ridge"}, "method is about pictures, and this is video"),
        ({"open_set": True}, "open_set is about pictures"),
        ({"inner_steps": 2}, "inner_steps is about a run; name one, or leave it out"),
    ],
)
def test_options_that_make_no_sense(clips: Path, options: dict[str, object], message: str) -> None:
    with pytest.raises(HandfulError, match=message):
        hf.fit(clips / "normal.mp4", **options)  # type: ignore[call-overload]


def test_false_alarms_are_about_video(pictures: Path) -> None:
    support = {folder.name: list(folder.iterdir()) for folder in sorted(pictures.iterdir())[:2]}
    with pytest.raises(HandfulError, match="false_alarms is about video, and these are pictures; leave it out"):
        hf.fit(support, false_alarms=0.1)  # type: ignore[call-overload]


def test_a_run_of_another_problem(recipe_file: Path, clips: Path, tmp_path: Path) -> None:
    from handful.recipe import load_recipe
    from handful.training import train_recipe

    run, _ = train_recipe(load_recipe(str(recipe_file), ["train.steps=1"]), tmp_path / "run", quiet=True)
    with pytest.raises(HandfulError, match="was trained for classification, and this is video; name a run of video"):
        hf.fit(clips / "normal.mp4", run)


def test_the_command(handful: Command, clips: Path, run: Run, tmp_path: Path) -> None:
    shutil.copy(clips / "normal.mp4", tmp_path / "normal.mp4")
    ran = ok(handful("fit", tmp_path / "normal.mp4", "--out", tmp_path / "a", "--false-alarms", 0.05))
    assert ran.out.startswith(f"{tmp_path / 'a'}: From 120 frames of normal footage (12 s)")
    assert ran.out.count("\n") == 3
    ran = ok(handful("fit", tmp_path / "normal.mp4", "--from", run.folder, "--out", tmp_path / "b", "--json"))
    card = json.loads(ran.out)
    assert (card["problem"], card["false_alarms"], card["recipe"]) == ("video_anomaly", 0.01, "tiny-video")
    assert sorted(path.name for path in (tmp_path / "b").iterdir()) == ["card.json", "model.safetensors"]
    refused(handful("fit", tmp_path / "normal.mp4", "--out", tmp_path / "c", "--false-alarms", 2), "false_alarms is 2")
    assert not (tmp_path / "c").exists()
    refused(handful("export", tmp_path / "a"), "is a model of video_anomaly, and one of classification is wanted here")
    with pytest.raises(HandfulError, match="is a model of video_anomaly, and one of rail_lines is wanted here"):
        LineModel.load(tmp_path / "a")
