"""`export`: a fitted model as one ONNX file that takes pictures as they are."""

from __future__ import annotations

import copy
import json
from collections import defaultdict
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from PIL import ImageFont
from torch import Tensor, nn

from handful import wording
from handful.data.glyphs import EM, font_path, frame
from handful.data.pictures import Picture, Pixels, opened, plain, unreadable
from handful.embedders import TorchEmbedder
from handful.errors import HandfulError, unknown
from handful.files import write_atomically
from handful.methods.metric import Fitted, embed, embedding
from handful.model.card import MEND, NONE_OF_THESE
from handful.model.graph import prepared
from handful.model.inputs import Input, pictures
from handful.model.leave_one_out import likeness
from handful.model.model import BATCH, Model, pooled
from handful.onnx import required, session, write

FORMATS = ("onnx",)
TOLERANCE = 1e-4  # of a probability, and of a likeness
INPUT = "pictures"
EXAMPLE = torch.zeros(2, 50, 70, 3, dtype=torch.uint8)  # of it; another number and other sides will do as well
CHARACTERS = "Gfß4"  # to compare on


@dataclass(frozen=True)
class Exported:
    """A file, and how far what onnxruntime makes of it was from torch.

    outputs: their names; difference: the largest between probabilities, or likenesses, of the `pictures` that both were
    given; tolerance: above it there would be no file.
    """

    file: str
    format: str
    bytes: int
    input: str
    outputs: list[str]
    classes: list[str]
    threshold: float | None
    pictures: int
    difference: float
    tolerance: float

    def __str__(self) -> str:
        """What it takes, what it gives, how near it is."""
        shapes = {"probabilities": f"[n, {len(self.classes)}]", "likeness": "[n]"}
        given = " and ".join(f"{name} {shapes[name]}" for name in self.outputs)
        return (
            f"{self.file}: {self.bytes / 1e6:.1f} MB; {self.input} uint8 [n, height, width, 3] -> {given}.\n"
            f"By onnxruntime at most {self.difference:.0e} from torch on {wording.count(self.pictures, 'picture')} "
            f"(above {self.tolerance:.0e} it would have been refused)."
        )


class Graph(nn.Module):
    """Upright pictures in colour, uint8 [n, H, W, 3] -> probabilities [n, N], and likeness [n] where it is known.

    A copy of the model's network; what its head learned from the support is constant in it.
    """

    def __init__(self, model: Model) -> None:
        super().__init__()
        self.network, self.card = copy.deepcopy(model.network), model.card
        self.outputs = ["probabilities"]
        if isinstance(self.network, Fitted):
            self.learned = self.network.learn()
            self.outputs += ["likeness"]
        self.eval().requires_grad_(False)

    def forward(self, given: Tensor) -> tuple[Tensor, ...]:
        """As `Model.judged` has it."""
        images = prepared(given, self.card.preprocessing)
        if not isinstance(self.network, Fitted):
            return (self.probabilities(self.network(images)),)
        features = embed(self.network.backbone, images, self.network.maps)
        logits = self.network.head.judge(features[None], self.learned)[0]
        return self.probabilities(logits), likeness(pooled(features), F.normalize(pooled(self.network.support), dim=-1))

    def probabilities(self, logits: Tensor) -> Tensor:
        """[n, N] -> [n, N]."""
        return (logits.double() * self.card.temperature).softmax(-1).float()


