"""The report: one HTML file that holds all it shows, for a run or for several.

`write_run_plots` draws what can be drawn from the files of a run, `write_report` lays out the page, and
`write_comparison` does so for runs that were just scored together.
"""

from __future__ import annotations

import base64
import math
import os
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import jinja2
import numpy as np
from markupsafe import Markup

from handful import wording
from handful.comparison import Difference, paired_differences
from handful.evaluation import Result
from handful.files import write_bytes, write_text
from handful.problems import PROBLEMS, Classification
from handful.report import plots
from handful.report.run_files import Evaluation, RunFiles, read_run

PICTURES = {  # in the order of the page
    "contact_sheet": "One task: the pictures it was learned from, and how the others were named",
    "fitted_curves": "Six test tasks: the function, the points it was learned from, and the fit after each inner step; "
    "above each the mean squared error over the whole curve, before → after",
    "task_histogram": "Every task of the evaluation, with the floors",
    "adaptation_curve": "The same tasks after each inner step",
    "step_sizes": "The step sizes that were learned for the inner loop, a row a parameter tensor",
    "learning_curve": "Training, and the validation that chose the weights",
}
NORM_STATS = {
    "batch": "normalisation uses the statistics of the batch at hand",
    "running": "normalisation uses the running statistics of training",
    "support": "normalisation uses the statistics of the support set",
    "support+1": "normalisation uses the statistics of the support set and the one query together",
    "per_step": "normalisation uses running statistics that training kept for each inner step",
    "none": "the network has no batch normalisation",
}


@dataclass(frozen=True)
class Column:
    """The results on one list of tasks: run label -> its newest result; pictures drawn from them, as PNG."""

    results: dict[str, Evaluation]
    differences: list[Difference]
    forest: bytes | None
    adaptation: bytes | None

    @property
    def any(self) -> Evaluation:
        """One of them: what they share can be read from it."""
        return next(iter(self.results.values()))

    @property
    def shared(self) -> bool:
        """Whether there is something to compare."""
        return len(self.results) > 1


def write_report(runs: Sequence[Path], out: Path) -> Path:
    """Writes the page of one run, or of several with their comparison above, to `out`.

    It fetches nothing and needs no script; what a run folder lacks is said on the page.
    """
    read = {label: read_run(path) for label, path in _labels(runs).items()}
    _write_page(read, _columns(read) if len(read) > 1 else [], out)
    return out


def write_comparison(results: Mapping[str, Result], out: Path) -> list[Path]:
    """Writes the page of runs that were scored together, and its pictures beside it: NAME-forest.png and so on.

    results: run folder -> its result, all on the same tasks.  The page compares these results and no others; below
    stand the runs with what their folders hold.
    """
    labels = _labels([Path(folder) for folder in results])
    resolved = {Path(folder).resolve(): result for folder, result in results.items()}
    column = _column({label: Evaluation(**asdict(resolved[path])) for label, path in labels.items()})
    _write_page({label: read_run(path) for label, path in labels.items()}, [column], out, together=True)
    written = [out]
    for name, picture in (("forest", column.forest), ("adaptation", column.adaptation)):
        if picture:
            path = out.with_name(f"{out.stem}-{name}.png")
            write_bytes(path, picture)
            written.append(path)
    return written


def _write_page(runs: dict[str, RunFiles], columns: list[Column], out: Path, together: bool = False) -> None:
    """Fill in the template; `together`: the columns were measured for this page, not read from the runs."""
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(Path(__file__).parent),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= {"measured": _measured, "inline": _inline}
    environment.globals |= {"wording": wording, "setting": _setting, "reading": _reading}
    page = environment.get_template("report.html").render(
        runs=runs,
        columns=columns,
        together=together,
        floors=list(dict.fromkeys(name for column in columns for name in column.any.floors)),
        pictures=PICTURES,
        training={label: _training(run) for label, run in runs.items()},
        environments={label: _flat(run.environment) for label, run in runs.items()},
    )
    write_text(out, page)


def write_run_plots(run: Path) -> list[Path]:
    """Draws learning_curve, adaptation_curve and task_histogram into run/plots/, as far as the files go."""
    folder, made = read_run(run), run / "plots"
    result, metrics, written = folder.main, folder.metrics, []
    if metrics:
        validated = np.isfinite(metrics["val_mean"])
        steps, means, intervals = (metrics[key][validated] for key in ("step", "val_mean", "val_ci95"))
        curve = plots.learning_curve(metrics["step"], metrics["loss"], steps, means, intervals, _metric(folder))
        written.append(plots.save(curve, made / "learning_curve.png"))
    if result and len(result.by_inner_step) > 1:
        curve = plots.adaptation_curve(
            {run.name: (result.by_inner_step, result.by_inner_step_ci95 or None)}, result.metric, _floors(result)
        )
        written.append(plots.save(curve, made / "adaptation_curve.png"))
    if result and np.isfinite(result.per_task).any():
        spread = plots.task_histogram(result.per_task, _floors(result), result.metric)
        written.append(plots.save(spread, made / "task_histogram.png"))
    return written


