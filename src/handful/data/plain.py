"""A store as one plain array, for code that reads nothing else.

handful data build omniglot --source FOLDER --npy omniglot.npy
"""

from __future__ import annotations

from pathlib import Path

import numpy as np

from handful.data.store import ImageStore
from handful.errors import HandfulError
from handful.files import write_atomically


def write_npy(store: ImageStore, file: Path) -> Path:
    """Write uint8 [classes, images a class, C, H, W]; the file has its name only when complete.

    Stores of ink on black (`omniglot`, `glyphs`) are inverted to ink on white as their sources are: that of
    Omniglot is note 002's array, [1623, 20, 1, 28, 28].  Raises HandfulError if classes differ in their
    number of images.
    """
    counts = np.bincount(store.labels, minlength=len(store.class_names))
    if (counts != counts[0]).any():
        odd = int(np.argmax(counts != counts[0]))
        raise HandfulError(
            f"A plain array needs as many images in every class, but {store.class_names[0]!r} has "
            f"{counts[0]} and {store.class_names[odd]!r} has {counts[odd]}; read the store with "
            "handful.data.load."
        )
    inverted = bool(store.info.get("inverted"))
    shape = (len(counts), int(counts[0]), *store.image_shape)

    def write(path: Path) -> None:
        with path.open("wb") as out:
            header = {"descr": "|u1", "fortran_order": False, "shape": shape}
            np.lib.format.write_array_header_1_0(out, header)
            for block in np.array_split(store.images, len(counts)):  # a class at a time bounds memory
                out.write((255 - block if inverted else block).tobytes())

    write_atomically(file, write)
    return file
