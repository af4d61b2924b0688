"""The command line: one verb a function, the same words as in Python and in recipes.

Heavy imports happen inside the verbs, so that `handful --help` answers at once.  A HandfulError is one sentence on
standard error and exit code 2.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated, Any

import typer

from handful.errors import HandfulError

app = typer.Typer(
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)
data_app = typer.Typer(help="Data sets: what is known, what is in a folder, building a store.", no_args_is_help=True)
app.add_typer(data_app, name="data")

LARGEST_SEED = 2**43 - 1  # as in recipes
LOOPBACK = "127.0.0.1"
INDUCTIVE = "by support statistics, or running ones of a metric method"
NormStatistics = Annotated[
    str | None,
    typer.Option(
        help="Whose batch-norm statistics: batch, support, support+1, running or per_step; running alone of a metric "
        "method. As in its recipe if not said."
    ),
]
On = Annotated[
    str | None,
    typer.Option(
        help="Draw the tasks from other data: a name of `handful data list`, or the data section of a recipe, such as "
        "'{name: folder, root: photos/, image_size: 84}'."
    ),
]
Json = Annotated[bool, typer.Option("--json", help="Print JSON instead of text.")]


def main() -> None:
    """Entry point: errors that a person can mend are one sentence and exit code 2."""
    try:
        app()
    except HandfulError as error:
        print(f"handful: {error}", file=sys.stderr)
        sys.exit(2)


def show(value: Any, as_json: bool, text: str) -> None:
    """Print a result as JSON or as text."""
    from handful.files import to_json

    print(to_json(value) if as_json else text)


def version_wanted(value: bool) -> None:
    """Print the version and stop."""
    if value:
        from importlib.metadata import version

        print(version("handful"))
        raise typer.Exit


@app.callback()
def options(
    version: Annotated[
        bool, typer.Option("--version", callback=version_wanted, is_eager=True, help="Print the version.")
    ] = False,
) -> None:
    """Teach a vision model a new task from a handful of examples."""


@app.command()
def demo(
    out: Annotated[Path, typer.Option(help="Folder for everything the demo makes.")] = Path("out/demo"),
    max_minutes: Annotated[float, typer.Option(min=0, help="Longest training time, in minutes.")] = 2.5,
    fresh: Annotated[bool, typer.Option("--fresh", help="Start anew instead of going on.")] = False,
) -> None:
    """The main job end to end on the embedded glyphs: meta-train, evaluate, fit on five drawings, predict, report."""
    from handful.demo import run_demo

    run_demo(out, max_minutes, fresh)


@app.command()
def train(
    recipe: Annotated[str, typer.Argument(help="A recipe file, or the name of a shipped one.")],
    out: Annotated[Path, typer.Option(help="The run folder; training resumes where it stopped.")],
    changes: Annotated[list[str] | None, typer.Option("--set", help="Change a recipe key: a.b=value.")] = None,
    precision: Annotated[
        str, typer.Option(help="32-true, or bf16-mixed: backbones of metric methods and pre-training in bfloat16.")
    ] = "32-true",
    max_minutes: Annotated[
        float | None,
        typer.Option(
            min=0,
            help="Stop after this much training of all sessions together, saved and evaluated. Looked at ten times "
            "between two validations.",
        ),
    ] = None,
    fresh: Annotated[bool, typer.Option("--fresh", help="Start anew: delete the run that is in --out.")] = False,
    as_json: Json = False,
) -> None:
    """Train as a recipe says, evaluate on the test classes, write the report."""
    from handful.recipe import load_recipe
    from handful.training import train_recipe

    try:
        found = load_recipe(recipe, changes or [])
        _, results = train_recipe(
            found,
            out,
            precision=precision,  # type: ignore[arg-type]  # checked where it is used
            max_minutes=max_minutes,
            fresh=fresh,
            quiet=as_json,
        )
    except KeyboardInterrupt:
        print("handful: interrupted; the same command goes on from where it was saved last.", file=sys.stderr)
        raise typer.Exit(130) from None
    if as_json:
        print(f"[{', '.join(result.to_json() for result in results)}]")


@app.command()
def evaluate(
    run: Annotated[Path, typer.Argument(help="A run folder.")],
    data: Annotated[str | None, typer.Option(help="Folder of the data's source, if it has moved.")] = None,
    on: On = None,
    split: Annotated[str, typer.Option(help="train, val or test.")] = "test",
    way: Annotated[int | None, typer.Option(min=1)] = None,
    shot: Annotated[int | None, typer.Option(min=1)] = None,
    query: Annotated[int | None, typer.Option(min=1, help="Queries a class.")] = None,
    tasks: Annotated[int | None, typer.Option(min=2)] = None,
    seed: Annotated[int | None, typer.Option(min=0, max=LARGEST_SEED, help="Draws the tasks.")] = None,
    inner_steps: Annotated[int | None, typer.Option(min=0)] = None,
    norm_stats: NormStatistics = None,
    inductive: Annotated[
        bool,
        typer.Option("--inductive", help=f"Score it inductively: {INDUCTIVE}."),
    ] = False,
    per_episode: Annotated[
        bool, typer.Option("--per-episode", help="Embed images anew for every task: slow, and the same.")
    ] = False,
    as_json: Json = False,
) -> None:
    """Score a run on many tasks, with interval, floors and task hash; what is not said is as in its recipe."""
    from dataclasses import asdict

    from handful.evaluation import evaluate as score
    from handful.recipe import read_data_recipe
    from handful.run import Run, open_data

    opened = Run.open(run, data)
    result = score(
        opened,
        (open_data(read_data_recipe(on)) if on else opened.data).split(split),
        way=way,
        shot=shot,
        query=query,
        tasks=tasks,
        seed=seed,
        inner_steps=inner_steps,
        norm_stats=norm_stats,  # type: ignore[arg-type]  # checked where it is used
        inductive=inductive,
        embed_once=not per_episode,
    )
    path = result.save(run)
    show(asdict(result), as_json, f"{result}\nwritten to {path}")


@app.command()
def compare(
    runs: Annotated[list[Path], typer.Argument(help="Run folders; the first is the baseline.")],
    data: Annotated[str | None, typer.Option(help="Folder of the data's source, if it has moved.")] = None,
    on: On = None,
    way: Annotated[int | None, typer.Option(min=1)] = None,
    shot: Annotated[int | None, typer.Option(min=1)] = None,
    query: Annotated[int | None, typer.Option(min=1)] = None,
    tasks: Annotated[int | None, typer.Option(min=2)] = None,
    seed: Annotated[
        int | None, typer.Option(min=0, max=LARGEST_SEED, help="Draws the tasks; as in the first run's recipe.")
    ] = None,
    inner_steps: Annotated[
        int | None, typer.Option(min=0, help="Inner steps of every run; as in its own recipe if not said.")
    ] = None,
    norm_stats: NormStatistics = None,
    inductive: Annotated[
        bool, typer.Option("--inductive", help=f"Score all of them inductively: {INDUCTIVE}.")
    ] = False,
    out: Annotated[
        Path | None,
        typer.Option(help="NAME.html: write a page, with NAME-forest.png and NAME-adaptation.png beside it."),
    ] = None,
    as_json: Json = False,
) -> None:
    """Score runs on the same tasks: paired differences to the first with 95 % intervals.

    The runs stay as they are. --out writes one self-contained page: the results with their floors, the differences
    as a forest plot, the adaptation curve of each run, and the runs themselves.
    """
    from dataclasses import asdict, replace

    from handful.comparison import clear_of_zero, score_together
    from handful.comparison import compare as paired
    from handful.recipe import read_data_recipe
    from handful.run import open_data
    from handful.wording import measured

    if out is not None and out.suffix != ".html":
        raise HandfulError(f"--out names the page to write, which ends in .html; {str(out)!r} does not.")
    results = score_together(
        runs,
        way=way,
        shot=shot,
        query=query,
        tasks=tasks,
        seed=seed,
        inner_steps=inner_steps,
        norm_stats=norm_stats,  # type: ignore[arg-type]  # checked where it is used
        inductive=inductive,
        data_root=data,
        data=open_data(read_data_recipe(on)) if on else None,
    )
    differences = paired(results)
    metric = next(iter(results.values())).metric
    written: list[Path] = []
    if out:
        from handful.report import write_comparison

        written = write_comparison(results, out)
    lines = [f"{name}: {result}" for name, result in results.items()]
    lines += [
        f"{d.label}: {measured(d.mean, d.ci95, metric, signed=True)} (95 % over {d.tasks} paired tasks)"
        for d in differences
    ]
    lines += [clear_of_zero(sum(d.clear for d in differences), len(differences)) + "."]
    lines += [f"written to {path}" for path in written]
    value = {
        "results": [{"name": name, **asdict(replace(result, per_task=[]))} for name, result in results.items()],
        "differences": [asdict(d) for d in differences],
        "written": [str(path) for path in written],
    }
    show(value, as_json, "\n".join(lines))


@app.command()
def fit(
    support: Annotated[Path, typer.Argument(help="A folder of class folders, a few pictures in each.")],
    out: Annotated[Path, typer.Option(help="The model folder.")],
    run: Annotated[
        Path | None, typer.Option("--from", help="A meta-trained run to start from; without it nothing is trained.")
    ] = None,
    backbone: Annotated[
        str | None, typer.Option(help="Without a run: a name of `handful list backbones`, or its section of a recipe.")
    ] = None,
    method: Annotated[
        str | None, typer.Option(help="Without a run: ridge, or another that compares features, or its section.")
    ] = None,
    open_set: Annotated[
        bool, typer.Option("--open-set", help="Say 'none of these' of pictures that are like no class.")
    ] = False,
    check: Annotated[
        bool, typer.Option("--check/--no-check", help="Leave pictures out in turn, to see how good the model is.")
    ] = True,
    skip_bad: Annotated[bool, typer.Option("--skip-bad", help="Leave out pictures that cannot be read.")] = False,
    inner_steps: Annotated[int | None, typer.Option(min=0, help="Of the run's inner loop.")] = None,
    data: Annotated[str | None, typer.Option(help="Folder of the run's data, if it has moved.")] = None,
    as_json: Json = False,
) -> None:
    """Learn named classes from a handful of labelled pictures and save the model."""
    from handful.model import fit as learn
    from handful.model import refuse_other_folder
    from handful.recipe import read_part
    from handful.run import Run

    refuse_other_folder(out)  # before the work, not after it
    if run is None and (data is not None or inner_steps is not None):
        raise HandfulError("--data and --inner-steps are about a run; name one by --from, or leave them out.")
    model = learn(
        support,
        Run.open(run, data) if run else None,
        inner_steps,
        backbone=read_part(backbone) if backbone else None,
        method=read_part(method) if method else None,
        open_set=open_set,
        check=check,
        skip_bad=skip_bad,
    )
    model.save(out)
    show(model.card.model_dump(), as_json, f"{out}: {model.card}")


@app.command()
def predict(
    model: Annotated[Path, typer.Argument(help="A model folder.")],
    inputs: Annotated[list[Path], typer.Argument(help="Pictures, or folders of pictures.")],
    top: Annotated[
        int | None, typer.Option(min=1, help="How many classes to name: 3 on the screen, all with --json.")
    ] = None,
    csv: Annotated[
        Path | None, typer.Option(help="Also write a table: input, label, a column a class, likeness, error.")
    ] = None,
    skip_bad: Annotated[
        bool, typer.Option("--skip-bad", help="Go on where a picture cannot be read; its answer says why.")
    ] = False,
    as_json: Json = False,
) -> None:
    """Name pictures: label and probabilities."""
    from handful.model import Model, files, write_csv

    opened = Model.load(model)
    paths = list(dict.fromkeys(path for given in inputs for path in files(given)))
    answers = opened.predict(paths, skip_bad=skip_bad)
    if csv:
        write_csv(csv, answers, opened.card.classes)
    named = top or (len(opened.card.classes) if as_json else 3)
    for answer in answers:
        answer.probabilities = dict(list(answer.probabilities.items())[:named])
    lines = [str(answer) for answer in answers]
    show([answer.as_dict() for answer in answers], as_json, "\n".join(lines))


@app.command()
def export(
    model: Annotated[Path, typer.Argument(help="A model folder.")],
    format: Annotated[str, typer.Option(help="onnx.")] = "onnx",
    out: Annotated[Path | None, typer.Option(help="The file; MODEL.onnx if not said.")] = None,
    check: Annotated[
        list[Path] | None,
        typer.Option(
            help="A picture, or a folder of them, to compare on; can be given again. Two photographs that scikit-learn "
            "brings, parts of them and four characters if not said."
        ),
    ] = None,
    as_json: Json = False,
) -> None:
    """Write a model as one file that takes pictures as they are, and compare it with torch."""
    from dataclasses import asdict

    from handful.model import Model
    from handful.model import export as write

    exported = write(Model.load(model), out or model.parent / f"{model.resolve().name}.onnx", format, check or None)
    show(asdict(exported), as_json, str(exported))


@app.command()
def serve(
    folder: Annotated[Path, typer.Argument(help="A model folder, or a run folder: its page is taught first.")],
    host: Annotated[str, typer.Option(help="The address to listen on; 0.0.0.0 for all of this machine's.")] = LOOPBACK,
    port: Annotated[int, typer.Option(min=0, max=65535, help="0 takes a free one.")] = 7860,
    data: Annotated[str | None, typer.Option(help="Folder of the run's data, if it has moved.")] = None,
    max_upload: Annotated[float, typer.Option(min=0.001, help="Megabytes (of 2^20 bytes) of a request.")] = 32,
    max_pixels: Annotated[float, typer.Option(min=0.001, max=178, help="Millions of pixels of a picture.")] = 50,
    max_pictures: Annotated[int, typer.Option(min=1, help="Pictures of a request, or taught on the page.")] = 64,
    max_seconds: Annotated[float, typer.Option(min=0.001, help="Until an answer.")] = 60,
    max_waiting: Annotated[int, typer.Option(min=1, help="Requests at a time; those beyond are told to wait.")] = 128,
) -> None:
    """A page in the browser to teach and try a model, and JSON endpoints: /predict, /health, /openapi.json."""
    from handful.serve import Limits
    from handful.serve import serve as listen

    limits = Limits(round(max_upload * 2**20), round(max_pixels * 1e6), max_pictures, max_seconds, max_waiting)
    listen(folder, host, port, limits, data)


@app.command()
def report(
    runs: Annotated[list[Path], typer.Argument(help="Run folders.")],
    out: Annotated[Path | None, typer.Option(help="The HTML file; RUN/report.html for one run.")] = None,
    record: Annotated[
        Path | None,
        typer.Option(help="Also write the run's figures, settings and machine to a JSON file, to keep by its recipe."),
    ] = None,
) -> None:
    """Draw the plots of runs and write one self-contained HTML page."""
    from handful.report import write_record, write_report, write_run_plots
    from handful.run import is_run

    if record is not None and len(runs) > 1:
        raise HandfulError(f"--record keeps the figures of one run, not of {len(runs)}; name one.")
    for run in runs:
        if not is_run(run):  # a page would be written into it
            raise HandfulError(f"{run} is not a run folder; give one that `handful train --out` made.")
        write_run_plots(run)
    if out is None and len(runs) > 1:
        raise HandfulError("Several runs need --out FILE.html for their common report.")
    print(write_report(runs, out or runs[0] / "report.html"))
    if record is not None:
        print(write_record(runs[0], record))


@app.command("list")
def list_parts(
    kind: Annotated[str, typer.Argument(help="methods, backbones, datasets or recipes.")],
    as_json: Json = False,
) -> None:
    """Name what there is."""
    from handful.errors import unknown

    def first_lines(registry: dict[str, Any]) -> dict[str, str]:
        return {name: (part.__doc__ or "").strip().splitlines()[0] for name, part in registry.items()}

    if kind == "methods":
        from handful.methods import METHODS

        names = first_lines(METHODS)
    elif kind == "backbones":
        from handful.backbones import BACKBONES

        names = first_lines(BACKBONES)
    elif kind == "datasets":
        from handful.data import DRAWN, FRAMED, READERS

        names = {name: reader.about for name, reader in READERS.items()}
        names |= {name: drawn.about for name, drawn in {**DRAWN, **FRAMED}.items()}
    elif kind == "recipes":
        from handful.recipe import SHIPPED, shipped_recipes

        texts = {name: (SHIPPED / f"{name}.yaml").read_text(encoding="utf-8") for name in shipped_recipes()}
        names = {name: text.splitlines()[0].lstrip("# ") for name, text in texts.items()}
    else:
        raise unknown("kind of part", kind, ("methods", "backbones", "datasets", "recipes"))
    width = max(map(len, names))
    show(names, as_json, "\n".join(f"{name:<{width}}  {about}" for name, about in names.items()))


@data_app.command("list")
def data_list(as_json: Json = False) -> None:
    """The data sets that Handful reads."""
    list_parts("datasets", as_json)


@data_app.command("check")
def data_check(
    folder: Annotated[Path, typer.Argument(help="A folder: archives, class folders, annotated frames, or a store.")],
    sheet: Annotated[
        Path | None,
        typer.Option(help="Also draw the first pictures of each class, or frames with their lines, as a PNG."),
    ] = None,
    as_json: Json = False,
) -> None:
    """What is in a folder, and what is wrong with it."""
    from dataclasses import asdict

    from handful.data import check, samples, survey_frames

    found = check(folder)
    if sheet is not None:
        from handful.report import class_sheet, frame_sheet, save

        annotated = survey_frames(folder)
        save(class_sheet(*samples(folder)) if annotated is None else frame_sheet(annotated.frames), sheet)
    show(asdict(found), as_json, str(found))
    if found.problems:
        raise typer.Exit(2)


@data_app.command("build")
def data_build(
    name: Annotated[str, typer.Argument(help="A data set; see `handful data list`.")],
    source: Annotated[Path | None, typer.Option(help="The folder of its source.")] = None,
    npy: Annotated[Path | None, typer.Option(help="Also write a plain array [1623, 20, 1, 28, 28] (omniglot).")] = None,
    skip_bad: Annotated[bool, typer.Option("--skip-bad", help="Leave out pictures that cannot be decoded.")] = False,
    download: Annotated[bool, typer.Option("--download", help="Fetch the source first.")] = False,
    image_size: Annotated[int | None, typer.Option(min=1, help="Pixels of a side.")] = None,
    channels: Annotated[int | None, typer.Option(help="1 (grey) or 3 (colour), of a folder.")] = None,
    seed: Annotated[int, typer.Option(min=0, max=LARGEST_SEED, help="Draws the class split of a folder.")] = 0,
    classes: Annotated[int | None, typer.Option(min=1, help="Only the first so many classes of each split.")] = None,
    split: Annotated[str | None, typer.Option(help="Which class split, of CUB: closerlook, frn, ...")] = None,
    cropped: Annotated[bool, typer.Option("--cropped", help="Cut pictures to their bounding box, of CUB.")] = False,
    as_json: Json = False,
) -> None:
    """Decode a data set once, to a store in the cache folder."""
    import time

    from handful.data import build, write_npy

    started = time.perf_counter()
    if npy is not None and name != "omniglot":
        raise HandfulError(f"--npy writes note 002's Omniglot array; the data set {name!r} has none.")
    store = build(
        name,
        source,
        download=download,
        image_size=image_size,
        channels=channels,
        seed=seed,
        skip_bad=skip_bad,
        classes=classes,
        split=split,
        cropped=cropped,
    )
    sizes = {split: len(classes) for split, classes in store.splits.items()}
    seconds = time.perf_counter() - started
    skipped = store.info.get("skipped", [])
    lines = [
        f"{name}: {len(store.images)} images {list(store.image_shape)} in {len(store.class_names)} classes "
        f"({', '.join(f'{count} {split}' for split, count in sizes.items())}), {seconds:.1f} s",
        *(f"skipped: {path}" for path in skipped),
        *([store.info["note"]] if "note" in store.info else []),
    ]
    if npy is not None:
        lines.append(f"{write_npy(store, npy)} written")
    value = {
        "name": name,
        "images": len(store.images),
        "image_shape": store.image_shape,
        "classes": sizes,
        "digest": store.digest,
        "skipped": skipped,
        "note": store.info.get("note"),
        "seconds": seconds,
    }
    show(value, as_json, "\n".join(lines))
