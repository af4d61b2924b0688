"""Reproduction: train a recipe as its record says, and see whether the recorded figures come out again.

    handful reproduce lines-maml                        # into out/reproduce/lines-maml; resumes where that stopped

reproduce -> the record beside the recipe, train_recipe, the recorded tasks -> a Figure for every recorded figure.

The rule: a recorded figure is reproduced if it lies in the 95 % interval of the new one, on the same tasks.  That
interval is over tasks.  It does not hold how figures differ between trainings (another seed, or another order of sums
on another machine), which is part of why a recorded figure may lie outside; on the same machine and versions, a
training on the CPU gives the same figures to the last digit.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from handful import wording
from handful.checkpoint import difference
from handful.errors import HandfulError
from handful.evaluation import Result, evaluate
from handful.recipe import Recipe, find_recipe, load_recipe, make_recipe
from handful.run import Run
from handful.training import train_recipe

if TYPE_CHECKING:
    from handful.report.record import Published, Record, Recorded

ROUNDING = 1e-9  # relative: equal tasks may be summed in another order


@dataclass(frozen=True)
class Value:
    """A mean and half the width of its 95 % interval, which a published figure may lack, in the metric's unit."""

    mean: float
    ci95: float | None

    def holds(self, value: float) -> bool:
        """Whether the interval holds a value; none does if it has no width, or diverged."""
        if self.ci95 is None or not (math.isfinite(self.mean) and math.isfinite(self.ci95)):
            return False
        return abs(value - self.mean) <= self.ci95 + ROUNDING * abs(self.mean)


@dataclass(frozen=True)
class Figure:
    """A recorded figure of a protocol beside the same one of this run."""

    name: str
    """The metric, or one of the further figures of a result."""
    recorded: Value
    now: Value
    published: Published | None = None

    @property
    def inside(self) -> bool:
        """Whether the recorded figure lies in the new interval."""
        return self.now.holds(self.recorded.mean)

    def as_dict(self) -> dict[str, Any]:
        """For JSON."""
        published = self.published
        return {
            "name": self.name,
            "recorded": asdict(self.recorded),
            "now": asdict(self.now),
            "inside": self.inside,
            "published": {**published.model_dump(), "inside": self.now.holds(published.mean)} if published else None,
        }

    def __str__(self) -> str:
        recorded, now = (wording.measured(value.mean, value.ci95, self.name) for value in (self.recorded, self.now))
        text = f"  {wording.name(self.name)}: recorded {recorded}, now {now}: {_where(self.inside)}"
        if self.published:
            published = wording.measured(self.published.mean, self.published.ci95, self.name)
            text += (
                f"\n  published {published}: {_where(self.now.holds(self.published.mean))} ({self.published.source})"
            )
        return text


@dataclass(frozen=True)
class Comparison:
    """A recorded protocol, scored anew: the result, the hash of the recorded tasks, and every figure."""

    result: Result
    recorded_task_hash: str | None
    figures: list[Figure]

    @property
    def same_tasks(self) -> bool:
        """Whether the tasks are the recorded ones."""
        return self.result.task_hash == self.recorded_task_hash

    def as_dict(self) -> dict[str, Any]:
        """For JSON."""
        said = ("data", "split", "way", "shot", "query", "tasks", "seed", "norm_stats", "transductive", "inner_steps")
        return {
            **{key: getattr(self.result, key) for key in (*said, "support", "task_hash")},
            "recorded_task_hash": self.recorded_task_hash,
            "same_tasks": self.same_tasks,
            "figures": [figure.as_dict() for figure in self.figures],
        }

    def __str__(self) -> str:
        result = self.result
        kind = "transductive" if result.transductive else "inductive"
        tasks = f"tasks {result.task_hash}, " + (
            "as recorded" if self.same_tasks else f"OTHER than the recorded {self.recorded_task_hash}"
        )
        head = ", ".join(
            [
                wording.protocol(result.way, result.shot, result.query),
                wording.conditions(kind, result.norm_stats, result.inner_steps),
                f"{result.tasks:,} tasks of seed {result.seed}",
            ]
        )
        return "\n".join([f"{head} ({tasks})", *map(str, self.figures)])


