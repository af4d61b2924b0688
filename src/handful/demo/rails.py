"""Rail lines on rendered scenes: meta-train, then learn a new line from five frames of it, and draw ten others."""

from __future__ import annotations

import json
import time
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from PIL import Image

from handful.data.rails import Frame
from handful.data.rails.rows import ROWS, rows_of
from handful.data.scenes import draw_camera, render_frame
from handful.data.store import new_folder
from handful.demo.ending import show_end
from handful.files import write_text
from handful.model.rails import LineModel, fit_lines
from handful.problems.rail_lines.predictions import cut, path_iou
from handful.recipe import load_recipe
from handful.run import Run
from handful.training import train_recipe

RECIPE = "scenes-maml"
CHANGES: list[str] = []  # a test makes it shorter
LINE = 2026  # the seed of the new line, whose scenes no split has
SUPPORT, QUERY = 5, 10


def run_demo(out: Path, max_minutes: float, fresh: bool = False) -> Run:
    """Render scenes, train on them, evaluate; then fit on five frames of one camera, and find the rails in ten more."""
    started = time.perf_counter()
    run, _ = train_recipe(load_recipe(RECIPE, CHANGES), out / "run", max_minutes=max_minutes, fresh=fresh)
    camera = draw_camera(np.random.default_rng(LINE), 512, 288)
    frames = [
        render_frame(LINE, index, camera=camera, light="day", ground="ballast") for index in range(SUPPORT + QUERY)
    ]
    annotated, others = write_frames(frames[:SUPPORT], out / "annotated"), frames[SUPPORT:]
    write_frames(others, out / "others")
    model = fit_lines(annotated, run)
    model.save(out / "line")
    print(f"\n{model.card}")
    print(f"In {len(others)} further frames of that camera the path IoU is {agreement(model, others):.3f}.")
    print(f"Try:  handful predict {out / 'line'} {out / 'others' / 'images'} --overlay {out / 'drawn'}")
    show_end(run, out, started)
    return run


def write_frames(frames: Sequence[Frame], folder: Path) -> Path:
    """Frames as a person would give them: pictures, and their left and right rail in annotations.json."""
    records = []
    with new_folder(folder) as work:
        (work / "images").mkdir()
        for number, frame in enumerate(frames):
            name = f"images/{number:02}.jpg"
            Image.fromarray(frame.pixels()).save(work / name, quality=92)
            rails = {side: frame.lines[side].round(2).tolist() for side in ("left", "right") if side in frame.lines}
            records.append({"image": name, "width": frame.width, "height": frame.height, **rails})
        write_text(work / "annotations.json", json.dumps({"records": records}, indent=1))
    return folder


def agreement(model: LineModel, frames: Sequence[Frame]) -> float:
    """Mean path IoU of a model's answers with the lines of frames."""
    lines = model.lines([frame.pixels() for frame in frames])
    true = [
        [rows_of(frame.lines.get(side), frame.width, frame.height) for side in ("left", "right")] for frame in frames
    ]
    return float(path_iou(cut(lines.x, lines.there, ROWS), torch.from_numpy(np.array(true))).mean())
