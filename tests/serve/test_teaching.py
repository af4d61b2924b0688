"""What the page does with a model: teach, ask, look into it."""

from __future__ import annotations

import base64
import os
import time
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image, ImageOps

import handful as hf
from handful.data.pictures import WHOLE, Picture, View
from handful.embedders import Embed
from handful.errors import HandfulError
from handful.methods import Metric
from handful.model import Model
from handful.model.start import from_model
from handful.serve import Limits, teaching
from handful.serve.figure import probabilities
from handful.serve.teaching import KEPT, Shelf, Taught, ask, teach
from handful.serve.uploads import AGE, PNG, drawn, lying, support, sweep
from tests.serve.conftest import CLASSES, maml, of_files, png, starting, support_of


def test_the_nearest_pictures_are_those_of_the_class(pictures: Path) -> None:
    start = starting(hf.methods.ProtoNet)
    taught = teach(support_of(pictures), start)
    (query,) = of_files([pictures / "class08" / "5.png"])
    answer = ask(taught, query)
    assert answer.prediction.label == "class08"
    assert [caption.split(": ")[0] for _, caption in answer.nearest[:2]] == ["class08"] * 2
    assert len(answer.nearest) == teaching.NEAREST
    alike = [float(caption.split(": ")[1]) for _, caption in answer.nearest]
    assert alike == sorted(alike, reverse=True)
    assert alike[0] == pytest.approx(answer.prediction.likeness, abs=6e-4)
    assert answer.curve == {}
    same = of_files([pictures / "class08" / "1.png"])[0]
    assert ask(taught, same).nearest[0][1] == "class08: 1.000"


def test_a_likeness_is_to_the_view_of_a_picture_that_is_most_like_it(pictures: Path) -> None:
    """On the page the same number as in the answer, and one picture is shown once."""
    taught = teach(support_of(pictures, 1), replace(starting(hf.methods.ProtoNet), views=(WHOLE, View(mirrored=True))))
    mirrored = ImageOps.mirror(Image.open(pictures / "class08" / "0.png"))
    answer = ask(taught, Picture("a", "", "", lambda: mirrored))
    assert answer.nearest[0][1] == "class08: 1.000"
    assert answer.prediction.likeness == pytest.approx(1, abs=1e-4)
    assert len(answer.nearest) == len(CLASSES)


def test_a_picture_is_decoded_once(pictures: Path) -> None:
    """For what it teaches and for its small copy."""
    asked: list[str] = []

    def read(picture: Picture) -> Any:
        asked.append(picture.name)
        return picture.content()

    given = {
        name: [one._replace(content=partial(read, one)) for one in of] for name, of in support_of(pictures).items()
    }
    taught = teach(given, starting(hf.methods.ProtoNet))
    assert len(asked) == sum(map(len, given.values()))
    assert taught.support is not None
    for small, path in zip(
        taught.support.thumbnails, (pictures / name / f"{i}.png" for name in CLASSES for i in (0, 1))
    ):
        assert small.tobytes() == Image.open(path).convert("RGB").tobytes()


def test_all_who_teach_share_a_backbone(pictures: Path) -> None:
    start = starting(hf.methods.ProtoNet)
    first, second = (teach(support_of(pictures, count), start).model for count in (1, 2))
    assert first.network.backbone is second.network.backbone is start.method.backbone
    assert first.embed is second.embed


