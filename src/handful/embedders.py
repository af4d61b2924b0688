"""Frozen backbones by onnxruntime instead of torch, with the same numbers: it is made for running, on a CPU above all.

    embed = embedder(backbone)      # onnxruntime where the extra [photos] or [onnx] is installed, else torch
    features = embed(images)        # uint8 or float [n, C, H, W] -> [n, out_features]

A backbone is exported to ONNX once, into the cache folder, and compared with torch whenever it is opened.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor, nn

from handful.data.library import cache_dir
from handful.errors import HandfulError
from handful.files import write_atomically
from handful.inner_loop import evaluating
from handful.layout import channels_last
from handful.onnx import absent, quiet, required, session, write
from handful.rows import joined

BATCH = 32  # images at a time: on a CPU no number is faster by torch
PART = 8  # by onnxruntime, of each thread at most: what it computes of more leaves the cache of its core
GPU_BATCH = 256  # not measured yet
OPSET = 10  # the last whose padding is a constant, that onnxruntime makes part of a convolution: a fifth off the time
ENLARGING = 11  # the first in which maps can be enlarged as torch does it
TOLERANCE = 1e-4  # between onnxruntime and torch, as a part of the largest value

Output = Literal["features", "maps"]
Embed = Callable[[Tensor], Tensor]


def embedder(backbone: nn.Module, output: Output = "features") -> Embed:
    """A function from images, uint8 or float in [0, 1], [n, C, H, W], to their features or their last maps.

    By onnxruntime if it is installed, and the backbone is a registered one, on the CPU and `frozen`, so that what was
    exported stays right, and computes what torch does; else by torch.  Both leave the backbone as it is.  The result
    has no graph.
    """
    settled = getattr(backbone, "frozen", False) and all(p.device.type == "cpu" for p in backbone.parameters())
    if settled and hasattr(backbone, "spec") and not absent():
        with suppress(HandfulError):  # torch needs no file
            return OnnxEmbedder(backbone, output)
    return TorchEmbedder(backbone, output)


class TorchEmbedder:
    """Embeds by torch, in batches, on the device of the backbone."""

    def __init__(self, backbone: nn.Module, output: Output = "features") -> None:
        self.backbone = backbone
        self.function = output_of(backbone, output)

    def __call__(self, images: Tensor) -> Tensor:
        """uint8 or float [n, C, H, W] -> [n, out_features] or [n, *map_shape]."""
        device = next((p.device for p in self.backbone.parameters()), torch.device("cpu"))
        batches = images.split(BATCH if device.type == "cpu" else GPU_BATCH)
        with torch.no_grad(), evaluating(self.backbone):
            return joined((self.embed(batch.to(device)) for batch in batches), len(images))

    def embed(self, images: Tensor) -> Tensor:
        """One batch, its channels last: what a CPU is fastest with on depthwise convolutions (bench/embedders.py)."""
        return self.function(channels_last(as_float(images))).contiguous()


class OnnxEmbedder:
    """Embeds by onnxruntime, on as many threads as torch has, each of which takes some images at a time.

    Threads that share the work on the same images wait for each other at every layer.  It holds the weights as they are
    now: what becomes of the backbone afterwards does not reach it.  Raises HandfulError if the packages are not
    installed, or if the exported network does not compute what torch does.
    """

    def __init__(self, backbone: nn.Module, output: Output = "features") -> None:
        required("To embed by onnxruntime")
        self.input_shape = input_shape(backbone)
        self.count = torch.get_num_threads()
        self.threads = ThreadPoolExecutor(self.count, "embedding")
        file = cached(backbone, output)
        probe = torch.rand(2, *self.input_shape, generator=torch.Generator().manual_seed(0))
        wanted = TorchEmbedder(backbone, output)(probe)
        self.session: Any = None
        if file.exists():
            with suppress(Exception):  # onnxruntime has kinds of its own for a file that is cut off
                self.session = session(file, threads=1)
        if self.session is None or difference(self(probe), wanted) > TOLERANCE:  # the code may have changed since
            write_atomically(file, lambda temporary: export(backbone, output, temporary))
            self.session = session(file, threads=1)
        if not (error := difference(self(probe), wanted)) <= TOLERANCE:
            file.unlink()
            raise HandfulError(
                f"By onnxruntime the {output} of {type(backbone).__name__} are {error:.0e} away from torch's, more "
                f"than {TOLERANCE:.0e}; embed by torch: handful.embedders.TorchEmbedder."
            )

    def __call__(self, images: Tensor) -> Tensor:
        """uint8 or float [n, C, H, W] -> [n, out_features] or [n, *map_shape]."""
        if tuple(images.shape[1:]) != self.input_shape:
            raise HandfulError(
                f"The backbone was exported for images {list(self.input_shape)}, not {list(images.shape[1:])}; "
                "resize them, or make it with this input_shape."
            )
        share = -(-len(images) // self.count)  # few images are shared out too
        parts = images.split(max(1, min(PART, share)))
        return joined((self.threads.map if len(parts) > 1 else map)(self._embed, parts), len(images))

    def _embed(self, images: Tensor) -> Tensor:
        if images.dtype == torch.uint8:  # by numpy: torch's threads would come on top of these
            pixels = np.divide(images.cpu().numpy(), 255, dtype=np.float32)
        else:
            pixels = as_float(images).cpu().numpy()
        return torch.from_numpy(self.session.run(None, {"images": np.ascontiguousarray(pixels)})[0])


class Part(nn.Module):
    """A backbone whose forward gives the output that is exported."""

    def __init__(self, backbone: nn.Module, output: Output) -> None:
        super().__init__()
        self.backbone = backbone
        self.function = output_of(backbone, output)

    def forward(self, images: Tensor) -> Tensor:
        """[n, C, H, W] in [0, 1] -> [n, out_features] or [n, *map_shape]."""
        return self.function(images)


def export(backbone: nn.Module, output: Output, file: Path) -> None:
    """Write a backbone as an ONNX file that takes any number of images of its `input_shape`; it is left unchanged.

    By torch's older exporter, for which a first `fit` waits a shorter time; by the newer one where that has gone
    or cannot write the network, as one that resizes its images.
    """
    example = torch.zeros(2, *input_shape(backbone), device=next(backbone.parameters()).device)
    with evaluating(backbone):
        part = Part(backbone, output).eval()
        try:
            with quiet():
                torch.onnx.export(
                    part,
                    (example,),
                    file,
                    input_names=["images"],
                    output_names=[output],
                    dynamic_axes={"images": {0: "n"}, output: {0: "n"}},
                    opset_version=opset_of(backbone),
                    dynamo=False,
                )
        except Exception:  # of many kinds
            write(file, part, {"images": example}, [output], dynamic=[0])


def cached(backbone: nn.Module, output: Output) -> Path:
    """The file of an exported backbone: named after all that it was made of, the weights too."""
    spec = getattr(backbone, "spec", {"name": type(backbone).__name__})
    digest = hashlib.sha256(
        json.dumps([spec, input_shape(backbone), torch.__version__, opset_of(backbone)], default=str).encode()
    )
    for key, value in backbone.state_dict().items():
        digest.update(key.encode())
        digest.update(value.detach().cpu().contiguous().numpy().tobytes())
    return cache_dir() / "onnx" / f"{spec['name']}-{output}-{digest.hexdigest()[:16]}.onnx"


def opset_of(backbone: nn.Module) -> int:
    """The version of ONNX to write it in."""
    return ENLARGING if any(isinstance(part, nn.Upsample) for part in backbone.modules()) else OPSET


def input_shape(backbone: nn.Module) -> tuple[int, ...]:
    """The shape of one image."""
    shape: Any = backbone.input_shape
    return tuple(shape)


def output_of(backbone: nn.Module, output: Output) -> Embed:
    """The backbone's forward, or its `maps`."""
    if output == "maps" and not hasattr(backbone, "maps"):
        raise HandfulError(f"{type(backbone).__name__} has no feature map, only features; use another backbone.")
    function: Any = backbone if output == "features" else backbone.maps
    return function


def as_float(images: Tensor) -> Tensor:
    """Images in [0, 1], of uint8 or float ones."""
    return images.float().div(255) if images.dtype == torch.uint8 else images.float()


def difference(found: Tensor, wanted: Tensor) -> float:
    """The largest difference, as a part of the largest value."""
    return float((found - wanted).abs().max() / wanted.abs().max().clamp(min=1e-12))
