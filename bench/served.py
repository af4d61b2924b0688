"""How long the answer of `handful serve` takes: one client after the other, and a hundred at once.

    python bench/served.py [--requests 200] [--clients 100] [--json FILE]

A model fitted on 5 classes x 5 made photographs of 500x375 pixels is served by a process of its own; a request is one
such photograph, a JPEG, and its answer is read whole.  Clients at once each begin at the same moment and must all be
answered without an error.
"""

from __future__ import annotations

import argparse
import json
import re
import subprocess
import sys
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import httpx

import handful as hf
from handful.files import write_text
from own_pictures import PHOTO, Rows, folder, row


def main() -> None:
    options = arguments()
    rows: Rows = []
    with tempfile.TemporaryDirectory() as made:
        work = Path(made)
        model = hf.fit(folder(work / "few", 5, 5, PHOTO)).save(work / "model")
        pictures = sorted(folder(work / "rest", 1, options.clients, PHOTO).rglob("*.jpg"))
        command = [sys.executable, "-c", "from handful.cli import main; main()", "serve", str(model), "--port", "0"]
        with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as server:
            try:
                assert server.stdout is not None
                found = re.search(r"http://[\d.]+:\d+", server.stdout.readline())
                assert found, "the server did not start"
                clients = [httpx.Client(base_url=found.group(), timeout=60) for _ in pictures]
                asking = cycled(pictures, options.requests + 5)
                rows.append(row("one client, a picture", "ms", [asked(clients[0], picture) for picture in asking][5:]))
                with ThreadPoolExecutor(options.clients) as pool:
                    started = time.perf_counter()
                    at_once = list(pool.map(asked, clients, pictures))
                    seconds = time.perf_counter() - started
                rows.append(row(f"{options.clients} clients at once, a picture each", "ms", at_once))
                rows.append(row(f"{options.clients} clients at once, until all are answered", "ms", [1000 * seconds]))
            finally:
                server.terminate()
    if options.json:
        write_text(options.json, json.dumps(rows, indent=1))


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--requests", type=int, default=200, help="of one client")
    parser.add_argument("--clients", type=int, default=100, help="at once")
    parser.add_argument("--json", type=Path)
    return parser.parse_args()


def cycled(pictures: list[Path], count: int) -> list[Path]:
    """So many pictures, one after the other and again."""
    return [pictures[index % len(pictures)] for index in range(count)]


def asked(client: httpx.Client, picture: Path) -> float:
    """Milliseconds until the answer to one picture has been read."""
    content = picture.read_bytes()
    started = time.perf_counter()
    answer = client.post("/predict", files={"pictures": (picture.name, content)})
    milliseconds = 1000 * (time.perf_counter() - started)
    if answer.status_code != 200 or len(answer.json()) != 1:
        raise SystemExit(f"{picture.name} was answered {answer.status_code}: {answer.text}")
    return milliseconds


if __name__ == "__main__":
    main()
