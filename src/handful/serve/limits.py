"""What a client may ask of the server, and the answer to one that asks for more."""

from __future__ import annotations

from dataclasses import dataclass

from handful.errors import HandfulError


@dataclass(frozen=True)
class Limits:
    """The most that is taken from a client.

    upload: bytes of a request; pixels: of a picture; pictures: of a request, and of all that the page is taught;
    seconds: from a request to its answer; waiting: requests that are being answered or wait for it.
    """

    upload: int = 32 * 2**20
    pixels: int = 50_000_000
    pictures: int = 64
    seconds: float = 60.0
    waiting: int = 128


class Refused(HandfulError):
    """A request that is not answered: one sentence, and the HTTP status that says the same."""

    def __init__(self, status: int, sentence: str) -> None:
        super().__init__(sentence)
        self.status = status
