"""`handful serve` as a process: what can be served, many clients at once, a clean end."""

from __future__ import annotations

import asyncio
import os
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import httpx
import pytest

from handful.cli import LOOPBACK
from handful.errors import HandfulError
from handful.model import Model
from handful.serve import Limits
from handful.serve import server as rooms
from handful.serve.served import open_served
from handful.serve.server import listen
from handful.serve.teaching import teach
from tests.conftest import Command, ok, refused
from tests.serve.conftest import Server, maml, started, support_of

CLIENTS = 100


def test_a_hundred_clients_at_once(server: Server, shapes: Model, pictures: Path) -> None:
    """None is turned away, and each gets the answer to its own picture."""
    paths = [path for name in ("class03", "class08", "class11") for path in sorted((pictures / name).iterdir())]
    expected = {Path(answer.input): answer for answer in shapes.predict(paths)}
    asked = [paths[number % len(paths)] for number in range(CLIENTS)]

    async def ask() -> list[httpx.Response]:
        limits = httpx.Limits(max_connections=CLIENTS)
        async with httpx.AsyncClient(base_url=server.address, limits=limits, timeout=120) as client:
            before = (await client.get("/health")).json()["requests"]
            sent = [client.post("/predict", files={"pictures": (path.name, path.read_bytes())}) for path in asked]
            told = await asyncio.gather(*sent)
            assert (await client.get("/health")).json()["requests"] == before + CLIENTS
            return told

    for path, told in zip(asked, asyncio.run(ask()), strict=True):
        assert told.status_code == 200, told.text
        (answer,) = told.json()
        assert answer["input"] == path.name
        assert answer["probabilities"] == pytest.approx(expected[path].probabilities, abs=1e-4)


def test_a_name_that_leads_here_from_elsewhere(server: Server) -> None:
    """A page of another host could read the answers, if it was its own name."""
    port = server.address.rsplit(":", 1)[1]
    for host, status in (("evil.example", 400), (f"evil.example:{port}", 400), (f"localhost:{port}", 200)):
        for way in ("/health", "/models/served.zip", "/"):
            told = httpx.get(server.address + way, headers={"Host": host}, timeout=120)
            assert told.status_code == status, (host, way)


