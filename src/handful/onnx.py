"""Writing and running ONNX files: what embedders and exported models share."""

from __future__ import annotations

import io
import logging
import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, redirect_stderr, redirect_stdout
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from handful.errors import HandfulError, first_line

PACKAGES = ("onnx", "onnxruntime", "onnxscript")


def absent() -> list[str]:
    """The packages that ONNX files need and that are not installed."""
    return [package for package in PACKAGES if find_spec(package) is None]


def required(purpose: str) -> None:
    """Raise HandfulError if one of the packages is not installed; `purpose` begins the sentence."""
    if missing := absent():
        raise HandfulError(f"{purpose}, {' and '.join(missing)} must be installed: pip install 'handful[onnx]'.")


def write(
    file: Path,
    module: nn.Module,
    example: Mapping[str, Tensor],
    outputs: Sequence[str],
    dynamic: Sequence[int],
    metadata: Mapping[str, str] | None = None,
) -> None:
    """Write a module, which is in eval mode, as one ONNX file.

    example: the name of its input, and one; dynamic: the dimensions of which it may have any number; metadata: what
    the file says of itself.  Raises HandfulError for a module that cannot be written as a graph.
    """
    ((name, value),) = example.items()
    sizes = dict.fromkeys(dynamic, torch.export.Dim.DYNAMIC)
    with quiet():
        try:
            program = torch.onnx.export(
                module,
                (value,),
                input_names=[name],
                output_names=list(outputs),
                dynamic_shapes=(sizes,),
                dynamo=True,
                verbose=False,
            )
        except torch.onnx.OnnxExporterError as error:
            reason = first_line(error.__cause__ or error)
            raise HandfulError(
                f"The network cannot be written as an ONNX graph ({reason}); it must not branch on what it computes, "
                "nor have a size of its own where the input may have any."
            ) from error
        assert program is not None  # it is None only of the older exporter
        program.model.metadata_props.update(metadata or {})
        program.save(file, external_data=False)


def session(file: Path, threads: int | None = None) -> Any:
    """An onnxruntime session, each run of which takes so many threads; as many as torch has if not said.

    They sleep while there is nothing to do: spinning, they keep the cores from those that decode the next pictures, and
    one picture takes twice as long.
    """
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    options.intra_op_num_threads = threads or torch.get_num_threads()
    options.inter_op_num_threads = 1
    options.log_severity_level = 3  # errors
    return onnxruntime.InferenceSession(file, options, providers=["CPUExecutionProvider"])


@contextmanager
def quiet() -> Iterator[None]:
    """Without what the exporter says of packages that it lacks and of deprecations, and the graph that it failed at."""
    logger = logging.getLogger("torch")
    level = logger.level
    logger.setLevel(logging.CRITICAL)
    try:
        with warnings.catch_warnings(), redirect_stderr(io.StringIO()), redirect_stdout(io.StringIO()):
            warnings.simplefilter("ignore")
            yield
    finally:
        logger.setLevel(level)
