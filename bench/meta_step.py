"""How long a meta-training step takes: note 002's own algorithm against Handful's, on the same network and tasks.

    python bench/meta_step.py [--repeats 15] [--json FILE]

8 tasks of 5-way 1-shot 15-query at 28x28, 5 inner steps, Adam included, two threads.  All rows are measured in one
interleaved run, so a change of the machine's speed meets all of them; compare the medians, as ratios to the note's.
"""

from __future__ import annotations

import argparse
import json
import platform
import resource
import statistics
import time
from collections.abc import Callable
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from handful.episodes import Episode
from handful.methods import MAML, GradientBased
from handful.runtime import environment, keep_freed_memory

TASKS, WAY, SHOT, QUERY, STEPS = 8, 5, 1, 15, 5
INNER_LR, OUTER_LR = 0.04, 2e-4


class NoteNetwork(nn.Module):
    """The network of note 002 up to its head: stride 2 and padding 2 and pooling, so 28 -> 7 -> 2 -> 1 -> 1."""

    out_features = 64

    def __init__(self) -> None:
        super().__init__()
        layers: list[nn.Module] = []
        for block in range(4):
            layers.append(nn.Conv2d(1 if block == 0 else 64, 64, 3, stride=2, padding=2))
            middle = [nn.BatchNorm2d(64), nn.MaxPool2d(2), nn.ReLU()]
            layers += middle if block < 3 else [nn.ReLU(), nn.BatchNorm2d(64), nn.MaxPool2d(2)]
        self.layers = nn.Sequential(*layers, nn.Flatten())

    def forward(self, x: Tensor) -> Tensor:
        return self.layers(x)


def note_forward(w: list[Tensor], x: Tensor) -> Tensor:
    """The same network on a flat list of weights: convolution, bias, gamma, beta for each block, then the head."""
    for block in range(4):
        kernel, bias, gamma, beta = w[4 * block : 4 * block + 4]
        x = F.conv2d(x, kernel, bias, stride=2, padding=2)
        if block < 3:
            x = F.relu(F.max_pool2d(F.batch_norm(x, None, None, gamma, beta, training=True), 2))
        else:
            x = F.max_pool2d(F.batch_norm(F.relu(x), None, None, gamma, beta, training=True), 2)
    return F.linear(x.flatten(1), w[16], w[17])


def note_step(weights: list[Tensor], optimizer: torch.optim.Optimizer, episode: Episode) -> None:
    """Note 002's algorithm: a loop over tasks, no create_graph, the queries passed with their graph at every step."""
    losses = [torch.zeros(()) for _ in range(STEPS + 1)]
    for sx, sy, qx, qy in zip(*episode):
        fast = weights
        for step in range(STEPS):
            grads = torch.autograd.grad(F.cross_entropy(note_forward(fast, sx), sy), fast)
            if step == 0:
                with torch.no_grad():
                    prediction = note_forward(weights, qx)
                    losses[0] = losses[0] + F.cross_entropy(prediction, qy)
                    (prediction.argmax(1) == qy).sum().item()
            fast = [w - INNER_LR * g for w, g in zip(fast, grads)]
            if step > 0:  # the note never looks at the queries after its first update
                prediction = note_forward(fast, qx)
                losses[step + 1] = losses[step + 1] + F.cross_entropy(prediction, qy)
                with torch.no_grad():
                    (prediction.softmax(1).argmax(1) == qy).sum().item()
    optimizer.zero_grad()
    (losses[-1] / TASKS).backward()
    optimizer.step()


def plain_second_order_step(weights: list[Tensor], optimizer: torch.optim.Optimizer, episode: Episode) -> None:
    """The shortest right second-order MAML: the same loop with create_graph and one query pass."""
    optimizer.zero_grad()
    for sx, sy, qx, qy in zip(*episode):
        fast = weights
        for _ in range(STEPS):
            grads = torch.autograd.grad(F.cross_entropy(note_forward(fast, sx), sy), fast, create_graph=True)
            fast = [w - INNER_LR * g for w, g in zip(fast, grads)]
        (F.cross_entropy(note_forward(fast, qx), qy) / TASKS).backward()
    optimizer.step()


