"""The weights of the backbone `small`, taken from a run of its recipe.

    handful train miniimagenet-simpleshot-conv4 --out RUN
    python bench/small_weights.py RUN [--out src/handful/backbones/small.safetensors]

The file names the recipe, the commit that trained it and what the run scored.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path

from handful.backbones.small import WEIGHTS
from handful.files import read_tensors, write_tensors

PREFIX = "network.backbone."


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("run", type=Path, help="a run folder")
    parser.add_argument("--out", type=Path, default=WEIGHTS)
    options = parser.parse_args()
    tensors, _ = read_tensors(options.run / "checkpoints" / "best" / "model.safetensors")
    own = {key.removeprefix(PREFIX): value for key, value in tensors.items() if key.startswith(PREFIX)}
    commit = json.loads((options.run / "environment.json").read_text(encoding="utf-8"))["commit"]
    scores = [
        json.loads(file.read_text(encoding="utf-8")) for file in sorted((options.run / "eval").glob("test-*.json"))
    ]
    told = {f"{s['way']}-way {s['shot']}-shot": f"{s['mean']:.4f} ± {s['ci95']:.4f}" for s in scores}
    write_tensors(options.out, own, {"recipe": scores[0]["run"]["recipe"], "commit": str(commit), **told})
    print(f"{options.out}: {options.out.stat().st_size} bytes, {told}")


if __name__ == "__main__":
    main()
