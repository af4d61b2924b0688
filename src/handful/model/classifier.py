"""A model with the manners of scikit-learn: `FewShotClassifier` works in `cross_val_score`, grids and pipelines.

classifier = hf.FewShotClassifier(method="protonet")
cross_val_score(classifier, paths, labels, cv=3)
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from sklearn.base import BaseEstimator, ClassifierMixin
from sklearn.utils.validation import check_is_fitted
from torch import nn

from handful.errors import HandfulError
from handful.model.fitting import add, fit
from handful.model.model import Model
from handful.model.start import Spec
from handful.run import Run

Pictures = Any
"""Paths, PIL images, arrays [H, W, C] or tensors [C, H, W]; or one array [n, H, W, C] or tensor [n, C, H, W]."""


class FewShotClassifier(ClassifierMixin, BaseEstimator):  # type: ignore[misc]  # scikit-learn has no types
    """`hf.fit` as an estimator: X are pictures, y their labels, of any type that can be sorted.

    backbone, method, run and inner_steps are those of `hf.fit`; check: scale the probabilities by leaving
    support pictures out, which takes learning anew as often.

    After `fit`: classes_ [N], and model_, which can be saved.
    """

    def __init__(
        self,
        *,
        backbone: Spec | nn.Module | None = None,
        method: Spec | None = None,
        run: Run | None = None,
        inner_steps: int | None = None,
        check: bool = True,
    ) -> None:
        self.backbone = backbone
        self.method = method
        self.run = run
        self.inner_steps = inner_steps
        self.check = check

    def fit(self, X: Pictures, y: Sequence[Any] | NDArray[Any]) -> FewShotClassifier:
        """Learn from pictures X [n] and their labels y [n]; raises HandfulError as `hf.fit`, and for other lengths."""
        labels = np.asarray(y)
        self.model_: Model = fit(
            self._by_class(X, labels),
            self.run,
            self.inner_steps,
            backbone=self.backbone,
            method=self.method,
            check=self.check,
        )
        self.classes_ = np.unique(labels)
        return self

    def partial_fit(
        self, X: Pictures, y: Sequence[Any] | NDArray[Any], classes: Sequence[Any] | None = None
    ) -> FewShotClassifier:
        """Learn further pictures, of classes known or new; those that were learned are not embedded again.

        classes: the labels that y may hold, if more of them are not to be learned.  Raises HandfulError as
        `handful.model.add`, and for a label that is none of `classes`.
        """
        labels = np.asarray(y)
        if classes is not None and (others := sorted(set(labels.tolist()) - set(np.asarray(classes).tolist()))):
            raise HandfulError(f"The label {others[0]!r} is none of the classes that were named; name it, or leave it.")
        if not hasattr(self, "model_"):
            return self.fit(X, labels)
        self.model_ = add(self.model_, self._by_class(X, labels), check=self.check)
        self.classes_ = np.unique(np.concatenate([self.classes_, labels]))
        return self

    def predict_proba(self, X: Pictures) -> NDArray[np.float64]:
        """Pictures [n] -> probabilities [n, N], in the order of classes_."""
        check_is_fitted(self, "model_")
        answers = self.model_.predict(several(X))
        names = [str(label) for label in self.classes_]
        return np.array([[answer.probabilities[name] for name in names] for answer in answers])

    def predict(self, X: Pictures) -> NDArray[Any]:
        """Pictures [n] -> labels [n]."""
        best = self.predict_proba(X).argmax(1)
        found: NDArray[Any] = self.classes_[best]
        return found

    def _by_class(self, X: Pictures, labels: NDArray[Any]) -> dict[str, list[Any]]:
        """Pictures by the names of their classes."""
        pictures = several(X)
        if len(pictures) != len(labels) or labels.ndim != 1:
            raise HandfulError(
                f"There are {len(pictures)} pictures and labels of the shape {list(labels.shape)}; give one each."
            )
        found: dict[str, list[Any]] = {str(label): [] for label in np.unique(labels)}
        for picture, label in zip(pictures, labels):
            found[str(label)].append(picture)
        return found


def several(X: Pictures) -> list[Any]:
    """Pictures as a list; a path alone is one of them."""
    return [X] if isinstance(X, str | Path) else list(X)
