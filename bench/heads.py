"""How long heads take: FRN's forms, GLoFA and the prototype unit of MPN against the published computations.

    python bench/heads.py [--setting NAME]... [--seconds 60] [--threads 2] [--device cuda] [--json FILE]

From given features to logits, and back to features and parameters.  FRN as published makes a d x d matrix of each
class and multiplies every query with all of them, so that there are N copies of the queries ("published Woodbury"; by
Cholesky here, since batched LU is wrong in some CPU builds of torch).  GLoFA as published scores every query under
every class's mask against every prototype and keeps the diagonal.  MPN as published multiplies every position by every
prototype, [B, HW, M, C], before it sums over either: from prototypes to the sum over them is the read-out, from
features on the whole unit.  All forms must agree in float64 before the clock starts; then they take turns in one
process, for --seconds a table and at least three times.  Peak memory is what torch's allocator holds for a step beyond
its inputs.
"""

from __future__ import annotations

import argparse
import json
import math
import statistics
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, Literal

import torch
import torch.nn.functional as F
from torch import Tensor

from handful.decoders.prototype_unit import encode, read
from handful.files import write_text
from handful.memory import free_memory, peak_bytes, size
from handful.methods.frn import FLOOR
from handful.methods.glofa import scores
from handful.methods.reconstruction import closed, direct, distances, woodbury
from handful.runtime import environment, keep_freed_memory

Pass = Literal["forward", "forward and backward"]
PASSES: tuple[Pass, ...] = ("forward", "forward and backward")
Row = dict[str, Any]
FRN_PUBLISHED, GLOFA_PUBLISHED = "published Woodbury", "published N x N"
PROTOTYPES_PUBLISHED = "published HW x M x C"
TOLERANCE = 1e-8
LEAST, MOST = 3, 100  # repeats


def published_frn(query: Tensor, support: Tensor, penalty: Tensor, rho: Tensor) -> Tensor:
    """One task [1, ...]: hats d x d, reconstructions, differences, squares."""
    tasks, queries, positions, d = query.shape
    rows, s = query.view(-1, d), support.squeeze(0)
    gram = s.mT @ s
    factor = torch.linalg.cholesky(gram + penalty.view(-1, 1, 1) * torch.eye(d, dtype=s.dtype, device=s.device))
    hat = torch.cholesky_solve(gram, factor)
    reconstructions = rows.matmul(hat).mul(rho)  # [N, Q*r, d]
    found = (reconstructions - rows.unsqueeze(0)).pow(2).sum(2).permute(1, 0)
    return found.view(tasks, queries, positions, -1).mean(2)


def published_glofa(support: Tensor, query: Tensor, task: Tensor, classes: Tensor, balance: Tensor) -> Tensor:
    """Supports [B, N, K, d], queries [B, Q, d], masks [B, 1, d] and [B, N, d], balance [2, B, 1, 1] -> [B, Q, N]."""
    way = support.shape[1]
    of_task, of_class = 1 + task * balance[0], 1 + classes * balance[1]
    prototypes = F.normalize((support * of_task.unsqueeze(1) * of_class.unsqueeze(2)).mean(2), dim=-1)
    masked = query.unsqueeze(1).expand(-1, way, -1, -1) * of_task.unsqueeze(1) * of_class.unsqueeze(2)  # [B, N, Q, d]
    every = masked @ prototypes.mT.unsqueeze(1)  # [B, N, Q, N]
    return torch.diagonal(every, dim1=1, dim2=3)


def folded_glofa(support: Tensor, query: Tensor, task: Tensor, classes: Tensor, balance: Tensor) -> Tensor:
    """The same by the head's own product."""
    return scores(query, support.sum(2), (1 + balance[0] * task) * (1 + balance[1] * classes))


