"""`handful serve`: open a model or a run, listen, stop cleanly."""

from __future__ import annotations

import asyncio
import errno
import logging
import os
import signal
import socket
import warnings
from collections.abc import Collection
from importlib.util import find_spec
from ipaddress import ip_address
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING

import numpy as np
from PIL import Image

from handful import wording
from handful.errors import HandfulError
from handful.serve.limits import Limits
from handful.serve.served import Served, open_served

if TYPE_CHECKING:
    from fastapi import FastAPI

PACKAGES = ("gradio", "fastapi", "uvicorn")
QUEUE = 2048  # connections that the system holds before they are accepted
EVERY = 60  # seconds, what has lain on the page for too long is deleted
GRACE = 2  # seconds for answers that are under way when the server is stopped


async def application(served: Served, limits: Limits, uploads: Path, hosts: Collection[str] = ()) -> FastAPI:
    """Endpoints and page; uploads: a folder for the pictures that lie on the page; hosts: as `Gate` takes them.

    Made where an event loop runs: Gradio would otherwise open one, and leave it open.
    """
    os.environ["GRADIO_ANALYTICS_ENABLED"] = "False"  # both are read when Gradio is imported or a page is made
    os.environ["GRADIO_TEMP_DIR"] = str(uploads)
    from handful.serve.api import api
    from handful.serve.page import mount
    from handful.serve.teaching import Shelf, Taught
    from handful.serve.worker import Worker, answers_to

    # The limit of pixels is asked right after Pillow's warning; filters are one for all threads.
    warnings.simplefilter("ignore", Image.DecompressionBombWarning)
    if served.model is not None:  # the first answer takes longest: it makes the embedder, and settles the head
        seen = served.preprocessing
        answers_to(served.model, [np.zeros((seen.channels, seen.height, seen.width), np.uint8)], [""])
    shelf, worker = Shelf(Taught(served.model) if served.model else None), Worker()
    return mount(api(served.name, shelf, worker, limits, uploads, hosts), served, shelf, worker, limits)


def serve(folder: Path, host: str, port: int, limits: Limits, data: str | None = None) -> None:
    """Serve until Ctrl-C or SIGTERM.  Raises HandfulError: no model or run, the extra not installed, a taken port."""
    if missing := [package for package in PACKAGES if find_spec(package) is None]:
        raise HandfulError(
            f"To serve a page, {' and '.join(missing)} must be installed: pip install 'handful[web]' brings it."
        )
    with listen(host, port) as listening:  # a port that is taken is told before a model is opened
        served = open_served(folder, data)
        for number in (signal.SIGINT, signal.SIGTERM):  # either as Ctrl-C, so that what is temporary is deleted
            signal.signal(number, signal.default_int_handler)
        classes = wording.count(len(served.model.card.classes), "class") if served.model else "a run, to be taught"
        shown = f"[{host}]" if ":" in host else host
        address = f"http://{shown}:{listening.getsockname()[1]}"
        with TemporaryDirectory(prefix="handful-") as uploads:
            print(f"{served.name} ({classes}) is served at {address} until Ctrl-C.", flush=True)
            try:
                asyncio.run(answering(served, limits, Path(uploads), listening, names_of(host)))
            except KeyboardInterrupt:  # uvicorn raises it again once it has stopped
                print("stopped")


async def answering(
    served: Served, limits: Limits, uploads: Path, listening: socket.socket, hosts: Collection[str]
) -> None:
    """Answer until a signal comes."""
    import uvicorn

    app = await application(served, limits, uploads, hosts)
    sweeping = asyncio.create_task(tidy(uploads))
    config = uvicorn.Config(app, log_level="warning", timeout_graceful_shutdown=GRACE)
    server = uvicorn.Server(config)
    # An open page holds a stream that ends only by being cut off, which is no error once a signal has come.
    logging.getLogger("uvicorn.error").addFilter(lambda record: not server.should_exit)
    await server.serve(sockets=[listening])
    sweeping.cancel()


async def tidy(uploads: Path) -> None:
    """Delete what has lain on the page for too long, as long as the server runs."""
    from handful.serve.uploads import AGE, sweep

    while True:
        await asyncio.sleep(EVERY)
        await asyncio.to_thread(sweep, uploads, AGE)


def names_of(host: str) -> list[str]:
    """The names that a server on this host is asked by: of one that listens on loopback, its own; of others, any."""
    try:
        loopback = host == "localhost" or ip_address(host).is_loopback
    except ValueError:
        loopback = False
    return list(dict.fromkeys(["localhost", "127.0.0.1", "::1", host])) if loopback else []


def listen(host: str, port: int) -> socket.socket:
    """A socket that listens; of port 0, a free one."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    try:
        listening = socket.create_server((host, port), family=family, backlog=QUEUE)
    except OSError as error:
        if error.errno == errno.EADDRINUSE:
            raise HandfulError(
                f"Port {port} of {host} is in use; name another by --port, or 0 for a free one."
            ) from error
        raise HandfulError(
            f"It is not possible to listen on port {port} of {host} ({error.strerror or error}); name another by "
            "--port, or an address of this machine by --host."
        ) from error
    # Head and body of an answer are sent apart.  Else the body waits for the client to confirm the head, which it puts
    # off for 40 ms.  Connections inherit this; asyncio sets it only where the socket names its protocol.
    listening.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    return listening