def handful_step(
    method: GradientBased, optimizer: torch.optim.Optimizer, episode: Episode, every_step: bool = False
) -> None:
    """Handful's step; with `every_step` the accuracy after every inner step as well."""
    optimizer.zero_grad()
    method(episode).loss.backward()
    optimizer.step()
    if every_step:
        method.problem.score(method.predict(episode), episode.query_y)


def contenders() -> dict[str, Callable[[Episode], None]]:
    """Name -> a step on its own copy of the weights."""
    rows: dict[str, Callable[[Episode], None]] = {}

    def listed(
        step: Callable[[list[Tensor], torch.optim.Optimizer, Episode], None],
    ) -> Callable[[Episode], None]:
        torch.manual_seed(0)
        weights: list[Tensor] = list(nn.Sequential(NoteNetwork(), nn.Linear(64, WAY)).parameters())
        optimizer = torch.optim.Adam(weights, lr=OUTER_LR)
        return lambda episode: step(weights, optimizer, episode)

    def ours(first_order: bool, every_step: bool = False) -> Callable[[Episode], None]:
        torch.manual_seed(0)
        method = MAML(NoteNetwork(), inner_lr=INNER_LR, inner_steps=STEPS, first_order=first_order)
        method.attach_head(WAY)
        optimizer = torch.optim.Adam(method.parameters(), lr=OUTER_LR)
        return lambda episode: handful_step(method, optimizer, episode, every_step)

    rows["note 002 (first order)"] = listed(note_step)
    rows["plain loop, second order"] = listed(plain_second_order_step)
    rows["Handful, first order"] = ours(True)
    rows["Handful, first order, accuracy after every step"] = ours(True, every_step=True)
    rows["Handful, second order"] = ours(False)
    return rows


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--repeats", type=int, default=15)
    parser.add_argument("--warmup", type=int, default=5)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    kept = keep_freed_memory()

    generator = torch.Generator().manual_seed(0)
    episode = Episode(
        torch.rand(TASKS, WAY * SHOT, 1, 28, 28, generator=generator),
        torch.arange(WAY).repeat_interleave(SHOT).expand(TASKS, -1),
        torch.rand(TASKS, WAY * QUERY, 1, 28, 28, generator=generator),
        torch.arange(WAY).repeat_interleave(QUERY).expand(TASKS, -1),
    )
    steps = contenders()
    times: dict[str, list[float]] = {name: [] for name in steps}
    for repeat in range(options.warmup + options.repeats):
        for name, step in steps.items():
            started = time.perf_counter()
            step(episode)
            if repeat >= options.warmup:
                times[name].append(time.perf_counter() - started)

    machine = environment()
    note = statistics.median(times["note 002 (first order)"])
    rows = []
    print(f"{machine['cpu']}, {options.threads} threads, torch {machine['torch']}, Python {platform.python_version()}")
    print(f"freed memory kept: {kept}; peak memory of the whole run: {peak_gib():.2f} GiB")
    print(f"{'step':<50} {'median':>8} {'min':>8} {'max':>8}   of the note's")
    for name, seconds in times.items():
        median = statistics.median(seconds)
        print(f"{name:<50} {median:8.3f} {min(seconds):8.3f} {max(seconds):8.3f}   {median / note:6.2f}")
        rows.append(
            {
                "measured": name,
                "unit": "s",
                "repeats": len(seconds),
                "median": median,
                "min": min(seconds),
                "max": max(seconds),
                "ratio_to_note": median / note,
                **{f"machine_{key}": machine[key] for key in ("cpu", "cores", "threads", "torch", "commit")},
            }
        )
    if options.json:
        options.json.write_text(json.dumps(rows, indent=1), encoding="utf-8")


def peak_gib() -> float:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20


if __name__ == "__main__":
    main()
