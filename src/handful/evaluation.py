"""Evaluation: accuracy over many tasks, with its interval, its floors, and everything needed to repeat it."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple, get_args

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from handful import wording
from handful.data.dataset import Data, Split
from handful.data.store import ClassSplit
from handful.data.video.store import ClipSplit
from handful.detection import METRIC, Measures, hash_of, opening, score_clips
from handful.embedding import EmbeddedTasks
from handful.episodes import Episode, EpisodeSampler, Sampler
from handful.errors import HandfulError, unknown
from handful.files import to_json, write_text
from handful.inner_loop import NormStats, has_batch_norm
from handful.methods import Method, Metric
from handful.problems import problem_of
from handful.problems.video_anomaly.tasks import Support
from handful.processes import gathered, share
from handful.recipe import Protocol
from handful.registry import spec_of
from handful.runtime import keep_freed_memory

if TYPE_CHECKING:
    from handful.run import Run

TASKS_PER_CHUNK = 20


@dataclass(frozen=True)
class Result:
    """One evaluation: scores in the metric's unit (an accuracy is a fraction), with 95 % intervals over tasks.

    `per_task` is after the last inner step.
    """

    problem: str
    method: str
    backbone: str
    data: str
    split: str
    metric: str
    mean: float
    ci95: float
    tasks: int
    way: int
    shot: int
    query: int
    seed: int
    task_hash: str
    norm_stats: str
    transductive: bool
    inner_steps: int
    by_inner_step: list[float]
    by_inner_step_ci95: list[float]
    floors: dict[str, dict[str, Any]]
    seconds: float
    measures: dict[str, dict[str, float]] = field(default_factory=dict)
    """Further figures after the last inner step, each with its mean and ci95."""
    support: str | None = None
    """Of labelled clips: where the support is from."""
    note: str | None = None
    trained_on: str | None = None
    """The data of training, where the tasks are drawn from other data."""
    run: dict[str, Any] = field(default_factory=dict)
    per_task: list[float] = field(default_factory=list, repr=False)
    measures_per_task: dict[str, list[float]] = field(default_factory=dict, repr=False)

    def __str__(self) -> str:
        kind = "transductive" if self.transductive else "inductive"
        conditions = wording.conditions(kind, self.norm_stats, self.inner_steps)
        means = {name: floor["mean"] for name, floor in self.floors.items()}
        floors = ", ".join(f"{name} {wording.measured(mean, metric=self.metric)}" for name, mean in means.items())
        text = (
            f"{wording.name(self.metric)} {self._score()} ({self._over()}, "
            f"{wording.protocol(self.way, self.shot, self.query)}, {conditions}, {self.split} split; "
            f"floors: {floors}; tasks {self.task_hash})"
        )
        lower = wording.lower_is_better(self.metric)
        if self.support:
            text += f"\n{self._figures()}"
        best = (min if lower else max)(means, key=means.__getitem__, default=None)
        nearest = self.mean + self.ci95 if lower else self.mean - self.ci95  # the end of the interval by the floor
        if best and not wording.better(nearest, means[best], self.metric):
            text += f"\nThis {kind} result is not clearly {'below' if lower else 'above'} the floor {best!r}."
        return f"{text}\n{self.note}" if self.note else text

    def _over(self) -> str:
        """What the interval is over."""
        if not self.support:
            return f"95 % over {self.tasks} tasks"
        over = (
            f"95 % over {wording.count(self.tasks, 'draw')} of the support" if self.tasks > 1 else "one support a clip"
        )
        return f"{over}, the {self.query:,} tested frames taken as given"

    def _figures(self) -> str:
        """All figures of labelled clips, beside those of the floors, in percent."""
        lines = [f"{'in %':<28}{'this run':>14}" + "".join(f"{name:>22}" for name in self.floors)]
        for name, own in self.measures.items():
            group, slash, inner = name.partition("/")
            if not slash:  # the metric itself
                continue
            cells = f"{100 * own['mean']:>8.1f}" + (f" ± {100 * own['ci95']:.1f}" if self.tasks > 1 else "")
            others = [floor.get(group, {}).get(inner) for floor in self.floors.values()]
            beside = "".join(f"{'' if value is None else f'{100 * value:.1f}':>22}" for value in others)
            lines.append(f"{f'{wording.name(group)}, {wording.name(inner)}':<28}{cells:>14}{beside}")
        return "\n".join(lines)

    def _score(self) -> str:
        """The mean with its interval, or where the adaptation of some task diverged."""
        if math.isfinite(self.mean):
            return wording.measured(self.mean, self.ci95, self.metric)
        steps = (step for step, mean in enumerate(self.by_inner_step) if not math.isfinite(mean))
        return f"diverged at inner step {next(steps, self.inner_steps)}"

    @property
    def file_name(self) -> str:
        """Name of the file that holds it in a run's `eval` folder."""
        elsewhere = f"{self.data}-{self.task_hash[:8]}-" if self.trained_on else ""
        published = "-clip_start" if self.support == "clip_start" else ""
        return (
            f"{elsewhere}{self.split}-{self.way}w{self.shot}s{self.query}q-{self.tasks}tasks-seed{self.seed}"
            f"-{self.norm_stats}-{self.inner_steps}steps{published}.json"
        )

    def as_dict(self) -> dict[str, Any]:
        """All fields, and the metric and the means of further figures by their names too."""
        further = {name: figure["mean"] for name, figure in self.measures.items()}
        named = {self.metric: self.mean, **nested(further)} if further else {}
        return {**asdict(self), **named}

    def to_json(self) -> str:
        """All fields as JSON; a score that is not finite is null."""
        return to_json(self.as_dict())

    def save(self, folder: Path) -> Path:
        """Write it into a run's `eval` folder."""
        path = folder / "eval" / self.file_name
        write_text(path, self.to_json())
        return path


