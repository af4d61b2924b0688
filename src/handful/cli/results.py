"""evaluate, compare, report."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from handful.cli.shared import (
    INDUCTIVE,
    LARGEST_SEED,
    Devices,
    Json,
    Moved,
    Nodes,
    NormStatistics,
    On,
    flag,
    show,
)
from handful.errors import HandfulError


def evaluate(
    run: Annotated[Path, typer.Argument(help="A run folder.")],
    data: Moved = None,
    on: On = None,
    split: Annotated[str, typer.Option(help="train, val or test.")] = "test",
    way: Annotated[int | None, typer.Option(min=1)] = None,
    shot: Annotated[int | None, typer.Option(min=1)] = None,
    query: Annotated[int | None, typer.Option(min=1, help="Queries a class.")] = None,
    tasks: Annotated[int | None, typer.Option(min=2)] = None,
    seed: Annotated[int | None, typer.Option(min=0, max=LARGEST_SEED, help="Draws the tasks.")] = None,
    inner_steps: Annotated[int | None, typer.Option(min=0)] = None,
    norm_stats: NormStatistics = None,
    inductive: Annotated[bool, flag("--inductive", f"Score it inductively: {INDUCTIVE}.")] = False,
    support: Annotated[
        str | None,
        typer.Option(
            help="Of labelled clips: normal, or clip_start to take the first windows of each for normal, as published."
        ),
    ] = None,
    per_episode: Annotated[
        bool, flag("--per-episode", "Embed images anew for every task: slow, and the same.")
    ] = False,
    devices: Devices = 1,
    nodes: Nodes = 1,
    as_json: Json = False,
) -> None:
    """Score a run on many tasks, with interval, floors and task hash; what is not said is as in its recipe."""
    from handful.evaluation import evaluate as score
    from handful.launching import launched
    from handful.recipe import read_data_recipe
    from handful.run import Run, open_data

    opened = Run.open(run, data)
    tested = (open_data(read_data_recipe(on)) if on else opened.data).split(split)
    with launched(devices, nodes, "32-true") as fabric:
        opened.method.to(fabric.device)
        result = score(
            opened,
            tested,
            way=way,
            shot=shot,
            query=query,
            tasks=tasks,
            seed=seed,
            inner_steps=inner_steps,
            norm_stats=norm_stats,  # type: ignore[arg-type]  # checked where it is used
            inductive=inductive,
            support=support,  # type: ignore[arg-type]  # checked where it is used
            embed_once=not per_episode,
        )
    path = result.save(run)
    show(result.as_dict(), as_json, f"{result}\nwritten to {path}")


def compare(
    runs: Annotated[list[Path], typer.Argument(help="Run folders; the first is the baseline.")],
    data: Moved = None,
    on: On = None,
    way: Annotated[int | None, typer.Option(min=1)] = None,
    shot: Annotated[int | None, typer.Option(min=1)] = None,
    query: Annotated[int | None, typer.Option(min=1)] = None,
    tasks: Annotated[int | None, typer.Option(min=2)] = None,
    seed: Annotated[
        int | None, typer.Option(min=0, max=LARGEST_SEED, help="Draws the tasks; as in the first run's recipe.")
    ] = None,
    inner_steps: Annotated[
        int | None, typer.Option(min=0, help="Inner steps of every run; as in its own recipe if not said.")
    ] = None,
    norm_stats: NormStatistics = None,
    inductive: Annotated[bool, flag("--inductive", f"Score all of them inductively: {INDUCTIVE}.")] = False,
    out: Annotated[
        Path | None,
        typer.Option(help="NAME.html: write a page, with NAME-forest.png and NAME-adaptation.png beside it."),
    ] = None,
    as_json: Json = False,
) -> None:
    """Score runs on the same tasks: paired differences to the first with 95 % intervals.

    The runs stay as they are. --out writes one self-contained page: the results with their floors, the differences
    as a forest plot, the adaptation curve of each run, and the runs themselves.
    """
    from dataclasses import asdict, replace

    from handful.comparison import clear_of_zero, score_together
    from handful.comparison import compare as paired
    from handful.recipe import read_data_recipe
    from handful.run import open_data
    from handful.wording import measured

    if out is not None and out.suffix != ".html":
        raise HandfulError(f"--out names the page to write, which ends in .html; {str(out)!r} does not.")
    results = score_together(
        runs,
        way=way,
        shot=shot,
        query=query,
        tasks=tasks,
        seed=seed,
        inner_steps=inner_steps,
        norm_stats=norm_stats,  # type: ignore[arg-type]  # checked where it is used
        inductive=inductive,
        data_root=data,
        data=open_data(read_data_recipe(on)) if on else None,
    )
    differences = paired(results)
    metric = next(iter(results.values())).metric
    written: list[Path] = []
    if out:
        from handful.report import write_comparison

        written = write_comparison(results, out)
    lines = [f"{name}: {result}" for name, result in results.items()]
    lines += [
        f"{d.label}: {measured(d.mean, d.ci95, metric, signed=True)} (95 % over {d.tasks} paired tasks)"
        for d in differences
    ]
    lines += [clear_of_zero(sum(d.clear for d in differences), len(differences)) + "."]
    lines += [f"written to {path}" for path in written]
    value = {
        "results": [{"name": name, **replace(result, per_task=[]).as_dict()} for name, result in results.items()],
        "differences": [asdict(d) for d in differences],
        "written": [str(path) for path in written],
    }
    show(value, as_json, "\n".join(lines))


def report(
    runs: Annotated[list[Path], typer.Argument(help="Run folders.")],
    out: Annotated[Path | None, typer.Option(help="The HTML file; RUN/report.html for one run.")] = None,
    record: Annotated[
        Path | None,
        typer.Option(help="Also write the run's figures, settings and machine to a JSON file, to keep by its recipe."),
    ] = None,
) -> None:
    """Draw the plots of runs and write one self-contained HTML page."""
    from handful.report import write_record, write_report, write_run_plots
    from handful.run import is_run

    if record is not None and len(runs) > 1:
        raise HandfulError(f"--record keeps the figures of one run, not of {len(runs)}; name one.")
    for run in runs:
        if not is_run(run):  # a page would be written into it
            raise HandfulError(f"{run} is not a run folder; give one that `handful train --out` made.")
        write_run_plots(run)
    if out is None and len(runs) > 1:
        raise HandfulError("Several runs need --out FILE.html for their common report.")
    print(write_report(runs, out or runs[0] / "report.html"))
    if record is not None:
        print(write_record(runs[0], record))