def published_read_out(x: Tensor, prototypes: Tensor) -> Tensor:
    """Unit vectors [B, HW, C] and [B, M, C] -> y [B, HW, C], as in the table of shapes of note 003."""
    shares = torch.softmax(x @ prototypes.mT, -1)
    new_query = shares.unsqueeze(-1) * prototypes.unsqueeze(1)  # [B, HW, M, C]
    return F.normalize(new_query.sum(2), dim=-1)


def read_out(x: Tensor, prototypes: Tensor) -> Tensor:
    """The same as a product of matrices."""
    return read(torch.softmax(prototypes @ x.mT, 1), prototypes)


def published_unit(features: Tensor, weight: Tensor) -> Tensor:
    """Features [B, HW, C], weights [M, C] -> z = y + x [B, HW, C]."""
    x = F.normalize(features, dim=-1)
    attention = torch.softmax(F.linear(x, weight), 1)
    weighted = attention.unsqueeze(-1) * x.unsqueeze(2)  # [B, HW, M, C]
    return published_read_out(x, F.normalize(weighted.sum(1), dim=-1)) + x


def unit(features: Tensor, weight: Tensor) -> Tensor:
    """The same by the decoder's own products."""
    return encode(features, weight).aggregation


FRN_FORMS: dict[str, Callable[..., Tensor]] = {
    FRN_PUBLISHED: published_frn,
    "direct": direct,
    "woodbury": woodbury,
    "closed": closed,
    "auto": distances,
}
GLOFA_FORMS: dict[str, Callable[..., Tensor]] = {GLOFA_PUBLISHED: published_glofa, "Handful": folded_glofa}
READ_OUT_FORMS: dict[str, Callable[..., Tensor]] = {PROTOTYPES_PUBLISHED: published_read_out, "Handful": read_out}
UNIT_FORMS: dict[str, Callable[..., Tensor]] = {PROTOTYPES_PUBLISHED: published_unit, "Handful": unit}


@dataclass(frozen=True)
class FRN:
    """N classes of m = K r descriptors of d channels, and how many queries; features as after a ReLU, over sqrt(d)."""

    name: str
    way: int
    shot: int
    queries: int
    d: int
    r: int = 25
    pretraining: bool = False
    tasks: ClassVar = 1
    forms: ClassVar = FRN_FORMS
    ours: ClassVar = "auto"
    published: ClassVar = FRN_PUBLISHED

    def __str__(self) -> str:
        return f"FRN, {self.way} class matrices" if self.pretraining else f"FRN, {self.way}-way {self.shot}-shot"

    def inputs(self, device: str, dtype: torch.dtype, queries: int | None = None) -> list[Tensor]:
        """Queries, supports, alpha, beta, scale."""
        generator = torch.Generator().manual_seed(0)
        shapes = (1, queries or self.queries, self.r, self.d), (1, self.way, self.shot * self.r, self.d)
        features = [torch.randn(shape, generator=generator).relu() / math.sqrt(self.d) for shape in shapes]
        return [value.to(device, dtype) for value in (*features, *torch.tensor([0.1, -0.1, 2.0]))]

    def logits(self, form: Callable[..., Tensor], inputs: Sequence[Tensor]) -> Tensor:
        """[1, Q, N]"""
        query, support, alpha, beta, scale = inputs
        (_, way, m, d) = support.shape
        return -scale * form(query, support, (m / d * alpha.exp() + FLOOR).expand(1, way), beta.exp())

    @property
    def needs(self) -> int:
        """Bytes of the published form at the least: hats and their factors, copies of queries, with gradients."""
        return 4 * self.way * self.d * (6 * self.d + 5 * self.queries * self.r)


