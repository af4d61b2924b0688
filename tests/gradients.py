"""Two steps of every family of methods in float64, by as many processes as are asked for.

    python -m tests.gradients OUT.pt DEVICES

Writes, for each family and step, the loss, the gradients and the buffers: what must not depend on the processes.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from handful.backbones import conv4, unet
from handful.batches import Batches
from handful.data.dataset import Data
from handful.data.random_pixels import read
from handful.data.store import ImageStore, write_store
from handful.launching import launched
from handful.methods import METHODS, Method, Pretraining, Supervised, pretraining
from handful.problems import problem_of
from handful.processes import even_share, rank
from handful.registry import build
from handful.training import descend
from tests.problems.video_anomaly.conftest import clips
from tests.rails import Tiny, frames

STEPS, SIZE = 2, 4
PROTOTYPES = {"name": "next_frame", "prototypes": 3, "temperature": 0.1}
ROWS = {"name": "row_distributions", "channels": 8}
Learner = Method | Pretraining | Supervised
FAMILIES: dict[str, tuple[str, str, dict[str, Any], dict[str, Any] | None]] = {
    # name: the data, the head of pre-training ("" for episodes), the method, the decoder
    "maml": ("pictures", "", {"name": "maml", "inner_lr": 0.1, "inner_steps": 2, "rates": "per_tensor"}, None),
    "maml, task by task": ("pictures", "", {"name": "maml", "inner_lr": 0.1, "inner_steps": 2}, None),
    "one head adapted": ("pictures", "", {"name": "anil", "inner_lr": 0.1, "inner_steps": 2}, None),
    "maml++": ("pictures", "", {"name": "maml++", "inner_lr": 0.1, "inner_steps": 2}, None),
    "reptile": ("pictures", "", {"name": "reptile", "inner_lr": 1e-3, "inner_steps": 3, "inner_batch": 3}, None),
    "proto-maml": ("pictures", "", {"name": "proto-maml", "inner_lr": 0.1, "inner_steps": 2}, None),
    "protonet": ("pictures", "", {"name": "protonet"}, None),
    "frn, pre-training": ("pictures", "frn", {"name": "frn"}, None),
    "frn": ("pictures", "", {"name": "frn"}, None),
    "glofa": ("pictures", "", {"name": "glofa"}, None),
    "classes, pre-training": ("pictures", "linear", {"name": "simpleshot"}, None),
    "video, pre-training": ("clips", "linear", {"name": "maml", "norm_stats": "running"}, PROTOTYPES),
    "video": ("clips", "", {"name": "maml", "inner_lr": 0.01, "inner_steps": 1, "norm_stats": "support"}, PROTOTYPES),
    "rails, pre-training": ("frames", "linear", {"name": "maml"}, ROWS),
    "rails": ("frames", "", {"name": "maml", "inner_lr": 0.01, "inner_steps": 2, "adapt": ["head"]}, ROWS),
}


def pictures(folder: Path) -> ImageStore:
    """Random pixels [1, 28, 28], in a store of this process's own."""
    return write_store(folder.with_suffix(f".store{rank()}"), **read()._asdict())


def backbone(data: Data) -> nn.Module:
    """A small one that takes such data."""
    if data.name == "tracks":
        return Tiny()
    if data.name == "made":
        return unet(widths=(3, 4), input_shape=data.input_shape)
    return conv4(channels=4, input_shape=data.input_shape)


def learner(
    data: Data, head: str, spec: dict[str, Any], decoder: dict[str, Any] | None, chunk: int | None
) -> tuple[Learner, Batches]:
    """What is trained, in float64, and what on: this process's part of it."""
    torch.manual_seed(0)
    method: Method = build("method", METHODS, spec, backbone=backbone(data))
    method.problem = problem_of(data, decoder)
    way = 3 if data.name == "random" else 1
    method.attach_head(method.problem.outputs(way))
    draw: Callable[..., Any] = method.problem.sampler(data.train, way, 2, 2).episodes
    if head:
        draw = method.problem.examples(data.train, 0, "none").images
    trained = pretraining(method, head, data.train) if head else method
    method.chunk = chunk
    for value in trained.parameters():  # also of what starts at zero, whose gradient would be none
        nn.init.normal_(value, std=0.3)
    return trained.double().train(), Batches("tasks", draw, SIZE, even_share(SIZE, "tasks"))


def main(out: Path, devices: int) -> None:
    """Descend twice with each family."""
    found: dict[str, Tensor] = {}
    with launched(devices, 1, "32-true") as fabric:
        sources: dict[str, Any] = {"pictures": pictures(out), "clips": clips(), "frames": frames(24)}
        for name, (source, head, spec, decoder) in FAMILIES.items():
            chunk = 1 if name.endswith("task by task") else None
            trained, batches = learner(sources[source], head, spec, decoder, chunk)
            module, optimizer = fabric.setup(trained, torch.optim.SGD(trained.parameters(), lr=0.01))
            for step in range(STEPS):
                batch = batches[step]
                batch = type(batch)(*(part.double() if part.is_floating_point() else part for part in batch))
                outcome = descend(fabric, module, optimizer, batch, None)
                found |= {f"{name}|{step}|loss and score": torch.tensor(outcome, dtype=torch.float64)}
                found |= {
                    f"{name}|{step}|gradient {key}": value.grad.clone()
                    for key, value in trained.named_parameters()
                    if value.grad is not None
                }
                found |= {f"{name}|{step}|buffer {key}": value.clone() for key, value in trained.named_buffers()}
                optimizer.step()
    torch.save(found, out)


if __name__ == "__main__":
    main(Path(sys.argv[1]), int(sys.argv[2]))