def interval(values: NDArray[np.float64]) -> NDArray[np.float64]:
    """Half width of the 95 % interval of the mean over the last axis: 1.96 s / sqrt(n), s with n - 1; NaN of one."""
    if values.shape[-1] < 2:
        return np.full(values.shape[:-1], np.nan)
    with np.errstate(invalid="ignore"):  # a diverged adaptation has an infinite error, and no interval
        width: NDArray[np.float64] = 1.96 * values.std(-1, ddof=1) / np.sqrt(values.shape[-1])
    return width


def evaluate(
    run: Run,
    split: Split | None = None,
    *,
    way: int | None = None,
    shot: int | None = None,
    query: int | None = None,
    tasks: int | None = None,
    inner_steps: int | None = None,
    norm_stats: NormStats | None = None,
    inductive: bool = False,
    support: Support | None = None,
    seed: int | None = None,
    embed_once: bool = True,
) -> Result:
    """Score a run on a split (its test classes by default); what is not said is as in its recipe's evaluation.

    split: of the run's data, or of other data of the same shape, to see how far what was learned carries;
    inductive: with the method's own inductive statistics; support: of labelled clips, `clip_start` to take the first
    windows of each for normal, as published; embed_once: as in `evaluate_method`.
    """
    if inductive:
        if norm_stats not in (None, run.method.inductive):
            raise HandfulError(
                f"--inductive is --norm-stats {run.method.inductive} for this run, and --norm-stats says "
                f"{norm_stats!r}; leave out one."
            )
        norm_stats = run.method.inductive
    said = {
        "way": way,
        "shot": shot,
        "query": query,
        "tasks": tasks,
        "inner_steps": inner_steps,
        "norm_stats": norm_stats,
        "support": support,
    }
    protocol = run.recipe.protocols()[0].model_copy(update={k: v for k, v in said.items() if v is not None})
    seed = run.recipe.seed if seed is None else seed
    split = split or run.data.test
    check_fits(run, split.data)
    result = evaluate_method(run.method, split, protocol, seed=seed, run=run.provenance(), embed_once=embed_once)
    if split.data.describe() == run.data.describe():
        return result
    noted = " ".join(filter(None, [strange(run.data.train, split), result.note]))
    return replace(result, trained_on=run.data.name, note=noted)


