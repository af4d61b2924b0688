"""Meta-training: the outer loop.

    handful train glyphs-maml-5w1s --out runs/glyphs                       # resumes where runs/glyphs stopped
    handful train omniglot-maml-5w1s --out runs/om --max-minutes 30        # stops cleanly, saved and evaluated

setup (parts from the recipe) -> main (the run folder) -> fit (the loop).
"""

from __future__ import annotations

import csv
import json
import math
import shutil
import time
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from lightning_fabric import Fabric
from torch.optim import Optimizer
from torch.optim.lr_scheduler import CosineAnnealingLR, LambdaLR, LRScheduler
from torch.utils.data import DataLoader, Dataset
from torch.utils.tensorboard import SummaryWriter

from handful.backbones import BACKBONES
from handful.data.store import ImageStore
from handful.episodes import Episode, EpisodeSampler
from handful.errors import HandfulError
from handful.evaluation import evaluate_method
from handful.files import read_tensors, write_tensors, write_text
from handful.methods import MAML, METHODS
from handful.progress import Progress
from handful.recipe import Protocol, Recipe, TrainRecipe, make_recipe
from handful.registry import build
from handful.run import Run, open_data
from handful.runtime import environment, keep_freed_memory

ROWS_PER_VALIDATION = 10
METRICS = ("step", "seconds", "loss", "accuracy", "lr", "val_mean", "val_ci95")


@dataclass
class Progressed:
    """How far a run has come."""

    step: int = 0
    seconds: float = 0.0
    best_step: int = 0
    best_score: float = -math.inf


class EpisodeBatches(Dataset[Episode]):
    """Item i is the batch of tasks of step i, so any number of loading processes yields the same tasks."""

    def __init__(self, sampler: EpisodeSampler, tasks: int) -> None:
        self.sampler = sampler
        self.tasks = tasks

    def __getitem__(self, step: int) -> Episode:
        return self.sampler.episodes(step * self.tasks, (step + 1) * self.tasks)


def train_recipe(
    recipe: Recipe, out: Path, *, max_minutes: float | None = None, fresh: bool = False, quiet: bool = False
) -> Run:
    """Train as a recipe says; resumes where `out` stopped."""
    data = open_data(recipe.data)
    torch.manual_seed(recipe.seed)
    backbone = build("backbone", BACKBONES, recipe.backbone.spec(), image_shape=data.image_shape)
    method = build("method", METHODS, recipe.method.spec(), backbone=backbone)
    return main(recipe, method, data, out, max_minutes=max_minutes, fresh=fresh, quiet=quiet)


def train(
    method: MAML,
    data: ImageStore,
    *,
    out: str | Path,
    seed: int = 0,
    evaluate: dict[str, Any] | None = None,
    max_minutes: float | None = None,
    fresh: bool = False,
    quiet: bool = False,
    **settings: Any,
) -> Run:
    """Meta-train a method on a store; resumes where `out` stopped.

    settings: the keys of a recipe's `train` section (way, shot, query, steps, ...); evaluate: those of `evaluate`.
    """
    out = Path(out)
    backbone = method.network.backbone
    recipe = make_recipe(
        {
            "name": out.name,
            "seed": seed,
            "data": data_recipe(data),
            "backbone": getattr(backbone, "spec", {"name": type(backbone).__name__}),
            "method": getattr(method, "spec", {"name": type(method).__name__}),
            "train": settings,
            "evaluate": evaluate or {},
        }
    )
    return main(recipe, method, data, out, max_minutes=max_minutes, fresh=fresh, quiet=quiet)


def data_recipe(data: ImageStore) -> dict[str, Any]:
    """The `data` section that opens this store again."""
    built = data.info.get("options", {})
    options = {key: built[key] for key in ("image_size", "channels", "skip_bad") if key in built}
    return {
        "name": data.name,
        "root": data.info.get("source"),
        "rotations": data.rotations == 4,
        "split_seed": built.get("seed", 0),
        **options,
    }


def main(
    recipe: Recipe,
    method: MAML,
    data: ImageStore,
    out: Path,
    *,
    max_minutes: float | None,
    fresh: bool,
    quiet: bool,
) -> Run:
    """Prepare the run folder, train, evaluate, and draw the report."""
    kept = keep_freed_memory()
    settings = recipe.train
    train_tasks = EpisodeSampler(data.train, settings.way, settings.shot, settings.query, recipe.seed, settings.augment)
    protocols = recipe.protocols()
    for protocol in protocols:  # refuse what cannot be evaluated before training for hours
        for split in (data.val, data.test):
            EpisodeSampler(split, protocol.way or 0, protocol.shot or 0, protocol.query or 0)
    method.attach_head(method.problem.outputs(settings.way))

    claim(out, recipe, fresh)
    write_text(out / "environment.json", json.dumps({**environment(), "freed_memory_kept": kept}, indent=1))
    write_text(out / "split.json", json.dumps(describe_split(data), ensure_ascii=False, indent=1))
    run = Run(out, recipe, method, data)

    fabric = Fabric(devices=1)
    with Progress(recipe.name, settings.steps, quiet=quiet) as progress:
        progressed = fit(fabric, run, train_tasks, protocols[0], max_minutes, progress)
    run.load_weights("best")
    for protocol in reversed(protocols):  # the main one last: the newest result is the report's headline
        result = evaluate_method(method, data.test, protocol, seed=recipe.seed, run=run.provenance())
        result.save(out)
        if not quiet:
            print(result)
    from handful.report import draw_task, write_report, write_run_plots  # matplotlib, only now

    write_run_plots(out)
    draw_task(run, max(protocols, key=lambda protocol: protocol.query or 0))
    write_report([out], out / "report.html")
    if not quiet:
        print(f"{progressed.step} steps in {progressed.seconds / 60:.1f} minutes; report: {out / 'report.html'}")
    return run


