"""What the verbs share: options, printing, being stopped."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterable
from functools import wraps
from typing import Annotated, Any, ParamSpec, Protocol

import typer

P = ParamSpec("P")

LARGEST_SEED = 2**43 - 1  # as in recipes
INDUCTIVE = "by support statistics, or running ones of a metric method"


def flag(name: str, help: str, **more: Any) -> Any:
    """An option that takes no value; typer would show the type of one."""
    return typer.Option(name, metavar="", help=help, **more)


Json = Annotated[bool, flag("--json", "Print JSON instead of text.")]
NormStatistics = Annotated[
    str | None,
    typer.Option(
        help="Whose batch-norm statistics: batch, support, support+1, running or per_step; running alone of a metric "
        "method. As in its recipe if not said."
    ),
]
On = Annotated[
    str | None,
    typer.Option(
        help="Draw the tasks from other data: a name of `handful data list`, or the data section of a recipe, such as "
        "'{name: folder, root: photos/, image_size: 84}'."
    ),
]
Devices = Annotated[
    int, typer.Option(min=1, help="Processes on each machine that share the tasks, one a GPU where there are GPUs.")
]
Nodes = Annotated[int, typer.Option(min=1, help="Machines, with processes that torchrun or SLURM has started on each.")]
Moved = Annotated[str | None, typer.Option(help="Folder of the run's data, if it has moved.")]


def show(value: Any, as_json: bool, text: str) -> None:
    """Print a result as JSON or as text."""
    from handful.files import to_json

    print(to_json(value) if as_json else text)


def say(line: str) -> None:
    """Print a line that is no part of the result."""
    print(line, file=sys.stderr)


def stoppable(verb: Callable[P, None], message: str = "interrupted.") -> Callable[P, None]:
    """The verb; stopped by Ctrl-C it says so, and exits with the code that shells expect."""

    @wraps(verb)
    def run(*args: P.args, **options: P.kwargs) -> None:
        try:
            verb(*args, **options)
        except KeyboardInterrupt:
            say(f"handful: {message}")
            raise typer.Exit(130) from None

    return run


class Answer(Protocol):
    """What can be printed: as text, and as JSON."""

    def as_dict(self) -> dict[str, Any]:
        """For JSON."""


def show_each(answers: Iterable[Answer], as_json: bool) -> None:
    """Print results as they come, as a JSON list or as lines; the list is closed whatever happens to a later one."""
    from handful.files import to_json

    if not as_json:
        for answer in answers:
            print(answer)
        return
    before = "["
    try:
        for answer in answers:
            print(f"{before}{to_json(answer.as_dict())}", end="")
            before = ",\n"
    finally:
        print("[]" if before == "[" else "]")