def strange(trained: Split, tested: Split) -> str:
    """What a result must say if its tasks are of other data than training's."""
    said = f"Trained on {trained.data.name}, tested on other data: {tested.data.name}."
    if isinstance(trained, ClassSplit) and isinstance(tested, ClassSplit):
        learned, asked = ({split.class_name(i) for i in range(len(split))} for split in (trained, tested))
        if known := learned & asked:
            said += f" {len(known)} of its classes bear the names of training classes, such as {min(known)!r}."
    return said


def check_fits(run: Run, data: Data) -> None:
    """Refuse data that the run's network cannot take."""
    if problem_of(data).name != run.method.problem.name:
        raise HandfulError(
            f"{data.name} is {problem_of(data).name}, and {run.folder} was trained for {run.method.problem.name}."
        )
    if tuple(data.input_shape) != tuple(run.data.input_shape):
        raise HandfulError(
            f"{data.name} holds inputs {list(data.input_shape)}, but {run.folder} was trained on "
            f"{list(run.data.input_shape)}; of a folder, set image_size and channels."
        )


def evaluate_method(
    method: Method,
    split: Split,
    protocol: Protocol,
    *,
    seed: int = 0,
    run: dict[str, Any] | None = None,
    embed_once: bool = True,
) -> Result:
    """Score a method on the first `protocol.tasks` tasks that `seed` draws from a split.

    The same seed gives the same tasks to every method; `task_hash` proves it.  No weight or buffer of the method is
    changed.  embed_once: metric methods embed each image once for all tasks, rather than anew for every task that it
    is in; the scores are the same.
    """
    keep_freed_memory()
    started = time.perf_counter()
    norm_stats: NormStats = protocol.norm_stats or method.norm_stats
    inner_steps = method.inner_steps if protocol.inner_steps is None else protocol.inner_steps
    sampler = method.problem.sampler(split, protocol.way, protocol.shot, protocol.query, seed)
    labelled = check_support(protocol, split)
    method.attach_head(method.problem.outputs(protocol.way))
    if embed_once and isinstance(method, Metric) and isinstance(sampler, EpisodeSampler):
        method.predict(sampler.episodes(0, 1, device=method.device), inner_steps, norm_stats)  # may refuse them
        predict = EmbeddedTasks(method, sampler, own_chunks(protocol.tasks).stop, TASKS_PER_CHUNK).predict
    else:

        def predict(episode: Episode, start: int, stop: int) -> Tensor:
            return method.predict(episode, inner_steps, norm_stats)

    metric, task_hash, said, query = method.problem.metric, "", note(method, split), protocol.query
    if isinstance(split, ClipSplit) and labelled:
        if protocol.norm_stats not in (None, method.inductive):
            raise HandfulError(
                f"Labelled clips are judged frame by frame, with {method.inductive} statistics, and not {norm_stats}; "
                "leave norm_stats out."
            )
        norm_stats, metric = method.inductive, METRIC
        scores, measures, floors, query = score_clips(method, split, protocol, inner_steps, seed)
        task_hash = hash_of(split, protocol.shot, protocol.tasks, seed, protocol.support)
        if protocol.support == "clip_start":
            said = " ".join(filter(None, [opening(split, protocol.shot), said]))
    else:
        scores, measures, floors = score_tasks(method, sampler, protocol.tasks, predict)
        task_hash = sampler.task_hash(protocol.tasks)
    means, widths = scores.mean(1), interval(scores)
    normalised = has_batch_norm(method.network)
    return Result(
        problem=method.problem.name,
        method=spec_of(method)["name"],
        backbone=spec_of(method.backbone)["name"],
        data=split.data.name,
        split=split.name,
        metric=metric,
        mean=float(means[-1]),
        ci95=float(widths[-1]),
        tasks=scores.shape[1],
        way=protocol.way,
        shot=protocol.shot,
        query=query,
        seed=seed,
        task_hash=task_hash,
        norm_stats=norm_stats if normalised else "none",
        transductive=norm_stats == "batch" and normalised,
        inner_steps=inner_steps,
        by_inner_step=means.tolist(),
        by_inner_step_ci95=widths.tolist(),
        floors={
            name: {**summed(found[metric]), **(nested(means_of(found)) if measures else {})}
            for name, found in floors.items()
        },
        seconds=round(time.perf_counter() - started, 2),
        measures={name: summed(values) for name, values in measures.items()},
        support=protocol.support if labelled else None,
        note=said,
        run=run or {},
        per_task=scores[-1].tolist(),
        measures_per_task={name: values.tolist() for name, values in measures.items()},
    )


