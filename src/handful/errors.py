"""The one error that Handful raises for bad input, and the help it gives with a misspelt name."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from difflib import get_close_matches

TOO_LARGE = ("overflow", "allocate memory", "maximum allowed")  # in what torch and NumPy say of such sizes


class HandfulError(Exception):
    """Bad input: one sentence that names the thing, the number and the way out. The command line exits with 2.

    What it names, a file say, may hold any characters: those that would break the line are escaped.
    """

    def __init__(self, sentence: str) -> None:
        super().__init__("".join(c if c.isprintable() else repr(c)[1:-1] for c in sentence))


@contextmanager
def sizes_that_fit(what: str) -> Iterator[None]:
    """Within it, what is said of sizes of which there can be no array, or none in this machine's memory."""
    try:
        yield
    except (MemoryError, RuntimeError, TypeError, ValueError) as error:
        said = str(error).lower()
        if not isinstance(error, MemoryError) and not any(word in said for word in TOO_LARGE):
            raise
        raise HandfulError(f"{what} is too large to be made ({first_line(error)}); choose smaller sizes.") from error


def unknown(kind: str, name: str, known: Iterable[str], listed: str = "") -> HandfulError:
    """The error for a name that does not exist, with the nearest one that does.

    listed: what names all that there are, where they are too many for a sentence.
    """
    known = sorted(known)
    near = get_close_matches(name, known, n=1, cutoff=0.5)
    hint = f"did you mean {near[0]!r}?" if near else f"{listed} names all." if listed else f"known: {', '.join(known)}."
    return HandfulError(f"There is no {kind} {shown(name)}; {hint}")


def shown(value: object, most: int = 200) -> str:
    """A value as Python writes it, cut off where it is long."""
    text = repr(value)
    return text if len(text) <= most else f"{text[:most]}…"


def first_line(error: BaseException) -> str:
    """What an error of another program says, in one line; its name if it says nothing."""
    said = str(error).strip()
    return said.splitlines()[0] if said else type(error).__name__
