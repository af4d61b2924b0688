"""What the page says, without a browser."""

from __future__ import annotations

import asyncio
import base64
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import gradio as gr
import pytest

from handful.errors import HandfulError
from handful.model import Model
from handful.model.start import from_model
from handful.serve import Limits
from handful.serve.page import DROP, headline, page, remark, spoken, within
from handful.serve.served import Served
from handful.serve.teaching import Shelf, Taught, ask, teach
from handful.serve.uploads import PNG
from handful.serve.worker import Worker
from tests.serve.conftest import maml, of_files, png, support_of


def texts(served: Served) -> list[str]:
    """The text and the labels of all that is on a page."""

    async def made() -> gr.Blocks:
        return page(served, Shelf(Taught(served.model) if served.model else None), Worker(), Limits())

    shown = [part["props"] for part in asyncio.run(made()).get_config_file()["components"]]
    return [str(part.get(name)) for part in shown for name in ("value", "label") if part.get(name)]


def test_an_adapted_model_says_how_to_teach_other_classes(pictures: Path) -> None:
    said = texts(Served("adapted", teach(support_of(pictures, 1), maml()).model, None))
    assert any("serve the run: `handful serve RUN`" in text for text in said)
    assert "Fit" not in said
    assert "Give a picture, to be named as one of 3 classes." in said


def test_a_run_is_taught_first() -> None:
    said = texts(Served("a-run", None, maml()))
    assert "Fit" in said
    assert "Nothing was taught yet." in said


def test_what_the_bars_cannot_say(shapes: Model, pictures: Path) -> None:
    (query,) = of_files([pictures / "class03" / "6.png"])
    assert "are not stored with it" in remark(ask(Taught(shapes), query), None)
    taught = teach(support_of(pictures), maml())
    assert remark(ask(taught, query), None) == ""


def test_none_of_these_stands_above_all_classes(shapes: Model, pictures: Path) -> None:
    (query,) = of_files([pictures / "class03" / "6.png"])
    known = headline(ask(Taught(shapes), query))
    assert isinstance(known, dict)
    assert next(iter(known)) == "class03"
    strict = Model(shapes.network, shapes.card.model_copy(update={"threshold": 1.0}))
    found = ask(Taught(strict), query)
    assert headline(found) == "none of these"
    said = remark(found, 1.0)
    assert said.startswith(f"Its likeness to the pictures taught is {found.prediction.likeness:.3f}, and 1.000 is the")
    assert said.endswith("of which class03 is the nearest.")


def functions(served: Served, shelf: Shelf, **limits: Any) -> dict[str, Any]:
    """What the page's events call, by name."""

    async def made() -> gr.Blocks:
        return page(served, shelf, Worker(), replace(Limits(), **limits))

    return {str(one.name): one.fn for one in asyncio.run(made()).fns.values()}


def test_a_fit_is_told_when_nobody_waits_for_it_any_more(shapes: Model, monkeypatch: pytest.MonkeyPatch) -> None:
    told: list[float] = []

    def teach(pictures: Any, start: Any, open_set: bool, until: float) -> Taught:
        told.append(until - time.monotonic())
        return Taught(shapes)

    monkeypatch.setattr("handful.serve.page.teach", teach)
    drawing = PNG + base64.b64encode(png()).decode()
    fit = functions(Served("shapes", shapes, from_model(shapes)), Shelf(), seconds=20.0)["fit"]
    _, summary, subject, *_ = asyncio.run(fit(None, "a", [drawing], None))
    assert 10 < told[0] <= 20
    assert (summary, subject) == (str(shapes.card), "Give a picture, to be named as one of 3 classes.")


def test_a_broken_picture_is_said_to_be_one(shapes: Model, tmp_path: Path) -> None:
    answer = functions(Served("shapes", shapes, None), Shelf(Taught(shapes)))["answer"]
    (tmp_path / "a.png").write_bytes(b"no picture")
    with pytest.raises(gr.Error, match=r"a.png is no readable picture \(of no known format"):
        asyncio.run(answer(None, DROP, None, {"path": str(tmp_path / "a.png")}))
    for nothing in (None, {"path": None}):
        assert asyncio.run(answer(None, DROP, None, nothing))[:2] == (None, "")


def test_a_file_is_made_before_its_link_is_followed(shapes: Model, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("handful.serve.page.DOWNLOADS", {"Download the model": "zip"})
    shelf = Shelf(Taught(shapes))
    file = functions(Served("shapes", shapes, None), shelf)["file"]
    assert asyncio.run(file(None)) == (
        f"model.zip: {len(shelf.file('served', 'zip')) / 2**20:.1f} MB",
        "models/served.zip",
    )
    said, nowhere = asyncio.run(file("other"))
    assert said.startswith("There is no such model")
    assert nowhere is None
    monkeypatch.setattr(shelf, "file", lambda *_: time.sleep(0.3))
    slow = functions(Served("shapes", shapes, None), shelf, seconds=0.05)["file"]
    assert asyncio.run(slow(None)) == ("This took more than 0.05 s; press again in a minute.", None)


def test_work_that_takes_too_long() -> None:
    with pytest.raises(HandfulError, match=r"more than 0.01 s; try it with fewer pictures"):
        asyncio.run(within(0.01, asyncio.sleep(5)))
    assert asyncio.run(within(5, asyncio.sleep(0, "done"))) == "done"


def test_an_error_is_shown_as_its_sentence() -> None:
    async def failing() -> None:
        raise HandfulError("Two classes are called 'a'.")

    with pytest.raises(gr.Error, match="Two classes are called 'a'"):
        asyncio.run(spoken(failing)())
