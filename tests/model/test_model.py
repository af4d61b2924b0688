"""fit and predict through files."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest

import handful as hf
from handful.data.pictures import Picture
from handful.data.store import ImageStore
from handful.episodes import EpisodeSampler
from handful.errors import HandfulError
from handful.model import Model, fit
from handful.recipe import load_recipe
from handful.run import Run
from handful.training import train_recipe


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory, pictures: Path) -> Run:
    from tests.conftest import RECIPE

    folder = tmp_path_factory.mktemp("run")
    recipe = folder / "tiny.yaml"
    recipe.write_text(RECIPE.format(root=pictures), encoding="utf-8")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("HANDFUL_CACHE", str(folder / "cache"))
        return train_recipe(load_recipe(str(recipe), ["train.steps=40"]), folder / "run", quiet=True)[0]


@pytest.fixture
def support(tmp_path: Path, pictures: Path) -> Path:
    for index in (3, 8, 11):
        (tmp_path / "support" / f"class{index:02}").mkdir(parents=True)
        shutil.copy(pictures / f"class{index:02}" / "0.png", tmp_path / "support" / f"class{index:02}")
    return tmp_path / "support"


def test_fit_predict_save_load(run: Run, support: Path, pictures: Path, tmp_path: Path) -> None:
    model = hf.fit(support, run=run)
    answers = model.predict([pictures / "class08", pictures / "class11" / "5.png"])
    assert [Path(a.input).name for a in answers] == [*(f"{n}.png" for n in range(8)), "5.png"]
    for answer in answers:
        assert sum(answer.probabilities.values()) == pytest.approx(1, abs=1e-5)
        assert answer.label == max(answer.probabilities, key=answer.probabilities.__getitem__)
    model.save(tmp_path / "model")
    again = Model.load(tmp_path / "model").predict([pictures / "class08", pictures / "class11" / "5.png"])
    assert again == answers
    card = json.loads((tmp_path / "model" / "card.json").read_text(encoding="utf-8"))
    assert card["classes"] == ["class03", "class08", "class11"]
    assert card["support"] == {"class03": 1, "class08": 1, "class11": 1}
    assert card["accuracy"]["norm_stats"] == "support"


def test_files_give_what_evaluation_gives(run: Run, pictures: Path) -> None:
    """The same task, through picture files and through the store: the same probabilities."""
    data = run.data
    assert isinstance(data, ImageStore)
    sampler = EpisodeSampler(data.test, 3, 1, 3, seed=5)
    drawn, episode = sampler.indices(0, 1), sampler.episodes(0, 1)
    names = [data.test.class_name(c) for c in drawn.classes[0]]

    def file(image: int) -> Path:
        label = int(data.labels[image])
        first = int(np.searchsorted(data.labels, label))
        return pictures / data.class_names[label] / f"{image - first}.png"

    model = fit({name: [file(int(ids[0]))] for name, ids in zip(names, drawn.support[0])}, run)
    answers = model.predict([file(int(i)) for i in drawn.query[0].ravel()])
    expected = run.method.predict(episode, 2, "support")[-1, 0].softmax(-1)
    for answer, row in zip(answers, expected):
        assert [answer.probabilities[name] for name in names] == pytest.approx(row.tolist(), abs=1e-4)


def test_each_picture_is_judged_by_itself(run: Run, support: Path, pictures: Path) -> None:
    model = hf.fit(support, run=run)
    together = model.predict([pictures / "class03"])
    alone = [model.predict([Path(answer.input)])[0] for answer in together]
    for a, b in zip(together, alone):
        assert a.label == b.label
        assert a.probabilities == pytest.approx(b.probabilities, abs=1e-6)


def test_top(run: Run, support: Path, pictures: Path) -> None:
    answer = hf.fit(support, run=run).predict([pictures / "class03" / "1.png"], top=2)[0]
    assert len(answer.probabilities) == 2
    assert next(iter(answer.probabilities)) == answer.label


def test_ink_on_paper_is_turned_as_the_training_images_were(run: Run, support: Path, pictures: Path) -> None:
    model = hf.fit(support, run=run)
    path = pictures / "class03" / "1.png"
    picture = Picture("1.png", "", "", path.read_bytes)
    plain = model.card.preprocessing(picture)
    model.card.preprocessing.invert = True
    np.testing.assert_array_equal(model.card.preprocessing(picture), 255 - plain)


def test_another_number_of_classes_is_refused(run: Run, support: Path, pictures: Path) -> None:
    shutil.copytree(pictures / "class00", support / "class00")
    with pytest.raises(HandfulError, match=r"meta-trained for 3 ways and cannot name 4 classes"):
        hf.fit(support, run=run)


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda m: (m / "card.json").unlink(), r"is not a model folder \(no card.json\)"),
        (lambda m: (m / "card.json").write_text("{"), "card.json is damaged"),
        (lambda m: (m / "card.json").write_text('{"classes": []}'), "card.json is damaged"),
        (
            lambda m: (m / "card.json").write_text((m / "card.json").read_text().replace('"format": 1', '"format": 2')),
            "card.json",
        ),
        (
            lambda m: (m / "card.json").write_text((m / "card.json").read_text().replace('"views": 1', '"views": -1')),
            "card.json is damaged",
        ),
        (
            lambda m: (m / "card.json").write_text((m / "card.json").read_text().replace('"name": "maml"', '"nam": 1')),
            "card.json is damaged",
        ),
        (lambda m: (m / "model.safetensors").write_bytes(b"short"), "damaged or not a safetensors file"),
        (lambda m: (m / "model.safetensors").unlink(), "model.safetensors is missing"),
    ],
)
def test_damaged_models(run: Run, support: Path, tmp_path: Path, damage: object, message: str) -> None:
    folder = hf.fit(support, run=run).save(tmp_path / "model")
    damage(folder)  # type: ignore[operator]
    with pytest.raises(HandfulError, match=message):
        Model.load(folder)


def test_weights_of_another_size(run: Run, support: Path, tmp_path: Path) -> None:
    folder = hf.fit(support, run=run).save(tmp_path / "model")
    card = json.loads((folder / "card.json").read_text(encoding="utf-8"))
    card["classes"].append("extra")
    (folder / "card.json").write_text(json.dumps(card), encoding="utf-8")
    with pytest.raises(HandfulError, match=r"card.json is damaged"):
        Model.load(folder)
    card["support"]["extra"] = 1
    (folder / "card.json").write_text(json.dumps(card), encoding="utf-8")
    with pytest.raises(HandfulError, match=r"does not fit its card.json"):
        Model.load(folder)


def test_saving_over_something_else(run: Run, support: Path, tmp_path: Path) -> None:
    model = hf.fit(support, run=run)
    with pytest.raises(HandfulError, match="is not a model folder; choose another name"):
        model.save(support)
    model.save(tmp_path / "model")
    model.save(tmp_path / "model")  # an older model is replaced
    assert not list(tmp_path.glob(".model*"))


def test_bad_inputs(run: Run, support: Path, tmp_path: Path) -> None:
    model = hf.fit(support, run=run)
    (tmp_path / "empty").mkdir()
    (tmp_path / "text.png").write_text("not a picture", encoding="utf-8")
    for inputs, message in (
        ([tmp_path / "empty"], "holds no pictures"),
        ([tmp_path / "text.png"], "text.png"),
        ([tmp_path / "absent.png"], "absent.png"),
        ([], "Nothing to predict"),
    ):
        with pytest.raises(HandfulError, match=message):
            model.predict(inputs)


def test_the_card_quotes_only_what_was_measured_for_such_models(run: Run, support: Path) -> None:
    assert hf.fit(support, run=run).card.accuracy is not None
    assert hf.fit(support, run=run, inner_steps=0).card.accuracy is None


def test_network_is_plain_and_frozen(run: Run, support: Path) -> None:
    network = hf.fit(support, run=run).network
    assert not network.training
    assert not any(p.requires_grad for p in network.parameters())


def test_leaving_a_picture_out_is_adapting_without_it(run: Run, pictures: Path) -> None:
    """Of a run that is adapted by gradients, too."""
    found = {f"class{i:02}": [pictures / f"class{i:02}" / f"{k}.png" for k in range(2)] for i in (3, 8, 11)}
    check = fit(found, run).card.check
    assert check is not None
    assert (check.pictures, check.folds) == (6, 6)
    named = {row["picture"]: row["named"] for row in check.worst}
    for name, (first, second) in found.items():
        (answer,) = fit({**found, name: [second]}, run).predict([first])
        assert named[f"{name}/{first.name}"] == answer.label


def test_a_run_brings_its_backbone_and_method_and_knows_no_likeness(run: Run, support: Path, pictures: Path) -> None:
    with pytest.raises(HandfulError, match="A run has its backbone and its method; leave them out"):
        fit(support, run, method="ridge")
    with pytest.raises(HandfulError, match="open_set needs a method that compares features"):
        fit(support, run, open_set=True)
    assert fit(support, run).predict([pictures / "class03" / "1.png"])[0].likeness is None
