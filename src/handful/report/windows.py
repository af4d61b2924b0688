"""Windows of a scene: what was seen last, what came, what was predicted, and where that was wrong."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from matplotlib.figure import Figure
from numpy.typing import NDArray

from handful.report.style import WRONG, styled

WIDE = 1.5  # inches of a picture
COLUMNS = ("last frame", "next frame", "predicted", "error before", "error after")


@styled
def window_sheet(
    last: NDArray[np.float64],
    following: NDArray[np.float64],
    predicted: NDArray[np.float64],
    before: NDArray[np.float64],
    after: NDArray[np.float64],
    captions: Sequence[str],
    abnormal: Sequence[bool],
) -> Figure:
    """A row a window: frames [n, C, H, W] in 0..1, and squared errors [n, H, W] before and after adaptation.

    captions: one a window; abnormal: a red frame around the frame to be predicted.  Errors are drawn as their square
    roots, all on one scale.
    """
    rows = len(last)
    figure = Figure(figsize=(WIDE * len(COLUMNS), (WIDE + 0.2) * rows + 0.2), layout="constrained")
    axes = figure.subplots(rows, len(COLUMNS), squeeze=False)
    top = float(np.sqrt(max(before.max(), after.max(), 1e-12)))
    for row in range(rows):
        shown = (last[row], following[row], predicted[row].clip(0, 1))
        for ax, frame in zip(axes[row], shown):
            ax.imshow(frame[0] if len(frame) == 1 else frame.transpose(1, 2, 0), cmap="gray", vmin=0, vmax=1)
        for ax, error in zip(axes[row, len(shown) :], (before[row], after[row])):
            ax.imshow(np.sqrt(error), cmap="magma", vmin=0, vmax=top)
        for ax in axes[row]:
            ax.set_xticks([])
            ax.set_yticks([])
            ax.grid(visible=False)
        if abnormal[row]:
            for spine in axes[row, 1].spines.values():
                spine.set(visible=True, color=WRONG, linewidth=2)
        axes[row, 2].set_xlabel(captions[row], fontsize=8)
    for ax, name in zip(axes[0], COLUMNS):
        ax.set_title(name, fontsize=9)
    return figure
