"""What a model that watches a camera says of frames, how it is kept, and what is refused."""

from __future__ import annotations

import copy
import itertools
import json
import pickle
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

import handful as hf
from handful.data.video.reading import Frame, at_size, frames
from handful.errors import HandfulError
from handful.model.video import FrameScore, VideoModel, fit_video
from handful.model.video.model import BATCH
from handful.problems.video_anomaly import frame_errors
from handful.run import Run
from tests.model.rails.conftest import half_of, write_video
from tests.model.test_strangers import Content, rewrite
from tests.model.video.conftest import HEIGHT, ODD, WIDTH, filmed, frames_in


def scores_of(model: VideoModel, clip: Path, **options: Any) -> list[FrameScore]:
    return [score for _, score in model.watch(clip, **options)]


def test_scores_are_those_of_the_plain_formula(watcher: VideoModel, clips: Path) -> None:
    shown = [at_size(frame.pixels, 128, 1) for frame in frames(clips / "odd.mp4", grey=True)]
    seen = torch.from_numpy(np.stack(shown)).double() / 255
    found = scores_of(watcher, clips / "odd.mp4", heat=True)
    assert [score.frame for score in found] == list(range(48))
    assert [score.time for score in found] == pytest.approx([0.1 * number for number in range(48)])
    assert [score.score for score in found[:4]] == [None] * 4
    last = None
    for number in range(4, 48):
        errors = frame_errors((2 * seen[number - 1] - seen[number - 2])[None], seen[number][None])
        raw = (10 * np.log10(float(errors.local)) - watcher.card.mean) / watcher.card.deviation
        last = raw if last is None else 0.7 * last + 0.3 * raw
        assert found[number].score == pytest.approx(last, abs=1e-3)
        assert found[number].alarm == (last > watcher.card.threshold)
        hot = (10 * np.log10(errors.place[0].clamp(min=1e-9).numpy()) - watcher.card.mean) / watcher.card.deviation
        heat = found[number].heat
        assert heat is not None
        assert heat.max() == pytest.approx(raw, abs=1e-3)
        assert heat[hot > 0] == pytest.approx(hot[hot > 0], abs=1e-2)


def test_what_is_odd_is_found(watcher: VideoModel, clips: Path) -> None:
    found = scores_of(watcher, clips / "odd.mp4", heat=True)
    assert sum(score.alarm for score in found[:ODD]) <= 3
    assert all(score.alarm for score in found[ODD + 2 : ODD + 20])
    assert sum(score.alarm for score in scores_of(watcher, clips / "other.mp4")) <= 5
    heat = found[ODD + 5].heat
    assert heat is not None
    row, column = np.unravel_index(heat.argmax(), heat.shape)
    assert row * HEIGHT / 128 == pytest.approx(HEIGHT / 2 + 6, abs=12)
    assert min(abs(column * WIDTH / 128 - (6 + 11 * step)) for step in (3, 4, 5)) < 14