def check_support(protocol: Protocol, split: Split) -> bool:
    """Whether clips are labelled; refuse a support that is for those alone."""
    labelled = isinstance(split, ClipSplit) and split.labelled
    if protocol.support not in get_args(Support):
        raise unknown("support", protocol.support, get_args(Support))
    if protocol.support != "normal" and not labelled:
        raise HandfulError(
            f"support is {protocol.support}, which is for clips with labels, and the {split.name} split of "
            f"{split.data.name!r} has none; set it to normal."
        )
    return labelled


def note(method: Method, split: Split) -> str | None:
    """What a result must say besides its figures: flaws of the data, and what the backbone's weights have seen."""
    said = [split.data.info.get("note")]
    if seen := getattr(method.backbone, "seen", None):
        whole = split.data.info.get("part_of")
        known = f", of which {split.data.name} is a part: these classes are not new to it" if whole else ""
        said.append(f"The backbone's weights come from {seen}{known if whole and whole in seen else ''}.")
    return " ".join(filter(None, said)) or None


class Scored(NamedTuple):
    """Of some tasks: scores [S+1, tasks] after every inner step; further figures after the last; all of the floors."""

    scores: NDArray[np.float64]
    measures: Measures
    floors: dict[str, Measures]


def score_tasks(method: Method, sampler: Sampler, tasks: int, predict: Callable[[Episode, int, int], Tensor]) -> Scored:
    """The first tasks of a sampler, of which each process scores some.

    predict: an episode of the tasks start to stop, start, stop -> query predictions [S+1, B, N*Q, ...].
    """
    problem = method.problem

    def scored(start: int, stop: int) -> Scored:
        episode = sampler.episodes(start, stop, device=method.device)
        predictions = predict(episode, start, stop)
        return Scored(
            problem.score(predictions, episode.query_y).cpu().numpy(),
            arrays(problem.measures(predictions[-1], episode.query_y)),
            {name: arrays(floor) for name, floor in problem.floors(episode).items()},
        )

    own = own_chunks(tasks)
    found = gathered([scored(start, min(start + own.step, tasks)) for start in own])
    parts = [part for of_process in found for part in of_process]
    return Scored(
        np.concatenate([part.scores for part in parts], 1),
        whole([part.measures for part in parts]),
        {name: whole([part.floors[name] for part in parts]) for name in parts[0].floors},
    )


def own_chunks(tasks: int) -> range:
    """Where the chunks of tasks begin that this process scores."""
    own = share(-(-tasks // TASKS_PER_CHUNK))
    return range(own.start * TASKS_PER_CHUNK, min(own.stop * TASKS_PER_CHUNK, tasks), TASKS_PER_CHUNK)


def nested(figures: dict[str, float]) -> dict[str, Any]:
    """Figures named `group/name` as a group each."""
    found: dict[str, Any] = {}
    for name, value in figures.items():
        group, slash, inner = name.partition("/")
        if slash:
            found.setdefault(group, {})[inner] = value
        else:
            found[name] = value
    return found


def arrays(figures: dict[str, Tensor]) -> Measures:
    """Figures of some tasks, [tasks] each."""
    return {name: values.cpu().numpy() for name, values in figures.items()}


def whole(parts: Sequence[Measures]) -> Measures:
    """The figures of all tasks, [tasks] each."""
    return {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}


def summed(values: NDArray[np.float64]) -> dict[str, float]:
    """Mean and 95 % interval over tasks."""
    return {"mean": float(values.mean()), "ci95": float(interval(values))}


def means_of(found: Measures) -> dict[str, float]:
    """The mean of each figure."""
    return {name: float(values.mean()) for name, values in found.items()}
