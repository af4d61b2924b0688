"""Pre-training: ordinary training on all images, which gives the backbone its features.

For classification a classifier over the C training classes sits on the backbone and is thrown away afterwards:

    linear:  W f(x) + b                     (Baseline, SimpleShot, Meta-Baseline, FEAT)
    cosine:  s g_c cos(f(x), w_c)           (Baseline++)
    frn:     a feature map M_c for each class stands for its support set (FRN, section 3.6)
"""

from __future__ import annotations

from abc import ABC, abstractmethod

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from handful.data.dataset import Split
from handful.data.store import ClassSplit
from handful.decoders.linear import features_of
from handful.episodes import Images
from handful.errors import HandfulError
from handful.methods.method import Method, Outcome
from handful.methods.metric import Metric, embed, feature_shape
from handful.methods.precision import full_precision


class Cosine(nn.Module):
    """Cosine classifier with a learned length for each class: s g_c <x/|x|, w_c/|w_c|>.

    s is 2, and 10 for more than 200 classes, as in the code of Baseline++.
    """

    def __init__(self, features: int, classes: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(nn.Linear(features, classes, bias=False).weight.detach())
        self.length = nn.Parameter(self.weight.detach().norm(dim=1))
        self.scale = 2.0 if classes <= 200 else 10.0

    def forward(self, features: Tensor) -> Tensor:
        """[n, d] -> [n, C]."""
        rows = self.length.unsqueeze(1) * F.normalize(self.weight, dim=-1)
        return self.scale * F.normalize(features, dim=-1, eps=1e-5) @ rows.mT


class Trained(nn.Module, ABC):
    """What the training loop asks of something that learns from batches of images, as it does of a `Method`."""

    divisible = False  # batch norm sees all images of a step together

    @abstractmethod
    def forward(self, images: Images) -> Outcome:
        """The loss of a batch, and the score of each image [n]."""

    def kept(self) -> list[Tensor]:
        """Of what a step moves, what ends it at a mean over its tasks: nothing."""
        return []


class Pretraining(Trained):
    """The method whose backbone is trained, and a classifier over all training classes on top of it."""

    def __init__(self, method: Method, head: str, classes: int) -> None:
        super().__init__()
        self.method, self.maps = method, head == "frn"
        backbone = method.backbone
        if head == "frn":
            if not (isinstance(method, Metric) and hasattr(method.head, "class_matrix")):
                raise HandfulError("pretrain.head is 'frn', which pre-trains frn and glofa-frn; use linear or cosine.")
            self.classifier: nn.Module = method.head.class_matrix(classes, *feature_shape(backbone, True))
        elif head == "cosine":
            self.classifier = Cosine(features_of(backbone), classes)
        else:
            self.classifier = nn.Linear(features_of(backbone), classes)
            nn.init.zeros_(self.classifier.bias)

    def forward(self, images: Images) -> Outcome:
        """Cross-entropy of a batch, and whether each image was named right [n]."""
        return self.outcome(embed(self.method.backbone, images.x, self.maps), images.y)

    @full_precision
    def outcome(self, features: Tensor, y: Tensor) -> Outcome:
        """The same from features [n, ...] and classes [n]."""
        logits = self.classifier(features)
        return Outcome(F.cross_entropy(logits, y), (logits.argmax(-1) == y).double())


class Supervised(Trained):
    """The network of a gradient-based method, trained whole: its head stays, and is what episodes begin with."""

    def __init__(self, method: Method) -> None:
        super().__init__()
        self.method = method

    def forward(self, images: Images) -> Outcome:
        """The problem's loss on a batch, and the score of each image [n]: every one is a task of its own."""
        predictions = self.method.network(images.x).unsqueeze(1)
        targets, problem = images.y.unsqueeze(1), self.method.problem
        with torch.no_grad():
            scores = problem.score(predictions, targets)
        return Outcome(problem.loss(predictions, targets).mean(), scores)


def pretraining(method: Method, head: str, split: Split) -> Pretraining | Supervised:
    """What is trained before the episodes.  Raises HandfulError for a head where the problem has its own."""
    if isinstance(split, ClassSplit):
        return Pretraining(method, head, len(split))
    if head != "linear":
        raise HandfulError(
            f"pretrain.head is for classification, and the problem is {method.problem.name}; leave it out."
        )
    return Supervised(method)