def export(
    model: Model,
    file: str | Path,
    format: str = "onnx",
    check: Input | Sequence[Input] | None = None,
    tell: Callable[[str], object] | None = None,
) -> Exported:
    """Write a fitted model as one ONNX file, and compare it with the model.

    The file takes `pictures`, uint8 [n, height, width, 3], upright and in colour, any number of any one size, and gives
    their `probabilities` [n, N] and, of a model that compares features, their `likeness` [n] to the support.  Its
    metadata holds, as JSON, the `classes`, the `threshold` of the likeness (null if there is none) and the name of
    what is below it, `none_of_these`, and the version `handful` that wrote it.

    check: pictures on which onnxruntime and torch are compared; two photographs, parts of them and four characters if
    none are given; tell: is given a line before the work, which takes a while.  The model is left as it is.

    Raises HandfulError, and leaves no file: another format; packages that are not installed; a name that does not end
    in .onnx; unreadable pictures; a network that cannot be written as a graph; a probability or likeness that is
    more than 1e-4 from torch's.
    """
    file = Path(file)
    if format not in FORMATS:
        raise unknown("export format", format, FORMATS)
    if file.suffix != ".onnx":
        raise HandfulError(f"A model is exported to a file that ends in .onnx; {str(file)!r} does not.")
    required("To export a model to ONNX")
    found = pictures(examples() if check is None else check)
    if not found:
        raise HandfulError("There are no pictures to compare on; name at least one, or leave `check` out.")
    card = model.card
    told = {
        "classes": card.classes,
        "threshold": card.threshold,
        "none_of_these": NONE_OF_THESE,
        "handful": version("handful"),
    }
    metadata = {name: json.dumps(value, ensure_ascii=False) for name, value in told.items()}
    if tell:
        tell(f"writing {file}, then comparing it with torch on {wording.count(len(found), 'picture')}")
    with torch.no_grad():
        graph = Graph(model)
    apart = 0.0

    def write_and_compare(temporary: Path) -> None:
        nonlocal apart
        write(temporary, graph, {INPUT: EXAMPLE}, graph.outputs, dynamic=[0, 1, 2], metadata=metadata)
        apart = difference(temporary, model, found)
        if not apart <= TOLERANCE:
            raise HandfulError(
                f"By onnxruntime this model is {apart:.0e} away from torch, more than {TOLERANCE:.0e}, so {file} was "
                "not written; use the model folder itself, by `handful predict`."
            )

    write_atomically(file, write_and_compare)
    return Exported(
        file=str(file),
        format=format,
        bytes=file.stat().st_size,
        input=INPUT,
        outputs=graph.outputs,
        classes=card.classes,
        threshold=card.threshold,
        pictures=len(found),
        difference=apart,
        tolerance=TOLERANCE,
    )


def difference(file: Path, model: Model, found: Sequence[Picture]) -> float:
    """The largest between what the file and the model say of pictures, each alone and together with those of its size.

    The model prepares them by Pillow and judges them by torch.
    """
    run = session(file)
    worst = 0.0
    for start in range(0, len(found), BATCH):
        pixels = [upright(picture) for picture in found[start : start + BATCH]]
        wanted = by_torch(model, pixels)
        of_size: dict[Any, list[int]] = defaultdict(list)
        for number, picture in enumerate(pixels):
            of_size[picture.shape].append(number)
        for batch in (batch for rows in of_size.values() for batch in (rows[:1], rows)):
            answers = run.run(None, {INPUT: np.stack([pixels[number] for number in batch])})
            apart = [np.abs(answer - right[batch]).max() for answer, right in zip(answers, wanted)]
            worst = float(np.max([worst, *apart]))  # Python's max would lose what is no number
    return worst


def by_torch(model: Model, pixels: Sequence[Pixels]) -> list[Any]:
    """Probabilities [n, N], and likeness [n] if there is one, by a model that has its features from torch too."""
    model = Model(model.network, model.card)
    if isinstance(model.network, Fitted):
        model.embed = embedding(model.network.backbone, model.network.maps, TorchEmbedder)
    images = np.stack([model.card.preprocessing(picture)[0] for picture in pictures(list(pixels))])
    return [answer.numpy() for answer in model.judged(torch.from_numpy(images)) if answer is not None]


def upright(picture: Picture) -> Pixels:
    """All pixels of a picture, uint8 [H, W, 3]."""
    try:
        with opened(picture.content()) as image:
            return np.asarray(plain(image).convert("RGB"))
    except Exception as error:  # as in `decode_views`
        raise unreadable(picture, error, MEND) from error


def examples() -> list[Pixels]:
    """Two photographs that scikit-learn brings, one's upright part and a small one of the other's, and characters."""
    from sklearn.datasets import load_sample_images

    temple, flower = load_sample_images().images
    face = ImageFont.truetype(str(font_path("DejaVuSerif")), EM, layout_engine=ImageFont.Layout.BASIC)
    drawn = [found for character in CHARACTERS if (found := frame(character, face)) is not None]
    return [temple, flower, temple[:, 200:440], flower[180:228, 300:364], *(255 - ink for ink in drawn)]
