"""Which pairs of lines a frame has for a task to ask for."""

from __future__ import annotations

import numpy as np

from handful.data.rails import Line
from handful.data.rails.targets import BETWEEN, HEAD, Pair, shifted, targets_of


def line(foot: float, top: float = 50.0) -> Line:
    return np.array([[foot, 99.0], [top, 20.0]])


def same(pair: Pair, left: Line | None, right: Line | None) -> bool:
    return pair[0] is left and pair[1] is right


def test_the_rails_of_the_own_track_and_their_inner_edges() -> None:
    left, right = line(20), line(80)
    found = targets_of({"left": left, "right": right})
    assert set(found) == {"ego", "inner edge"}
    assert same(found["ego"], left, right)
    edges = found["inner edge"]
    assert edges[0] is not None
    assert edges[1] is not None
    step = HEAD / 2 / BETWEEN * 60  # of a gauge of 60 pixels, half a head
    np.testing.assert_allclose([edges[0][0, 0], edges[1][0, 0]], [20 + step, 80 - step])
    np.testing.assert_allclose(edges[0][-1], [50, 20])  # where both meet


def test_one_rail_alone_is_asked_for_alone() -> None:
    left = line(20)
    found = targets_of({"left": left})
    assert set(found) == {"ego"}
    assert same(found["ego"], left, None)
    assert targets_of({}) == {}
    assert targets_of({"rail 1": left, "neighbour left": left}) == {}


def test_the_track_beside_is_named_by_its_side() -> None:
    own = {"left": line(40), "right": line(60)}
    for foot, name in ((10.0, "left neighbour"), (80.0, "right neighbour")):
        beside = line(foot), line(foot + 15)
        found = targets_of({**own, "neighbour left": beside[0], "neighbour right": beside[1]})
        assert set(found) == {"ego", "inner edge", name}
        assert same(found[name], *beside)


def test_both_ways_through_a_switch() -> None:
    lines = {f"{way} {side}": line(30 + i) for i, (way, side) in enumerate((w, s) for w in WAYS for s in SIDES)}
    found = targets_of({"left": line(40), "right": line(60), **lines})
    assert set(found) == {"ego", "inner edge", *WAYS}
    assert same(found["right-hand"], lines["right-hand left"], lines["right-hand right"])
    assert set(targets_of({"left-hand left": line(3)})) == set()


WAYS, SIDES = ("left-hand", "right-hand"), ("left", "right")


def test_a_line_is_moved_beyond_the_end_of_the_other_by_that_end() -> None:
    long, short = np.array([[0.0, 100.0], [0.0, 0.0]]), np.array([[10.0, 100.0], [20.0, 50.0]])
    moved = shifted(long, short, 0.5)
    np.testing.assert_allclose(moved, [[5, 100], [10, 0]])
