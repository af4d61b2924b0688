"""The command line: one verb a function, the same words as in Python and in recipes.

Heavy imports happen inside the verbs, so that `handful --help` and a mistyped word are answered at once.  A
HandfulError is one sentence on standard error and exit code 2.
"""

from __future__ import annotations

import os
import sys
import warnings
from collections.abc import Callable
from typing import Annotated

import typer

from handful.cli.data import build, check, list_data
from handful.cli.models import LOOPBACK, export, fit, predict, serve
from handful.cli.parts import list_parts
from handful.cli.results import compare, evaluate, report
from handful.cli.shared import flag, say, stoppable
from handful.cli.training import demo, reproduce, train
from handful.errors import HandfulError

__all__ = ["LOOPBACK", "app", "main"]

GOES_ON = "interrupted; the same command, without --fresh, goes on from where it was saved last."
RESUMED: tuple[Callable[..., None], ...] = (demo, train, reproduce)
VERBS: tuple[Callable[..., None], ...] = (evaluate, compare, fit, predict, export, serve, report)

app = typer.Typer(no_args_is_help=True, add_completion=False, pretty_exceptions_enable=False)
data_app = typer.Typer(help="Data sets: what is known, what is in a folder, building a store.", no_args_is_help=True)
for verb in RESUMED:
    app.command()(stoppable(verb, GOES_ON))
for verb in VERBS:
    app.command()(stoppable(verb))
app.command("list")(list_parts)
app.add_typer(data_app, name="data")
data_app.command("list")(list_data)
data_app.command()(stoppable(check))
data_app.command()(stoppable(build))


def main() -> None:
    """Entry point: errors that a person can mend are one sentence and exit code 2."""
    # Torch is not loaded yet; that all weights have been used in a step of several processes is nothing to warn of.
    os.environ.setdefault("TORCH_CPP_LOG_LEVEL", "ERROR")
    warnings.filterwarnings("ignore", "Image size .* exceeds limit")  # Pillow decodes twice as many pixels all the same
    try:
        app()
    except HandfulError as error:
        say(f"handful: {error}")
        sys.exit(2)


def version_wanted(value: bool) -> None:
    """Print the version and stop."""
    if value:
        from importlib.metadata import version

        print(version("handful"))
        raise typer.Exit


@app.callback()
def options(
    version: Annotated[bool, flag("--version", "Print the version.", callback=version_wanted, is_eager=True)] = False,
) -> None:
    """Teach a vision model a new task from a handful of examples."""
