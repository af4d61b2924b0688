"""What the page says, without a browser."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from pathlib import Path

import gradio as gr
import pytest

from handful.errors import HandfulError
from handful.model import Model
from handful.serve import Limits
from handful.serve.page import page, remark, spoken, within
from handful.serve.server import Served
from handful.serve.teaching import Shelf, Taught, ask, teach
from handful.serve.worker import Worker
from tests.serve.conftest import maml, of_files, support_of


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
    assert "are not stored with it" in remark(ask(Taught(shapes), query))
    taught = teach(support_of(pictures), maml())
    assert remark(ask(taught, query)) == ""
    strict = Model(shapes.network, shapes.card.model_copy(update={"threshold": 1.0}))
    found = ask(replace(taught, model=strict, start=None), query)
    assert remark(found).startswith("**none of these**: its likeness to the pictures taught is 0.")


def test_work_that_takes_too_long() -> None:
    with pytest.raises(HandfulError, match=r"more than 0.01 s; try it with fewer pictures"):
        asyncio.run(within(0.01, asyncio.sleep(5)))
    assert asyncio.run(within(5, asyncio.sleep(0, "done"))) == "done"


def test_an_error_is_shown_as_its_sentence() -> None:
    async def failing() -> None:
        raise HandfulError("Two classes are called 'a'.")

    with pytest.raises(gr.Error, match="Two classes are called 'a'"):
        asyncio.run(spoken(failing)())