@dataclass(frozen=True)
class Reproduction:
    """What came out: the run's folder, its recipe's hash and steps beside the recorded ones, and the comparisons."""

    recipe: str
    run: Path
    recipe_hash: str
    recorded_recipe_hash: str | None
    settings_recorded: bool
    """Whether the record holds its settings, which then are this recipe's."""
    steps: int
    recorded_steps: int
    changed: dict[str, tuple[Any, Any]]
    """Versions, commit and machine that are not as recorded: recorded, now."""
    comparisons: list[Comparison]
    left_out: list[str]
    """Recorded figures that were not judged, and why."""

    @property
    def figures(self) -> list[Figure]:
        """The figures of all protocols."""
        return [figure for comparison in self.comparisons for figure in comparison.figures]

    @property
    def reproduced(self) -> bool:
        """Whether all recorded figures lie in the new intervals, of a run that was trained to its end."""
        return self.steps >= self.recorded_steps and all(figure.inside for figure in self.figures)

    @property
    def same_recipe(self) -> bool | None:
        """Whether the hashes of the recipes agree; None if it was recorded before recipes had one."""
        return None if self.recorded_recipe_hash is None else self.recipe_hash == self.recorded_recipe_hash

    def as_dict(self) -> dict[str, Any]:
        """For JSON."""
        return {
            "recipe": self.recipe,
            "run": str(self.run),
            "recipe_hash": self.recipe_hash,
            "recorded_recipe_hash": self.recorded_recipe_hash,
            "same_recipe": self.same_recipe,
            "settings_recorded": self.settings_recorded,
            "steps": self.steps,
            "recorded_steps": self.recorded_steps,
            "changed": {key: {"recorded": then, "now": now} for key, (then, now) in self.changed.items()},
            "comparisons": [comparison.as_dict() for comparison in self.comparisons],
            "left_out": self.left_out,
            "reproduced": self.reproduced,
        }

    def __str__(self) -> str:
        lines = [f"{self.recipe}, recipe {self.recipe_hash}{self._recorded()}"]
        steps = f"{wording.count(self.steps, 'step')} (recorded: {self.recorded_steps:,})"
        lines += [f"{steps}{': not at its end, the same command goes on' if self.steps < self.recorded_steps else ''}"]
        if self.changed:
            lines += ["not as recorded: " + ", ".join(f"{k} {now} ({then})" for k, (then, now) in self.changed.items())]
        lines += map(str, self.comparisons)
        lines += [f"not judged: {said}" for said in self.left_out]
        inside = sum(figure.inside for figure in self.figures)
        lines += [f"{inside} of {wording.count(len(self.figures), 'recorded figure')} in the new interval"]
        return "\n".join(lines)

    def _recorded(self) -> str:
        """How the recipe is known to be the recorded one."""
        if self.same_recipe:
            return ", as recorded"
        if self.same_recipe is False:
            return f"; recorded as {self.recorded_recipe_hash} with the same settings, when recipes had other keys"
        if self.settings_recorded:
            return "; recorded before recipes had a hash, with the same settings"
        return "; recorded before recipes had a hash, and without settings: whether it was the same cannot be told"


def reproduce(
    recipe: str | Path,
    *,
    out: str | Path | None = None,
    changes: Sequence[str] = (),
    max_minutes: float | None = None,
    fresh: bool = False,
    quiet: bool = False,
) -> Reproduction:
    """Train a recipe that has a record, score it on the recorded tasks, and compare; resumes where `out` stopped.

    recipe: a file, or the name of a shipped one; the record lies beside it.  out: `out/reproduce/NAME` if not said;
    changes: `a.b=value` settings of keys that change no number, such as where the data lies; the rest as in
    `train_recipe`.  Raises HandfulError: no record, another recipe than the recorded one, nothing in it to judge.
    """
    from handful.report.record import read_record, record_of, trained  # matplotlib, only now

    found = load_recipe(str(recipe), changes)
    path = record_of(find_recipe(str(recipe)))
    record = read_record(path)
    check_recipe(found, recorded_recipe(record, str(recipe), path), path)
    judged, left_out = judgeable(record)
    if not judged:
        raise HandfulError(f"{path} holds no figure that can be judged{': ' if left_out else ''}{'; '.join(left_out)}.")
    out = Path("out") / "reproduce" / find_recipe(str(recipe)).stem if out is None else Path(out)
    run, results = train_recipe(
        found,
        out,
        precision=record.environment.get("precision", "32-true"),
        max_minutes=max_minutes,
        fresh=fresh,
        quiet=quiet,
    )
    comparisons = [compared(recorded, scored(run, recorded, results)) for recorded in judged]
    return Reproduction(
        recipe=found.name,
        run=out,
        recipe_hash=found.hash(),
        recorded_recipe_hash=record.recipe_hash,
        settings_recorded=record.settings is not None,
        steps=trained(out)[0],
        recorded_steps=record.steps,
        changed=changed(record.environment, run.provenance()),
        comparisons=comparisons,
        left_out=left_out,
    )


