"""What a model of rail lines costs: `handful fit` on five frames, and `handful predict` on pictures and a video.

    python bench/rail_frames.py [--run RUN] [--no-check] [--frames 600] [--pictures 200] [--repeats 5] [--json FILE]

Frames are rendered, 512x288 pixels, of one camera; the video is H.264 at 25 frames a second.  `fit` is a process each,
with its check or without, from a backbone alone with an empty cache (once) and a filled one, and from `--run` if there
is one.  `predict` is a model in this process, decoding, computing, drawing, encoding: pictures and the video, with and
without overlay, and the video without the mirror image; and the command on the video with overlay, with its peak
memory.
"""

from __future__ import annotations

import argparse
import itertools
import json
import os
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from PIL import Image

from handful.data import Frame, render_frame
from handful.data.scenes import draw_camera
from handful.demo.rails import write_frames
from handful.files import write_text
from handful.model import LineModel
from handful.model.rails.model import LineNetwork
from handful.model.rails.overlay import Overlay
from handful.model.rails.shots import sources
from handful.model.video_writer import VideoWriter
from own_pictures import Rows, handful, row

SHOTS, SEED, DRAWN = 5, 2026, 40  # frames to fit on; of the scenes; different ones to predict


def main() -> None:
    options = arguments()
    rows: Rows = []
    with tempfile.TemporaryDirectory() as made:
        work, warm = Path(made), Path(made) / "cache"
        camera = draw_camera(np.random.default_rng(SEED), 512, 288)
        frames = [render_frame(SEED, index, camera=camera, light="day") for index in range(SHOTS + DRAWN)]
        support = write_frames(frames[:SHOTS], work / "annotated")
        ride = write_ride(frames[SHOTS:], work / "ride.mp4", options.frames)
        pictures = write_pictures(frames[SHOTS:], work / "pictures", options.pictures)
        checking = [] if options.check else ["--no-check"]
        first = handful("fit", support, *checking, "--out", work / "first", cache=warm)
        rows.append(row("fit on 5 frames, empty cache", "s", [first[0]], peak=first[1]))
        starts: dict[str, list[object]] = {"backbone alone": [*checking]}
        if options.run:
            starts["a run"] = ["--from", options.run, *checking]
        for name, more in starts.items():
            again = [handful("fit", support, *more, "--out", work / "line", cache=warm) for _ in range(options.repeats)]
            peak = max(peak for _, peak in again)
            rows.append(row(f"fit on 5 frames, {name}", "s", [seconds for seconds, _ in again], peak=peak))
        os.environ["HANDFUL_CACHE"] = str(warm)
        model = LineModel.load(work / "line")
        alone = without_mirror(model)
        for name, of, source, overlay in (
            ("pictures", model, pictures, None),
            ("pictures, drawn", model, pictures, work / "drawn"),
            ("video", model, ride, None),
            ("video, drawn", model, ride, work / "drawn"),
            ("video, drawn, no mirror image", alone, ride, work / "drawn"),
        ):
            rates = [rate(of, source, overlay) for _ in range(options.repeats + 1)][1:]
            rows.append(row(f"predict {name}", "frames/s", rates))
        seconds, peak = handful("predict", work / "line", ride, "--json", "--overlay", work / "drawn", cache=warm)
        rows.append(row(f"predict video of {options.frames} frames, drawn, the command", "s", [seconds], peak=peak))
    if options.json:
        write_text(options.json, json.dumps(rows, indent=1))


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--run", type=Path, help="a run of rail lines, to fit from")
    parser.add_argument("--no-check", dest="check", action="store_false", help="fit without looking how good it is")
    parser.add_argument("--frames", type=int, default=600, help="of the video")
    parser.add_argument("--pictures", type=int, default=200)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--json", type=Path)
    return parser.parse_args()


def write_ride(frames: Sequence[Frame], path: Path, count: int) -> Path:
    """A video of so many frames, each shown a second."""
    writer = VideoWriter(path, 25)
    held = [frame.pixels() for frame in frames]
    for number in range(count):
        writer.write(held[number // 25 % len(held)])
    writer.close()
    return path


def write_pictures(frames: Sequence[Frame], folder: Path, count: int) -> Path:
    """So many pictures, JPEG."""
    folder.mkdir()
    for number, frame in zip(range(count), itertools.cycle(frames)):
        Image.fromarray(frame.pixels()).save(folder / f"{number:04}.jpg", quality=90)
    return folder


def without_mirror(model: LineModel) -> LineModel:
    """A model that asks no mirror images."""
    network = model.network
    alone = LineNetwork(network.network, network.base, network.input_shape, mirror=False)
    return LineModel(alone, model.card.model_copy(update={"mirror": False}))


def rate(model: LineModel, source: Path, overlay: Path | None) -> float:
    """Frames a second, decoding and drawing included."""
    seen, count, started = sources(source), 0, time.perf_counter()
    drawing = Overlay(overlay, seen) if overlay else None
    for shot, answer in model.watch(seen):
        if drawing:
            drawing.write(shot, answer.lines)
        count += 1
    if drawing:
        drawing.finish()
    return count / (time.perf_counter() - started)


if __name__ == "__main__":
    main()
