"""Training: ordinary pre-training where a recipe has it, then the outer loop over episodes.

    handful train glyphs-maml-5w1s --out runs/glyphs                       # resumes where runs/glyphs stopped
    handful train omniglot-maml-5w1s --out runs/om --max-minutes 30        # stops cleanly, saved and evaluated

train_recipe (parts from a recipe) or train (parts from Python) -> main (the run folder) -> fit (the loop, for each
stage).
"""

from __future__ import annotations

import math
import time
from contextlib import closing, nullcontext
from pathlib import Path
from typing import Any, get_args

import torch
from lightning_fabric import Fabric
from torch import nn
from torch.optim import Optimizer
from torch.optim.lr_scheduler import CosineAnnealingLR, LambdaLR, LinearLR, LRScheduler, MultiStepLR

from handful import wording
from handful.backbones import BACKBONES
from handful.batches import Batches, loaded
from handful.checkpoint import Log, Progressed, claim, resume, save
from handful.data import Data
from handful.errors import HandfulError, unknown
from handful.evaluation import Result, check_support, evaluate_method
from handful.files import to_json, write_text
from handful.interruption import Told, noted
from handful.launching import launched
from handful.memory import leanest, plan
from handful.methods import METHODS, Method, Supervised, Trained, pretraining
from handful.problems import problem_of
from handful.processes import SharedMoments, agreed, average, by_first, check_even, even_share, gathered, rank, world
from handful.progress import Progress
from handful.recipe import LoopRecipe, PretrainRecipe, Protocol, Recipe, TrainRecipe, make_recipe
from handful.registry import build, spec_of
from handful.run import Run, check_split, described, is_run, open_data
from handful.runtime import Precision, environment, keep_freed_memory

ROWS_PER_VALIDATION = 10


def train_recipe(
    recipe: Recipe,
    out: Path,
    *,
    precision: Precision = "32-true",
    devices: int = 1,
    nodes: int = 1,
    max_minutes: float | None = None,
    fresh: bool = False,
    quiet: bool = False,
) -> tuple[Run, list[Result]]:
    """Train as a recipe says and score its protocols; resumes where `out` stopped.

    devices, nodes: processes on each machine, and machines (`launched`).
    """
    data = open_data(recipe.data)
    torch.manual_seed(recipe.seed)
    backbone = build("backbone", BACKBONES, recipe.backbone.spec(), input_shape=data.input_shape)
    method = build("method", METHODS, recipe.method.spec(), backbone=backbone)
    return main(recipe, method, data, out, precision, devices, nodes, max_minutes, fresh, quiet)


def train(
    method: Method,
    data: Data,
    *,
    out: str | Path,
    seed: int = 0,
    decoder: dict[str, Any] | None = None,
    pretrain: dict[str, Any] | None = None,
    evaluate: dict[str, Any] | None = None,
    precision: Precision = "32-true",
    devices: int = 1,
    nodes: int = 1,
    max_minutes: float | None = None,
    fresh: bool = False,
    quiet: bool = False,
    **settings: Any,
) -> Run:
    """Meta-train a method on a data set; resumes where `out` stopped.

    settings: the keys of a recipe's `train` section (way, shot, query, steps, ...); decoder, pretrain, evaluate: those
    of the sections of these names; precision: `bf16-mixed` passes images through the backbone in bfloat16;
    devices, nodes: processes on each machine, and machines.  Several run the whole program up to here, and only the
    first one goes on after it.
    A backbone of your own is trained like any other; later, hand it to `Run.open(folder, backbone=...)`.
    """
    out = Path(out)
    parts = {"backbone": method.backbone, "method": method}
    recipe = make_recipe(
        {
            "name": out.name,
            "seed": seed,
            "data": data.recipe(),
            **{kind: spec_of(part) for kind, part in parts.items()},
            "decoder": decoder,
            "pretrain": pretrain,
            "train": settings,
            "evaluate": evaluate or {},
        }
    )
    run, _ = main(recipe, method, data, out, precision, devices, nodes, max_minutes, fresh, quiet)
    return run


