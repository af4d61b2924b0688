"""Tracks: their gauge, their curvature, and where a switch leads."""

import numpy as np
import pytest

from handful.data.scenes import Scene, draw_scene
from handful.data.scenes.tracks import GAUGE, clothoid, crossing_over, diverging

SEEDS = range(8)


def switches() -> list[Scene]:
    scenes = (draw_scene(np.random.default_rng(seed)) for seed in range(40))
    return [scene for scene in scenes if scene.switch]


@pytest.mark.parametrize("seed", SEEDS)
def test_the_inner_edges_are_a_gauge_apart_everywhere(seed: int) -> None:
    for track in draw_scene(np.random.default_rng(seed)).tracks:
        rails = {name.removeprefix(track.name).strip(): points for name, points in track.rails().items()}
        assert list(rails) == ["left", "right", "inner left", "inner right"]
        np.testing.assert_allclose(np.hypot(*(rails["inner right"] - rails["inner left"]).T), GAUGE)
        np.testing.assert_allclose(np.hypot(*(rails["left"] - rails["inner left"]).T), 0.035)
        ahead = track.middle[track.s > 0]
        assert (np.diff(ahead[:, 1]) > 0).all()  # it never turns back, so each distance has one place


def test_curvature_changes_gradually_and_stays_within_its_bound() -> None:
    for seed in SEEDS:
        track = clothoid(np.random.default_rng(seed), 1 / 200)
        curvature = np.diff(track.heading)[2:-2]
        assert np.abs(curvature).max() <= 1 / 200
        assert np.abs(np.diff(curvature)).max() < 1 / 200 / 10
        at_the_train = [np.interp(0, track.s, track.middle[:, axis]) for axis in range(2)]
        np.testing.assert_allclose([*at_the_train, np.interp(0, track.s, track.heading)], 0, atol=1e-2)


def test_a_branch_leaves_to_its_side_and_a_crossover_ends_in_the_neighbour() -> None:
    own = clothoid(np.random.default_rng(0), 1 / 1500)
    branch = diverging(own, 20, -1, 190, 1 / 9, "left-hand")
    away = np.hypot(*(branch.middle - own.middle).T)
    assert (away[own.s <= 20] == 0).all()
    assert away[own.s == 40][0] == pytest.approx(20**2 / (2 * 190))
    beyond = own.s > 60
    np.testing.assert_allclose(np.diff(away[beyond]), 1 / 9)
    assert branch.middle[-1, 0] < own.middle[-1, 0]
    over = crossing_over(own, 20, 50, 4.5, "right-hand")
    np.testing.assert_allclose(over.middle[own.s >= 70], own.beside(4.5).middle[own.s >= 70])


def test_the_train_takes_one_of_the_two_ways() -> None:
    found = switches()
    assert len(found) > 5
    taken = set()
    for scene in found:
        ways = {track.name: track.middle for track in scene.tracks}
        same = [name for name in ("left-hand", "right-hand") if np.array_equal(ways[name], ways[""])]
        assert len(same) == 1
        taken.add(same[0])
        assert ways["left-hand"][-1, 0] < ways["right-hand"][-1, 0]
    assert taken == {"left-hand", "right-hand"}
