"""Rendered clips: the same for the same numbers, normal without odd movers, and labels that are what is drawn."""

from __future__ import annotations

import numpy as np
import pytest
from sklearn.metrics import roc_auc_score

from handful.data.video.figures import Figure, cart, drawn, lay, person, shadow, stroke, turned
from handful.data.video.scene import curve, draw_scene
from handful.data.video.sprites import DOWN, LYING, ODD, Mover, mover, render


def test_a_clip_is_always_the_same_and_others_are_not() -> None:
    def pixels(*numbers: int) -> np.ndarray:
        return np.array([shown.pixels for shown in render(*numbers, frames=4, size=32)])

    first = pixels(0, 1, 2)
    assert first.shape == (4, 32, 32, 3)
    assert first.dtype == np.uint8
    np.testing.assert_array_equal(pixels(0, 1, 2), first)
    ground = first.mean(0)
    assert np.abs(pixels(0, 1, 3).mean(0) - ground).mean() < 10  # another clip of the scene
    assert np.abs(pixels(0, 2, 2).mean(0) - ground).mean() > 15  # another scene
    assert np.abs(pixels(1, 1, 2).mean(0) - ground).mean() > 15


def test_only_odd_clips_hold_something_odd_and_that_for_a_part_of_them() -> None:
    shares = []
    for clip in range(6):
        assert not any(shown.odd.any() for shown in render(0, 0, clip, frames=30, size=32))
        labels = [shown.odd.any() for shown in render(2, clip, clip, odd=True, size=48)]
        shares.append(np.mean(labels))
    assert 0.3 < np.mean(shares) < 0.8
    assert min(shares) > 0.05
    assert max(shares) < 1


def plain(size: int = 64) -> np.ndarray:
    return np.full((size, size, 3), 100, np.float32)


def draw(image: np.ndarray, odd: np.ndarray, figure: Figure, x: float, y: float, height: float, is_odd: bool) -> None:
    patch = drawn(figure, x, y, height, len(image))
    assert patch is not None
    lay(image, odd, patch, is_odd)


def test_a_stroke_covers_what_its_form_says() -> None:
    image, odd = plain(), np.zeros((64, 64), bool)
    draw(image, odd, [stroke((0, 1), (0, 1), 0.5, (200, 0, 0))], 32, 52, 20, True)
    rows, columns = np.mgrid[:64, :64]
    away = np.hypot(rows - 32, columns - 32)
    np.testing.assert_array_equal(odd, away < 10)
    np.testing.assert_allclose(image[away < 9], [[200, 0, 0]] * (away < 9).sum())
    np.testing.assert_allclose(image[away > 11], 100)
    ring = plain()
    draw(ring, odd, [stroke((0, 1), (0, 1), 0.5, (200, 0, 0), hole=0.3)], 32, 52, 20, True)
    np.testing.assert_allclose(ring[away < 5], 100)
    faint = plain()
    draw(faint, odd, [stroke((0, 1), (0, 1), 0.5, (200, 0, 0), opacity=0.5)], 32, 52, 20, True)
    np.testing.assert_allclose(faint[32, 32], [150, 50, 50])
    assert drawn([stroke((0, 1), (0, 1), 0.5, (0, 0, 0))], 32, 552, 20, 64) is None  # out of the picture


def test_strokes_are_laid_over_each_other_as_one_by_one() -> None:
    figure = person(0.7, -1, (0, 0, 200), (0, 90, 0), (200, 180, 150))
    image, one_by_one, odd = plain(), plain(), np.zeros((64, 64), bool)
    draw(image, odd, figure, 30.3, 50.6, 30, False)
    for each in figure:
        draw(one_by_one, odd, [each], 30.3, 50.6, 30, False)
    np.testing.assert_allclose(image, one_by_one, atol=1e-3)


def test_what_stands_before_something_odd_hides_it() -> None:
    image, odd = plain(), np.zeros((64, 64), bool)
    draw(image, odd, cart(1, (200, 0, 0), (200, 180, 150)), 32, 50, 20, True)
    before = odd.sum()
    draw(image, odd, person(0, 1, (0, 0, 200), (0, 0, 100), (200, 180, 150)), 32, 50, 25, False)
    assert 0 < odd.sum() < before


def test_a_fallen_person_lies() -> None:
    standing = person(0, 1, (0, 0, 200), (0, 0, 100), (200, 180, 150))
    lying = turned(standing, np.pi / 2)
    assert lying[0] == standing[0] == shadow(0.2)
    assert lying[-1][0] == pytest.approx(standing[-1][1])  # the head: as far to the right as it was high
    assert max(each[1] for each in lying[1:]) < 0.3


def test_a_path_is_measured_in_heights() -> None:
    path = curve((0, 0.5), (0.5, 0.5), (1, 0.5), lambda y: 0.2)
    assert path.length == pytest.approx(5)
    assert path.seen() == pytest.approx(1, abs=0.02)
    x, y, right = path.at(2.5, 1.0, lambda y: 0.2)
    assert (x, y, right) == pytest.approx((0.5, 0.7, 1.0), abs=1e-3)


def walker(kind: str) -> Mover:
    scene = draw_scene(0, 0, 32)
    return mover(np.random.default_rng(0), scene, kind, scene.paths[0], 0.0)  # type: ignore[arg-type]


def test_odd_movers_move_otherwise_than_people_walk() -> None:
    scene = draw_scene(0, 0, 32)
    assert {kind for kind in ODD if walker(kind).speed > 1.15 * scene.pace} >= {"cyclist", "skater", "cart", "runner"}
    one = walker("faller")
    falls = one.falls
    assert [one.is_odd(falls + frame) for frame in (-1, 1, LYING - 1, LYING + 1)] == [False, True, True, False]
    there = [one.place(falls + frame, scene)[0] for frame in (DOWN, LYING / 2)]
    assert there[0] == pytest.approx(there[1], abs=0.02)  # lies where it fell
    assert not walker("walker").is_odd(5)


def test_predicting_without_learning_finds_some_of_it_and_not_all() -> None:
    labels, copied, linear = [], [], []
    for scene in range(4):
        for clip in range(3):
            shown = list(render(2, scene, clip, odd=True, size=64))
            frames = np.array([each.pixels.mean(2) for each in shown]) / 255
            labels += [each.odd.any() for each in shown[4:]]
            copied += ((frames[4:] - frames[3:-1]) ** 2).mean((1, 2)).tolist()
            linear += ((frames[4:] - 2 * frames[3:-1] + frames[2:-2]) ** 2).mean((1, 2)).tolist()
    assert 0.5 < roc_auc_score(labels, copied) < 0.85
    assert 0.5 < roc_auc_score(labels, linear) < 0.85