def main(
    recipe: Recipe,
    method: Method,
    data: Data,
    out: Path,
    precision: Precision,
    devices: int,
    nodes: int,
    max_minutes: float | None,
    fresh: bool,
    quiet: bool,
) -> tuple[Run, list[Result]]:
    """Prepare the run folder, train, evaluate, and draw the report."""
    kept = keep_freed_memory()
    settings, protocols = recipe.train, recipe.protocols()
    problem = method.problem = problem_of(data, recipe.decoder.spec() if recipe.decoder else None)
    tasks = problem.sampler(data.train, settings.way, settings.shot, settings.query, recipe.seed, settings.augment)
    shape = getattr(method.backbone, "input_shape", data.input_shape)
    if tuple(shape) != data.input_shape:
        raise HandfulError(
            f"The backbone takes inputs {list(shape)}, but those of {data.name!r} are {list(data.input_shape)}."
        )
    torch.manual_seed(recipe.seed)
    method.attach_head(method.problem.outputs(settings.way))
    if settings.steps and not method.episodic:
        raise HandfulError(
            f"The method {recipe.method.name} learns nothing from episodes: set train.steps to 0, and give it a "
            "pretrain section."
        )
    if settings.steps and not any(p.requires_grad for p in method.parameters()):
        raise HandfulError(
            f"There is nothing to learn: the backbone {recipe.backbone.name} is frozen, and {recipe.method.name} has "
            "no weights; set train.steps to 0, or backbone.frozen to false."
        )
    check_precision(recipe, method, precision)
    check_protocols(method, data, protocols, recipe.pretrain is not None)

    if recipe.pretrain:  # what the second stage cannot do is told before the first
        check_even(recipe.pretrain.batch, devices * nodes, "pretrain.batch")
    if settings.steps:
        check_even(settings.tasks_per_step, devices * nodes, "train.tasks_per_step")

    run = Run(out, recipe, method, data)
    with (
        launched(devices, nodes, precision) as fabric,
        claim(out, recipe, precision, fresh) if rank() == 0 else nullcontext(),
    ):
        quiet = quiet or rank() > 0
        by_first(lambda: describe(run, {"precision": precision, "freed_memory_kept": kept, "processes": world()}))
        if not all(gathered(is_run(out))):
            raise HandfulError(f"{out} is not one folder that all processes see; name one that they share by --out.")
        before = first_stage(fabric, run, protocols[0], max_minutes, quiet) if recipe.pretrain else Progressed()
        method.prepare(data.train)
        with Progress(recipe.name, settings.steps, method.problem.metric, quiet) as progress:
            progressed = Progressed()
            if recipe.pretrain and before.step < recipe.pretrain.steps:  # out of time: episodes wait for its end
                run.save_weights("best")
            else:
                part = even_share(settings.tasks_per_step, "train.tasks_per_step")
                batches = Batches("tasks", tasks.episodes, settings.tasks_per_step, part)
                left = None if max_minutes is None else max(0.0, max_minutes - before.seconds / 60)
                progressed = fit(fabric, run, method, batches, settings, protocols[0], left, progress)
                run.load_weights("best")
            results = conclude(run, protocols, progress)
    if not quiet:
        print(*results, sep="\n")
        steps, minutes = before.step + progressed.step, (before.seconds + progressed.seconds) / 60
        print(f"{steps} steps in {minutes:.1f} minutes; report: {out / 'report.html'}")
    return run, results


def describe(run: Run, conditions: dict[str, Any]) -> None:
    """Write into a run's folder what is trained, on what, and where."""
    if is_run(run.folder):
        check_split(run.folder, run.data)
    write_text(run.folder / "environment.json", to_json({**environment(), **conditions}))
    write_text(run.folder / "split.json", to_json(described(run.data)))
    write_text(run.folder / "recipe.yaml", run.recipe.to_yaml())  # last: handful.checkpoint.left_behind


def check_precision(recipe: Recipe, method: Method, precision: Precision) -> None:
    """Refuse an unknown precision, and bfloat16 in an inner loop."""
    if precision not in get_args(Precision):
        raise unknown("precision", precision, get_args(Precision))
    if precision != "32-true" and recipe.train.steps and not method.mixed:
        raise HandfulError(
            f"The inner loop of {recipe.method.name} is computed in float32 alone: set precision to 32-true; "
            f"{precision} is for metric methods, and for pre-training without episodes (train.steps: 0)."
        )