@dataclass(frozen=True)
class GLoFA:
    """N classes of K supports of d features, and how many queries; the masks are given."""

    name: str
    way: int
    shot: int
    queries: int
    d: int
    tasks: int = 1
    pretraining: ClassVar = False
    needs: ClassVar = 0
    forms: ClassVar = GLOFA_FORMS
    ours: ClassVar = "Handful"
    published: ClassVar = GLOFA_PUBLISHED

    def __str__(self) -> str:
        many = f", {self.tasks} tasks at once" if self.tasks > 1 else ""
        return f"GLoFA, {self.way}-way {self.shot}-shot{many}"

    def inputs(self, device: str, dtype: torch.dtype, queries: int | None = None) -> list[Tensor]:
        """Supports, queries, the two masks and their balance."""
        generator = torch.Generator().manual_seed(0)
        shapes = [(self.way, self.shot, self.d), (queries or self.queries, self.d), (1, self.d), (self.way, self.d)]
        of_each = [torch.rand(self.tasks, *shape, generator=generator) for shape in shapes]
        return [value.to(device, dtype) for value in (*of_each, torch.rand(2, self.tasks, 1, 1, generator=generator))]

    def logits(self, form: Callable[..., Tensor], inputs: Sequence[Tensor]) -> Tensor:
        """[B, Q, N]"""
        return form(*inputs)


@dataclass(frozen=True)
class Prototypes:
    """M prototypes (the ways) of d channels, and how many positions of a window ask for them (the queries)."""

    name: str
    way: int
    queries: int
    d: int
    tasks: int = 2
    whole: bool = False
    shot: ClassVar = 1
    pretraining: ClassVar = False
    ours: ClassVar = "Handful"
    published: ClassVar = PROTOTYPES_PUBLISHED

    def __str__(self) -> str:
        part = "unit" if self.whole else "read-out"
        return f"MPN, {part} of {self.way} prototypes, {self.tasks} windows at once"

    @property
    def forms(self) -> dict[str, Callable[..., Tensor]]:
        """Of the read-out, or of the whole unit."""
        return UNIT_FORMS if self.whole else READ_OUT_FORMS

    def inputs(self, device: str, dtype: torch.dtype, queries: int | None = None) -> list[Tensor]:
        """Features and weights for the unit; for the read-out unit vectors of the positions and the prototypes."""
        generator = torch.Generator().manual_seed(0)
        x = torch.randn(self.tasks, queries or self.queries, self.d, generator=generator)
        prototypes = torch.randn(self.tasks, self.way, self.d, generator=generator)
        given = (x, prototypes[0]) if self.whole else (F.normalize(x, dim=-1), F.normalize(prototypes, dim=-1))
        return [value.to(device, dtype) for value in given]

    def logits(self, form: Callable[..., Tensor], inputs: Sequence[Tensor]) -> Tensor:
        """[B, HW, C]"""
        return form(*inputs)

    @property
    def needs(self) -> int:
        """Bytes of the published form at the least: the product, its gradient, and theirs."""
        return 4 * 4 * self.tasks * self.queries * self.way * self.d


Setting = FRN | GLoFA | Prototypes
SETTINGS: dict[str, Setting] = {
    setting.name: setting
    for setting in (
        FRN("5w1s", 5, 1, 75, 640),
        FRN("5w5s", 5, 5, 75, 640),
        FRN("5w20s", 5, 20, 75, 640),
        FRN("conv4-5w1s", 5, 1, 75, 64),
        FRN("conv4-5w5s", 5, 5, 75, 64),
        FRN("conv4-5w20s", 5, 20, 75, 64),
        FRN("20w5s", 20, 5, 300, 640),
        FRN("pretraining-16", 64, 1, 16, 640, pretraining=True),
        FRN("pretraining-128", 64, 1, 128, 640, pretraining=True),
        GLoFA("glofa-5w5s", 5, 5, 75, 640),
        GLoFA("glofa-20w5s", 20, 5, 300, 640),
        GLoFA("glofa-5w5s-8tasks", 5, 5, 75, 640, tasks=8),
        GLoFA("glofa-20w5s-8tasks", 20, 5, 300, 640, tasks=8),
        Prototypes("prototypes-read-out", 10, 65_536, 128),
        Prototypes("prototypes-unit", 10, 65_536, 128, whole=True),
        FRN("tiny", 3, 2, 4, 8, r=4),  # for trying the script out
        GLoFA("glofa-tiny", 3, 2, 4, 8),
        Prototypes("prototypes-tiny", 3, 12, 8),
        Prototypes("prototypes-unit-tiny", 3, 12, 8, whole=True),
    )
}