def test_a_score_does_not_depend_on_what_is_computed_with_it(
    watcher: VideoModel, run: Run, clips: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for model in (watcher, fit_video(clips / "normal.mp4", run)):
        together = [score.score for score in scores_of(model, clips / "odd.mp4")]
        with monkeypatch.context() as patch:
            patch.setattr("handful.model.video.model.BATCH", 1)
            alone = [score.score for score in scores_of(model, clips / "odd.mp4")]
        assert alone[4:] == pytest.approx(together[4:], abs=1e-4)


def test_a_folder_of_frames_has_no_times(watcher: VideoModel, tmp_path: Path) -> None:
    found = scores_of(watcher, frames_in(tmp_path / "clip", filmed(12)))
    assert [score.frame for score in found] == list(range(12))  # 2.png before 10.png
    assert {score.time for score in found} == {None}
    assert found[-1].score is not None


def test_frames_of_one_colour_show_nothing(watcher: VideoModel, tmp_path: Path) -> None:
    shown = filmed(30)
    shown[10:13] = [np.full_like(shown[0], grey) for grey in (0, 0, 200)]
    found = scores_of(watcher, frames_in(tmp_path / "clip", shown))
    assert [score.frame for score in found if score.score is None] == [0, 1, 2, 3, *range(10, 17)]
    assert [score.alarm for score in found[10:17]] == [True] * 3 + [False] * 4
    fresh = scores_of(watcher, frames_in(tmp_path / "rest", shown[13:]))
    assert [score.score for score in found[13:]] == [score.score for score in fresh]


def test_a_colour_camera_before_a_grey_model_and_the_other_way_round(
    watcher: VideoModel, clips: Path, run: Run, tmp_path: Path
) -> None:
    grey = [np.repeat(frame.pixels[..., None], 3, -1) for frame in frames(clips / "odd.mp4", grey=True)]
    one, other = (scores_of(watcher, path) for path in (clips / "odd.mp4", frames_in(tmp_path / "grey", grey)))
    assert [score.score for score in one[4:]] == pytest.approx([score.score for score in other[4:]], abs=0.02)
    card = watcher.card.model_copy(update={"channels": 3})
    colours = VideoModel(hf.model.video.network.unfitted(card), card)
    assert scores_of(colours, clips / "odd.mp4")[-1].score is not None
    assert scores_of(colours, tmp_path / "grey")[-1].score is not None


def test_a_clip_shorter_than_a_window(watcher: VideoModel, tmp_path: Path) -> None:
    short = write_video(tmp_path / "short.mp4", filmed(4))
    given: list[FrameScore] = []
    with pytest.raises(HandfulError, match=r"short\.mp4 has 4 frames, but a window of 4 and the frame after it are 5"):
        given.extend(score for _, score in watcher.watch(short))
    assert [score.score for score in given] == [None] * 4
    assert len(scores_of(watcher, write_video(tmp_path / "five.mp4", filmed(5)))) == 5
    (tmp_path / "empty.mp4").write_bytes(b"")
    with pytest.raises(HandfulError, match=r"empty\.mp4 cannot be read as a video"):
        scores_of(watcher, tmp_path / "empty.mp4")


def test_a_clip_that_breaks_off_is_answered_as_far_as_it_goes(watcher: VideoModel, tmp_path: Path) -> None:
    cut = half_of(write_video(tmp_path / "whole.avi", filmed(60), "mpeg4"), tmp_path / "cut.avi")
    given: list[FrameScore] = []
    with pytest.raises(HandfulError, match=r"cut\.avi breaks off after \d+ frames"):
        given.extend(score for _, score in watcher.watch(cut))
    assert len(given) > 10
    (answer,) = watcher.predict(cut, skip_bad=True)
    assert answer.frames == given
    assert answer.error is not None
    assert f"after {len(given)} frames" in answer.error


def test_a_size_that_changes(watcher: VideoModel, tmp_path: Path) -> None:
    shown = [*filmed(9), *filmed(3, size=(64, 64))]
    given: list[FrameScore] = []
    with pytest.raises(HandfulError, match=r"changes its size: frame 9 has 64x64 pixels, those before have 96x64"):
        given.extend(score for _, score in watcher.watch(frames_in(tmp_path / "clip", shown)))
    assert len(given) == 9


def test_other_sizes_and_rates_are_told_once(watcher: VideoModel, clips: Path, tmp_path: Path) -> None:
    told: list[str] = []
    watcher.predict(
        [
            clips / "odd.mp4",
            write_video(tmp_path / "large.mp4", filmed(9, size=(2 * WIDTH, 2 * HEIGHT))),
            frames_in(tmp_path / "square", filmed(9, size=(64, 64))),
        ],
        tell=told.append,
    )
    assert told == [
        f"{tmp_path / 'large.mp4'} has 192x128 pixels and is scaled: the normal footage has 96x64.",
        f"{tmp_path / 'square'} has 64x64 pixels and is stretched to the shape of the normal footage, 96x64: if it is "
        "of another camera, fit a model to its own normal footage.",
    ]
    card = watcher.card.model_copy(update={"frame_rate": 25.0})
    VideoModel(watcher.network, card).predict(clips / "odd.mp4", tell=told.append)
    assert told[2:] == [
        f"{clips / 'odd.mp4'} has 10 frames a second, the normal footage 25: what moves goes another way from frame to "
        "frame, and scores are not comparable; fit on footage at this rate."
    ]


def test_no_more_than_a_few_frames_are_held(watcher: VideoModel, monkeypatch: pytest.MonkeyPatch) -> None:
    shown, made = filmed(10), 0

    def endless(*_: object, **__: object) -> Iterator[Frame]:
        nonlocal made
        for number, pixels in enumerate(itertools.cycle(shown)):
            made += 1
            yield Frame(pixels[..., 0], number, number / 10)

    monkeypatch.setattr("handful.model.video.model.frames", endless)
    most = 0
    for taken, _ in enumerate(itertools.islice(watcher.watch(Path("camera")), 300), 1):
        most = max(most, made - taken)
    assert most <= 5 * BATCH


def test_several_inputs(watcher: VideoModel, clips: Path) -> None:
    answers = watcher.predict([clips, clips / "odd.mp4"])
    assert [answer.input for answer in answers] == [str(clips / f"{name}.mp4") for name in ("normal", "odd", "other")]
    assert [len(answer.frames) for answer in answers] == [120, 48, 48]
    with pytest.raises(HandfulError, match="Nothing to predict: name at least one video or folder of frames"):
        watcher.predict([])


def test_copies_and_pickles(watcher: VideoModel, clips: Path) -> None:
    expected = scores_of(watcher, clips / "odd.mp4")
    for other in (copy.deepcopy(watcher), pickle.loads(pickle.dumps(watcher))):
        assert scores_of(other, clips / "odd.mp4") == expected


def test_a_model_without_a_network_is_a_card(watcher: VideoModel, clips: Path, tmp_path: Path) -> None:
    again = hf.load_model(watcher.save(tmp_path / "watcher"))
    assert isinstance(again, VideoModel)
    assert again.card == watcher.card
    assert scores_of(again, clips / "odd.mp4") == scores_of(watcher, clips / "odd.mp4")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda c, t: c.update(size=5000), r"card\.json is damaged: size: Input should be less than or equal to 1024"),
        (lambda c, t: c.update(window=1), r"card\.json is damaged: window: Input should be greater than or equal to 2"),
        (lambda c, t: c.update(channels=2), r"card\.json is damaged: channels: Input should be 1 or 3"),
        (lambda c, t: c.update(deviation=0), r"card\.json is damaged: deviation: Input should be greater than 0"),
        (lambda c, t: c.update(false_alarms=2), r"card\.json is damaged: false_alarms: Input should be less than 1"),
        (lambda c, t: c.update(threshold=None), r"card\.json is damaged: threshold: Input should be a valid number"),
        (lambda c, t: c.update(decoder=None), r"it has a backbone without a decoder, or a decoder without a backbone"),
        (lambda c, t: c.update(backbone={}), "its backbone or its decoder has no name"),
        (lambda c, t: c.update(backbone={"widths": [2]}), "its backbone or its decoder has no name"),
        (lambda c, t: c.update(backbone={"name": "conv4"}), "Conv4 gives no map that is as fine as a frame"),
        (lambda c, t: c["backbone"].update(widths=[3, 500]), r"there, and the card asks for"),
        (lambda c, t: c["decoder"].update(hidden=[4000, 4000]), r"there, and the card asks for|the card asks for \d+"),
        (lambda c, t: t.popitem(), "does not fit its card.json"),
        (lambda c, t: next(iter(t.values())).fill_(torch.nan), "holds values that are not finite"),
        (lambda c, t: c.update(problem="rail_lines"), "damaged: lines: Field required"),
    ],
)
def test_what_does_not_fit_is_refused(
    clips: Path, run: Run, tmp_path: Path, change: Callable[[Content, dict[str, Tensor]], object], message: str
) -> None:
    folder = fit_video(clips / "other.mp4", run, check=False).save(tmp_path / "watcher")
    rewrite(folder, change)
    with pytest.raises(HandfulError, match=message):
        hf.load_model(folder)


def test_a_card_that_was_changed_alone(saved: Path) -> None:
    card = json.loads((saved / "card.json").read_text(encoding="utf-8"))
    (saved / "card.json").write_text(json.dumps({**card, "threshold": 99}), encoding="utf-8")
    with pytest.raises(HandfulError, match="which was changed after both were written"):
        hf.load_model(saved)