def check_protocols(method: Method, data: Data, protocols: list[Protocol], pretrained: bool) -> None:
    """Refuse before training for hours what could not be evaluated after it, by predicting a small task each way."""
    for protocol in protocols:
        for split in (data.val, data.test):
            method.problem.sampler(split, protocol.way, protocol.shot, protocol.query)
        check_support(protocol, data.test)
        method.attach_head(method.problem.outputs(protocol.way))
        norm_stats = protocol.norm_stats or method.norm_stats
        if norm_stats == "running" and pretrained:
            continue  # there are none before pre-training
        episode = method.problem.sampler(data.test, protocol.way, protocol.shot, 1).episodes(0, 1, device=method.device)
        method.predict(episode, protocol.inner_steps, norm_stats, every_step=False)


def first_stage(fabric: Fabric, run: Run, validation: Protocol, max_minutes: float | None, quiet: bool) -> Progressed:
    """The first stage, in the folder `pretrain` of the run: leaves its best weights in the method."""
    split, settings = run.data.train, run.recipe.pretrain
    assert settings is not None
    sampler = run.method.problem.examples(split, run.recipe.seed, settings.augment)
    stage = Run(run.folder / "pretrain", run.recipe, run.method, sampler.judged_by)
    learner = pretraining(run.method, settings.head, split)
    part = even_share(settings.batch, "pretrain.batch")
    batches = Batches("images", sampler.images, settings.batch, part)
    if isinstance(learner, Supervised):  # what it learns is what it says before any inner step
        validation = validation.model_copy(update={"inner_steps": 0})
    with Progress(f"{run.recipe.name}, pre-training", settings.steps, run.method.problem.metric, quiet) as progress:
        progressed = fit(fabric, stage, learner, batches, settings, validation, max_minutes, progress)
    stage.load_weights("best")
    return progressed


def conclude(run: Run, protocols: list[Protocol], progress: Progress) -> list[Result]:
    """Score the test tasks of every protocol, and draw the report: the processes together, and the first alone."""
    from handful.report import draw_step_sizes, draw_task, write_report, write_run_plots  # matplotlib, only now

    results: list[Result] = []
    for protocol in protocols:
        asked = wording.protocol(protocol.way, protocol.shot, protocol.query)
        progress.say(f"scoring {protocol.tasks} test tasks, {asked}")
        result = evaluate_method(run.method, run.data.test, protocol, seed=run.recipe.seed, run=run.provenance())
        if rank() == 0:
            result.save(run.folder)  # at once: the next protocol may take hours
        results.append(result)
    if rank():
        return results
    results[0].save(run.folder)  # again: the newest result is the report's headline, and that is the main one
    write_run_plots(run.folder)
    draw_task(run, max(protocols, key=lambda protocol: protocol.query))
    draw_step_sizes(run)
    write_report([run.folder], run.folder / "report.html")
    return results


