import hashlib
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from handful.data import build, omniglot
from handful.data.download import download
from handful.errors import HandfulError

CONTENT = bytes(range(256)) * 1000
SHA256 = hashlib.sha256(CONTENT).hexdigest()


class Handler(BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        if self.path == "/gone.zip":
            self.send_error(404)
            return
        if self.path == "/slow.zip":
            self.server.stopped.wait(5)  # type: ignore[attr-defined]
            return
        self.send_response(200)
        self.send_header("Content-Length", str(len(CONTENT)))
        self.end_headers()
        self.wfile.write(CONTENT[:1000] if self.path == "/broken.zip" else CONTENT)

    def log_message(self, *args: object) -> None:
        pass


@pytest.fixture
def server() -> Iterator[str]:
    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as http:
        http.stopped = threading.Event()  # type: ignore[attr-defined]
        thread = threading.Thread(target=http.serve_forever, args=(0.01,))
        thread.start()
        yield f"http://127.0.0.1:{http.server_address[1]}/"
        http.stopped.set()  # type: ignore[attr-defined]
        http.shutdown()
        thread.join()


def test_a_file_arrives_and_its_digest_is_told(server: str, tmp_path: Path) -> None:
    target = tmp_path / "new" / "a.zip"
    assert download(server + "a.zip", target) == SHA256
    assert target.read_bytes() == CONTENT
    assert download(server + "a.zip", target, SHA256.upper(), md5=hashlib.md5(CONTENT).hexdigest()) == SHA256
    assert [path.name for path in target.parent.iterdir()] == ["a.zip"]


@pytest.mark.parametrize(
    ("file", "digests", "message"),
    [
        ("a.zip", {"sha256": "0" * 64}, f"has the sha256 {SHA256}, not 0000"),
        ("a.zip", {"md5": "0" * 32}, "has the md5 [0-9a-f]{32}, not 0000.* nothing was kept"),
        ("gone.zip", {}, "gone.zip answered 404 Not Found; look for the file's new address"),
        ("broken.zip", {}, "broken.zip broke off after 1000 of 256000 bytes; try again"),
    ],
)
def test_nothing_is_left_of_a_bad_transfer(
    server: str, tmp_path: Path, file: str, digests: dict[str, str], message: str
) -> None:
    (tmp_path / "kept.zip").write_bytes(b"old")
    with pytest.raises(HandfulError, match=message):
        download(server + file, tmp_path / "kept.zip", **digests)  # type: ignore[arg-type]
    assert (tmp_path / "kept.zip").read_bytes() == b"old"
    assert [path.name for path in tmp_path.iterdir()] == ["kept.zip"]


def test_silence(server: str, tmp_path: Path) -> None:
    with pytest.raises(HandfulError, match=r"slow.zip could not be fetched \(timed out\); check the connection"):
        download(server + "slow.zip", tmp_path / "a.zip", timeout=0.2)


def test_no_server(tmp_path: Path) -> None:
    with pytest.raises(HandfulError, match=r"could not be fetched .*; check the connection and try again"):
        download("http://127.0.0.1:9/a.zip", tmp_path / "a.zip")


def test_omniglot_is_fetched_where_it_is_absent(server: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Only what is not there as published is fetched, and what arrives is checked again by the reader."""
    monkeypatch.setattr(omniglot, "URL", server)
    md5 = hashlib.md5(CONTENT).hexdigest()
    monkeypatch.setattr(omniglot, "ARCHIVES", [omniglot.Archive("a.zip", md5, {"Greek": 1})])
    (tmp_path / "a.zip").write_bytes(b"half of it")
    assert omniglot.fetch(tmp_path) == tmp_path
    assert (tmp_path / "a.zip").read_bytes() == CONTENT
    monkeypatch.setattr(omniglot, "URL", server + "gone/")
    omniglot.fetch(tmp_path)
    with pytest.raises(HandfulError, match=r"a.zip is no whole zip archive"):
        build("omniglot", tmp_path, download=True)


def test_sets_without_a_download() -> None:
    with pytest.raises(HandfulError, match="'folder' has no download"):
        build("folder", "photos", download=True)