def main() -> int:
    options = arguments()
    if options.device == "cuda" and not torch.cuda.is_available():
        print("--device cuda: torch sees no GPU here; leave the option out to measure on the CPU.", file=sys.stderr)
        return 2
    torch.set_num_threads(options.threads)
    keep_freed_memory()  # as whenever Handful trains, here for all forms alike
    machine = environment()
    threads = "1 thread" if options.threads == 1 else f"{options.threads} threads"
    print(
        f"{machine['gpu'] if options.device == 'cuda' else machine['cpu'] + ', ' + threads}; torch {machine['torch']}"
    )
    rows: list[Row] = []
    for name in options.setting or [name for name in SETTINGS if "tiny" not in name]:
        setting = SETTINGS[name]
        print(f"\n{setting.name}: {setting}, {setting.queries} queries, d = {setting.d}")
        free = free_memory(torch.device(options.device))
        if setting.needs > free:
            print(f"left out: the published form needs about {size(setting.needs)}, and {size(free)} are free.")
            continue
        worst, which = disagreement(setting, options.device)
        if not worst <= TOLERANCE:
            print(f"{which} is {worst:.1e} from the published form in float64: not the same, so not timed.")
            return 1
        print(f"all agree in float64, to {worst:.0e} relative")
        for passes in PASSES:
            rows += measure(setting, passes, options)
    report_goals(rows)
    if options.json:
        write_text(options.json, json.dumps(rows, indent=1))
    return 0


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--setting", choices=SETTINGS, action="append", help="only this one; may be given again")
    parser.add_argument("--seconds", type=float, default=60.0, help="how long a table takes to measure, about")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--device", choices=("cpu", "cuda"), default="cpu")
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    if options.seconds < 0 or options.threads < 1:
        parser.error("--seconds is at least 0, --threads at least 1")
    return options


def step(setting: Setting, form: Callable[..., Tensor], inputs: Sequence[Tensor], passes: Pass) -> list[Tensor]:
    """Logits alone, or what they send back to all inputs along one direction."""
    if passes == "forward":
        with torch.no_grad():
            return [setting.logits(form, inputs)]
    leaves = [value.requires_grad_() for value in inputs]
    logits = setting.logits(form, leaves)
    along = torch.linspace(-1, 1, logits.numel(), dtype=logits.dtype, device=logits.device).view_as(logits)
    return list(torch.autograd.grad(logits, leaves, along))


def disagreement(setting: Setting, device: str) -> tuple[float, str]:
    """The largest relative difference from the published form, of logits or of any gradient, and whose it is."""
    inputs = setting.inputs(device, torch.float64, min(setting.queries, 16))  # few, for memory's sake
    worst, which = 0.0, setting.published
    for passes in PASSES:
        expected = step(setting, setting.forms[setting.published], inputs, passes)
        for name, form in setting.forms.items():
            for value, wanted in zip(step(setting, form, inputs, passes), expected):
                error = float((value - wanted).norm() / wanted.norm())
                if not error <= worst:  # nor if it is not a number
                    worst, which = error, name
    return worst, which


