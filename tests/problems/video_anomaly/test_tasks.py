"""Tasks of windows: disjoint, of one scene, the same in every process."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch.testing import assert_close

from handful.errors import HandfulError
from handful.problems.video_anomaly.tasks import ClipTasks, WindowSampler, mirrored, windows_of

from .conftest import Make


def frames_in(windows: np.ndarray, window: int = 4) -> set[int]:
    return {first + at for first in windows.tolist() for at in range(window + 1)}


class TestClipTasks:
    def test_support_and_query_share_no_frame_and_are_of_one_scene(self, make: Make) -> None:
        data = make()
        tasks = ClipTasks(data.train, 2, 2)
        for number in range(50):
            scene, support, query = tasks.drawn(number)
            both = np.concatenate([support, query])
            assert len(frames_in(both)) == 4 * 5
            assert {data.scenes[clip] for clip in data.clip_of(both)} == {scene}
            assert set(both.tolist()) <= set(data.train.windows.tolist())

    def test_windows_begin_anywhere_and_reach_the_end_of_a_clip(self, make: Make) -> None:
        data = make()
        tasks = ClipTasks(data.val, 1, 1)
        drawn = {first for number in range(400) for part in tasks.drawn(number)[1:] for first in part.tolist()}
        assert drawn == set(data.val.windows.tolist())

    def test_a_tested_clip_never_gives_the_support(self, make: Make) -> None:
        data = make()
        tasks = ClipTasks(data.test, 3, 4)
        for number in range(50):
            scene, support, query = tasks.drawn(number)
            assert frames_in(support) <= frames_in(data.split("normal").windows)
            assert set(query.tolist()) <= set(data.test.windows.tolist())
            of = data.clip_of(np.concatenate([support, query]))
            assert {data.scenes[clip] for clip in of} == {scene}

    def test_a_scene_with_few_tested_windows_is_asked_for_those(self, make: Make) -> None:
        tasks = ClipTasks(make((40, 30, 30, 30, 6)).test, 2, 3)
        asked = {first for number in range(40) for first in tasks.drawn_of("b", number).query.tolist()}
        assert asked == {130, 131}

    def test_a_support_is_the_same_for_any_number_of_queries_of_tested_clips(self, make: Make) -> None:
        few, many = ClipTasks(make().test, 3, 1), ClipTasks(make().test, 3, 9)
        for number in range(20):
            assert few.drawn(number).support.tolist() == many.drawn(number).support.tolist()

    def test_episodes_hold_the_frames_they_say(self, make: Make) -> None:
        data = make()
        tasks = ClipTasks(data.train, 2, 3)
        episode = tasks.episodes(4, 6)
        assert episode.support_x.shape == (2, 2, 4, 16, 16)
        assert episode.query_y.shape == (2, 3, 1, 16, 16)
        _, support, query = tasks.drawn(5)
        first = torch.from_numpy(data.frames[support[1] : support[1] + 5, 0]).float() / 255
        assert_close(episode.support_x[1, 1], first[:4])
        assert_close(episode.query_y[1, 2, 0], torch.from_numpy(data.frames[query[2] + 4, 0]).float() / 255)

    def test_a_task_is_varied_as_a_whole(self, make: Make) -> None:
        data = make()
        plain, turned = (ClipTasks(data.train, 2, 2, varied=varied).episodes(0, 40) for varied in (False, True))
        ways = []
        for task in range(40):
            frames, found = (torch.cat([e.support_x[task], e.query_x[task]]) for e in (plain, turned))
            last, next_frame = (torch.cat([e.support_y[task], e.query_y[task]]) for e in (plain, turned))
            mirrored = not torch.equal(frames, found)
            assert_close(found, frames.flip(-1) if mirrored else frames)
            assert_close(next_frame, last.flip(-1) if mirrored else last)
            ways.append(mirrored)
        assert 8 < sum(ways) < 32

    def test_its_hash_names_seed_and_pixels(self, make: Make) -> None:
        data = make()
        first = ClipTasks(data.train, 2, 2).task_hash(10)
        assert first == ClipTasks(data.train, 2, 2).task_hash(10)
        assert first != ClipTasks(data.train, 2, 2, seed=1).task_hash(10)

    @pytest.mark.parametrize(
        ("shot", "query", "message"),
        [
            (0, 1, "shot and query must be at least 1, not 0, 1"),
            (3, 3, "The scene 'b' of 'made' has 5 windows that share no frame, but 3-shot tasks with 3 queries need 6"),
        ],
    )
    def test_too_little_is_named(self, make: Make, shot: int, query: int, message: str) -> None:
        with pytest.raises(HandfulError, match=message):
            ClipTasks(make().train, shot, query)

    def test_too_little_normal_footage_is_named(self, make: Make) -> None:
        with pytest.raises(HandfulError, match=r"'b' of 'made' has 5 windows .* but 6-shot tasks need 6; lower"):
            ClipTasks(make().test, 6, 50)


class TestWindowSampler:
    def test_a_pass_has_every_window_once(self, make: Make) -> None:
        data = make()
        sampler, count = WindowSampler(data.train), len(data.train.windows)
        seen = [sampler.images(at, at + 1) for at in range(count)]
        whole = sorted(float((one.x.sum() + one.y.sum()).double()) for one in seen)
        every = data.train.fetch(data.train.windows).float().div(255)
        assert np.allclose(whole, sorted(every.sum((1, 2, 3, 4)).double().tolist()))

    def test_batches_are_cut_from_one_sequence_across_passes(self, make: Make) -> None:
        sampler, count = WindowSampler(make().train, seed=3, varied=True), len(make().train.windows)
        whole = sampler.images(count - 4, count + 4)
        parts = [sampler.images(count - 4, count + 1), sampler.images(count + 1, count + 4)]
        assert_close(whole.x, torch.cat([part.x for part in parts]))
        assert_close(whole.y, torch.cat([part.y for part in parts]))


def test_a_window_is_mirrored_or_not() -> None:
    frames = torch.rand(2, 5, 1, 2, 4)
    found = mirrored(frames, np.array([[0.1], [0.9]]))
    assert_close(found[0], frames[0].flip(-1))
    assert_close(found[1], frames[1])


def test_windows_have_frames_as_channels() -> None:
    frames = torch.rand(2, 5, 3, 2, 2)
    x, y = windows_of(frames)
    assert_close(x[:, 3:6], frames[:, 1])
    assert_close(y, frames[:, 4])
