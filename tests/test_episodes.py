from __future__ import annotations

import time
from collections import Counter
from dataclasses import replace

import numpy as np
import pytest
import torch

from handful.data.augment import AUGMENTATIONS, Augment
from handful.data.store import ImageStore
from handful.episodes import EpisodeSampler, draw_without_replacement, uniform
from handful.errors import HandfulError


def test_a_task_depends_on_seed_epoch_and_index_only(store: ImageStore) -> None:
    sampler = EpisodeSampler(store.train, 5, 1, 3, seed=7)
    together = sampler.indices(0, 40)
    for start, stop in ((0, 1), (13, 20), (39, 40)):
        apart = sampler.indices(start, stop)
        for whole, part in zip(together, apart):
            np.testing.assert_array_equal(whole[start:stop], part)
    assert (sampler.indices(0, 40, epoch=1).support != together.support).any()
    assert (EpisodeSampler(store.train, 5, 1, 3, seed=8).indices(0, 40).support != together.support).any()


def test_support_and_query_are_disjoint_and_of_their_class(store: ImageStore) -> None:
    drawn = EpisodeSampler(store.test, 4, 2, 5).indices(0, 50)
    for classes, support, query in zip(*drawn):
        ids = np.concatenate([support, query], 1)
        assert len(np.unique(ids)) == ids.size
        assert len(set(classes.tolist())) == 4
        names = np.array([store.class_names.index(store.test.class_name(c)) for c in classes])
        np.testing.assert_array_equal(store.labels[ids], np.broadcast_to(names[:, None], ids.shape))


def test_tasks_use_only_their_split(store: ImageStore) -> None:
    drawn = EpisodeSampler(store.val, 5, 1, 3).indices(0, 200)
    labels = set(store.labels[np.concatenate([drawn.support, drawn.query], 2)].ravel().tolist())
    assert labels == set(store.splits["val"].tolist())


def test_draws_are_uniform_over_ordered_subsets() -> None:
    rng = np.random.default_rng(0)
    drawn = draw_without_replacement(rng.random((24_000, 3)), np.full(24_000, 4))
    counts = Counter(map(tuple, drawn.tolist()))
    assert len(counts) == 24
    assert max(abs(count - 1000) for count in counts.values()) < 150  # 5 standard deviations


def test_draws_respect_each_row_size() -> None:
    sizes = np.array([3, 5, 50])
    drawn = draw_without_replacement(np.full((3, 3), 0.999999), sizes)
    np.testing.assert_array_equal(drawn, [[2, 1, 0], [4, 3, 2], [49, 48, 47]])


def test_episode_is_class_major(store: ImageStore) -> None:
    sampler = EpisodeSampler(store.train, 3, 2, 4)
    episode, drawn = sampler.episodes(5, 7), sampler.indices(5, 7)
    assert episode.support_x.shape == (2, 6, 1, 16, 16)
    assert episode.support_y.tolist() == [[0, 0, 1, 1, 2, 2]] * 2
    assert episode.query_y.tolist() == [[0] * 4 + [1] * 4 + [2] * 4] * 2
    expected = store.images[drawn.query[1, 2, 3]].astype(np.float32) / 255
    np.testing.assert_array_equal(episode.query_x[1, 11].numpy(), expected)


def test_rotations_are_classes_of_their_own(store: ImageStore) -> None:
    turned = replace(store, rotations=4)
    assert len(turned.train) == 4 * len(store.train)
    sampler = EpisodeSampler(turned.train, 5, 1, 2)
    drawn, episode = sampler.indices(0, 20), sampler.episodes(0, 20)
    quarters = set()
    for task in range(20):
        for position, index in enumerate(drawn.classes[task]):
            quarter, image = divmod(int(drawn.support[task, position, 0]), len(store.labels))
            assert turned.train.class_name(index).endswith(("", "/rot090", "/rot180", "/rot270")[quarter])
            expected = np.rot90(store.images[image], quarter, (1, 2)) / np.float32(255)
            np.testing.assert_array_equal(episode.support_x[task, position].numpy(), expected)
            quarters.add(quarter)
    assert quarters == {0, 1, 2, 3}


