from __future__ import annotations

import pytest

from handful.data import load
from handful.errors import HandfulError
from handful.problems import problem_of


def test_no_method_learns_rail_lines_yet() -> None:
    with pytest.raises(HandfulError, match="'rail_scenes' is data of rail_lines, which no method learns yet"):
        problem_of(load("rail_scenes"))
