"""What stands before every request: how much, how many at a time, how long, and which ways in there are.

The page's own ways (Gradio's) can do more than this page needs, such as fetching an address or a file that a client
names; here, all that is not needed is closed, and a client can name no file but one that it has sent.
"""

from __future__ import annotations

import asyncio
import json
import re
import stat
from collections.abc import Collection, Iterator
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit

from python_multipart.multipart import parse_options_header
from starlette.exceptions import HTTPException
from starlette.responses import JSONResponse
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from handful.serve.limits import Limits, Refused
from handful.serve.uploads import lying

PAGE = "/gradio_api/"
UPLOAD, CALL, FILE = PAGE + "upload", PAGE + "queue/join", PAGE + "file="
BOUNDED = ("/predict", "/models/", UPLOAD, CALL, FILE)  # in number and in time; streams last as long as a page is open
METHODS = {"/predict": "POST", "/health": "GET", "/openapi.json": "GET"}
SLOWEST = 2**16  # bytes a second, at which an answer has to be read
OPEN = ("queue/join", "queue/data", "upload", "heartbeat/", "startup-events", "app_id", "file=")
JSON_BYTES = 4 * 2**20  # of a request that is no upload: drawings are small
ADDRESS = re.compile(rf"(?:https?:/)?/(?:.*?/)?{PAGE[1:]}file=(.*)", re.DOTALL)  # of a file that was sent
FOLDER_BYTES, FOLDER_FILES = 2**30, 4096  # of pictures that wait on the page
# The page asks nothing of any other host.  Its components are compiled from templates in the browser (eval).
POLICY = (
    "default-src 'self'; script-src 'self' 'unsafe-inline' 'unsafe-eval'; style-src 'self' 'unsafe-inline'; "
    "img-src 'self' data: blob:; font-src 'self' data:; connect-src 'self' data: blob:; worker-src 'self' blob:; "
    "base-uri 'self'; form-action 'self'"
)
HEADERS = [
    (b"content-security-policy", POLICY.encode()),
    (b"x-content-type-options", b"nosniff"),
    (b"referrer-policy", b"no-referrer"),
]


class TooLong(HTTPException):
    """A body that goes on beyond what is taken; raised where it is read, which is the application's to answer."""


