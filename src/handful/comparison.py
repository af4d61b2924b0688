"""Comparison of runs on the same tasks: paired differences with 95 % intervals.

Tasks differ far more from each other than methods do; on the same tasks that spread cancels, and the interval of the
mean difference is much narrower than those of the two means.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from handful.errors import HandfulError
from handful.evaluation import Result, interval


@dataclass(frozen=True)
class Difference:
    """Mean over tasks of (run minus first run), with the half width of its 95 % interval."""

    run: str
    baseline: str
    mean: float
    ci95: float
    tasks: int
    task_hash: str


def paired_differences(results: Sequence[tuple[str, Result]]) -> list[Difference]:
    """Each run against the first.  All results must have been measured on the same tasks."""
    if len(results) < 2:
        raise HandfulError("compare needs at least 2 runs.")
    (first_name, first), *others = results
    differences = []
    for name, result in others:
        if result.task_hash != first.task_hash:
            raise HandfulError(
                f"{name} was measured on other tasks ({result.task_hash}) than {first_name} ({first.task_hash}); "
                "runs compare on the same data, split, way, shot and query only."
            )
        paired = np.array(result.per_task) - np.array(first.per_task)
        differences.append(
            Difference(name, first_name, float(paired.mean()), float(interval(paired)), len(paired), first.task_hash)
        )
    return differences