def recorded_recipe(record: Record, recipe: str, path: Path) -> Recipe:
    """The recipe of a record as this version reads it; that of the file, where an old record does not hold it."""
    return make_recipe(record.settings, str(path)).resolved() if record.settings else load_recipe(recipe)


def check_recipe(recipe: Recipe, recorded: Recipe, path: Path) -> None:
    """Refuse another recipe than the recorded one, but for keys that change no number."""
    if found := difference(recorded.model_dump(mode="json"), recipe.model_dump(mode="json")):
        key, before, now = found
        raise HandfulError(
            f"{path} is the record of another recipe ({key} is {before!r} there and {now!r} now); leave {key} as it "
            "was, or train it as a recipe of its own."
        )


def judgeable(record: Record) -> tuple[list[Recorded], list[str]]:
    """The results of a record that can be scored again, and of the others why not."""
    judged: list[Recorded] = []
    left_out: list[str] = []
    for result in record.results:
        if result.trained_on:
            left_out.append(f"a result on other data, {result.data}, which a record does not describe")
        elif result.tasks < 2:
            left_out.append(f"a result over {wording.count(result.tasks, 'task')}, which has no interval")
        elif not recorded_figures(result):
            left_out.append("a result that diverged")
        else:
            judged.append(result)
    return judged, left_out


def recorded_figures(result: Recorded) -> dict[str, Value]:
    """The metric and the further figures of a recorded result, by name, but for those that are no number."""
    further = {name: Value(figure.mean, figure.ci95) for name, figure in result.measures.items()}
    found = {result.metric: Value(result.mean, result.ci95), **further}
    return {name: value for name, value in found.items() if math.isfinite(value.mean)}


def scored(run: Run, recorded: Recorded, results: Sequence[Result]) -> Result:
    """A recorded protocol on its tasks: one of the results, if training ended with it, or else a new one."""
    from handful.report.record import protocol_of

    for result in results:
        if protocol_of(result) == protocol_of(recorded):
            return result
    result = evaluate(
        run,
        way=recorded.way,
        shot=recorded.shot,
        query=None if recorded.support else recorded.query,  # of labelled clips it is the number of judged frames
        tasks=recorded.tasks,
        seed=recorded.seed,
        inner_steps=recorded.inner_steps,
        norm_stats=None if recorded.norm_stats == "none" else recorded.norm_stats,  # type: ignore[arg-type]
        support=recorded.support,  # type: ignore[arg-type]
    )
    result.save(run.folder)
    results[0].save(run.folder)  # again: the newest is the headline of a report, and that is the main one
    return result


def changed(then: Mapping[str, Any], now: Mapping[str, Any]) -> dict[str, tuple[Any, Any]]:
    """What is not as recorded of what both tell."""
    return {key: (then[key], value) for key, value in now.items() if key in then and then[key] != value}


def compared(recorded: Recorded, result: Result) -> Comparison:
    """Every figure of a recorded result beside that of the new one."""
    now = {
        result.metric: Value(result.mean, result.ci95),
        **{name: Value(**figure) for name, figure in result.measures.items()},
    }
    figures = [
        Figure(
            name, value, now.get(name, Value(math.nan, None)), recorded.published if name == recorded.metric else None
        )
        for name, value in recorded_figures(recorded).items()
    ]
    return Comparison(result, recorded.task_hash, figures)


def _where(inside: bool) -> str:
    return "inside the new interval" if inside else "OUTSIDE the new interval"