class Gate:
    """ASGI middleware.

    uploads: the folder that holds what the page's clients have sent; hosts: the names that the server is asked by, if
    not by any: a page of another host could otherwise let its own name lead here, and read the answers.
    """

    def __init__(self, app: ASGIApp, limits: Limits, uploads: Path, hosts: Collection[str] = ()) -> None:
        self.app, self.limits, self.uploads, self.hosts = app, limits, uploads.resolve(), hosts
        self.inside = 0

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer a request, or refuse it with one sentence."""
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        path: str = scope["path"]
        counts = path.startswith(BOUNDED)
        late = asyncio.timeout(self.limits.seconds if counts else None)
        started = False

        async def answer(message: Message) -> None:
            nonlocal started
            if message["type"] == "http.response.start":
                started = True
                if counts:  # who reads slowly has more time, and not for ever
                    length = int(dict(message["headers"]).get(b"content-length", 0))
                    late.reschedule(asyncio.get_running_loop().time() + self.limits.seconds + length / SLOWEST)
                message["headers"] = [*message["headers"], *HEADERS]
            await send(message)

        self.inside += counts
        try:
            async with late:
                body = self._admit(scope, path, receive)
                if path == UPLOAD and await asyncio.to_thread(full, self.uploads):
                    raise Refused(503, "The server holds as many pictures as it may; try again in an hour.")
                if path == CALL:
                    body = await self._without_paths(body)
                await self.app(scope, body, answer)
        except (Refused, TooLong, TimeoutError) as error:
            if started and late.expired():
                return  # the connection is closed
            if started:
                raise
            await refusal(self._said(error))(scope, receive, send)
        finally:
            self.inside -= counts

    def _admit(self, scope: Scope, path: str, receive: Receive) -> Receive:
        """Refuse by what is known before the body; else the body, which is counted as it is read."""
        if self.hosts and host_of(scope) not in self.hosts:
            raise Refused(400, f"This server is asked by the names {', '.join(self.hosts)} alone; use one.")
        if path.startswith(BOUNDED) and self.inside > self.limits.waiting:
            raise Refused(503, f"{self.limits.waiting} requests are waiting already; try again in a moment.")
        method = "GET" if path.startswith("/models/") else METHODS.get(path, scope["method"])
        if scope["method"] != method:
            raise Refused(405, f"{path} is asked by {method}, not by {scope['method']}; /openapi.json says how.")
        upload = path in ("/predict", UPLOAD)
        if path.startswith(PAGE):
            way = path.removeprefix(PAGE)
            if not way.startswith(OPEN) or (way.startswith("file=") and not self._sent(way.removeprefix("file="))):
                raise Refused(404, "There is nothing here.")
        most = self.limits.upload if upload else JSON_BYTES
        long = f"The request is longer than {most:,} bytes, the most that is taken; send fewer or smaller pictures."
        lengths = [value for name, value in scope["headers"] if name == b"content-length"]
        if any(not value.isdigit() for value in lengths):
            raise Refused(400, "The request does not say its length by a number.")
        if any(int(value) > most for value in lengths):
            raise Refused(413, long)
        seen, parts, tail = 0, -1, b""  # the last part is followed by one more mark
        mark = boundary(scope) if path == UPLOAD else b""

        async def counted() -> Message:
            nonlocal seen, parts, tail
            message = await receive()
            body = message.get("body", b"")
            seen += len(body)
            if seen > most:
                raise TooLong(413, long)
            if mark:
                parts, tail = parts + (tail + body).count(mark), (tail + body)[1 - len(mark) :]
            if parts > self.limits.pictures:
                raise TooLong(413, f"More than {self.limits.pictures} pictures are not taken at a time; send fewer.")
            return message

        return counted

    async def _without_paths(self, receive: Receive) -> Receive:
        """The body of a page's call, if it names no file but such as were sent to this server."""
        body, more = b"", True
        while more:
            message = await receive()
            if message["type"] == "http.disconnect":
                break
            body, more = body + message.get("body", b""), message.get("more_body", False)
        try:
            named = list(files(json.loads(body)))
        except (ValueError, RecursionError) as error:
            raise Refused(400, "The request holds no JSON.") from error
        if not all(isinstance(path, str) and self._sent(path) for path in named):
            raise Refused(400, "The request names a file that was not sent to this server.")
        given = False

        async def again() -> Message:
            nonlocal given
            if given:
                return await receive()
            given = True
            return {"type": "http.request", "body": body, "more_body": False}

        return again

    def _sent(self, path: str) -> bool:
        """Whether a path is of a file among the uploads."""
        try:
            return Path(path).resolve().is_relative_to(self.uploads)
        except (OSError, ValueError):
            return False

    def _said(self, error: Exception) -> Refused:
        if isinstance(error, TimeoutError):
            within = f"There was no answer within {self.limits.seconds:g} s"
            return Refused(503, f"{within}; try again, or with fewer pictures.")
        return error if isinstance(error, Refused) else Refused(413, str(getattr(error, "detail", error)))


def files(value: Any) -> Iterator[Any]:
    """The paths of all files that JSON names, by whatever is called a path or an address anywhere in it.

    Gradio would decode an address that holds a picture (data:) by itself, whatever its size and format.
    """
    if isinstance(value, dict):
        named = {name: inner for name, inner in value.items() if name in ("path", "url") and inner is not None}
        yield from (path_of(inner) if name == "url" else inner for name, inner in named.items())
    if isinstance(value, dict | list):
        for inner in value.values() if isinstance(value, dict) else value:
            yield from files(inner)


def path_of(address: Any) -> str | None:
    """The path in the address of a file on this server; None of any other."""
    found = ADDRESS.fullmatch(address) if isinstance(address, str) else None
    return unquote(found[1]) if found else None


def host_of(scope: Scope) -> str | None:
    """The host that a request is addressed to, without its port."""
    try:
        host: bytes = dict(scope["headers"]).get(b"host", b"")
        return urlsplit("//" + host.decode("latin-1")).hostname
    except ValueError:
        return None


def boundary(scope: Scope) -> bytes:
    """What stands before each part of a multipart body, and after the last."""
    _, options = parse_options_header(dict(scope["headers"]).get(b"content-type", b""))
    return b"--" + options[b"boundary"] if options.get(b"boundary") else b""


def full(folder: Path) -> bool:
    """Whether there is as much in a folder, and below it, as may be."""
    sizes = [found.st_size for _, found in lying(folder) if stat.S_ISREG(found.st_mode)]
    return len(sizes) >= FOLDER_FILES or sum(sizes) >= FOLDER_BYTES


def refusal(error: Refused) -> JSONResponse:
    """A refusal as its client reads it."""
    headers = {"Retry-After": "1"} if error.status == 503 else None
    return JSONResponse({"error": str(error)}, error.status, headers)
