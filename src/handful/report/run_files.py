"""What the report reads from a run folder.  A damaged file is an error that names it."""

from __future__ import annotations

import csv
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, BeforeValidator, ConfigDict, FiniteFloat, ValidationError, model_validator

from handful.errors import HandfulError
from handful.reading import from_json, from_yaml
from handful.run import METRICS

PNG_START, PNG_END = b"\x89PNG\r\n\x1a\n", b"IEND\xaeB`\x82"

Score = Annotated[float, BeforeValidator(lambda value: np.nan if value is None else value)]  # null: it diverged


class Floor(BaseModel):
    """What a predictor that learned nothing scores on the same tasks; further metrics are kept."""

    model_config = ConfigDict(extra="allow", frozen=True)

    mean: Score
    ci95: float | None = None

    @property
    def others(self) -> dict[str, float]:
        """Further metrics, such as `auc.raw` or `path_iou`."""
        return numbers(self.model_extra or {})


class Evaluation(BaseModel):
    """One `eval/*.json`; by_inner_step [S + 1] and per_task [T]; accuracies are fractions."""

    model_config = ConfigDict(extra="allow", frozen=True)

    metric: str
    mean: Score
    ci95: float | None
    tasks: int
    problem: str = ""
    method: str = ""
    backbone: str = ""
    data: str = ""
    split: str = ""
    trained_on: str | None = None
    way: int | None = None
    shot: int | None = None
    query: int | None = None
    seed: int | None = None
    task_hash: str | None = None
    norm_stats: str | None = None
    transductive: bool | None = None
    inner_steps: int | None = None
    by_inner_step: list[Score] = []
    by_inner_step_ci95: list[Score] = []
    floors: dict[str, Floor] = {}
    seconds: FiniteFloat | None = None
    note: str | None = None
    run: dict[str, Any] = {}
    per_task: list[Score] = []

    @model_validator(mode="after")
    def _lengths(self) -> Evaluation:
        steps, intervals = len(self.by_inner_step), len(self.by_inner_step_ci95)
        if intervals not in (0, steps):
            raise ValueError(f"by_inner_step has {steps} values but by_inner_step_ci95 {intervals}")
        return self

    @property
    def others(self) -> dict[str, float]:
        """Further metrics, such as `auc.raw` or `path_iou`."""
        return numbers(self.model_extra or {})


@dataclass(frozen=True)
class RunFiles:
    """A run folder as read; a part that is not there is empty.  Evaluations: the newest first."""

    path: Path
    recipe: str
    environment: dict[str, Any]
    split: dict[str, Any]
    metrics: dict[str, NDArray[np.float64]]
    evaluations: list[Evaluation]
    plots: dict[str, bytes]

    @property
    def main(self) -> Evaluation | None:
        """The headline: the newest result on the run's own test split, without a note before one that needs it."""
        ranked = sorted(
            self.evaluations, key=lambda result: (result.split != "test", bool(result.trained_on), bool(result.note))
        )
        return ranked[0] if ranked else None


def read_run(path: Path) -> RunFiles:
    """Reads a run folder."""
    if not path.is_dir():
        raise HandfulError(f"There is no run folder {str(path)!r}; give a folder that `handful train --out` made.")
    results = sorted(path.glob("eval/*.json"), key=lambda file: (file.stat().st_mtime_ns, file.name), reverse=True)
    return RunFiles(
        path=path,
        recipe=_recipe(path / "recipe.yaml"),
        environment=_json(path / "environment.json"),
        split=_split(path / "split.json"),
        metrics=_metrics(path / "metrics.csv"),
        evaluations=[_evaluation(file) for file in results],
        plots={file.stem: _png(file) for file in sorted(path.glob("plots/*.png"))},
    )


def numbers(tree: dict[str, Any]) -> dict[str, float]:
    """The numbers of a dictionary and of the dictionaries in it, by dotted name."""
    found: dict[str, float] = {}
    for key, value in tree.items():
        if isinstance(value, dict):
            found |= {f"{key}.{name}": number for name, number in numbers(value).items()}
        elif isinstance(value, int | float) and not isinstance(value, bool):
            found[key] = float(value)
    return found


def _text(path: Path) -> str:
    """The file's text; nothing if it does not exist."""
    try:
        return path.read_text(encoding="utf-8") if path.exists() else ""
    except (OSError, UnicodeDecodeError) as error:
        raise HandfulError(f"{path} cannot be read as text: {error}.") from error


def _recipe(path: Path) -> str:
    text = _text(path)
    try:
        from_yaml(text)
    except ValueError as error:
        raise HandfulError(f"{path} is damaged, it is {error}.") from error
    return text


def _json(path: Path) -> dict[str, Any]:
    if not path.exists():
        return {}
    try:
        content = from_json(_text(path))
    except ValueError as error:
        raise HandfulError(f"{path} is damaged, it is not JSON: {error}.") from error
    if not isinstance(content, dict):
        raise HandfulError(f"{path} is damaged: it must hold a JSON object, not a {type(content).__name__}.")
    return content


def _split(path: Path) -> dict[str, Any]:
    split = _json(path)
    if not isinstance(split.get("classes", {}), dict):
        raise HandfulError(f"{path} is damaged: classes must be an object, a number or a list for each split.")
    return split


def _evaluation(path: Path) -> Evaluation:
    try:
        return Evaluation.model_validate(_json(path))
    except ValidationError as error:
        first = error.errors()[0]
        place = ".".join(map(str, first["loc"]))
        raise HandfulError(
            f"{path} is not an evaluation result: {place}: {first['msg']}.".replace(": :", ":")
        ) from error


def _metrics(path: Path) -> dict[str, NDArray[np.float64]]:
    """The columns of metrics.csv, an empty cell as NaN; nothing if there are no rows."""
    try:
        rows = list(csv.DictReader(_text(path).splitlines(), restkey="surplus"))
    except csv.Error as error:
        raise HandfulError(f"{path} is damaged: {error}.") from error
    for number, row in enumerate(rows, start=2):
        if "surplus" in row or None in row.values():
            raise HandfulError(f"{path} is damaged: line {number} has not as many cells as the header.")
    absent = [column for column in METRICS if rows and column not in rows[0]]
    if absent:
        raise HandfulError(f"{path} is damaged: it has no column {absent[0]!r}.")
    try:
        return {key: np.array([float(row[key] or "nan") for row in rows]) for key in METRICS} if rows else {}
    except ValueError as error:
        raise HandfulError(f"{path} is damaged: {error}.") from error


def _png(path: Path) -> bytes:
    content = path.read_bytes()
    if not (content.startswith(PNG_START) and content.endswith(PNG_END)):
        raise HandfulError(f"{path} is damaged, it is not a whole PNG file; delete it, or make it anew.")
    return content
