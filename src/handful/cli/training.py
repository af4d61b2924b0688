"""demo, train."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from handful.cli.shared import Devices, Json, Nodes, flag


def demo(
    problem: Annotated[
        str,
        typer.Option(
            help="classification (drawn characters), rails (rendered views from a train's cab) or video (rendered "
            "scenes with odd movers)."
        ),
    ] = "classification",
    out: Annotated[
        Path | None, typer.Option(help="Folder for everything the demo makes; out/demo, out/demo-PROBLEM if not said.")
    ] = None,
    max_minutes: Annotated[float, typer.Option(min=0, help="Longest training time, in minutes.")] = 2.5,
    fresh: Annotated[bool, flag("--fresh", "Start anew instead of going on.")] = False,
) -> None:
    """The main job end to end on embedded data: meta-train, evaluate, fit on a few examples, predict, report."""
    from handful.demo import DEMOS
    from handful.errors import unknown

    if problem not in DEMOS:
        raise unknown("problem of the demo", problem, DEMOS)
    folder = "demo" if problem == "classification" else f"demo-{problem}"
    DEMOS[problem](out or Path("out") / folder, max_minutes, fresh)


def train(
    recipe: Annotated[str, typer.Argument(help="A recipe file, or the name of a shipped one.")],
    out: Annotated[Path, typer.Option(help="The run folder; training resumes where it stopped.")],
    changes: Annotated[list[str] | None, typer.Option("--set", help="Change a recipe key: a.b=value.")] = None,
    precision: Annotated[
        str, typer.Option(help="32-true, or bf16-mixed: backbones of metric methods and pre-training in bfloat16.")
    ] = "32-true",
    devices: Devices = 1,
    nodes: Nodes = 1,
    max_minutes: Annotated[
        float | None,
        typer.Option(
            min=0,
            help="Stop after this much training of all sessions together, saved and evaluated. Looked at ten times "
            "between two validations.",
        ),
    ] = None,
    fresh: Annotated[bool, flag("--fresh", "Start anew: delete the run that is in --out.")] = False,
    as_json: Json = False,
) -> None:
    """Train as a recipe says, evaluate on the test classes, write the report."""
    from handful.recipe import load_recipe
    from handful.training import train_recipe

    found = load_recipe(recipe, changes or [])
    _, results = train_recipe(
        found,
        out,
        precision=precision,  # type: ignore[arg-type]  # checked where it is used
        devices=devices,
        nodes=nodes,
        max_minutes=max_minutes,
        fresh=fresh,
        quiet=as_json,
    )
    if as_json:
        print(f"[{', '.join(result.to_json() for result in results)}]")
