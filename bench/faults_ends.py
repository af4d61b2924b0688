"""Whether a run is that of an undisturbed training: to the last bit, but for what tells the time."""

from __future__ import annotations

import csv
import json
from pathlib import Path
from typing import Any

import torch

from handful.errors import HandfulError
from handful.files import read_tensors

TIMES = {"seconds", "run"}  # of an evaluation: when, and on which commit and machine


def differences(whole: Path, run: Path) -> list[str]:
    """In what a run differs from an undisturbed one: weights, checkpoints, metrics, evaluations, and its files."""
    expected, found = files(whole), files(run)
    said = [f"{name} is missing" for name in sorted(expected - found)]
    said += [f"{name} should not be there" for name in sorted(found - expected)]
    for name in sorted(expected & found):
        if name.endswith(".safetensors"):
            said += [f"{name}: {what}" for what in different_tensors(whole / name, run / name)]
            continue
        compared = name.endswith(("metrics.csv", "split.json")) or name.startswith("eval/")
        if compared and untimed(whole / name) != untimed(run / name):
            said.append(f"{name} differs")
    return said


def files(run: Path) -> set[str]:
    """The files of a run but for TensorBoard's events, one of each session."""
    found = {path.relative_to(run).as_posix() for path in run.rglob("*") if path.is_file()}
    return {name for name in found if "tfevents" not in name}


def different_tensors(whole: Path, run: Path) -> list[str]:
    """Tensors of a file, or what it says of the training, that are not the same to the last bit."""
    (expected, told), (found, telling) = read_tensors(whole), read_tensors(run)
    said = [f"the tensor {name}" for name in sorted(expected.keys() ^ found.keys())]
    for name in sorted(expected.keys() & found.keys()):
        one, other = expected[name], found[name]
        same = one.dtype == other.dtype and one.shape == other.shape
        if not same or not torch.equal(one.reshape(-1).view(torch.uint8), other.reshape(-1).view(torch.uint8)):
            said.append(f"the tensor {name}")
    said += [
        f"what it says of {key}"
        for key in sorted(told.keys() | telling.keys())
        if clock_out(told, key) != clock_out(telling, key)
    ]
    return said


def clock_out(told: dict[str, str], key: str) -> Any:
    """An entry of the metadata without its seconds."""
    value = json.loads(told[key]) if key in told else None
    return {name: item for name, item in value.items() if name not in TIMES} if isinstance(value, dict) else value


def untimed(path: Path) -> Any:
    """The content of a file without what tells the time."""
    text = path.read_text(encoding="utf-8")
    if path.suffix == ".csv":
        return [
            {key: value for key, value in row.items() if key not in TIMES} for row in csv.DictReader(text.splitlines())
        ]
    if path.parent.name == "eval":
        return {key: value for key, value in json.loads(text).items() if key not in TIMES}
    return text


def damaged(run: Path) -> list[str]:
    """Files under their own names that cannot be read."""
    said = []
    for name in sorted(files(run)):
        path = run / name
        if path.name.startswith("."):
            continue
        try:
            if path.suffix == ".safetensors":
                read_tensors(path)
            elif path.suffix == ".json":
                json.loads(path.read_text(encoding="utf-8"))
        except (HandfulError, ValueError) as error:
            said.append(f"{name} is damaged: {error}")
    return said


def unsaved(run: Path) -> int:
    """Steps in the metrics that the checkpoint does not know."""
    lost = 0
    for stage in (run, run / "pretrain"):
        metrics, checkpoint = stage / "metrics.csv", stage / "checkpoints" / "last" / "training.safetensors"
        if metrics.exists():
            trained = max((int(row["step"]) for row in untimed(metrics)), default=0)
            saved = json.loads(read_tensors(checkpoint)[1]["progressed"])["step"] if checkpoint.exists() else 0
            lost += max(0, trained - saved)
    return lost