def _labels(runs: Sequence[Path]) -> dict[str, Path]:
    """A short name for each run, and the path where names are shared; a run given twice is shown once."""
    paths = list(dict.fromkeys(Path(run).resolve() for run in runs))
    short = [path.name for path in paths]
    common = Path(os.path.commonpath(paths)) if len(paths) > 1 else Path()
    return {
        name if short.count(name) == 1 else path.relative_to(common).as_posix(): path
        for name, path in zip(short, paths)
    }


def _columns(runs: dict[str, RunFiles]) -> list[Column]:
    """One column for each list of tasks, the most shared first; transductive and inductive results never share one."""
    groups: dict[tuple[str, str, bool | None], dict[str, Evaluation]] = {}
    for label, run in runs.items():
        for result in run.evaluations:  # the newest first
            if result.task_hash:
                groups.setdefault((result.task_hash, result.metric, result.transductive), {}).setdefault(label, result)
    columns = [_column(results) for results in groups.values()]
    return sorted(columns, key=lambda column: (-len(column.results), bool(column.any.note)))


def _column(results: dict[str, Evaluation]) -> Column:
    metric = next(iter(results.values())).metric
    paired = {label: result.per_task for label, result in results.items() if result.per_task}
    comparable = len({len(scores) for scores in paired.values()}) == 1
    differences = paired_differences(paired) if comparable else []
    rows = [(difference.label, difference.mean, difference.ci95) for difference in differences]
    curves = {label: (r.by_inner_step, r.by_inner_step_ci95 or None) for label, r in results.items() if r.by_inner_step}
    adapted = len(curves) > 1 and any(len(means) > 1 for means, _ in curves.values())
    return Column(
        results=results,
        differences=differences,
        forest=plots.png(plots.forest(rows, metric)) if rows else None,
        adaptation=plots.png(plots.adaptation_curve(curves, metric, _floors(next(iter(results.values())))))
        if adapted
        else None,
    )


def _metric(run: RunFiles) -> str:
    """What the validation columns of metrics.csv hold."""
    if run.main:
        return run.main.metric
    problem = PROBLEMS.get(str(run.split.get("problem")), Classification)
    return problem.metric


def _training(run: RunFiles) -> str:
    """`20,000 steps in 3 h 20 min; best validation accuracy 97.1 ± 0.3 % at step 18,000.`"""
    if not run.metrics:
        return ""
    metric, step, seconds = _metric(run), run.metrics["step"], run.metrics["seconds"]
    said = f"Trained for {step[-1]:,.0f} steps"
    if math.isfinite(seconds[-1]):
        said += f" in {wording.duration(seconds[-1])}"
    means = run.metrics["val_mean"]
    if np.isfinite(means).any():
        best = int(np.nanargmin(means) if wording.lower_is_better(metric) else np.nanargmax(means))
        value = wording.measured(means[best], run.metrics["val_ci95"][best], metric)
        said += f"; best validation {wording.name(metric)} {value} at step {step[best]:,.0f}"
    return said + "."


def _setting(result: Evaluation) -> str:
    """`600 tasks from the test split of omniglot, 5-way 1-shot, 15 queries a class`."""
    where = " of ".join(filter(None, [f"the {result.split} split" if result.split else "", result.data]))
    parts = [wording.count(result.tasks, "task") + (f" from {where}" if where else "")]
    parts.append(wording.protocol(result.way, result.shot, result.query))
    return ", ".join(filter(None, parts))


def _reading(result: Evaluation) -> tuple[str, str]:
    """`transductive` or `inductive`, and what that means here."""
    stats = NORM_STATS.get(result.norm_stats or "", f"normalisation statistics: {result.norm_stats or 'not recorded'}")
    if result.transductive is None:
        return "not recorded whether transductive or inductive", stats
    if result.transductive:
        shared = (
            "the query batch shares its statistics, so each answer depends on the other queries of its task"
            if result.norm_stats == "batch"
            else f"each answer may depend on the other queries of its task; {stats}"
        )
        return "transductive", shared
    return "inductive", f"every query is answered on its own; {stats}"


def _floors(result: Evaluation) -> dict[str, float]:
    return {name: floor.mean for name, floor in result.floors.items()}


def _measured(result: Any, metric: str = "accuracy", signed: bool = False) -> str:
    """The mean and interval of anything that has both."""
    return wording.measured(result.mean, result.ci95, metric, signed)


def _flat(tree: dict[str, Any], prefix: str = "") -> dict[str, str]:
    """A tree of settings as lines, by dotted name."""
    lines: dict[str, str] = {}
    for key, value in tree.items():
        lines |= (
            _flat(value, f"{prefix}{key}.")
            if isinstance(value, dict)
            else {f"{prefix}{key}": "–" if value is None else str(value)}
        )
    return lines


def _inline(content: bytes) -> Markup:
    """A PNG as the address of an image."""
    return Markup("data:image/png;base64," + base64.b64encode(content).decode())
