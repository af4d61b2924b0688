"""Frames a second of a camera that is watched: decoding, the network of a recipe, scoring, drawing.

    python bench/video.py [CLIP...] [--recipe ped2-mpn-small] [--threads 2] [--repeats 5] [--json FILE]

CLIP: videos or folders of them; rendered ones of 256x256 pixels if none is named.  The network is that of the recipe as
it is made, its weights at random: they do not change what it costs.  Rows, each over all clips: decoding and shrinking
alone; without a network, 2 f(t-1) - f(t-2); the network; the network with its overlay, drawn and encoded; and a frame
at a time, as a camera that is followed gives them.
"""

from __future__ import annotations

import argparse
import json
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from unittest.mock import patch

import torch

from handful.data.video.reading import at_size, frames
from handful.data.video.sprites import render
from handful.demo.video import write_clip
from handful.files import write_text
from handful.model.video import VideoModel
from handful.model.video.card import VideoCard
from handful.model.video.footage import clips_at
from handful.model.video.network import unfitted
from handful.model.video.overlay import Overlay
from handful.recipe import load_recipe
from own_pictures import Rows, row

GOAL = 150  # frames a second on two cores
RENDERED, FRAMES, SIZE = 3, 200, 256


def main() -> None:
    options = arguments()
    torch.set_num_threads(options.threads)
    rows: Rows = []
    with tempfile.TemporaryDirectory() as made:
        work = Path(made)
        for number in range(0 if options.clips else RENDERED):
            clip = [shown.pixels for shown in render(1, 0, number, frames=FRAMES, size=SIZE)]
            write_clip(work / "clips" / f"{number}.mp4", clip)
        clips = [clip for given in options.clips or [work / "clips"] for clip in clips_at(given)]
        network, alone = model_of(options.recipe), without_network(options.recipe)
        ways: dict[str, Callable[[Path], int]] = {
            "decoding and shrinking": lambda clip: decoded(clip, network.card),
            "without a network": lambda clip: watched(alone, clip),
            "the network": lambda clip: watched(network, clip),
            "the network, drawn and written": lambda clip: drawn(network, clip, work / "overlay.mp4"),
            "the network, a frame at a time": lambda clip: one_by_one(network, clip),
        }
        for name, way in ways.items():
            rates = [rate(way, clips) for _ in range(options.repeats + 1)][1:]  # the first warms up
            rows.append({**row(f"{options.recipe}: {name}", "frames/s", rates), "threads": options.threads})
    reached = next(of["median"] for of in rows if of["measured"].endswith(": the network"))
    print(f"goal of the network: {GOAL} frames/s, {'reached' if reached >= GOAL else 'not reached'}")
    if options.json:
        write_text(options.json, json.dumps(rows, indent=1))


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("clips", nargs="*", type=Path)
    parser.add_argument("--recipe", default="ped2-mpn-small")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--json", type=Path)
    return parser.parse_args()


def without_network(recipe: str) -> VideoModel:
    """A model of the recipe's frames that predicts by the linear extrapolation; its threshold lies in the middle."""
    data = load_recipe(recipe).data
    card = VideoCard(
        handful="0",
        problem="video_anomaly",
        window=data.window or 4,
        channels=data.channels or 1,
        size=data.image_size or 128,
        frame_size=(SIZE, SIZE),
        frame_rate=None,
        frames=1,
        support=0,
        held_out_frames=1,
        mean=-30.0,
        deviation=3.0,
        threshold=0.0,
        false_alarms=0.01,
        promised=False,
        backbone=None,
        decoder=None,
        method="linear extrapolation",
        steps=0,
    )
    return VideoModel(unfitted(card), card)


def model_of(recipe: str) -> VideoModel:
    """A model with the recipe's network."""
    found = load_recipe(recipe)
    assert found.decoder is not None
    torch.manual_seed(0)  # the same weights in every run, so that the cache holds one exported file of them
    parts = {"backbone": found.backbone.spec(), "decoder": found.decoder.spec()}
    card = without_network(recipe).card.model_copy(update=parts)
    return VideoModel(unfitted(card), card)


def rate(way: Callable[[Path], int], clips: Sequence[Path]) -> float:
    """Frames a second over all clips."""
    started = time.perf_counter()
    return sum(map(way, clips)) / (time.perf_counter() - started)


def decoded(clip: Path, card: VideoCard) -> int:
    """Frames of a clip, at the network's size."""
    shown = frames(clip, grey=card.channels == 1)
    return sum(bool(at_size(frame.pixels, card.size, card.channels).size) for frame in shown)


def watched(model: VideoModel, clip: Path) -> int:
    """Frames of a clip, scored."""
    return sum(1 for _ in model.watch(clip))


def drawn(model: VideoModel, clip: Path, to: Path) -> int:
    """The same with an overlay."""
    overlay, count = Overlay(to, clip, model.card.threshold), 0
    for frame, score in model.watch(clip, heat=True):
        overlay.write(frame, score)
        count += 1
    overlay.close()
    return count


def one_by_one(model: VideoModel, clip: Path) -> int:
    """Frames of a clip, computed one by one."""
    with patch("handful.model.video.model.BATCH", 1):
        return watched(model, clip)


if __name__ == "__main__":
    main()
