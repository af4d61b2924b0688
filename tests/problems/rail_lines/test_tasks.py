"""Tasks of rail lines: the same however they are drawn, one camera and one question each."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

import numpy as np
import pytest
import torch

from handful.data.rails import Line
from handful.data.rails.rows import ROWS, rows_of
from handful.data.rails.store import RailFrames
from handful.data.rails.view import matrices
from handful.data.store import ImageStore
from handful.episodes import ImageSampler
from handful.errors import HandfulError
from handful.problems import RailLines
from handful.problems.rail_lines import FrameSampler, FrameTasks
from handful.problems.rail_lines.tasks import BASE_THERE, BASE_X, after, beside
from tests.rails import HEIGHT, WIDTH, frames, straight, track


def with_neighbour(middle: float = 30.0) -> dict[str, Line]:
    beside = track(100, 30)
    return {**track(middle, 30), **{f"neighbour {side}": beside[side] for side in ("left", "right")}}


MIXED: list[Mapping[str, Line]] = [
    *(track() for _ in range(4)),
    *(with_neighbour() for _ in range(4)),
    *({"left": straight(40, 60)} for _ in range(2)),
    {"rail 1": straight(10, 20)},
    {},
]


def everything(lines: list[Mapping[str, Line]], **options: object) -> FrameTasks:
    """Tasks of a split of all of these frames, 2-shot with 2 queries; photographs but for the last half."""
    data = frames(lines, rendered=len(lines) // 2, targets="varied")
    data = replace(data, splits={"train": np.arange(len(lines))})
    return FrameTasks(data.train, **{"shot": 2, "query": 2, **options})  # type: ignore[arg-type]


@pytest.mark.parametrize("targets", ["ego", "varied"])
@pytest.mark.parametrize("varied", [False, True])
def test_tasks_are_the_same_for_any_chunking(targets: str, varied: bool) -> None:
    data = replace(frames(16, rendered=4), targets=targets)  # type: ignore[arg-type]
    tasks = FrameTasks(data.train, 1, 2, seed=3, varied=varied)
    whole = tasks.episodes(0, 6)
    assert whole.support_x.shape == (6, 1, 3, HEIGHT, WIDTH)
    assert whole.query_y.shape == (6, 2, 2, ROWS, 4)
    for start, stop in ((0, 1), (2, 5), (5, 6)):
        for all_of_it, part in zip(whole.tasks(start, stop), tasks.episodes(start, stop)):
            torch.testing.assert_close(part, all_of_it, atol=1e-6, rtol=0)
    for other in (tasks.episodes(0, 6, epoch=1), replace(tasks, seed=4).episodes(0, 6)):
        assert not torch.equal(other.support_x, whole.support_x)
    again = replace(tasks).episodes(0, 6)
    assert all(torch.equal(a, b) for a, b in zip(again, whole))


def test_no_frame_is_in_support_and_query_and_all_are_drawn() -> None:
    tasks = FrameTasks(frames(12).train, 2, 3)
    drawn = np.array([tasks.drawn(number)[1] for number in range(200)])
    assert all(len(set(row)) == 5 for row in drawn.tolist())
    assert set(drawn.ravel()) == set(range(6))
    first = np.bincount(drawn[:, 0], minlength=6) / 200
    assert np.abs(first - 1 / 6).max() < 0.1


def test_pixels_and_rows_are_those_of_the_frames() -> None:
    data = frames(12)
    tasks = FrameTasks(data.train, 2, 3)
    episode, (_, drawn, _) = tasks.episodes(4, 5), tasks.drawn(4)
    pixels = torch.cat([episode.support_x, episode.query_x], 1)[0]
    np.testing.assert_array_equal(pixels, (data.pixels[0][drawn] / np.float32(255)))
    targets = torch.cat([episode.support_y, episode.query_y], 1)[0]
    for found, number in zip(targets, drawn):
        for line, side in enumerate(("left", "right")):
            np.testing.assert_array_equal(found[line, :, :2], rows_of(data.lines[number][side], WIDTH, HEIGHT))


def test_kinds_are_what_enough_frames_have_and_sources_are_not_mixed() -> None:
    tasks = everything(MIXED[:8] + MIXED)
    kinds = dict(tasks.kinds)
    assert set(kinds) == {
        (False, "ego"),
        (False, "inner edge"),
        (False, "right neighbour"),
        (True, "ego"),
        (True, "inner edge"),
        (True, "right neighbour"),
    }
    assert sum(kinds.values()) == pytest.approx(1)
    assert sum(share for (rendered, _), share in kinds.items() if rendered) == pytest.approx(0.5)
    count = dict.fromkeys(kinds, 0)
    for number in range(300):
        kind, drawn, _ = tasks.drawn(number)
        count[kind] += 1
        assert all((frame >= tasks.split.data.rendered) == kind[0] for frame in drawn)
        if kind[1] == "right neighbour":
            assert all("neighbour left" in tasks.split.data.lines[frame] for frame in drawn)
    for kind, share in kinds.items():
        assert count[kind] / 300 == pytest.approx(share, abs=0.08)


def test_the_own_track_alone_is_asked_for_unless_targets_vary() -> None:
    tasks = everything(MIXED + MIXED)
    own = replace(tasks, split=replace(tasks.split.data, targets="ego").train)
    assert dict(own.kinds) == {(False, "ego"): 0.5, (True, "ego"): 0.5}
    assert {frame % 12 for number in range(60) for frame in own.drawn(number)[1]} == set(range(10))


def test_a_kind_that_too_few_frames_have_is_not_drawn() -> None:
    assert {name for (_, name), _ in everything(MIXED + MIXED, shot=3).kinds} == {"ego", "inner edge"}
    only = dict(everything(MIXED[:8] + [{} for _ in range(8)]).kinds)
    assert {rendered for rendered, _ in only} == {False}
    assert sum(only.values()) == pytest.approx(1)


def test_one_camera_is_shared_by_a_task_and_by_no_other() -> None:
    data = frames([track() for _ in range(12)], targets="varied")
    same = np.broadcast_to(data.pixels[0][:1], data.pixels[0].shape)
    tasks = FrameTasks(replace(data, pixels=[same]).train, 2, 2)
    episode = tasks.episodes(0, 4)
    x = torch.cat([episode.support_x, episode.query_x], 1)
    y = torch.cat([episode.support_y, episode.query_y], 1)
    assert torch.equal(x, x[:, :1].expand_as(x))
    torch.testing.assert_close(y, y[:, :1].expand_as(y))
    for one in range(4):
        for other in range(one):
            assert not torch.equal(x[one], x[other])
            assert not torch.equal(y[one], y[other])
    _, _, numbers = tasks.drawn(2)
    (change,) = matrices(numbers[None], WIDTH, HEIGHT)
    left, right = after((track()["left"], track()["right"]), change)
    kind = tasks.drawn(2)[0][1]
    if kind == "ego":
        for line, expected in zip(y[2, 0], (left, right)):
            np.testing.assert_allclose(line[:, :2], rows_of(expected, WIDTH, HEIGHT), atol=1e-6)


def test_a_mirror_makes_the_left_rail_the_right_one() -> None:
    change = np.array([[-1.0, 0, WIDTH - 1], [0, 1, 0], [0, 0, 1]])
    pair = track()["left"], track()["right"]
    left, right = after(pair, change)
    assert left is not None
    assert right is not None
    np.testing.assert_allclose(left[:, 0], WIDTH - 1 - pair[1][:, 0])
    np.testing.assert_allclose(right[:, 0], WIDTH - 1 - pair[0][:, 0])
    assert after((pair[0], None), change)[0] is None


def test_augmented_frames_share_their_camera_and_differ_in_colour() -> None:
    data = frames([track() for _ in range(12)])
    same = np.broadcast_to(data.pixels[0][:1], data.pixels[0].shape)
    episode = FrameTasks(replace(data, pixels=[same]).train, 2, 2, varied=True).episodes(0, 2)
    assert torch.equal(episode.support_y[:, 0], episode.support_y[:, 1])
    assert not torch.allclose(episode.support_x[:, 0], episode.support_x[:, 1], atol=1e-3)
    assert not torch.equal(episode.support_y[0], episode.support_y[1])


def test_the_mean_line_of_the_support_stands_beside_each_target() -> None:
    episode = FrameTasks(frames(12).train, 3, 2).episodes(0, 2)
    x, there = episode.support_y[..., :2].unbind(-1)
    for targets in (episode.support_y, episode.query_y):
        for found in targets.unbind(1):
            torch.testing.assert_close(found[..., BASE_THERE], there.mean(1))
            seen = there.sum(1) > 0
            mean = (x * there).sum(1) / there.sum(1)
            torch.testing.assert_close(found[..., BASE_X][seen], mean[seen], atol=1e-4, rtol=0)
            torch.testing.assert_close(found[..., BASE_X][~seen], x.mean(1)[~seen], atol=1e-4, rtol=0)


def test_the_mean_line_is_that_of_the_frames_whose_line_is_in_the_row() -> None:
    support = torch.tensor([[0.2, 1.0], [0.4, 1.0], [0.9, 0.0]]).view(1, 3, 1, 1, 2)
    found = beside(support[:, :1], support)[0, 0, 0, 0]
    torch.testing.assert_close(found, torch.tensor([0.2, 1.0, 0.3, 2 / 3]), atol=1e-5, rtol=0)


def test_the_task_hash_changes_with_what_changes_the_tasks() -> None:
    data = frames([{"left": straight(40, 60)} for _ in range(12)])  # one rail: there is one kind of task
    tasks = FrameTasks(data.test, 1, 1)
    assert tasks.task_hash(5) == FrameTasks(data.test, 1, 1).task_hash(5)
    others = [
        tasks.task_hash(6),
        tasks.task_hash(5, epoch=1),
        FrameTasks(data.test, 1, 1, seed=1).task_hash(5),
        FrameTasks(data.test, 2, 1).task_hash(5),
        FrameTasks(data.test, 1, 2).task_hash(5),
        FrameTasks(data.train, 1, 1).task_hash(5),
        FrameTasks(replace(data, digest="other").test, 1, 1).task_hash(5),
        FrameTasks(replace(data, targets="varied").test, 1, 1).task_hash(5),
    ]
    assert len({tasks.task_hash(5), *others}) == 9


def test_too_few_frames_and_counts_below_one() -> None:
    with pytest.raises(
        HandfulError,
        match=r"The test split of 'tracks' has 3 frames with the lines that are asked for, but 5-shot tasks with 5 "
        r"queries need 10; lower shot or query, or annotate more\.",
    ):
        FrameTasks(frames(12).test, 5, 5)
    with pytest.raises(HandfulError, match="'tracks' has 0 frames with the lines that are asked for"):
        FrameTasks(frames([{} for _ in range(12)]).test, 1, 1)
    for shot, query in ((0, 1), (1, 0)):
        with pytest.raises(HandfulError, match=f"shot and query must be at least 1, not {shot}, {query}"):
            FrameTasks(frames(12).train, shot, query)


@pytest.mark.parametrize("varied", [False, True])
def test_single_frames_are_the_same_for_any_batches(varied: bool) -> None:
    sampler = FrameSampler(frames(12).train, seed=5, varied=varied)
    whole = sampler.images(0, 8)
    assert whole.x.shape == (8, 3, HEIGHT, WIDTH)
    assert whole.y.shape == (8, 2, ROWS, 4)
    assert not whole.y[..., 2:].any()
    for start, stop in ((0, 3), (3, 8)):
        part = sampler.images(start, stop)
        torch.testing.assert_close(part.x, whole.x[start:stop], atol=1e-6, rtol=0)
        torch.testing.assert_close(part.y, whole.y[start:stop])
    assert not torch.equal(replace(sampler, seed=6).images(0, 8).x, whole.x)


def test_photographs_and_scenes_take_turns_among_single_frames() -> None:
    data = replace(frames(12, rendered=2), splits={"train": np.arange(12)})
    sampler = FrameSampler(data.train)
    x = sampler.images(0, 200).x
    photos = torch.from_numpy(data.pixels[0].copy()).float() / 255
    share = (x[:, None] == photos[None]).flatten(2).all(-1).any(-1).float().mean().item()
    assert share == pytest.approx(0.5, abs=0.1)


def test_single_frames_without_the_own_rails_are_passed_over() -> None:
    lines: list[Mapping[str, Line]] = [track() if i % 3 else {} for i in range(12)]
    data = frames(lines)
    assert FrameSampler(data.train).images(0, 50).y[..., 1].amax((-1, -2)).min() > 0
    with pytest.raises(
        HandfulError, match=r"No frame of the train split of 'tracks' has a line `left` or `right`, .*; annotate some"
    ):
        FrameSampler(frames([{"rail 1": straight(1, 2)} for _ in range(12)]).train)


def test_what_the_problem_refuses(store: ImageStore) -> None:
    problem, data = RailLines(), frames(12)
    with pytest.raises(HandfulError, match="has no classes, so way must be 1, not 5"):
        problem.sampler(data.train, 5, 1, 1)
    for augment in ("photos", "drawings"):
        with pytest.raises(HandfulError, match=f"varies frames by cameras, and not by {augment}: set it to cameras"):
            problem.sampler(data.train, 1, 1, 1, augment=augment)
        with pytest.raises(HandfulError, match=f"varies frames by cameras, and not by {augment}: set it to cameras"):
            problem.examples(data.train, 0, augment)
    assert problem.sampler(data.train, 1, 1, 1, augment="cameras").varied
    assert problem.examples(data.train, 0, "cameras").varied
    for ask in (lambda: problem.sampler(store.train, 1, 1, 1), lambda: problem.examples(store.train, 0, "none")):
        with pytest.raises(HandfulError, match="need annotated frames, but the data set 'patterns' holds none"):
            ask()


def test_single_frames_are_judged_by_tasks_of_what_they_teach(store: ImageStore) -> None:
    data = frames([with_neighbour() for _ in range(12)], targets="varied")
    judge = RailLines().examples(data.train, 0, "cameras").judged_by
    assert isinstance(judge, RailFrames)
    assert {name for (_, name), _ in FrameTasks(judge.val, 1, 1).kinds} == {"ego"}
    assert {name for (_, name), _ in FrameTasks(data.val, 1, 1).kinds} > {"ego"}
    assert judge.split_hash == data.split_hash
    assert ImageSampler(store.train).judged_by is store
