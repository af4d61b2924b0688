"""One `fit` and one `load_model` for all problems: what the support is, or the card says, decides."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, cast, overload

from torch import nn

from handful import wording
from handful.data import Frame, list_images, survey_frames
from handful.data.video.layout import videos_in
from handful.data.video.reading import VIDEOS
from handful.errors import HandfulError
from handful.model import fitting
from handful.model.folder import problem_of_model
from handful.model.inputs import Input
from handful.model.model import Model
from handful.model.rails import LineModel, fit_lines
from handful.model.start import Spec
from handful.model.video import VideoModel, fit_video
from handful.model.video.fitting import FALSE_ALARMS
from handful.problems import RailLines, VideoAnomaly
from handful.run import Run


@overload
def fit(
    support: Mapping[str, Input | Sequence[Input]],
    run: Run | None = None,
    inner_steps: int | None = None,
    *,
    backbone: Spec | nn.Module | None = None,
    method: Spec | None = None,
    open_set: bool = False,
    check: bool = True,
    skip_bad: bool = False,
) -> Model: ...


@overload
def fit(
    support: Sequence[Frame],
    run: Run | None = None,
    inner_steps: int | None = None,
    *,
    backbone: Spec | None = None,
    check: bool = True,
    skip_bad: bool = False,
) -> LineModel: ...


@overload
def fit(
    support: str | Path,
    run: Run | None = None,
    inner_steps: int | None = None,
    *,
    backbone: Spec | nn.Module | None = None,
    method: Spec | None = None,
    open_set: bool = False,
    false_alarms: float | None = None,
    check: bool = True,
    skip_bad: bool = False,
) -> Any: ...


def fit(
    support: str | Path | Mapping[str, Input | Sequence[Input]] | Sequence[Frame],
    run: Run | None = None,
    inner_steps: int | None = None,
    *,
    backbone: Spec | nn.Module | None = None,
    method: Spec | None = None,
    open_set: bool = False,
    false_alarms: float | None = None,
    check: bool = True,
    skip_bad: bool = False,
) -> Model | LineModel | VideoModel:
    """Learn from a handful of labelled pictures, of annotated frames, or from normal footage of a camera.

    support: class folders, or class name -> pictures, for a `Model` (`handful.model.fitting.fit`); annotated frames, or
    a folder or a file of them, for a `LineModel` (`fit_lines`); a video, or a folder of them, for a `VideoModel`
    (`fit_video`).  method and open_set are about classes alone, false_alarms about video: with it, or with a run of
    video anomalies, a folder of pictures is the frames of a clip, or of several.

    Raises HandfulError: as these do; an option that makes no sense of such a support.
    """
    if isinstance(support, str | Path) and is_video(Path(support), run, false_alarms):
        if backbone is not None or method is not None or open_set:
            name = "backbone" if backbone is not None else "method" if method is not None else "open_set"
            raise HandfulError(f"{name} is about pictures, and this is video; leave it out.")
        if run is None and inner_steps is not None:
            raise HandfulError("inner_steps is about a run; name one, or leave it out.")
        share = FALSE_ALARMS if false_alarms is None else false_alarms
        return fit_video(support, run, inner_steps, false_alarms=share, check=check, skip_bad=skip_bad)
    if false_alarms is not None:
        raise HandfulError("false_alarms is about video, and these are pictures; leave it out.")
    if isinstance(support, Mapping) or not is_annotated(support, run):
        classes = cast("fitting.Support", support)
        return fitting.fit(
            classes,
            run,
            inner_steps,
            backbone=backbone,
            method=method,
            open_set=open_set,
            check=check,
            skip_bad=skip_bad,
        )
    if method is not None or open_set:
        raise HandfulError(
            f"{'open_set' if method is None else 'method'} is about class folders, and these are annotated frames; "
            "leave it out."
        )
    if run is None and inner_steps is not None:
        raise HandfulError("inner_steps is about a run; name one, or leave it out.")
    if run is not None and backbone is not None:
        raise HandfulError("A run has its backbone; leave it out, or leave out the run.")
    if isinstance(backbone, nn.Module):
        raise HandfulError("A model of rail lines takes its backbone by name, which its card can say; give that.")
    return fit_lines(support, run, inner_steps, backbone=backbone, check=check, skip_bad=skip_bad)


def is_video(support: Path, run: Run | None, false_alarms: float | None) -> bool:
    """Whether a support is footage: by its name, by what a folder holds, or since only footage makes sense here."""
    if false_alarms is not None or (run is not None and run.method.problem.name == VideoAnomaly.name):
        return True
    return support.suffix.lower() in VIDEOS or (support.is_dir() and bool(videos_in(support)))


def is_annotated(support: str | Path | Sequence[Frame], run: Run | None) -> bool:
    """Whether a support is one of frames: by what it is, and of a folder of which nothing says so, by the run.

    Raises HandfulError for pictures without classes and without annotations.
    """
    if not isinstance(support, str | Path):
        return True
    if survey_frames(support) is not None or (run is not None and run.method.problem.name == RailLines.name):
        return True
    folder = Path(support)
    if folder.is_dir() and not any(map(Path.is_dir, folder.iterdir())) and (loose := list_images(folder)):
        raise HandfulError(
            f"{support} holds {wording.count(len(loose), 'picture')}, {loose[0].name} the first, without classes and "
            "without annotations: put them into class folders, or draw their rails and write annotations.json "
            "(docs/rails.md), or say --false-alarms 0.01 if they are the frames of a clip (docs/video.md)."
        )
    return False


def load_model(folder: str | Path) -> Model | LineModel | VideoModel:
    """Open a model folder of any problem; HandfulError as the `load` of `Model` and its fellows raises it."""
    kinds: dict[str | None, type[LineModel] | type[VideoModel]] = {
        RailLines.name: LineModel,
        VideoAnomaly.name: VideoModel,
    }
    return kinds.get(problem_of_model(Path(folder)), Model).load(folder)