def measure(setting: Setting, passes: Pass, options: argparse.Namespace) -> list[Row]:
    """A row for each form, all measured in turns; prints their table."""
    inputs = setting.inputs(options.device, torch.float32)
    device = torch.device(options.device)

    def run(form: Callable[..., Tensor]) -> Callable[[], object]:
        return lambda: step(setting, form, inputs, passes)

    walls: dict[str, list[float]] = {name: [] for name in setting.forms}
    peaks = {}
    for name, form in setting.forms.items():  # which also warms up
        run(form)()
        peaks[name] = peak_bytes(run(form), device) / 2**20
    started = time.perf_counter()
    for turn in range(MOST):
        if turn >= LEAST and time.perf_counter() - started > options.seconds:
            break
        names = list(setting.forms)
        first = turn % len(names)  # nobody always follows the same neighbour
        for name in names[first:] + names[:first]:
            walls[name].append(seconds(run(setting.forms[name]), options.device))
    rows = [make_row(setting, passes, name, walls[name], peaks[name], options) for name in setting.forms]
    published = next(row for row in rows if row["form"] == setting.published)
    best = min((row for row in rows if row["form"] != setting.ours), key=lambda row: row["median"])
    print(f"\n{passes:<22} {'median ms':>10} {'min':>9} {'max':>9} {'MiB':>8} {'x published':>12} {'x memory':>9}")
    for row in rows:
        row["times_published"] = published["median"] / row["median"]
        row["memory_of_published"] = published["peak_mib"] / row["peak_mib"]
        row["times_best"] = best["median"] / row["median"]
        figures = " ".join(f"{1e3 * row[key]:{width}.3f}" for key, width in (("median", 10), ("min", 9), ("max", 9)))
        print(
            f"{row['form']:<22} {figures} {row['peak_mib']:8.1f} "
            f"{row['times_published']:12.2f} {row['memory_of_published']:9.2f}"
        )
    return rows


def seconds(work: Callable[[], object], device: str) -> float:
    started = time.perf_counter()
    work()
    if device == "cuda":
        torch.cuda.synchronize()
    return time.perf_counter() - started


def make_row(
    setting: Setting, passes: Pass, form: str, walls: Sequence[float], peak: float, options: argparse.Namespace
) -> Row:
    machine = environment()
    return {
        "measured": f"{setting.name}, {passes}, {form}",
        "head": type(setting).__name__,
        "setting": setting.name,
        "pass": passes,
        "form": form,
        **{key: getattr(setting, key) for key in ("tasks", "way", "shot", "queries", "d")},
        "unit": "s",
        "repeats": len(walls),
        "median": statistics.median(walls),
        "min": min(walls),
        "max": max(walls),
        "peak_mib": peak,
        "device": options.device,
        **{f"machine_{key}": machine[key] for key in ("cpu", "cores", "torch", "python", "commit", "gpu")},
        "machine_threads": options.threads,
    }


def report_goals(rows: list[Row]) -> None:
    """A line for each goal; a row of figures for each is added to the rows."""
    print("\ngoals")
    for row in [row for row in rows if row["form"] == SETTINGS[row["setting"]].ours]:
        for name, figure, least in goals(row):
            print(f"{'reached' if figure >= least else 'missed':<8} {name}: {figure:.2f}, goal {least:.2f}")
            rows.append(
                {
                    "measured": f"goal: {name}",
                    "setting": row["setting"],
                    "form": None,
                    "unit": "x",
                    "repeats": row["repeats"],
                    **dict.fromkeys(("median", "min", "max"), figure),
                    "goal": least,
                    "reached": figure >= least,
                    **{key: value for key, value in row.items() if key.startswith("machine_") or key == "device"},
                }
            )


def goals(row: Row) -> Iterator[tuple[str, float, float]]:
    """What is asked of Handful's own form in a setting and pass: its name, the figure (times better), the least."""
    setting = SETTINGS[row["setting"]]
    where = f"{setting.name}, {row['pass']}"
    if isinstance(setting, GLoFA):
        yield f"{where}, times as fast as published", row["times_published"], 3 if setting.way <= 5 else 10
        return
    if isinstance(setting, Prototypes):
        if not setting.whole:
            yield f"{where}, times as fast as published", row["times_published"], 5
            yield f"{where}, peak memory of the published form over its own", row["memory_of_published"], 5
        return
    yield f"{where}, times as fast as the best form", row["times_best"], 1 / 1.1
    if setting.pretraining:
        yield f"{where}, times as fast as published", row["times_published"], 8
        yield f"{where}, peak memory of the published form over its own", row["memory_of_published"], 2


if __name__ == "__main__":
    sys.exit(main())
