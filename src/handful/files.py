"""Writing that survives interruption: a temporary name first, then a rename."""

from __future__ import annotations

import json
import math
import os
import re
from collections.abc import Callable, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file

from handful.errors import HandfulError, first_line

MOST_DIMENSIONS = 64  # that torch computes with


def write_atomically(path: Path, write: Callable[[Path], object]) -> None:
    """Call `write` with a temporary name beside `path`, flush it to disk, and rename it to `path`."""
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        write(temporary)
        with temporary.open("rb+") as file:
            os.fsync(file.fileno())
        temporary.chmod(0o644)  # safetensors leaves its files to their owner alone
        temporary.replace(path)
    except (OSError, SafetensorError) as error:
        raise HandfulError(f"{path} cannot be written ({error}); what was there is unchanged.") from error
    finally:
        with suppress(OSError):
            temporary.unlink()


def append(path: Path, content: bytes) -> None:
    """Add to the end of a file; what does not fit on the disk is missing there."""
    try:
        with path.open("ab") as file:
            file.write(content)
    except OSError as error:
        raise HandfulError(f"{path} cannot be written ({error}).") from error


def is_temporary(path: Path) -> bool:
    """Whether a file has the temporary name of `write_atomically`."""
    return re.fullmatch(r"\..+\.\d+\.tmp", path.name) is not None


def sweep(folder: Path) -> None:
    """Delete what processes that were killed have left in a folder under temporary names."""
    for path in filter(is_temporary, folder.rglob(".*.tmp")):
        with suppress(OSError):
            path.unlink()


def write_text(path: Path, text: str) -> None:
    """Write a text file atomically."""
    write_atomically(path, lambda temporary: temporary.write_text(text, encoding="utf-8"))


def to_json(value: Any) -> str:
    """JSON text.  A number that is not finite becomes null, since JSON has no word for it."""
    return json.dumps(_finite(value), ensure_ascii=False, indent=1, allow_nan=False)


def _finite(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _finite(inner) for key, inner in value.items()}
    if isinstance(value, list | tuple):
        return [_finite(inner) for inner in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


def write_bytes(path: Path, content: bytes) -> None:
    """Write a binary file atomically."""
    write_atomically(path, lambda temporary: temporary.write_bytes(content))


def write_tensors(path: Path, tensors: Mapping[str, torch.Tensor], metadata: dict[str, str] | None = None) -> None:
    """Write a safetensors file atomically."""
    plain: dict[str, torch.Tensor] = {}
    places: set[int] = set()
    for name, tensor in tensors.items():
        tensor = tensor.detach().cpu().contiguous()
        if (place := tensor.untyped_storage().data_ptr()) in places:  # a parameter of two modules: the format has none
            tensor = tensor.clone()
        places.add(place)
        plain[name] = tensor
    write_atomically(path, lambda temporary: save_file(plain, temporary, metadata))


def read_tensors(path: Path) -> tuple[dict[str, torch.Tensor], dict[str, str]]:
    """Tensors and metadata of a safetensors file."""
    try:
        with safe_open(path, framework="pt") as file:
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
            told = dict(file.metadata() or {})
    except FileNotFoundError as error:
        raise HandfulError(f"{path} is missing.") from error
    except (SafetensorError, OSError) as error:
        raise HandfulError(f"{path} is damaged or not a safetensors file ({first_line(error)}).") from error
    for name, tensor in tensors.items():
        if tensor.dim() > MOST_DIMENSIONS:
            raise HandfulError(f"{path} is damaged: {name} has {tensor.dim()} dimensions.")
    return tensors, told