def test_task_hash_names_tasks_and_data(store: ImageStore) -> None:
    sampler = EpisodeSampler(store.test, 5, 1, 3)
    assert sampler.task_hash(10) == EpisodeSampler(store.test, 5, 1, 3).task_hash(10)
    others = [
        sampler.task_hash(11),
        EpisodeSampler(store.test, 5, 1, 3, seed=1).task_hash(10),
        EpisodeSampler(replace(store, digest="other").test, 5, 1, 3).task_hash(10),
    ]
    assert sampler.task_hash(10) not in others


@pytest.mark.parametrize("augment", ["drawings", "photos"])
def test_varied_tasks_depend_on_seed_epoch_and_index_only(store: ImageStore, augment: Augment) -> None:
    sampler = EpisodeSampler(store.train, 3, 1, 2, seed=7, augment=augment)
    plain, varied = EpisodeSampler(store.train, 3, 1, 2, seed=7).episodes(0, 6), sampler.episodes(0, 6)
    assert (varied.support_x - plain.support_x).abs().mean() > 0.02
    assert torch.equal(varied.support_y, plain.support_y)
    for start, stop in ((0, 1), (2, 5)):
        for whole, part in zip(varied.tasks(start, stop), sampler.episodes(start, stop)):
            torch.testing.assert_close(whole, part, atol=1e-6, rtol=0)
    assert not torch.equal(sampler.episodes(0, 6, epoch=1).query_x, varied.query_x)
    numbers = uniform(7, 0, 1, 0, 6, 9 * AUGMENTATIONS[augment].draws).reshape(6, 9, -1)
    images = torch.cat([plain.support_x, plain.query_x], 1)
    for task in range(6):
        expected = AUGMENTATIONS[augment].function(images[task], numbers[task])
        torch.testing.assert_close(torch.cat([varied.support_x, varied.query_x], 1)[task], expected)


@pytest.mark.parametrize("augment", ["none", "drawings", "photos"])
def test_tasks_are_drawn_on_the_device_that_is_asked_for(
    store: ImageStore, augment: Augment, monkeypatch: pytest.MonkeyPatch
) -> None:
    sampler = EpisodeSampler(store.train, 3, 2, 2, augment=augment)
    here = sampler.episodes(0, 2)
    for there, plain in zip(sampler.episodes(0, 2, device=torch.device("meta")), here):
        assert (there.device.type, there.shape, there.dtype) == ("meta", plain.shape, plain.dtype)
    monkeypatch.setattr("handful.data.store.has_room", lambda device, size: True)
    held = EpisodeSampler(replace(store).train, 3, 2, 2, augment=augment)  # gathers as a GPU would
    for there, plain in zip(held.episodes(0, 2), here):
        assert torch.equal(there, plain)


def test_an_unknown_augmentation(store: ImageStore) -> None:
    with pytest.raises(HandfulError, match="There is no augmentation 'photo'; did you mean 'photos'"):
        EpisodeSampler(store.train, 3, 1, 1, augment="photo")  # type: ignore[arg-type]


def test_too_few_classes(store: ImageStore) -> None:
    with pytest.raises(HandfulError, match=r"8-way tasks need 8 classes, but the test split of 'patterns' has 7"):
        EpisodeSampler(store.test, 8, 1, 1)


def test_too_few_images_names_class_count_and_need(store: ImageStore) -> None:
    with pytest.raises(HandfulError, match=r"'pattern23' has 12 images.*5-shot.*8 query.*need 13"):
        EpisodeSampler(store.test, 5, 5, 8)


@pytest.mark.parametrize("wrong", [{"way": 0}, {"shot": 0}, {"query": 0}])
def test_counts_below_one(store: ImageStore, wrong: dict[str, int]) -> None:
    with pytest.raises(HandfulError, match="at least 1"):
        EpisodeSampler(**{"split": store.test, "way": 2, "shot": 1, "query": 1, **wrong})  # type: ignore[arg-type]


def test_sampling_is_far_from_the_bottleneck(store: ImageStore) -> None:
    # The goal is 5,000 tasks a second; some 200,000 are reached.  A loop over tasks would fail even this lax bound.
    sampler = EpisodeSampler(store.train, 5, 1, 11)
    started = time.process_time()
    sampler.indices(0, 5000)
    assert time.process_time() - started < 1
