"""How sure answers are: what the confidence of a line is the mean of."""

from __future__ import annotations

import pytest
import torch

from handful.problems.rail_lines import Lines, answers
from handful.problems.rail_lines.answers import confidences


def test_the_confidence_of_a_line_is_the_mean_over_the_rows_that_it_reaches() -> None:
    there = torch.zeros(1, 2, 8)
    there[0, 0, 2:6] = 1
    there[0, 0, 6] = 0.25  # a quarter of a row is a point too
    sure = torch.linspace(0.2, 0.9, 8).expand(1, 2, 8)
    lines = Lines(torch.full((1, 2, 8), 0.5), there, torch.zeros(1, 2, 8), sure)
    found = confidences(lines)
    assert found[0, 0] == pytest.approx(float(sure[0, 0, 2:7].mean()))
    assert found[0, 1] == 0
    (answer,) = answers(lines, 512, 288)
    assert {name: line.confidence for name, line in answer.items()} == {"left": pytest.approx(float(found[0, 0]))}
