"""The record of a run: its figures and all that belongs to them, in one small JSON file to keep beside a recipe."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from handful.errors import HandfulError
from handful.files import to_json, write_text
from handful.reading import from_yaml
from handful.report.run_files import read_run


def write_record(run: Path, out: Path) -> Path:
    """Write what a run was (settings, steps, minutes, machine) and its test results, the newest first.

    Left out are the single tasks of a result, and where things lie on this machine.
    """
    folder = read_run(run)
    results = [result for result in folder.evaluations if result.split == "test"]
    settings: dict[str, Any] = from_yaml(folder.recipe) or {}
    if not (results and settings):
        raise HandfulError(f"{run} has no recipe.yaml, or no test result yet, to make a record of; train it first.")
    stages = [read_run(path).metrics for path in (run / "pretrain", run) if path.is_dir()]
    logged = [metrics for metrics in stages if metrics]
    record = {
        "recipe": settings["name"],
        "steps": sum(int(metrics["step"][-1]) for metrics in logged),
        "training_minutes": round(sum(float(metrics["seconds"][-1]) for metrics in logged) / 60, 1),
        "environment": {key: value for key, value in folder.environment.items() if key != "platform"},
        "results": [result.model_dump(exclude={"per_task"}) for result in results],
        "settings": settings | {"data": {key: value for key, value in settings["data"].items() if key != "root"}},
    }
    write_text(out, to_json(record) + "\n")
    return out