def test_what_lies_on_the_page_for_too_long_is_deleted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As long as the server runs, and however it came there."""
    monkeypatch.setattr(rooms, "EVERY", 0.01)
    old, new = tmp_path / "cut-off", tmp_path / "new.png"
    new.touch()

    async def wait() -> None:
        tidying = asyncio.create_task(rooms.tidy(tmp_path))
        for _ in range(2):  # not only the first time
            old.touch()
            os.utime(old, (0, 0))
            async with asyncio.timeout(30):
                while old.exists():
                    await asyncio.sleep(0.01)
        tidying.cancel()

    asyncio.run(wait())
    assert new.exists()


def test_a_server_deletes_what_lies_for_too_long(shapes_folder: Path, tmp_path: Path) -> None:
    first = "from handful.serve import server\nserver.EVERY = 0.05"
    with started(shapes_folder, {"TMPDIR": str(tmp_path)}, first) as running:
        sent = {"files": ("a.png", b"a picture")}
        (path,) = httpx.post(f"{running.address}/gradio_api/upload", files=sent, timeout=120).json()
        os.utime(path, (0, 0))
        until = time.monotonic() + 60
        while Path(path).exists():
            assert time.monotonic() < until
            time.sleep(0.05)


def test_who_reads_too_slowly_is_cut_off(shapes_folder: Path) -> None:
    """And gives its place among those that are answered to another."""
    first = (
        "from handful.serve import gate, teaching\ngate.SLOWEST = 2**40\nteaching.packed = lambda model: bytes(2**26)"
    )
    with started(shapes_folder, first=first, options=("--max-seconds", "1", "--max-waiting", "1")) as running:
        with httpx.stream("GET", f"{running.address}/models/served.zip", timeout=120) as slow:
            assert slow.headers["content-length"] == str(2**26)
            busy = httpx.get(f"{running.address}/models/served.zip", timeout=120)
            assert busy.status_code == 503, busy.status_code
            time.sleep(2)
            with httpx.stream("GET", f"{running.address}/models/other.zip", timeout=120) as free:
                assert free.status_code == 404
            with pytest.raises(httpx.RemoteProtocolError, match="without sending complete message body"):
                slow.read()
        assert "Traceback" not in running.stop()


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_ends_it_cleanly(shapes_folder: Path, number: int, tmp_path: Path) -> None:
    """While a client holds on to it; what was sent is deleted."""
    with started(shapes_folder, {"TMPDIR": str(tmp_path)}) as running:
        sent = {"files": ("a.png", b"a picture")}
        httpx.post(f"{running.address}/gradio_api/upload", files=sent, timeout=120).raise_for_status()
        assert [path.name for path in tmp_path.glob("handful-*/*/*")] == ["a.png"]
        with httpx.stream("GET", f"{running.address}/gradio_api/heartbeat/x", timeout=120):
            said = running.stop(number)
        assert running.process.returncode == 0, said
        assert "stopped" in said
        assert "Traceback" not in said
        assert list(tmp_path.glob("handful-*")) == []


def test_what_can_be_served(shapes_folder: Path, pictures: Path, tmp_path: Path) -> None:
    served = open_served(shapes_folder)
    assert served.model is not None
    assert served.start is not None
    assert served.drawn
    assert not served.open_set
    adapted = teach(support_of(pictures, 1), maml()).model.save(tmp_path / "adapted")
    assert open_served(adapted).start is None
    with pytest.raises(HandfulError, match=r"--data is about a run, and .*shapes is none"):
        open_served(shapes_folder, "data/")
    with pytest.raises(HandfulError, match="is not a model folder"):
        open_served(tmp_path)


def test_a_run_is_served_to_be_taught(handful: Command, recipe_file: Path, tmp_path: Path) -> None:
    ok(handful("train", recipe_file, "--out", tmp_path / "run", "--set", "train.steps=4"))
    served = open_served(tmp_path / "run")
    assert (served.name, served.model) == ("run", None)
    assert served.start is not None
    seen = served.preprocessing
    assert (seen.channels, seen.height, seen.width, seen.invert) == (1, 16, 16, False)
    assert not served.drawn


def test_a_port_that_is_taken() -> None:
    with listen(LOOPBACK, 0) as first:
        port = first.getsockname()[1]
        with pytest.raises(HandfulError, match=rf"^Port {port} of 127.0.0.1 is in use; name another by --port, or 0"):
            listen(LOOPBACK, port)
    with listen(LOOPBACK, 0) as free:
        assert free.getsockname()[0] == LOOPBACK
        assert free.getsockopt(socket.SOL_SOCKET, socket.SO_ACCEPTCONN)


def test_a_host_that_is_not_of_this_machine() -> None:
    with pytest.raises(HandfulError, match=r"listen on port 0 of 192.0.2.1 \(.*an address of this machine by --host"):
        listen("192.0.2.1", 0)


def test_a_port_that_is_taken_is_told_before_anything_is_opened(handful: Command, tmp_path: Path) -> None:
    with listen(LOOPBACK, 0) as first:
        refused(handful("serve", tmp_path / "nothing", "--port", first.getsockname()[1]), "is in use")


def test_the_body_of_an_answer_does_not_wait_for_its_head() -> None:
    with listen(LOOPBACK, 0) as listening, socket.create_connection(listening.getsockname()):
        connection, _ = listening.accept()
        with connection:
            assert connection.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY)


def test_options_reach_the_server(handful: Command, shapes_folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    told: list[Any] = []
    monkeypatch.setattr("handful.serve.serve", lambda *given: told.append(given))
    ok(handful("serve", shapes_folder))
    words = (
        "--max-upload 1 --max-pixels 2 --max-pictures 3 --max-seconds 4 --max-waiting 5 --host ::1 --port 0 --data D"
    )
    ok(handful("serve", shapes_folder, *words.split()))
    assert told == [
        (shapes_folder, "127.0.0.1", 7860, Limits(), None),
        (shapes_folder, "::1", 0, Limits(2**20, 2_000_000, 3, 4.0, 5), "D"),
    ]
    assert handful("serve", shapes_folder, "--max-waiting", 0).code == 2


def test_what_is_missing_is_named(handful: Command, shapes_folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rooms, "find_spec", lambda name: None if name == "gradio" else object())
    refused(handful("serve", shapes_folder), "gradio must be installed: pip install 'handful[web]'")


def test_no_model_is_one_sentence(handful: Command, tmp_path: Path) -> None:
    refused(handful("serve", tmp_path / "nothing", "--port", 0), "is not a model folder")


def test_nothing_of_it_is_imported_before_it_is_asked_for() -> None:
    code = (
        "import sys, handful, handful.cli, handful.model; print([m for m in sys.modules if m in ('gradio', 'fastapi')])"
    )
    said = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert said.stdout.strip() == "[]"