def fit(
    fabric: Fabric,
    run: Run,
    learner: Method | Trained,
    batches: Batches,
    settings: TrainRecipe | PretrainRecipe,
    validation: Protocol,
    max_minutes: float | None,
    progress: Progress,
) -> Progressed:
    """The loop: draw a batch, descend its loss, log, validate the method on episodes, save.

    max_minutes bounds the training time of all sessions together; it is looked at whenever a row is logged.  Told to
    stop (Ctrl-C, SIGTERM), it finishes the step, or leaves a validation for later, saves, and raises KeyboardInterrupt.
    """
    out = run.folder
    module, optimizer = fabric.setup(learner, outer_optimizer(learner, run.method.backbone, settings))
    schedule = learning_rate(optimizer, settings)
    progressed = resume(out, learner, optimizer, schedule)
    progress.start(progressed.step)
    if isinstance(settings, TrainRecipe):
        with fabric.autocast():
            plan_step(run.method, batches, settings, progressed, progress)
    log = Log(out, progressed.step, waits=bool(progressed.unjudged))
    protocol = validation.model_copy(update={"tasks": settings.validation_tasks, "support": "normal"})

    def keep() -> None:
        """Save all that going on from here takes."""
        if progressed.best_score is None:  # before the first validation
            run.save_weights("best")
        by_first(lambda: save(out, run.method, learner, optimizer, schedule, progressed))

    def judged(row: dict[str, Any]) -> dict[str, Any]:
        """The row with its validation, which is left for later if told to stop meanwhile."""
        progressed.unjudged = row
        try:
            found = validate(run, protocol, progressed, told)
        except KeyboardInterrupt:
            keep()
            progress.say(f"told to stop: saved at step {progressed.step} of {settings.steps}, to be validated later")
            raise
        progressed.unjudged = {}
        return {**row, **found}

    if settings.steps == 0 and progressed.best_score is None:  # nothing to learn
        keep()
    stop_after = math.inf if max_minutes is None else max_minutes * 60
    if progressed.step and progressed.seconds >= stop_after and not progressed.unjudged:
        if progressed.step < settings.steps:
            progress.say("all sessions together have had their max-minutes; a larger one goes on")
        return progressed
    every_row = max(1, settings.validate_every // ROWS_PER_VALIDATION)
    spent, started = progressed.seconds, time.perf_counter()
    losses, scores = progressed.losses, progressed.scores
    learner.train()
    left = range(progressed.step, settings.steps)
    with noted() as told, closing(loaded(batches, left, settings.workers, fabric.device)) as ready:
        if progressed.unjudged:
            log.write(judged(progressed.unjudged))
            keep()
        elif progressed.step == 0 and settings.steps and isinstance(settings, TrainRecipe) and run.recipe.pretrain:
            # what pre-training left is a candidate: episodes may only make it worse
            log.write(judged({"step": 0, "seconds": 0.0}))
        for batch in ready:
            # dropout is the step's own, resumed or not, and the process's
            torch.manual_seed((run.recipe.seed + rank() * 2**20) * 1_000_003 + progressed.step)
            run.method.outer_step = progressed.step
            loss, score = descend(fabric, module, optimizer, fabric.to_device(batch), settings.clip)
            check_finite(loss, run, progressed.step, batches)
            optimizer.step()
            schedule.step()
            progressed.step += 1
            losses.append(loss)
            scores.append(score)
            stop = agreed(told.stop)
            due = progressed.step % settings.validate_every == 0 or progressed.step == settings.steps
            row: dict[str, Any] = {}
            if due or progressed.step % every_row == 0:
                row = {
                    "step": progressed.step,
                    "seconds": round(spent + time.perf_counter() - started, 2),
                    "loss": sum(losses) / len(losses),
                    "score": sum(scores) / len(scores),
                    "lr": optimizer.param_groups[0]["lr"],
                }
                losses.clear()
                scores.clear()
            elif not stop:
                continue
            progressed.seconds = spent + time.perf_counter() - started
            if due:
                row = judged(row)
                progressed.seconds = spent + time.perf_counter() - started
            over = bool(row) and agreed(progressed.seconds >= stop_after)
            if row:
                log.write(row)
            if due or over or stop:
                keep()
            if row:
                progress.update(progressed.step, row)
            if stop:
                progress.say(f"told to stop: saved at step {progressed.step} of {settings.steps}")
                raise KeyboardInterrupt
            if over and progressed.step < settings.steps:
                progress.say(f"stopped by max-minutes at step {progressed.step} of {settings.steps}")
                break
        if agreed(told.stop):  # in the last validation
            progress.say(f"told to stop: saved at step {progressed.step} of {settings.steps}")
            raise KeyboardInterrupt
    return progressed


def validate(run: Run, protocol: Protocol, progressed: Progressed, told: Told) -> dict[str, float]:
    """Score the method on validation tasks, and keep its weights if they do better than all before.

    Told to stop it raises KeyboardInterrupt at once, but where other processes wait for its share.
    """
    with told.at_once() if world() == 1 else nullcontext():
        run.method.prepare(run.data.train)
        result = evaluate_method(run.method, run.data.val, protocol, seed=run.recipe.seed)
    if wording.better(result.mean, progressed.best_score, result.metric):
        progressed.best_score = result.mean
        run.save_weights("best")
    return {"val_mean": result.mean, "val_ci95": result.ci95}


def plan_step(
    method: Method, batches: Batches, settings: TrainRecipe, progressed: Progressed, progress: Progress
) -> None:
    """Decide how many tasks to hold at a time, and say what a step will take.

    A resumed run keeps to what was decided, whatever is free now: its sums are the same to the last bit.  It is
    decided anew if what was asked for has changed.
    """
    asked = settings.memory_gib, list(method.backprops)
    if progressed.chunk and asked == (progressed.memory_gib, progressed.backprops):
        method.chunk, method.backprop = progressed.chunk, progressed.backprop
        return
    if settings.steps == 0:
        return
    found = plan(
        method, lambda count: batches.draw(0, count, device=method.device), len(batches.part), settings.memory_gib
    )
    found = leanest(gathered(found), method.backprops)
    method.chunk, method.backprop = progressed.chunk, progressed.backprop = found.chunk, found.backprop
    progressed.memory_gib, progressed.backprops = asked
    progress.say(str(found))


def descend(fabric: Fabric, learner: Any, optimizer: Optimizer, batch: Any, clip: float | None) -> tuple[float, float]:
    """The gradient of one batch: the mean over the tasks or images of all processes.  Returns mean loss and score.

    A gradient that is not finite makes the returned loss NaN: it must not reach the weights.
    """
    optimizer.zero_grad()
    with SharedMoments() if world() > 1 and not learner.divisible else nullcontext():
        outcome = learner(batch)
    fabric.backward(outcome.loss)
    average(learner.kept())
    norm = torch.nn.utils.get_total_norm([p.grad for p in learner.parameters() if p.grad is not None])
    if clip is not None:
        torch.nn.utils.clip_grad_value_(learner.parameters(), clip)
    said = torch.stack([outcome.loss.detach().double(), outcome.score.mean().double()])
    average([said])
    loss, score = said.tolist()
    return loss if norm.isfinite() else math.nan, score


def check_finite(loss: float, run: Run, step: int, batches: Batches) -> None:
    """Stop before a broken gradient touches the weights, and say where the last good ones are."""
    if math.isfinite(loss):
        return
    good = run.folder / "checkpoints" / "last"
    kept = f"the last good checkpoint is {good}" if good.exists() else "no checkpoint was written yet"
    raise HandfulError(
        f"The loss or its gradient is not finite at step {step + 1} ({batches.name(step)} of seed {run.recipe.seed}); "
        f"{kept}; lower lr or method.inner_lr, or set clip."
    )


def outer_optimizer(learner: nn.Module, backbone: nn.Module, settings: LoopRecipe) -> Optimizer:
    """Adam, or gradient descent; the backbone and the rest may have rates of their own."""
    inside = set(backbone.parameters())
    parts: dict[float, list[nn.Parameter]] = {}
    for parameter in learner.parameters():
        if parameter.requires_grad:
            rate = settings.lr if parameter in inside else settings.head_lr or settings.lr
            parts.setdefault(rate, []).append(parameter)
    groups = [{"params": params, "lr": rate} for rate, params in parts.items()] or [{"params": [], "lr": settings.lr}]
    if settings.optimizer == "adam":
        return torch.optim.Adam(groups, lr=settings.lr, weight_decay=settings.weight_decay)
    return torch.optim.SGD(
        groups,
        lr=settings.lr,
        momentum=settings.momentum,
        nesterov=settings.momentum > 0,
        weight_decay=settings.weight_decay,
    )


def learning_rate(optimizer: Optimizer, settings: LoopRecipe) -> LRScheduler:
    """The outer rate over the steps: from lr to min_lr, or down by a factor at each milestone."""
    if settings.schedule == "step":
        return MultiStepLR(optimizer, settings.milestones, settings.decay)
    if settings.schedule == "cosine":
        return CosineAnnealingLR(optimizer, max(settings.steps, 1), settings.min_lr)
    if settings.schedule == "linear":
        return LinearLR(optimizer, 1.0, settings.min_lr / settings.lr, max(settings.steps, 1))
    return LambdaLR(optimizer, lambda _: 1.0)
