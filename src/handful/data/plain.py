"""A store as one plain array, for code that reads nothing else.

handful data build omniglot --source FOLDER --npy omniglot.npy
"""

from __future__ import annotations

import os
import tempfile
from pathlib import Path

import numpy as np

from handful.data.store import ImageStore
from handful.errors import HandfulError


def write_npy(store: ImageStore, file: Path) -> None:
    """Write uint8 [classes, images a class, C, H, W]; the file appears under its name only when complete.

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
    file.parent.mkdir(parents=True, exist_ok=True)
    handle, name = tempfile.mkstemp(prefix=f".{file.name}-", dir=file.parent)
    part = Path(name)
    try:
        with os.fdopen(handle, "wb") as out:
            header = {"descr": "|u1", "fortran_order": False, "shape": shape}
            np.lib.format.write_array_header_1_0(out, header)
            for block in np.array_split(store.images, len(counts)):  # a class at a time bounds memory
                out.write((255 - block if inverted else block).tobytes())
        os.chmod(part, 0o644)
        os.replace(part, file)
    finally:
        part.unlink(missing_ok=True)
