"""FewShotClassifier keeps scikit-learn's manners, and what it predicts is what the model predicts."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from sklearn.base import clone
from sklearn.exceptions import NotFittedError
from sklearn.model_selection import GridSearchCV, cross_val_score
from sklearn.pipeline import Pipeline
from sklearn.preprocessing import FunctionTransformer

import handful as hf
from handful.errors import HandfulError
from tests.model.test_fitting import CLASSES, backbone


@pytest.fixture(scope="module")
def network() -> Any:
    return backbone()


def labelled(pictures: Path, *numbers: int, classes: tuple[str, ...] = CLASSES) -> tuple[list[Path], list[str]]:
    return [pictures / name / f"{i}.png" for name in classes for i in numbers], [n for n in classes for _ in numbers]


def test_it_predicts_what_fit_predicts(pictures: Path, network: Any) -> None:
    paths, labels = labelled(pictures, 0, 1, 2)
    queries, truth = labelled(pictures, 5, 6)
    classifier = hf.FewShotClassifier(backbone=network).fit(paths, labels)
    assert classifier.classes_.tolist() == sorted(CLASSES)
    model = hf.fit({name: paths[3 * i : 3 * i + 3] for i, name in enumerate(CLASSES)}, backbone=network)
    answers = model.predict(queries)
    assert classifier.predict(queries).tolist() == [answer.label for answer in answers]
    expected = [[answer.probabilities[name] for name in classifier.classes_] for answer in answers]
    assert classifier.predict_proba(queries) == pytest.approx(np.array(expected))
    assert classifier.score(queries, truth) == np.mean([a.label == t for a, t in zip(answers, truth)])


def test_labels_keep_their_type_and_pictures_may_be_arrays(pictures: Path, network: Any) -> None:
    paths, _ = labelled(pictures, 0, 1, 2)
    y = np.repeat([10, 2, 7], 3)
    from_paths = hf.FewShotClassifier(backbone=network).fit(paths, y)
    assert from_paths.classes_.tolist() == [2, 7, 10]
    expected = from_paths.predict_proba(paths)
    images = [Image.open(path) for path in paths]
    arrays = np.stack([np.asarray(image) for image in images])
    tensors = torch.from_numpy(arrays)[:, None].float() / 255
    for X in (images, arrays, arrays[..., None], list(arrays), tensors):
        again = clone(from_paths).fit(X, y)
        assert again.predict_proba(X) == pytest.approx(expected, abs=1e-6)
        assert again.predict(X).dtype == y.dtype


def test_in_cross_validation_a_grid_and_a_pipeline(pictures: Path, network: Any) -> None:
    paths, labels = labelled(pictures, *range(4))
    scores = cross_val_score(hf.FewShotClassifier(backbone=network), paths, labels, cv=2)
    assert scores.shape == (2,)
    assert scores.mean() > 0.5
    grid = GridSearchCV(
        hf.FewShotClassifier(backbone=network, check=False), {"method": ["ridge", {"name": "logistic"}]}, cv=2
    )
    grid.fit(np.array([str(path) for path in paths]), labels)
    assert grid.cv_results_["mean_test_score"].shape == (2,)
    turned = FunctionTransformer(lambda X: [np.asarray(Image.open(path)).T for path in X])
    pipeline = Pipeline([("turn", turned), ("classify", hf.FewShotClassifier(backbone=network))])
    arrays = [np.asarray(Image.open(path)).T for path in paths]
    expected = hf.FewShotClassifier(backbone=network).fit(arrays, labels).predict_proba(arrays)
    assert pipeline.fit(paths, labels).predict_proba(paths) == pytest.approx(expected)


def test_parameters_and_what_is_not_fitted(network: Any) -> None:
    classifier = hf.FewShotClassifier(method="protonet")
    assert classifier.get_params() == {
        **{"backbone": None, "method": "protonet", "run": None, "inner_steps": None, "check": True}
    }
    assert classifier.set_params(method="ridge").method == "ridge"
    with pytest.raises(NotFittedError):
        classifier.predict([np.zeros((16, 16), np.uint8)])


@pytest.mark.parametrize("method", ["ridge", "protonet", "frn"])
def test_partial_fit_is_fitting_all_at_once_without_embedding_again(pictures: Path, network: Any, method: str) -> None:
    first, labels = labelled(pictures, 0, 1)
    more, new = labelled(pictures, 2, classes=("class03", "class15"))
    queries, _ = labelled(pictures, 5, 6, classes=(*CLASSES, "class15"))
    classifier = hf.FewShotClassifier(backbone=network, method=method).partial_fit(first, labels)
    model = classifier.model_
    seen: list[int] = []
    embed = model.embed
    model.embed = lambda images: (seen.append(len(images)), embed(images))[1]  # type: ignore[func-returns-value]
    classifier.partial_fit(more, new)
    assert seen == [2 * 7]
    whole = hf.FewShotClassifier(backbone=network, method=method).fit(first + more, labels + new)
    assert classifier.classes_.tolist() == whole.classes_.tolist()
    assert classifier.predict_proba(queries) == pytest.approx(whole.predict_proba(queries), abs=1e-5)
    card, expected = classifier.model_.card, whole.model_.card
    assert card.temperature == expected.temperature
    assert card.support == {"class03": 3, "class08": 2, "class11": 2, "class15": 1}
    assert card.check is not None
    assert expected.check is not None
    assert (card.check.accuracy, card.check.pictures) == (expected.check.accuracy, expected.check.pictures)
    assert set(card.check.floors) == {"chance", "largest class"}
    assert card.check.worst == []
    assert model.card.support == dict.fromkeys(CLASSES, 2)  # the first model is as it was


def test_partial_fit_keeps_to_the_classes_that_were_named(pictures: Path, network: Any) -> None:
    paths, labels = labelled(pictures, 0)
    classifier = hf.FewShotClassifier(backbone=network).partial_fit(paths, labels, classes=[*CLASSES, "class15"])
    with pytest.raises(HandfulError, match="The label 'wren' is none of the classes"):
        classifier.partial_fit(paths[:1], ["wren"], classes=CLASSES)


def test_bad_input(pictures: Path, network: Any) -> None:
    paths, labels = labelled(pictures, 0)
    with pytest.raises(HandfulError, match=r"There are 3 pictures and labels of the shape \[2\]; give one each"):
        hf.FewShotClassifier(backbone=network).fit(paths, labels[:2])


def test_what_fails_leaves_the_classifier_as_it_was(pictures: Path, tmp_path: Path) -> None:
    paths = [pictures / name / "0.png" for name in ("class03", "class08")]
    (tmp_path / "bad.jpg").write_text("no picture", encoding="utf-8")
    classifier = hf.FewShotClassifier(backbone={"name": "conv4", "channels": 4})
    with pytest.raises(HandfulError):
        classifier.fit([tmp_path / "bad.jpg"], ["heron"])
    with pytest.raises(NotFittedError):
        classifier.predict(paths)
    classifier.fit(paths, ["a", "b"])
    with pytest.raises(HandfulError):
        classifier.partial_fit([tmp_path / "bad.jpg"], ["heron"])
    assert classifier.predict(paths).tolist() == ["a", "b"]
    assert classifier.predict(str(paths[1])).tolist() == ["b"]