def test_the_embedder_is_made_once(pictures: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    start, made = starting(hf.methods.ProtoNet), []
    make = Metric.embedder

    def embedder(method: Metric) -> Embed:
        made.append(method)
        return make(method)

    monkeypatch.setattr(Metric, "embedder", embedder)
    for count in (1, 2):
        ask(teach(support_of(pictures, count), start), of_files([pictures / "class08" / "5.png"])[0])
    assert made == [start.method]


def test_no_picture_is_decoded_when_nobody_waits_for_it(pictures: Path) -> None:
    for start in (starting(hf.methods.ProtoNet), maml()):
        with pytest.raises(HandfulError, match="the time for it is over"):
            teach(support_of(pictures), start, until=time.monotonic() - 1)


def test_a_served_model_can_be_taught_anew(shapes: Model, pictures: Path) -> None:
    """It starts from the same backbone and head, so on the same pictures it becomes the same model."""
    again = teach(support_of(pictures), from_model(shapes)).model
    query = pictures / "class11" / "7.png"
    (one,), (other,) = shapes.predict(query), again.predict(query)
    assert other.probabilities == pytest.approx(one.probabilities, abs=1e-5)
    assert again.card == shapes.card


def test_an_adapted_network_cannot_be_taught_anew(pictures: Path) -> None:
    model = teach(support_of(pictures, 1), maml()).model
    with pytest.raises(HandfulError, match=r"a network that maml adapted to its classes.*name the run instead"):
        from_model(model)


def test_the_steps_of_adapting_end_at_the_answer(pictures: Path) -> None:
    start = maml()
    taught = teach(support_of(pictures), start)
    (query,) = of_files([pictures / "class03" / "6.png"])
    answer = ask(taught, query)
    assert {name: len(values) for name, values in answer.curve.items()} == dict.fromkeys(CLASSES, start.inner_steps + 1)
    assert sum(values[0] for values in answer.curve.values()) == pytest.approx(1)
    last = {name: values[-1] for name, values in answer.curve.items()}
    assert last == pytest.approx(answer.prediction.probabilities, abs=1e-4)
    first = {name: values[0] for name, values in answer.curve.items()}
    assert first != pytest.approx(last, abs=1e-3)
    assert len(answer.nearest) == 5
    (axes,) = probabilities(answer.curve).axes
    bold = max(axes.lines, key=lambda line: line.get_linewidth())
    assert np.asarray(bold.get_ydata())[-1] == pytest.approx(100 * max(last.values()))


def test_a_model_from_its_folder_has_no_pictures_to_show(shapes: Model, pictures: Path) -> None:
    (query,) = of_files([pictures / "class03" / "6.png"])
    answer = ask(Taught(shapes), query)
    assert (answer.nearest, answer.curve) == ([], {})


def test_the_shelf_keeps_the_latest(shapes: Model) -> None:
    shelf = Shelf(Taught(shapes))
    keys = [shelf.put(Taught(shapes)) for _ in range(KEPT + 1)]
    assert shelf.get(keys[-1]).model is shapes
    assert shelf.get("served") is shelf.served
    with pytest.raises(HandfulError, match="the latest 50 that were taught are kept"):
        shelf.get(keys[0])
    newer = shelf.put(Taught(shapes), instead_of=keys[-1])
    assert keys[-1] not in shelf.taught
    assert newer in shelf.taught


def test_cards_become_classes(pictures: Path) -> None:
    path = str(pictures / "class03" / "0.png")
    drawing = PNG + base64.b64encode(png()).decode()
    found = support([("a", None, [(path, None)]), ("", [drawing, drawing], None), ("empty", [], None)], Limits())
    assert {name: [picture.name for picture in given] for name, given in found.items()} == {
        "a": ["0.png"],
        "class 2": ["drawing 1", "drawing 2"],
    }
    assert found["class 2"][0].content() == png()


def test_pictures_are_read_when_they_are_asked_for(tmp_path: Path) -> None:
    """And not before they were counted: a file may be named many times in a short request."""
    path = tmp_path / "a.png"
    path.write_bytes(png(20, 10))
    files: list[tuple[str, str | None]] = [(str(path), None)] * 3
    (picture, *_) = support([("a", None, files)], replace(Limits(), pictures=3, pixels=200))["a"]
    path.write_bytes(png(30))
    assert picture.content() == png(30)
    path.unlink()
    with pytest.raises(HandfulError, match="These are 3 pictures, and 2 are learned from"):
        support([("a", None, files)], replace(Limits(), pictures=2))
    with pytest.raises(HandfulError, match=r"^a.png is here no longer: pictures lie on the page for 60 minutes"):
        support([("a", None, files)], Limits())
    path.touch()
    with pytest.raises(HandfulError, match=r"^a.png is empty"):
        support([("a", None, files)], Limits())


def test_all_pictures_together_have_so_many_pixels() -> None:
    drawing = PNG + base64.b64encode(png()).decode()
    limits = replace(Limits(), pixels=16 * 16)
    assert len(support([("a", [drawing] * 20, None)], limits)["a"]) == 20
    with pytest.raises(HandfulError, match=r"have 5,376 pixels together, and 5,120 are learned from at most"):
        support([("a", [drawing] * 20, None), ("b", [drawing], None)], limits)


def test_what_lies_for_too_long_is_deleted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    old, new = tmp_path / "one" / "old.png", tmp_path / "two" / "new.png"
    cut_off = tmp_path / "tmp123"
    for path in (old, new, cut_off):
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(png())
    for path in (old, cut_off):
        os.utime(path, (0, 0))
    sweep(tmp_path, AGE)
    assert [path for path in tmp_path.rglob("*") if path.is_file()] == [new]
    os.utime(old.parent, (0, 0))
    os.utime(new.parent, (0, 0))
    sweep(tmp_path, AGE)
    assert sorted(tmp_path.rglob("*")) == [new.parent, new]
    look = os.lstat

    def deleted_meanwhile(path: str) -> os.stat_result:
        if path == str(new):
            raise FileNotFoundError
        return look(path)

    monkeypatch.setattr(os, "lstat", deleted_meanwhile)
    assert [path for path, _ in lying(tmp_path)] == [str(new.parent)]


def test_cards_that_cannot_be_learned_from() -> None:
    drawing = PNG + base64.b64encode(png()).decode()
    with pytest.raises(HandfulError, match="Two classes are called 'a'"):
        support([("a", [drawing], None), (" a ", [drawing], None)], Limits())
    with pytest.raises(HandfulError, match="nothing to learn from yet"):
        support([("a", None, None)], Limits())
    with pytest.raises(HandfulError, match="These are 3 pictures, and 2 are learned from at most"):
        support([("a", [drawing] * 3, None)], replace(Limits(), pictures=2))
    with pytest.raises(HandfulError, match="16x16 pixels, and this server takes 100"):
        support([("a", [drawing], None)], replace(Limits(), pixels=100))
    for data in ("data:text/html,x", "!", None, 3):
        with pytest.raises(HandfulError, match=r"no data URL of a PNG picture|no readable picture"):
            support([("a", [data], None)], Limits())  # type: ignore[list-item]
    assert drawn(drawing) == png()
