"""The JSON endpoints: the answers of `handful predict`, limits, and errors of one sentence."""

from __future__ import annotations

import asyncio
import io
import struct
import threading
import zipfile
import zlib
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from starlette.testclient import TestClient

from handful import onnx
from handful.errors import HandfulError
from handful.model import Model
from handful.model.start import from_model
from handful.serve import Limits, teaching
from handful.serve import api as endpoints
from handful.serve.limits import Refused
from handful.serve.served import Served
from handful.serve.server import application
from tests.serve.conftest import maml, png

Client = Callable[..., TestClient]


@pytest.fixture
def client(shapes: Model, tmp_path: Path) -> Iterator[Client]:
    with ExitStack() as stack:

        def make(served: Served | None = None, **limits: Any) -> TestClient:
            served = served or Served("shapes", shapes, from_model(shapes))
            app = asyncio.run(application(served, replace(Limits(), **limits), tmp_path))
            return stack.enter_context(TestClient(app, raise_server_exceptions=False))

        yield make


def sent(*pictures: tuple[str, bytes]) -> list[tuple[str, tuple[str, bytes]]]:
    return [("pictures", picture) for picture in pictures]


def bomb(width: int, height: int) -> bytes:
    """A PNG whose header claims this size."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    header = struct.pack(">IIBBBBB", width, height, 8, 0, 0, 0, 0)
    return (
        b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(bytes(1000))) + chunk(b"IEND", b"")
    )


def test_predict_answers_as_the_command_does(client: Client, shapes: Model, pictures: Path) -> None:
    paths = [pictures / "class03" / "5.png", pictures / "class11" / "6.png"]
    serving = client()
    told = serving.post("/predict", files=sent(*((path.name, path.read_bytes()) for path in paths)))
    assert told.status_code == 200
    for answer, expected in zip(told.json(), (found.as_dict() for found in shapes.predict(paths)), strict=True):
        assert answer["input"] == Path(expected["input"]).name
        assert list(answer) == ["input", "label", "probabilities", "likeness"]
        assert answer["label"] == expected["label"]
        assert answer["probabilities"] == pytest.approx(expected["probabilities"], abs=1e-5)
        assert list(answer["probabilities"]) == list(expected["probabilities"])  # best first
        assert answer["likeness"] == pytest.approx(expected["likeness"], abs=1e-5)
    health = serving.get("/health").json()
    assert health == {
        "model": "shapes",
        "classes": shapes.card.classes,
        "version": shapes.card.handful,
        "requests": 1,
    }


@pytest.mark.parametrize(
    ("given", "kept"),
    [
        ("../../etc/passwd.png", "passwd.png"),
        ("C:\\Users\\me\\a.png", "a.png"),
        ("/etc/hosts", "hosts"),
        ("..", "picture"),
        ("a\x07b.png", "ab.png"),
        ("x" * 500 + ".png", "x" * 96 + ".png"),
        ("птица.png", "птица.png"),
    ],
)
def test_only_the_last_part_of_a_name_is_said_back(client: Client, given: str, kept: str) -> None:
    body = f'--x\r\nContent-Disposition: form-data; name="pictures"; filename="{given}"\r\n\r\n'.encode()
    headers = {"Content-Type": "multipart/form-data; boundary=x"}
    told = client().post("/predict", content=body + png() + b"\r\n--x--\r\n", headers=headers)
    assert told.status_code == 200, told.text
    assert told.json()[0]["input"] == kept


@pytest.mark.parametrize(
    ("files", "status", "sentence"),
    [
        (sent(("a.png", b"no picture")), 415, "a.png is no readable picture (of no known format"),
        (sent(("a.png", b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n")), 415, "no readable picture"),
        (sent(("a.png", png(64, 64)[:-40])), 415, "a.png is no readable picture"),
        (sent(("a.png", b"")), 400, "a.png is empty"),
        (sent(("a.png", bomb(8000, 8000))), 413, "a.png has 8000x8000 pixels, and this server takes 50,000,000"),
        (sent(("a.png", bomb(60000, 60000))), 413, "a.png has far too many pixels"),
        (sent(*[("a.png", png())] * 5), 413, "These are 5 pictures, and 4 are taken at a time"),
        ([("picture", ("a.png", png()))], 422, "each in a field called 'pictures'"),
    ],
)
def test_what_is_no_picture_is_refused(client: Client, files: Any, status: int, sentence: str) -> None:
    refused(client(pictures=4).post("/predict", files=files), status, sentence)


def refused(told: Any, status: int, sentence: str) -> None:
    assert told.status_code == status, told.text
    assert list(told.json()) == ["error"]
    assert sentence in told.json()["error"]
    assert "Traceback" not in told.text
    assert "\n" not in told.json()["error"]


def test_one_bad_picture_among_good_ones_is_named(client: Client) -> None:
    serving = client(pixels=16 * 16)
    told = serving.post(
        "/predict", files=sent(("a.png", png()), ("up/b.png", b"text"), ("c.png", png()), ("d.png", png(40)))
    )
    assert told.status_code == 200, told.text
    first, second, third, fourth = told.json()
    assert [answer["input"] for answer in (first, second, third, fourth)] == ["a.png", "b.png", "c.png", "d.png"]
    assert first["label"] == third["label"]
    assert list(second) == list(fourth) == ["input", "error"]
    assert second["error"].startswith("b.png is no readable picture")
    assert fourth["error"].startswith("d.png has 40x16 pixels")
    assert serving.get("/health").json()["requests"] == 1


def test_if_no_picture_can_be_named_the_request_is_refused_for_the_first(client: Client) -> None:
    refused(client().post("/predict", files=sent(("a.png", b"text"), ("b.png", b""))), 415, "a.png is no readable")


def test_a_body_without_pictures(client: Client) -> None:
    serving = client()
    refused(serving.post("/predict"), 422, "multipart/form-data")
    refused(serving.post("/predict", json={"pictures": ["/etc/passwd"]}), 422, "multipart/form-data")
    refused(serving.post("/predict", data={"pictures": "/etc/passwd"}), 422, "multipart/form-data")
    broken = {"Content-Type": "multipart/form-data; boundary=x"}
    assert serving.post("/predict", content=b"--y\r\nnonsense", headers=broken).status_code in (400, 422)


@pytest.mark.parametrize(
    ("method", "path", "status", "sentence"),
    [
        ("GET", "/predict", 405, "/predict is asked by POST, not by GET"),
        ("POST", "/health", 405, "/health is asked by GET, not by POST"),
        ("DELETE", "/models/served.zip", 405, "/models/served.zip is asked by GET, not by DELETE"),
        ("POST", "/openapi.json", 405, "/openapi.json is asked by GET"),
        ("POST", "/", 405, "/ cannot be asked by POST"),
        ("GET", "/nix", 404, "There is nothing at /nix; there are /predict, /health,"),
        ("POST", "/nix/nought", 404, "There is nothing at /nix/nought;"),
        ("GET", "/docs", 404, "There is nothing at /docs;"),
        ("GET", "/models/served.tar", 404, "There is nothing at /models/served.tar;"),
    ],
)
def test_what_there_is_not_is_said_in_a_sentence(
    client: Client, method: str, path: str, status: int, sentence: str
) -> None:
    refused(client().request(method, path), status, sentence)


def test_the_limit_of_pixels_is_an_option(client: Client) -> None:
    serving = client(pixels=100)
    refused(
        serving.post("/predict", files=sent(("a.png", png(11, 10)))), 413, "11x10 pixels, and this server takes 100"
    )
    assert serving.post("/predict", files=sent(("a.png", png(10, 10)))).status_code == 200


def test_a_long_upload_is_refused_by_its_length_and_by_its_bytes(client: Client) -> None:
    serving = client(upload=1000)
    refused(serving.post("/predict", files=sent(("a.png", bytes(2000)))), 413, "longer than 1,000 bytes")
    head = b'--x\r\nContent-Disposition: form-data; name="pictures"; filename="a.png"\r\n\r\n'

    def chunks() -> Iterator[bytes]:  # of no length that is said beforehand
        yield head
        for _ in range(100):
            yield bytes(100)

    headers = {"Content-Type": "multipart/form-data; boundary=x"}
    refused(serving.post("/predict", content=chunks(), headers=headers), 413, "longer than 1,000 bytes")
    refused(serving.post("/gradio_api/upload", files={"files": bytes(2000)}), 413, "longer than 1,000 bytes")
    assert serving.post("/predict", files=sent(("a.png", png()))).status_code == 200


def test_a_run_has_nothing_to_predict_with(client: Client) -> None:
    serving = client(Served("a-run", None, maml()))
    refused(serving.post("/predict", files=sent(("a.png", png()))), 404, "a-run is a run, and no model yet")
    assert serving.get("/health").json()["classes"] == []
    refused(serving.get("/models/served.zip"), 404, "There is no such model")


def test_a_failure_of_the_server_says_nothing_of_its_inside(
    client: Client, shapes: Model, monkeypatch: pytest.MonkeyPatch
) -> None:
    serving = client()

    def broken(*_: Any) -> None:
        raise RuntimeError("/secret/place")

    with monkeypatch.context() as patched:
        patched.setattr(shapes, "named", broken)
        told = serving.post("/predict", files=sent(("a.png", png())))
    refused(told, 500, "The server failed at this")
    assert "secret" not in told.text
    assert serving.post("/predict", files=sent(("a.png", png()))).status_code == 200


def test_what_the_model_cannot_do_is_no_fault_of_the_picture(
    client: Client, shapes: Model, monkeypatch: pytest.MonkeyPatch
) -> None:
    serving = client()

    def failing(*_: Any) -> None:
        raise HandfulError("The network gave no numbers.")

    monkeypatch.setattr(shapes, "named", failing)
    refused(serving.post("/predict", files=sent(("a.png", png()))), 500, "The server failed at this")


def test_a_picture_that_pillow_would_warn_of(client: Client) -> None:
    told = client(pixels=100_000_000).post("/predict", files=sent(("a.png", bomb(9500, 9500))))
    refused(told, 415, "a.png is no readable picture")
    assert "exceeds limit" not in told.text


def test_the_first_answer_is_worked_out_beforehand(client: Client, shapes: Model) -> None:
    model = Model(shapes.network, shapes.card)
    client(Served("shapes", model, None))
    assert {"embed", "learned"} <= set(vars(model))


def test_naming_waits_for_nothing_else(client: Client, monkeypatch: pytest.MonkeyPatch) -> None:
    """What the page has under way, such as a fit, is done by another thread."""
    begun, go = threading.Event(), threading.Event()

    def slow(model: Model) -> bytes:
        begun.set()
        return b"packed" if go.wait(60) else b"late"

    monkeypatch.setattr(teaching, "packed", slow)
    serving = client(seconds=30)
    with ThreadPoolExecutor(1) as beside:
        packing = beside.submit(serving.get, "/models/served.zip")
        assert begun.wait(60)
        told = serving.post("/predict", files=sent(("a.png", png())))
        go.set()
        assert told.status_code == 200, told.text
        assert packing.result().content == b"packed"


def test_a_model_is_packed_once(client: Client, shapes: Model, monkeypatch: pytest.MonkeyPatch) -> None:
    exports: list[Model] = []

    def export(model: Model, file: Path) -> None:
        exports.append(model)
        file.write_bytes(b"a graph")

    monkeypatch.setattr(teaching, "export", export)
    serving = client()
    assert [serving.get("/models/served.onnx").content for _ in range(3)] == [b"a graph"] * 3
    assert exports == [shapes]


def test_a_picture_that_is_given_up_holds_its_thread(client: Client, monkeypatch: pytest.MonkeyPatch) -> None:
    """Or requests that are too slow would be decoded all at once."""
    go, begun = threading.Event(), []

    def slow(name: str | None, content: bytes, most: int) -> Any:
        begun.append(name)
        go.wait(60)
        raise Refused(415, "no picture")

    monkeypatch.setattr(endpoints, "cpu_count", lambda: 1)
    monkeypatch.setattr(endpoints, "sent_picture", slow)
    serving = client(seconds=0.3)
    for name in ("a.png", "b.png", "c.png"):
        refused(serving.post("/predict", files=sent((name, png()))), 503, "no answer within 0.3 s")
    assert begun == ["a.png"]
    go.set()


def test_the_model_can_be_had(client: Client, shapes: Model, pictures: Path, tmp_path: Path) -> None:
    told = client().get("/models/served.zip")
    assert told.headers["content-type"] == "application/zip"
    with zipfile.ZipFile(io.BytesIO(told.content)) as archive:
        assert sorted(archive.namelist()) == ["model/card.json", "model/model.safetensors"]
        archive.extractall(tmp_path / "had")
    path = pictures / "class08" / "7.png"
    assert Model.load(tmp_path / "had" / "model").predict(path) == shapes.predict(path)
    refused(client().get("/models/other.zip"), 404, "teach it again")
    assert client().get("/models/..%2f..%2fetc.zip").status_code == 404


def test_the_model_as_an_onnx_file(client: Client, shapes: Model, pictures: Path) -> None:
    onnxruntime = pytest.importorskip("onnxruntime", reason="onnxruntime is not installed: handful[onnx]")
    pytest.importorskip("onnxscript", reason="onnxscript is not installed: handful[onnx]")
    told = client().get("/models/served.onnx")
    assert told.status_code == 200, told.text
    path = pictures / "class08" / "7.png"
    picture = np.asarray(Image.open(path).convert("RGB"))[None]
    shares = onnxruntime.InferenceSession(told.content).run(["probabilities"], {"pictures": picture})[0][0]
    assert dict(zip(shapes.card.classes, shares)) == pytest.approx(shapes.predict(path)[0].probabilities, abs=1e-4)


def test_without_what_writes_onnx_files(client: Client, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(onnx, "absent", lambda: ["onnxscript"])
    refused(client().get("/models/served.onnx"), 501, "onnxscript must be installed")


def test_openapi_says_what_is_taken_and_given(client: Client) -> None:
    serving = client()
    told = serving.get("/openapi.json").json()
    predict = told["paths"]["/predict"]["post"]
    assert "multipart/form-data" in predict["requestBody"]["content"]
    answer = predict["responses"]["200"]["content"]["application/json"]["schema"]
    assert [kind["$ref"].rsplit("/")[-1] for kind in answer["items"]["anyOf"]] == ["Answer", "Unread"]
    assert "A picture that cannot be named is answered with its `error`" in predict["description"]
    assert set(told["components"]["schemas"]["Unread"]["properties"]) == {"input", "error"}
    assert set(told["components"]["schemas"]["Answer"]["properties"]) == {
        "input",
        "label",
        "probabilities",
        "likeness",
    }
    assert set(predict["responses"]) == {"200", "400", "404", "405", "413", "415", "422", "500", "503"}
    assert predict["responses"]["413"]["content"]["application/json"]["schema"]["$ref"].endswith("/Failure")
    assert {"/health", "/models/{key}.zip", "/models/{key}.onnx"} <= set(told["paths"])
