"""fit, predict, export, serve."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from handful.cli.shared import Json, Moved, flag, say, show
from handful.errors import HandfulError

if TYPE_CHECKING:
    from handful.model import Model

LOOPBACK = "127.0.0.1"


def fit(
    support: Annotated[
        Path,
        typer.Argument(
            help="A folder of class folders, a few pictures in each; annotated frames (docs/rails.md); or a video of "
            "normal footage, or a folder of such clips (docs/video.md)."
        ),
    ],
    out: Annotated[Path, typer.Option(help="The model folder.")],
    run: Annotated[Path | None, typer.Option("--from", help="A meta-trained run to start from.")] = None,
    backbone: Annotated[
        str | None, typer.Option(help="Without a run: a name of `handful list backbones`, or its section of a recipe.")
    ] = None,
    method: Annotated[
        str | None, typer.Option(help="Without a run: ridge, or another that compares features, or its section.")
    ] = None,
    open_set: Annotated[bool, flag("--open-set", "Say 'none of these' of pictures that are like no class.")] = False,
    false_alarms: Annotated[
        float | None,
        typer.Option(help="Of video: the share of normal frames that may be taken for abnormal; 0.01 if not said."),
    ] = None,
    check: Annotated[
        bool, flag("--check/--no-check", "Leave pictures out in turn, to see how good the model is.")
    ] = True,
    skip_bad: Annotated[bool, flag("--skip-bad", "Leave out pictures and clips that cannot be read.")] = False,
    inner_steps: Annotated[int | None, typer.Option(min=0, help="Of the run's inner loop.")] = None,
    data: Moved = None,
    as_json: Json = False,
) -> None:
    """Learn classes from labelled pictures, rail lines from annotated frames, or a camera from its normal footage."""
    from handful.model import fit as learn
    from handful.model import refuse_other_folder
    from handful.recipe import read_section
    from handful.run import Run

    refuse_other_folder(out)  # before the work, not after it
    if run is None and (data is not None or inner_steps is not None):
        raise HandfulError("--data and --inner-steps are about a run; name one by --from, or leave them out.")
    start = Run.open(run, data, without_data=True) if run else None
    with naming_skip_bad():
        model = learn(
            support,
            start,
            inner_steps,
            backbone=read_section(backbone) if backbone else None,
            method=read_section(method) if method else None,
            open_set=open_set,
            false_alarms=false_alarms,
            check=check,
            skip_bad=skip_bad,
        )
    model.save(out)
    show(model.card.model_dump(), as_json, f"{out}: {model.card}")


def predict(
    model: Annotated[Path, typer.Argument(help="A model folder.")],
    inputs: Annotated[
        list[Path],
        typer.Argument(
            help="Pictures, or folders of pictures; of rail lines videos too; of a camera videos, folders of frames, "
            "or folders of such clips."
        ),
    ],
    top: Annotated[
        int | None, typer.Option(min=1, help="How many classes to name: 3 on the screen, all with --json.")
    ] = None,
    csv: Annotated[
        Path | None,
        typer.Option(
            help="Also write a table: input, label, a column a class, likeness, error; of a camera input, frame, time, "
            "score, alarm."
        ),
    ] = None,
    overlay: Annotated[
        Path | None, typer.Option(help="Of rail lines: a folder for the pictures and videos with their lines drawn in.")
    ] = None,
    smooth: Annotated[
        float | None,
        typer.Option(
            help="Of rail lines in videos: the share of what earlier frames said that the next keeps, as 0.7."
        ),
    ] = None,
    video: Annotated[
        Path | None, typer.Option(help="Of a camera: an mp4 file of one clip, what is unusual drawn over it.")
    ] = None,
    timeline: Annotated[
        Path | None, typer.Option(help="Of a camera: a PNG file, the score of one clip over time.")
    ] = None,
    follow: Annotated[
        bool, flag("--follow", "Of a camera: read on as a file grows, or from a device, until Ctrl-C.")
    ] = False,
    skip_bad: Annotated[bool, flag("--skip-bad", "Go on where an input cannot be read; its answer says why.")] = False,
    as_json: Json = False,
) -> None:
    """Name pictures: label and probabilities; find rails in pictures and videos; or score the frames of a camera."""
    from handful.cli.lines import predict_lines
    from handful.cli.video import Wanted, predict_video
    from handful.model import LineModel, VideoModel, load_model

    opened = load_model(model)
    classes = {"--top": top is not None}
    lines = {"--overlay": overlay is not None, "--smooth": smooth is not None}
    camera = {"--video": video is not None, "--timeline": timeline is not None, "--follow": follow}
    if isinstance(opened, VideoModel):
        refuse(model, "watches a camera", {"classes": classes, "rail lines": lines})
        predict_video(opened, inputs, Wanted(csv, video, timeline), follow, skip_bad, as_json)
    elif isinstance(opened, LineModel):
        refuse(model, "finds rail lines", {"classes": {**classes, "--csv": csv is not None}, "video": camera})
        with naming_skip_bad():
            predict_lines(opened, inputs, overlay, smooth or 0.0, skip_bad, as_json)
    else:
        refuse(model, "names pictures", {"rail lines": lines, "video": camera})
        name_pictures(opened, inputs, top, csv, skip_bad, as_json)


def refuse(model: Path, does: str, others: Mapping[str, Mapping[str, bool]]) -> None:
    """Refuse options about what a model does not do; others: what they are about -> option -> whether it is given."""
    for about, options in others.items():
        if any(options.values()):
            *before, last = options
            named = f"{', '.join(before)} and {last} are" if before else f"{last} is"
            raise HandfulError(f"{named} about {about}, and {model} {does}; leave {'them' if before else 'it'} out.")


def name_pictures(
    opened: Model, inputs: list[Path], top: int | None, csv: Path | None, skip_bad: bool, as_json: bool
) -> None:
    """Answer with the classes of pictures."""
    from handful.data.folders import other_files
    from handful.model import files, write_csv

    paths = list(dict.fromkeys(path for given in inputs for path in files(given)))
    for folder in filter(Path.is_dir, inputs):
        for sentence in other_files(folder):
            say(f"{folder}: {sentence}")
    with naming_skip_bad():
        answers = opened.predict(paths, skip_bad=skip_bad)
    if csv:
        write_csv(csv, answers, opened.card.classes)
    named = top or (len(opened.card.classes) if as_json else 3)
    for answer in answers:
        answer.probabilities = dict(list(answer.probabilities.items())[:named])
    lines = [str(answer) for answer in answers]
    show([answer.as_dict() for answer in answers], as_json, "\n".join(lines))


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

    file = out or model.parent / f"{model.resolve().name}.onnx"
    exported = write(Model.load(model), file, format, check or None, tell=None if as_json else say)
    show(asdict(exported), as_json, str(exported))


def serve(
    folder: Annotated[Path, typer.Argument(help="A model folder, or a run folder: its page is taught first.")],
    host: Annotated[str, typer.Option(help="The address to listen on; 0.0.0.0 for all of this machine's.")] = LOOPBACK,
    port: Annotated[int, typer.Option(min=0, max=65535, help="0 takes a free one.")] = 7860,
    data: Moved = None,
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


@contextmanager
def naming_skip_bad() -> Iterator[None]:
    """Within it, what is said of a picture that cannot be read names the flag that leaves it out."""
    from handful.data.pictures import Unreadable

    try:
        yield
    except Unreadable as error:
        raise HandfulError(f"{str(error).removesuffix('.')}, as --skip-bad does.") from error
