"""The record of a run: its figures and all that belongs to them, in one small JSON file to keep beside a recipe."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from handful.errors import HandfulError
from handful.evaluation import Result
from handful.files import to_json, write_text
from handful.reading import from_json, from_yaml
from handful.recipe import parse
from handful.report.run_files import Evaluation, Score, read_run

PROTOCOL = (  # what tells the results of a run from each other: which tasks, and how they are predicted
    *("data", "split", "trained_on", "way", "shot", "query", "tasks", "seed"),
    *("norm_stats", "inner_steps", "support"),
)


class Published(BaseModel):
    """What was published for a protocol, in the metric's unit, by whom, and how that was another training."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    mean: float
    ci95: float | None = None
    source: str


class Measure(BaseModel):
    """A further figure of a result."""

    model_config = ConfigDict(frozen=True)

    mean: Score
    ci95: float | None


class Recorded(Evaluation):
    """A test result of a record."""

    measures: dict[str, Measure] = Field(default_factory=dict)
    support: str | None = None
    published: Published | None = None


class Record(BaseModel):
    """A record as read; the oldest hold the `command` of the training instead of its `settings`."""

    model_config = ConfigDict(extra="allow", frozen=True)

    recipe: str
    recipe_hash: str | None = None
    steps: int
    training_minutes: float
    environment: dict[str, Any]
    results: list[Recorded]
    settings: dict[str, Any] | None = None


def protocol_of(result: Result | Recorded) -> tuple[Any, ...]:
    """The values of `PROTOCOL`."""
    return tuple(getattr(result, key) for key in PROTOCOL)


def record_of(recipe: Path) -> Path:
    """Where the record of a recipe file is kept: beside it."""
    return recipe.with_suffix(".result.json")


def read_record(path: Path) -> Record:
    """Read a record; raises HandfulError for what is none."""
    try:
        return Record.model_validate(from_json(path.read_text(encoding="utf-8")))
    except FileNotFoundError as error:
        raise HandfulError(
            f"There is no record {path}; `handful report RUN --record {path}` makes one of a run of the recipe."
        ) from error
    except ValidationError as error:
        first = error.errors()[0]
        place = ".".join(map(str, first["loc"]))
        raise HandfulError(f"{path} is not the record of a run: {place}: {first['msg']}.") from error
    except (OSError, ValueError) as error:
        raise HandfulError(f"{path} is not the record of a run: {error}.") from error


def write_record(run: Path, out: Path) -> Path:
    """Write what a run was (settings, steps, minutes, machine) and its test results, the newest first.

    Left out are the single tasks of a result, and where things lie on this machine.  What was published for a protocol
    is kept, if `out` is a record that says so.
    """
    folder = read_run(run)
    results = [result for result in folder.evaluations if result.split == "test"]
    settings: dict[str, Any] = from_yaml(folder.recipe) or {}
    if not (results and settings):
        raise HandfulError(f"{run} has no recipe.yaml, or no test result yet, to make a record of; train it first.")
    before = read_record(out).results if out.exists() else []
    published = {protocol_of(result): result.published.model_dump() for result in before if result.published}
    steps, minutes = trained(run)
    record = {
        "recipe": settings["name"],
        "recipe_hash": parse(folder.recipe, str(run / "recipe.yaml")).hash(),
        "steps": steps,
        "training_minutes": round(minutes, 1),
        "environment": folder.environment,
        "results": [_without_tasks(result, published) for result in results],
        "settings": settings | {"data": {key: value for key, value in settings["data"].items() if key != "root"}},
    }
    write_text(out, to_json(record) + "\n")
    return out


def trained(run: Path) -> tuple[int, float]:
    """Steps and minutes of both stages of a run."""
    stages = [read_run(path).metrics for path in (run / "pretrain", run) if path.is_dir()]
    logged = [metrics for metrics in stages if metrics]
    return (
        sum(int(metrics["step"][-1]) for metrics in logged),
        sum(float(metrics["seconds"][-1]) for metrics in logged) / 60,
    )


def _without_tasks(result: Evaluation, published: dict[tuple[Any, ...], dict[str, Any]]) -> dict[str, Any]:
    """A result as its record holds it."""
    kept = result.model_dump(exclude={"per_task", "measures_per_task"})
    told = published.get(protocol_of(Recorded.model_validate(kept)))
    return kept | ({"published": told} if told else {})
