"""Comparison on the same tasks: paired differences with 95 % intervals.

Tasks differ far more from each other than methods do; on the same tasks that spread cancels, and the interval of the
mean difference is much narrower than those of the two means.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from handful.errors import HandfulError
from handful.evaluation import Result, interval


@dataclass(frozen=True)
class Difference:
    """Mean over tasks of run minus baseline, with the half width of its 95 % interval."""

    run: str
    baseline: str
    mean: float
    ci95: float
    tasks: int

    @property
    def label(self) -> str:
        """`run − baseline`."""
        return f"{self.run} − {self.baseline}"


def paired_differences(per_task: Mapping[str, Sequence[float]]) -> list[Difference]:
    """Each run against the first: name -> scores [T] on the same T tasks in the same order."""
    (baseline, reference), *others = per_task.items()
    return [
        Difference(name, baseline, float(paired.mean()), float(interval(paired)), len(paired))
        for name, paired in ((name, np.array(scores) - np.array(reference)) for name, scores in others)
    ]


def compare(results: Mapping[str, Result]) -> list[Difference]:
    """Each run's result against the first; results on other tasks than the first's are refused."""
    (first, baseline), *others = results.items()
    for name, result in others:
        if result.task_hash != baseline.task_hash:
            raise HandfulError(
                f"{name} was measured on other tasks ({result.task_hash}) than {first} ({baseline.task_hash}); "
                "runs compare on the same data, split, way, shot and query only."
            )
        if result.transductive != baseline.transductive:
            raise HandfulError(
                f"{name} is {_mode(result)} and {first} {_mode(baseline)}, which are different quantities; "
                "compare with --inductive, which scores all of them inductively."
            )
    return paired_differences({name: result.per_task for name, result in results.items()})


def _mode(result: Result) -> str:
    return "transductive" if result.transductive else "inductive"
