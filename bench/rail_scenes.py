"""How long a rendered rail scene takes on one core, by its light, and how often its rails are there.

    python bench/rail_scenes.py [--frames N] [--json FILE]

512x288 pixels; of each frame the processor's time for the picture and all of its lines.
"""

from __future__ import annotations

import argparse
import json
import statistics
import time
from pathlib import Path

from handful.data.scenes import LIGHTS, render_frame
from handful.runtime import environment


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--frames", type=int, default=50, help="of each light")
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    machine = environment()
    rows = []
    render_frame(0, 0)  # draws the noise, once
    print(f"{machine['cpu']}, 1 core, {options.frames} frames a row")
    print(f"{'light':<10} {'ms a frame':>10} {'min':>8} {'max':>8} {'with both rails':>16}")
    for light in LIGHTS:
        found, whole = [], 0
        for index in range(options.frames):
            started = time.process_time()
            frame = render_frame(1, index, light=light)
            found.append(1000 * (time.process_time() - started))
            whole += {"left", "right"} <= set(frame.lines)
        median, share = statistics.median(found), whole / options.frames
        print(f"{light:<10} {median:10.1f} {min(found):8.1f} {max(found):8.1f} {share:16.2f}")
        rows.append(
            {
                "measured": f"rendering, {light}",
                "unit": "ms a frame",
                "repeats": options.frames,
                "median": median,
                "min": min(found),
                "max": max(found),
                "both_rails": share,
                **{f"machine_{key}": machine[key] for key in ("cpu", "gpu", "cores", "torch", "commit")},
            }
        )
    if options.json:
        options.json.write_text(json.dumps(rows, indent=1), encoding="utf-8")


if __name__ == "__main__":
    main()