def fit(
    fabric: Fabric,
    run: Run,
    tasks: EpisodeSampler,
    validation: Protocol,
    max_minutes: float | None,
    progress: Progress,
) -> Progressed:
    """The loop: draw tasks, descend the query loss, validate, save."""
    settings, out = run.recipe.train, run.folder
    method, optimizer = fabric.setup(run.method, torch.optim.Adam(run.method.parameters(), lr=settings.lr))
    schedule = learning_rate(optimizer, settings)
    progressed = resume(out, run.method, optimizer, schedule)
    log = Log(out, progressed.step)
    rows = max(1, settings.validate_every // ROWS_PER_VALIDATION)
    loader = DataLoader(
        EpisodeBatches(tasks, settings.tasks_per_step),
        batch_size=None,
        sampler=range(progressed.step, settings.steps),
        num_workers=settings.workers,
    )
    stop_after = math.inf if max_minutes is None else max_minutes * 60
    spent, started = progressed.seconds, time.perf_counter()
    losses: list[float] = []
    scores: list[float] = []
    method.train()
    for episode in loader:
        loss, score = step_tasks(fabric, method, optimizer, fabric.to_device(episode), settings)
        check_finite(loss, run, progressed.step)
        optimizer.step()
        schedule.step()
        progressed.step += 1
        losses.append(loss)
        scores.append(score)
        if progressed.step % rows and progressed.step < settings.steps:
            continue

        progressed.seconds = spent + time.perf_counter() - started
        last = progressed.step == settings.steps or progressed.seconds >= stop_after
        row: dict[str, Any] = {
            "step": progressed.step,
            "seconds": round(progressed.seconds, 2),
            "loss": sum(losses) / len(losses),
            "accuracy": sum(scores) / len(scores),
            "lr": optimizer.param_groups[0]["lr"],
        }
        losses, scores = [], []
        if last or progressed.step % settings.validate_every == 0:
            result = evaluate_method(
                run.method,
                run.data.val,
                validation.model_copy(update={"tasks": settings.validation_tasks}),
                seed=run.recipe.seed,
            )
            row |= {"val_mean": result.mean, "val_ci95": result.ci95}
            if result.mean > progressed.best_score:
                progressed.best_score, progressed.best_step = result.mean, progressed.step
                run.save_weights("best")
            progressed.seconds = spent + time.perf_counter() - started
            log.write(row)
            save(out, run.method, optimizer, schedule, progressed)
        else:
            log.write(row)
        progress.update(progressed.step, row)
        if last:
            break
    return progressed


def step_tasks(
    fabric: Fabric, method: Any, optimizer: Optimizer, episode: Episode, settings: TrainRecipe
) -> tuple[float, float]:
    """One outer gradient: the mean over the step's tasks, a chunk's graph at a time.  Returns mean loss and score."""
    optimizer.zero_grad()
    total = len(episode.support_x)
    chunk = settings.tasks_per_chunk or total
    loss = score = 0.0
    for start in range(0, total, chunk):
        part = episode.tasks(start, start + chunk)
        share = len(part.support_x) / total
        with fabric.no_backward_sync(method, enabled=start + chunk < total):
            outcome = method(part)
            fabric.backward(outcome.loss * share)
        loss += outcome.loss.item() * share
        score += outcome.score.mean().item() * share
    gradients = [p.grad for p in method.parameters() if p.grad is not None]
    if settings.clip is not None:
        torch.nn.utils.clip_grad_value_(method.parameters(), settings.clip)
    # A gradient that is not finite must not reach the weights: fold it into the loss that is checked.
    return loss if torch.nn.utils.get_total_norm(gradients).isfinite() else math.nan, score


def check_finite(loss: float, run: Run, step: int) -> None:
    """Stop before a broken gradient touches the weights, and say where the last good ones are."""
    if math.isfinite(loss):
        return
    first = step * run.recipe.train.tasks_per_step
    good = run.folder / "checkpoints" / "last"
    kept = f"the last good checkpoint is {good}" if good.exists() else "no checkpoint was written yet"
    raise HandfulError(
        f"The loss or its gradient is not finite at step {step + 1} (tasks {first} to "
        f"{first + run.recipe.train.tasks_per_step - 1} of seed {run.recipe.seed}); {kept}; "
        "lower train.lr or method.inner_lr, or set train.clip."
    )


def learning_rate(optimizer: Optimizer, settings: TrainRecipe) -> LRScheduler:
    """The outer rate over the steps."""
    if settings.schedule == "cosine":
        return CosineAnnealingLR(optimizer, settings.steps)
    return LambdaLR(optimizer, lambda _: 1.0)


def describe_split(data: ImageStore) -> dict[str, Any]:
    """Which classes are in which split, by name, with a hash."""
    return {
        "name": data.name,
        "digest": data.digest,
        "hash": data.split_hash,
        "rotations": data.rotations,
        "classes": {name: [data.class_names[c] for c in classes] for name, classes in data.splits.items()},
    }


def claim(out: Path, recipe: Recipe, fresh: bool) -> None:
    """Make the run folder, or check that it is this recipe's."""
    if fresh and (out / "recipe.yaml").exists():
        shutil.rmtree(out)
    if (out / "recipe.yaml").exists():
        difference = _difference(Run.read_recipe(out).model_dump(), recipe.model_dump())
        if difference:
            key, before, now = difference
            raise HandfulError(
                f"{out} was trained with another recipe ({key} is {before!r} there and {now!r} now); "
                "choose another --out, or --fresh to start it anew."
            )
    elif out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise HandfulError(f"{out} exists and is not a run folder; choose another --out.")
    write_text(out / "recipe.yaml", recipe.to_yaml())


def _difference(before: Any, now: Any, key: str = "") -> tuple[str, Any, Any] | None:
    """The first leaf in which two resolved recipes differ; where the data lies does not count."""
    if isinstance(before, dict) and isinstance(now, dict):
        for name in {**before, **now}:
            inner = f"{key}.{name}" if key else name
            if inner != "data.root" and (found := _difference(before.get(name), now.get(name), inner)):
                return found
        return None
    return None if before == now else (key, before, now)


def save(out: Path, method: MAML, optimizer: Optimizer, schedule: LRScheduler, progressed: Progressed) -> None:
    """Write all that a resumed run needs to one file, and the weights beside it for everybody else."""
    folder = out / "checkpoints" / "last"
    tensors = {f"method.{name}": value for name, value in method.state_dict().items()}
    for index, state in optimizer.state_dict()["state"].items():
        tensors |= {f"optimizer.{index}.{name}": torch.as_tensor(value) for name, value in state.items()}
    metadata = {
        "progressed": json.dumps(asdict(progressed)),
        "schedule": json.dumps(_plain(schedule.state_dict())),
    }
    write_tensors(folder / "training.safetensors", tensors, metadata)
    write_tensors(folder / "model.safetensors", method.state_dict())


def resume(out: Path, method: MAML, optimizer: Optimizer, schedule: LRScheduler) -> Progressed:
    """Load what `save` wrote, if anything."""
    path = out / "checkpoints" / "last" / "training.safetensors"
    if not path.exists():
        return Progressed()
    tensors, metadata = read_tensors(path)
    prefix = "method."
    method.load_state_dict({n[len(prefix) :]: v for n, v in tensors.items() if n.startswith(prefix)})
    states: dict[int, dict[str, torch.Tensor]] = {}
    for name, value in tensors.items():
        kind, _, rest = name.partition(".")
        if kind == "optimizer":
            index, _, key = rest.partition(".")
            states.setdefault(int(index), {})[key] = value
    optimizer.load_state_dict({"state": states, "param_groups": optimizer.state_dict()["param_groups"]})
    schedule.load_state_dict(json.loads(metadata["schedule"]))
    for group, rate in zip(optimizer.param_groups, schedule.get_last_lr(), strict=True):
        group["lr"] = rate
    return Progressed(**json.loads(metadata["progressed"]))


def _plain(state: dict[str, Any]) -> dict[str, Any]:
    """The numbers of a scheduler's state; its functions are made anew."""
    return {
        key: value
        for key, value in state.items()
        if isinstance(value, int | float | bool) or key in ("base_lrs", "_last_lr")
    }


class Log:
    """`metrics.csv` and TensorBoard events; on resume, rows after the checkpoint are dropped."""

    def __init__(self, out: Path, step: int) -> None:
        self.path = out / "metrics.csv"
        kept = [row for row in read_metrics(self.path) if int(row["step"]) <= step]
        lines = [",".join(METRICS), *(",".join(row[key] for key in METRICS) for row in kept)]
        write_text(self.path, "\n".join(lines) + "\n")
        self.board = SummaryWriter(str(out), purge_step=step + 1)

    def write(self, row: dict[str, Any]) -> None:
        """Add one row."""
        with self.path.open("a", encoding="utf-8", newline="") as file:
            csv.DictWriter(file, METRICS, restval="").writerow(row)
        for key, value in row.items():
            if key != "step":
                self.board.add_scalar(key, value, row["step"])
        self.board.flush()


def read_metrics(path: Path) -> list[dict[str, str]]:
    """The complete rows of a metrics file."""
    if not path.exists():
        return []
    with path.open(encoding="utf-8", newline="") as file:
        return [row for row in csv.DictReader(file) if all(row[key] is not None for key in METRICS)]
