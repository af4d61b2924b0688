"""Comparison on the same tasks: paired differences with 95 % intervals.

Tasks differ far more from each other than methods do; on the same tasks that spread cancels, and the interval of the
mean difference is much narrower than those of the two means.

score_together (runs -> results on the same tasks) -> compare (results -> paired differences to the first).
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from handful.data import Data
from handful.errors import HandfulError
from handful.evaluation import Result, check_fits, evaluate, interval
from handful.inner_loop import NormStats
from handful.run import Run


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

    @property
    def clear(self) -> bool:
        """Whether the interval does not hold zero; one without a width says nothing."""
        return abs(self.mean) > self.ci95 > 0


def paired_differences(per_task: Mapping[str, Sequence[float]]) -> list[Difference]:
    """Each run against the first: name -> scores [T] on the same T tasks in the same order."""
    (baseline, reference), *others = per_task.items()
    return [
        Difference(name, baseline, float(paired.mean()), float(interval(paired)), len(paired))
        for name, paired in ((name, np.array(scores) - np.array(reference)) for name, scores in others)
    ]


def compare(results: Mapping[str, Result]) -> list[Difference]:
    """Each run's result against the first; results on other tasks than the first's are refused."""
    check_comparable(results)
    return paired_differences({name: result.per_task for name, result in results.items()})


def check_comparable(results: Mapping[str, Result]) -> None:
    """Refuse results on other tasks than the first's, and transductive beside inductive ones."""
    check_tasks({name: result.task_hash for name, result in results.items()})
    (first, baseline), *others = results.items()
    for name, result in others:
        if result.transductive != baseline.transductive:
            raise HandfulError(
                f"{name} is {_mode(result)} and {first} {_mode(baseline)}, which are different quantities; "
                "compare with --inductive, which scores all of them inductively."
            )


def check_tasks(hashes: Mapping[str, str]) -> None:
    """Refuse other tasks than the first's: name -> task hash."""
    (first, baseline), *others = hashes.items()
    for name, task_hash in others:
        if task_hash != baseline:
            raise HandfulError(
                f"{name} was measured on other tasks ({task_hash}) than {first} ({baseline}); runs compare on the same "
                "data, split, way, shot and query only."
            )


def score_together(
    folders: Sequence[Path],
    *,
    way: int | None = None,
    shot: int | None = None,
    query: int | None = None,
    tasks: int | None = None,
    seed: int | None = None,
    inner_steps: int | None = None,
    norm_stats: NormStats | None = None,
    inductive: bool = False,
    data_root: str | None = None,
    data: Data | None = None,
) -> dict[str, Result]:
    """Score runs, each by its folder's name, on the test tasks that the first one's recipe draws.

    What is said holds for all of them.  Inner steps and statistics that are not said are those of each run's own
    recipe.  data_root: where the source of their data lies now; data: other data to draw the tasks from.  A folder
    given twice counts once; nothing is written into the runs.
    """
    different: dict[Path, Path] = {}
    for folder in folders:
        different.setdefault(folder.resolve(), folder)
    if len(different) < 2:
        raise HandfulError(f"compare needs at least 2 different runs, not {len(different)}.")
    runs = {
        str(folder): Run.open(folder, data_root) for folder in different.values()
    }  # all open before the first is scored
    baseline, first = next(iter(runs.items()))
    protocol = first.recipe.protocols()[0]
    seed = first.recipe.seed if seed is None else seed
    drawn = way or protocol.way, shot or protocol.shot, query or protocol.query
    hashes: dict[str, str] = {}
    for name, run in runs.items():  # what the data rule out, before any is scored for minutes
        problem = run.method.problem
        if problem.name != first.method.problem.name:
            raise HandfulError(
                f"{name} does {problem.name} and {baseline} {first.method.problem.name}; only runs of one problem "
                "compare."
            )
        with _named(name):
            tested = data or run.data
            check_fits(run, tested)
            hashes[name] = problem.sampler(tested.test, *drawn, seed).task_hash(tasks or protocol.tasks)
        check_tasks(hashes)
    results: dict[str, Result] = {}
    for name, run in runs.items():
        with _named(name):
            results[name] = evaluate(
                run,
                (data or run.data).test,
                way=drawn[0],
                shot=drawn[1],
                query=drawn[2],
                tasks=tasks or protocol.tasks,
                seed=seed,
                inner_steps=inner_steps,
                norm_stats=norm_stats,
                inductive=inductive,
            )
        check_comparable(results)
    return results


@contextmanager
def _named(run: str) -> Iterator[None]:
    """An error in it says which run is at fault."""
    try:
        yield
    except HandfulError as error:
        raise HandfulError(f"{run}: {error}") from error


def clear_of_zero(clear: int, total: int) -> str:
    """In words, how many of `total` intervals do not hold zero: `1 of 3 differences is clear of zero`."""
    if total == 1:
        return f"The difference is {'' if clear else 'not '}clear of zero"
    if clear == 0:
        return "No difference is clear of zero"
    if clear == total:
        return f"{'Both' if total == 2 else f'All {total}'} differences are clear of zero"
    return f"{clear} of {total} differences {'is' if clear == 1 else 'are'} clear of zero"


def _mode(result: Result) -> str:
    if result.transductive:
        return "transductive"
    return "inductive (it has no batch norm)" if result.norm_stats == "none" else "inductive"
