"""Small models to serve: of drawings, 28x28, with random weights."""

from __future__ import annotations

import io
import os
import re
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import pytest
import torch
from PIL import Image

import handful as hf
from handful.data.pictures import Picture
from handful.model import Model, Preprocessing
from handful.model.fitting import fitted
from handful.model.start import Start

CLASSES = ("class03", "class08", "class11")
SIDE = 28
# It ends by itself, should the tests be killed before they can end it.
SERVING = """
import os, threading
from handful.cli import main
{first}
end = threading.Timer(900, os._exit, [1])
end.daemon = True
end.start()
main()
"""


def starting(method: Callable[..., Any]) -> Start:
    torch.manual_seed(0)
    backbone = hf.backbones.conv4(channels=8, downsample="stride", pooling="mean", input_shape=(1, SIDE, SIDE)).eval()
    seen = Preprocessing(channels=1, height=SIDE, width=SIDE, invert=True)
    made = method(backbone)
    spec: Any = backbone.spec
    return Start(made, seen, spec, trained_on="nothing", inner_steps=made.inner_steps)


def maml() -> Start:
    start = starting(lambda backbone: hf.methods.MAML(backbone, inner_lr=0.1, inner_steps=3))
    start.method.attach_head(3)
    return start


def of_files(paths: list[Path]) -> list[Picture]:
    return [Picture(path.name, "", "", path.read_bytes) for path in paths]


def support_of(pictures: Path, count: int = 2) -> dict[str, list[Picture]]:
    return {name: of_files([pictures / name / f"{i}.png" for i in range(count)]) for name in CLASSES}


@pytest.fixture(scope="session")
def shapes(pictures: Path) -> Model:
    return fitted(support_of(pictures), starting(hf.methods.ProtoNet))


@pytest.fixture(scope="session")
def shapes_folder(shapes: Model, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return shapes.save(tmp_path_factory.mktemp("served") / "shapes")


def png(width: int = 16, height: int = 16) -> bytes:
    content = io.BytesIO()
    Image.new("L", (width, height), 200).save(content, "PNG")
    return content.getvalue()


class Server(NamedTuple):
    address: str
    process: subprocess.Popen[str]

    def stop(self, number: int = signal.SIGTERM) -> str:
        """What it still said, once it has ended."""
        self.process.send_signal(number)
        return self.process.communicate(timeout=30)[0]


@contextmanager
def started(
    folder: Path, environment: Mapping[str, str] | None = None, first: str = "", options: Sequence[str] = ()
) -> Iterator[Server]:
    """`handful serve` as a process of its own, on a free port of this machine; first: what it is to run before."""
    command = [sys.executable, "-c", SERVING.format(first=first), "serve", str(folder), "--port", "0", *options]
    with subprocess.Popen(
        command,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        env={**os.environ, "OMP_NUM_THREADS": "1", **(environment or {})},
    ) as process:
        try:
            assert process.stdout is not None
            line = process.stdout.readline()
            found = re.search(r"http://[\d.]+:\d+", line)
            assert found, line + process.stdout.read()
            yield Server(found.group(), process)
        finally:
            process.kill()


@pytest.fixture(scope="session")
def server(shapes_folder: Path) -> Iterator[Server]:
    with started(shapes_folder) as running:
        yield running
