"""data list, data check, data build."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from handful.cli.parts import list_parts
from handful.cli.shared import LARGEST_SEED, Json, flag, show
from handful.errors import HandfulError

if TYPE_CHECKING:
    from handful.data import VideoClips


def list_data(as_json: Json = False) -> None:
    """The data sets that Handful reads."""
    list_parts("datasets", as_json)


def check(
    folder: Annotated[
        Path, typer.Argument(help="A folder: archives, class folders, annotated frames, clips, or a store.")
    ],
    sheet: Annotated[
        Path | None,
        typer.Option(help="Also draw the first pictures of each class, frames with their lines, or clips, as a PNG."),
    ] = None,
    as_json: Json = False,
) -> None:
    """What is in a folder, and what is wrong with it."""
    from dataclasses import asdict

    from handful.data import check as look_through
    from handful.data import samples, survey_frames

    if sheet is not None and sheet.suffix.lower() != ".png":
        raise HandfulError(f"--sheet names the picture to write, which ends in .png; {str(sheet)!r} does not.")
    found = look_through(folder)
    lines, written = [str(found)], []
    if sheet is not None:
        from handful.data.checking import clips_of
        from handful.data.video.checking import clip_samples
        from handful.report import class_sheet, frame_sheet, save

        if (annotated := survey_frames(folder)) is not None:
            drawn = frame_sheet(annotated.frames)
        elif (clips := clips_of(folder)) is not None:
            drawn = class_sheet(clip_samples(clips), found.clips, ("clip", "frame"))
        else:
            drawn = class_sheet(*samples(folder))
        save(drawn, sheet)
        lines, written = [*lines, f"written to {sheet}"], [str(sheet)]
    show({**asdict(found), "written": written}, as_json, "\n".join(lines))
    if found.problems:
        raise typer.Exit(2)


def build(
    name: Annotated[str, typer.Argument(help="A data set; see `handful data list`.")],
    source: Annotated[Path | None, typer.Option(help="The folder of its source.")] = None,
    clips: Annotated[int | None, typer.Option(min=1, help="Rendered clips to train on (sprites).")] = None,
    npy: Annotated[Path | None, typer.Option(help="Also write a plain array [1623, 20, 1, 28, 28] (omniglot).")] = None,
    skip_bad: Annotated[bool, flag("--skip-bad", "Leave out pictures that cannot be decoded.")] = False,
    download: Annotated[bool, flag("--download", "Fetch the source first.")] = False,
    image_size: Annotated[int | None, typer.Option(min=1, help="Pixels of a side.")] = None,
    channels: Annotated[int | None, typer.Option(help="1 (grey) or 3 (colour), of a folder or of clips.")] = None,
    seed: Annotated[int, typer.Option(min=0, max=LARGEST_SEED, help="Draws the class split of a folder.")] = 0,
    classes: Annotated[int | None, typer.Option(min=1, help="Only the first so many classes of each split.")] = None,
    split: Annotated[str | None, typer.Option(help="Which class split, of CUB: closerlook, frn, ...")] = None,
    cropped: Annotated[bool, flag("--cropped", "Cut pictures to their bounding box, of CUB.")] = False,
    as_json: Json = False,
) -> None:
    """Decode a data set once, to a store in the cache folder."""
    import time

    from handful.data import VideoClips, write_npy
    from handful.data import build as build_store

    started = time.perf_counter()
    if npy is not None and name != "omniglot":
        raise HandfulError(f"--npy writes note 002's Omniglot array; the data set {name!r} has none.")
    store = build_store(
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
        clips=clips,
    )
    if isinstance(store, VideoClips):
        show_clips(store, time.perf_counter() - started, as_json)
        return
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


def show_clips(store: VideoClips, seconds: float, as_json: bool) -> None:
    """What a store of clips holds."""
    sizes = {split: len(clips) for split, clips in store.splits.items()}
    abnormal = None if store.abnormal is None else int(store.abnormal.sum())
    labelled = "" if abnormal is None else f", {abnormal:,} of them abnormal"
    text = (
        f"{store.name}: {len(store.frames):,} frames {list(store.frames.shape[1:])}{labelled}, in {len(store.names)} "
        f"clips ({', '.join(f'{count} {split}' for split, count in sizes.items())}), {seconds:.1f} s"
    )
    value = {
        "name": store.name,
        "frames": len(store.frames),
        "frame_shape": store.frames.shape[1:],
        "clips": sizes,
        "abnormal": abnormal,
        "digest": store.digest,
        "note": store.info.get("note"),
        "seconds": seconds,
    }
    show(value, as_json, "\n".join(filter(None, [text, store.info.get("note")])))
