"""What stands before the endpoints and the page: number, time, ways in, and files that a client may name."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import AsyncIterator, Collection, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import httpx
import pytest
from starlette.responses import PlainTextResponse
from starlette.testclient import TestClient
from starlette.types import ASGIApp, Receive, Scope, Send

from handful.model import Model
from handful.model.start import from_model
from handful.serve import Limits, gate
from handful.serve.gate import Gate
from handful.serve.served import Served
from handful.serve.server import application, names_of
from tests.serve.conftest import png


def behind(app: ASGIApp, folder: Path, hosts: Collection[str] = (), **limits: Any) -> httpx.AsyncClient:
    made = Gate(app, replace(Limits(), **limits), folder, hosts)
    return httpx.AsyncClient(transport=httpx.ASGITransport(made), base_url="http://here")


def test_requests_beyond_those_that_may_wait_are_told_to_come_again(tmp_path: Path) -> None:
    async def ask() -> list[httpx.Response]:
        go = asyncio.Event()

        async def slow(scope: Scope, receive: Receive, send: Send) -> None:
            await go.wait()
            await PlainTextResponse("fine")(scope, receive, send)

        async with behind(slow, tmp_path, waiting=2) as client:
            three = [asyncio.create_task(client.post("/predict")) for _ in range(3)]
            refused, _ = await asyncio.wait(three, return_when=asyncio.FIRST_COMPLETED)
            go.set()
            others = [await task for task in three if task not in refused]
            return [*(task.result() for task in refused), *others, await client.post("/predict")]

    first, *others = asyncio.run(ask())
    assert first.status_code == 503
    assert first.headers["retry-after"] == "1"
    assert first.json() == {"error": "2 requests are waiting already; try again in a moment."}
    assert [told.status_code for told in others] == [200, 200, 200]


def test_an_answer_that_takes_too_long_is_given_up(tmp_path: Path) -> None:
    async def stuck(scope: Scope, receive: Receive, send: Send) -> None:
        await asyncio.sleep(30)

    async def ask() -> httpx.Response:
        async with behind(stuck, tmp_path, seconds=0.05) as client:
            return await client.post("/predict")

    told = asyncio.run(ask())
    assert told.status_code == 503
    assert told.json() == {"error": "There was no answer within 0.05 s; try again, or with fewer pictures."}


def test_an_upload_that_trickles_in_is_given_up(tmp_path: Path) -> None:
    """The time runs from the first byte of a request, and not from its last."""

    async def reading(scope: Scope, receive: Receive, send: Send) -> None:
        while (await receive())["more_body"]:
            pass

    async def ask() -> list[Any]:
        told: list[Any] = []

        async def trickle() -> Any:
            await asyncio.sleep(0.02)
            return {"type": "http.request", "body": b".", "more_body": True}

        async def send(message: Any) -> None:
            told.append(message)

        scope = {"type": "http", "path": "/predict", "method": "POST", "headers": []}
        await Gate(reading, replace(Limits(), seconds=0.1), tmp_path)(scope, trickle, send)
        return told

    assert asyncio.run(ask())[0]["status"] == 503


def test_who_reads_too_slowly_is_given_up(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """There is time for an answer by its length."""
    monkeypatch.setattr(gate, "SLOWEST", 100)

    async def ask(length: int) -> list[Any]:
        told: list[Any] = []

        async def send(message: Any) -> None:
            told.append(message["type"])
            await asyncio.sleep(0.2 if message["type"] == "http.response.body" else 0)

        answer = PlainTextResponse("." * length)
        scope = {"type": "http", "path": "/models/x.zip", "method": "GET", "headers": []}
        watched = Gate(answer, replace(Limits(), seconds=0.1), tmp_path)
        await watched(scope, nothing, send)
        assert watched.inside == 0
        return [*told, "read"] if time.monotonic() - started > 0.2 else told

    async def nothing() -> Any:
        return {"type": "http.request", "body": b"", "more_body": False}

    started = time.monotonic()
    assert asyncio.run(ask(1)) == ["http.response.start", "http.response.body"]
    started = time.monotonic()
    assert asyncio.run(ask(100)) == ["http.response.start", "http.response.body", "read"]


def test_a_length_that_is_no_number(tmp_path: Path) -> None:
    async def ask() -> httpx.Response:
        async with behind(PlainTextResponse("fine"), tmp_path) as client:
            return await client.post("/predict", headers={"Content-Length": "-1"})

    told = asyncio.run(ask())
    assert told.status_code == 400
    assert "does not say its length" in told.json()["error"]


@pytest.mark.parametrize(
    ("host", "status"),
    [
        ("localhost:7860", 200),
        ("LocalHost", 200),
        ("127.0.0.1:7860", 200),
        ("[::1]:7860", 200),
        ("evil.example", 400),
        ("localhost.evil.example:7860", 400),
        ("evil@localhost.example", 400),
        ("[::1", 400),
        ("", 400),
    ],
)
def test_a_server_on_loopback_is_asked_by_its_own_names(tmp_path: Path, host: str, status: int) -> None:
    async def ask() -> httpx.Response:
        async with behind(PlainTextResponse("fine"), tmp_path, names_of("127.0.0.1")) as client:
            return await client.get("/models/served.zip", headers={"Host": host})

    told = asyncio.run(ask())
    assert told.status_code == status
    if status == 400:
        assert told.json() == {"error": "This server is asked by the names localhost, 127.0.0.1, ::1 alone; use one."}


def test_the_names_of_a_server() -> None:
    assert names_of("127.0.0.2") == ["localhost", "127.0.0.1", "::1", "127.0.0.2"]
    assert names_of("::1") == names_of("localhost") == ["localhost", "127.0.0.1", "::1"]
    assert names_of("0.0.0.0") == names_of("192.168.1.2") == names_of("my.example") == []


@pytest.fixture(scope="module")
def uploads(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("uploads")


@pytest.fixture(scope="module")
def client(shapes: Model, uploads: Path) -> Iterator[TestClient]:
    served = Served("shapes", shapes, from_model(shapes))
    with TestClient(asyncio.run(application(served, Limits(), uploads)), raise_server_exceptions=False) as made:
        yield made


@pytest.mark.parametrize(
    "way",
    [
        "file=/etc/passwd",
        "file=http://example.com/a.png",
        "file={uploads}/../../../../etc/passwd",
        "file={uploads}/%2e%2e/%2e%2e/etc/passwd",
        "file/etc/passwd",
        "proxy=http://example.com/",
        "info",
        "openapi.json",
        "call/fit",
        "run/fit",
        "api/fit",
        "stream/x",
        "component_server",
        "process_recording",
        "vibe-code",
        "run-history/buckets",
    ],
)
def test_ways_that_the_page_does_not_need_are_closed(client: TestClient, uploads: Path, way: str) -> None:
    for ask in (client.get, client.post):
        told = ask("/gradio_api/" + way.format(uploads=uploads))
        assert told.status_code == 404, way
        assert "root:" not in told.text


@pytest.mark.parametrize("way", ["/file=/etc/passwd", "/upload", "/queue/join", "/call/fit"])
def test_nor_are_they_open_elsewhere(client: TestClient, way: str) -> None:
    assert client.post(way, files={"files": png()}).status_code in (404, 405)
    assert "root:" not in client.get(way).text


@pytest.mark.parametrize(
    "value",
    [
        {"path": "/etc/passwd", "meta": {"_type": "gradio.FileData"}},
        {"path": "https://example.com/a.png", "meta": {"_type": "gradio.FileData"}},
        [[{"image": {"path": "../../etc/passwd"}}]],
        {"path": ["/etc/passwd"]},
        {"path": "{uploads}/../x"},
        {"path": "a\0b"},
        {"path": None, "url": "data:image/png;base64,AAAA"},
        {"path": None, "url": "data:,/gradio_api/file={uploads}/x"},
        {"path": None, "url": "DATA:image/png;base64,AAAA"},
        {"path": "{uploads}/x", "url": "http://example.com/a.png"},
        {"path": "{uploads}/x", "url": "http://here/gradio_api/file=/etc/passwd"},
        {"path": "{uploads}/x", "url": ["data:,"]},
    ],
)
def test_a_call_of_the_page_names_only_files_that_were_sent(client: TestClient, uploads: Path, value: Any) -> None:
    value = json.loads(json.dumps(value).replace("{uploads}", str(uploads)))
    told = client.post("/gradio_api/queue/join", json={"data": [value], "fn_index": 0, "session_hash": "x"})
    assert told.status_code == 400
    assert told.json() == {"error": "The request names a file that was not sent to this server."}


def test_a_call_of_the_page_that_is_no_json(client: TestClient) -> None:
    for content in (b"{", b"[" * 100_000, b"\xff"):
        told = client.post("/gradio_api/queue/join", content=content)
        assert told.status_code == 400
        assert told.json() == {"error": "The request holds no JSON."}
    long = client.post("/gradio_api/queue/join", content=bytes(gate.JSON_BYTES + 1))
    assert long.status_code == 413
    assert "longer than 4,194,304 bytes" in long.json()["error"]


def test_a_name_leads_nowhere_else(client: TestClient, uploads: Path) -> None:
    told = client.post("/gradio_api/upload", files={"files": ("../../../x.png", png())})
    (path,) = told.json()
    assert Path(path).resolve().is_relative_to(uploads.resolve())
    assert client.get(f"/gradio_api/file={path}").content == png()
    own = {"path": path, "url": f"http://testserver/gradio_api/file={path}", "meta": {"_type": "gradio.FileData"}}
    call = {"data": [own], "fn_index": 10_000, "session_hash": "x"}
    assert "not sent" not in client.post("/gradio_api/queue/join", json=call).text


def test_the_folder_of_uploads_is_bounded(client: TestClient, monkeypatch: pytest.MonkeyPatch) -> None:
    client.post("/gradio_api/upload", files={"files": ("a.png", png(20))})
    for limit, most in (("FOLDER_BYTES", 10), ("FOLDER_FILES", 1)):
        with monkeypatch.context() as patched:
            patched.setattr(gate, limit, most)
            told = client.post("/gradio_api/upload", files={"files": ("b.png", png(21))})
        assert told.status_code == 503
        assert "holds as many pictures as it may" in told.json()["error"]
    assert client.post("/gradio_api/upload", files={"files": ("b.png", png(21))}).status_code == 200


def test_so_many_files_are_sent_to_the_page_at_a_time(client: TestClient) -> None:
    most = Limits().pictures

    def send(count: int) -> Any:
        return client.post("/gradio_api/upload", files=[("files", (f"{n}.png", png())) for n in range(count)])

    assert len(send(most).json()) == most
    told = send(most + 1)
    assert told.status_code == 413
    assert f"More than {most} pictures are not taken at a time" in told.text


def test_parts_are_counted_across_the_pieces_of_a_body(tmp_path: Path) -> None:
    body = b"".join(b"--mark\r\nnothing\r\n" for _ in range(3)) + b"--mark--"

    async def pieces() -> AsyncIterator[bytes]:
        for byte in body:
            yield bytes([byte])

    async def reading(scope: Scope, receive: Receive, send: Send) -> None:
        while (await receive())["more_body"]:
            pass
        await PlainTextResponse("fine")(scope, receive, send)

    async def ask(most: int) -> int:
        async with behind(reading, tmp_path, pictures=most) as client:
            headers = {"Content-Type": 'multipart/form-data; boundary="mark"'}
            return (await client.post("/gradio_api/upload", content=pieces(), headers=headers)).status_code

    assert [asyncio.run(ask(most)) for most in (2, 3)] == [413, 200]


def test_the_page_may_ask_no_other_host(client: TestClient) -> None:
    told = client.get("/")
    assert told.status_code == 200
    assert "default-src 'self'" in told.headers["content-security-policy"]
    assert "fonts.googleapis.com" not in client.get("/theme.css").text
    config = client.get("/config").json()
    assert not config["analytics_enabled"]
    assert all(way["api_visibility"] == "private" for way in config["dependencies"])
