"""The page: cards of classes to teach, and a place to try what was learned.

What a browser drops or draws stays with it until it is fitted; the server keeps the models of the shelf.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, Coroutine
from functools import wraps
from pathlib import Path
from typing import Any, ParamSpec, TypeVar

import gradio as gr
from fastapi import FastAPI
from starlette.exceptions import HTTPException

from handful import wording
from handful.errors import HandfulError
from handful.onnx import absent
from handful.serve.api import failed
from handful.serve.figure import probabilities
from handful.serve.limits import Limits
from handful.serve.served import Served
from handful.serve.teaching import SERVED, Answer, Shelf, ask, teach
from handful.serve.uploads import dropped_and_drawn, support
from handful.serve.worker import Worker

CARDS, SHOWN = 20, 5  # classes that the page can teach, and those that it shows first
NAMED = 5  # classes in an answer
DRAW, DROP = "Draw", "Drop pictures"
HERE = Path(__file__).parent
BUTTONS = '<button class="wipe" type="button">clear</button>'
ANOTHER = '<button class="another" type="button">one more</button>'
SHEET = (
    '<canvas width="420" height="420" role="img" aria-label="a sheet to draw on"></canvas><div class="strip"></div>'
    '<div class="tools">{}</div>'
)
WRITING = '() => "model.{} is being written; it comes by itself."'
SAVE = '(href) => { if (href) Object.assign(document.createElement("a"), { href, download: "" }).click(); }'

DOWNLOADS = {"Download the model": "zip"} | ({} if absent() else {"As an ONNX file": "onnx"})
TEACH = "Give each class a name and one example or more, fit, and go on to Try. Cards that stay empty are left out."
CLOSED = (
    "This model holds a network that was adapted to its classes, and not the one that it started from. To teach other "
    "classes, serve the run: `handful serve RUN`."
)

P = ParamSpec("P")
Made = TypeVar("Made")


def mount(app: FastAPI, served: Served, shelf: Shelf, worker: Worker, limits: Limits) -> FastAPI:
    """The page at / of an application."""
    theme = gr.themes.Default(
        primary_hue="blue",
        neutral_hue="slate",
        font=["system-ui", "sans-serif"],  # nothing is fetched
        font_mono=["ui-monospace", "monospace"],
    )
    gr.mount_gradio_app(
        app,
        page(served, shelf, worker, limits),
        path="/",
        footer_links=[],
        run_history=False,
        show_error=False,
        max_file_size=limits.upload,
        ssr_mode=False,
        enable_monitoring=False,
        pwa=False,
        mcp_server=False,
        theme=theme,
        css_paths=[HERE / "page.css"],
    )
    mounted: Any = app.routes[-1]
    mounted.app.add_exception_handler(HTTPException, failed)
    return app


def page(served: Served, shelf: Shelf, worker: Worker, limits: Limits) -> gr.Blocks:
    """Two tabs, Teach and Try; the one that can be used at once is in front."""

    async def fit(key: str | None, *cards: Any) -> tuple[Any, ...]:
        assert served.start is not None
        until = time.monotonic() + limits.seconds
        found = await asyncio.to_thread(support, list(zip(cards[::3], cards[1::3], cards[2::3])), limits)
        taught = await within(limits.seconds, worker.run(teach, found, served.start, served.open_set, until))
        key = shelf.put(taught, instead_of=key)
        card = taught.model.card
        return (
            key,
            str(card),
            asked(card.classes),
            "",
            *(gr.update(visible=True) for _ in DOWNLOADS),
        )

    async def answer(
        key: str | None, way: str, drawing: list[str] | None, dropped: dict[str, Any] | None
    ) -> tuple[Any, ...]:
        paths = [dropped["path"]] if dropped and dropped["path"] and way == DROP else []
        given = await asyncio.to_thread(dropped_and_drawn, paths, drawing if way == DRAW else [], limits)
        if not given:
            return None, "", *shown(None)
        if key is None and served.model is None:
            raise HandfulError("Nothing was taught yet; give examples in Teach, and fit.")
        taught = shelf.get(key or SERVED)
        found = await within(limits.seconds, worker.run(ask, taught, given[0].picture))
        return headline(found), remark(found, taught.model.card.threshold), *await worker.run(shown, found)

    def filed(kind: str) -> Callable[[str | None], Awaitable[tuple[str, str | None]]]:
        async def file(key: str | None) -> tuple[str, str | None]:
            key = key or SERVED
            try:
                content = await within(limits.seconds, worker.run(shelf.file, key, kind), "press again in a minute")
            except HandfulError as error:  # said where the file is waited for
                return str(error), None
            return f"model.{kind}: {len(content) / 2**20:.1f} MB", f"models/{key}.{kind}"

        return file

    with gr.Blocks(title=f"Handful: {served.name}", analytics_enabled=False) as blocks:
        key = gr.State()
        gr.Markdown(f"# Handful · {served.name}")
        way = gr.Radio(
            [DRAW, DROP],
            value=DRAW if served.drawn else DROP,
            label="how pictures are given",
            show_label=False,
            container=False,
            visible=served.drawn,
        )
        sheets: list[gr.HTML] = []
        boxes: list[gr.Gallery | gr.Image] = []
        cards: list[Any] = []
        with gr.Tabs(selected="try" if served.model else "teach"):
            with gr.Tab("Teach", id="teach"):
                if served.start is None:
                    gr.Markdown(CLOSED)
                else:
                    gr.Markdown(TEACH)
                    with gr.Row(elem_classes="cards"):
                        columns = []
                        for number in range(CARDS):
                            with gr.Column(visible=number < SHOWN, min_width=150, elem_classes="card") as column:
                                name = gr.Textbox(
                                    placeholder=f"class {number + 1}",
                                    label=f"name of class {number + 1}",
                                    show_label=False,
                                    container=False,
                                    max_length=80,
                                )
                                sheet = drawing_sheet(served.drawn, BUTTONS + ANOTHER)
                                box = gr.Gallery(
                                    type="filepath",
                                    label=f"pictures of class {number + 1}",
                                    show_label=False,
                                    columns=2,
                                    height=200,
                                    sources=["upload"],
                                    file_types=["image"],
                                    interactive=True,
                                    buttons=[],
                                    visible=not served.drawn,
                                )
                            columns.append(column)
                            sheets.append(sheet)
                            boxes.append(box)
                            cards += [name, sheet, box]
                    with gr.Row():
                        more = gr.Button("Add a class")
                        learn = gr.Button("Fit", variant="primary")
                    summary = gr.Textbox(
                        label="What was learned, and how well", lines=4, max_lines=20, interactive=False
                    )
            with gr.Tab("Try", id="try"), gr.Row():
                with gr.Column():
                    subject = gr.Markdown(asked(served.model.card.classes if served.model else []))
                    query_sheet = drawing_sheet(served.drawn, BUTTONS, large=True)
                    query_box = gr.Image(
                        type="filepath",
                        image_mode=None,
                        label="a picture to name",
                        sources=["upload", "clipboard"],
                        height=320,
                        buttons=[],
                        visible=not served.drawn,
                    )
                    sheets.append(query_sheet)
                    boxes.append(query_box)
                    with gr.Row():
                        buttons = [gr.Button(name, size="sm", visible=served.model is not None) for name in DOWNLOADS]
                    made, address = gr.Markdown(), gr.Textbox(visible=False)
                with gr.Column():
                    label = gr.Label(label="answer", num_top_classes=NAMED)
                    note = gr.Markdown()
                    nearest = gr.Gallery(
                        label="taught pictures most like it, with their likeness (from 0 to 1)",
                        columns=NAMED,
                        height=150,
                        object_fit="contain",
                        elem_classes="nearest",
                        interactive=False,
                        buttons=[],
                        visible=False,
                    )
                    steps = gr.Plot(label="its answer while it adapts", show_label=False, visible=False)
        count = gr.State(SHOWN)
        private: Any = {"api_visibility": "private"}
        if served.start is not None:
            more.click(
                lambda shown: [min(shown + 1, CARDS), *(gr.update(visible=n <= shown) for n in range(CARDS))],
                count,
                [count, *columns],
                **private,
            )
            learn.click(spoken(fit), [key, *cards], [key, summary, subject, made, *buttons], **private)
        for button, kind in zip(buttons, DOWNLOADS.values()):
            writing = button.click(None, None, made, js=WRITING.format(kind), **private)
            written = writing.then(filed(kind), key, [made, address], show_progress="hidden", **private)
            written.then(None, address, js=SAVE, **private)
        way.change(
            lambda chosen: [gr.update(visible=chosen == mode) for mode in (DRAW, DROP) for _ in sheets],
            way,
            [*sheets, *boxes],
            **private,
        )
        outputs = [label, note, nearest, steps]
        for event in (query_sheet.drawn, query_box.change):
            event(
                spoken(answer),
                [key, way, query_sheet, query_box],
                outputs,
                trigger_mode="always_last",
                preprocess=False,  # Gradio would open the picture, and say of a broken one that there was an error
                **private,
            )
    blocks.state_session_capacity = limits.waiting
    blocks.queue(max_size=limits.waiting, default_concurrency_limit=8, api_open=False)
    return blocks


def drawing_sheet(visible: bool, tools: str, large: bool = False) -> gr.HTML:
    """A sheet whose value is a list of drawings, as data URLs."""
    return gr.HTML(
        html_template=SHEET.format(tools),
        js_on_load=(HERE / "canvas.js").read_text(encoding="utf-8"),
        apply_default_css=False,
        elem_classes=["sheet", "large"] if large else ["sheet"],
        visible=visible,
    )


def asked(classes: list[str]) -> str:
    """Who answers."""
    if not classes:
        return "Nothing was taught yet."
    return f"Give a picture, to be named as one of {wording.count(len(classes), 'class')}."


def headline(answer: Answer) -> str | dict[str, float]:
    """The best classes, for bars; of a picture that is none of them that alone, and no class above it."""
    found = answer.prediction
    if found.label not in found.probabilities:
        return found.label
    return dict(list(found.probabilities.items())[:NAMED])


def remark(answer: Answer, threshold: float | None) -> str:
    """What the bars cannot say."""
    found = answer.prediction
    if found.label not in found.probabilities:
        nearest = next(iter(found.probabilities))
        return (
            f"Its likeness to the pictures taught is {found.likeness:.3f}, and {threshold:.3f} is the least for one of "
            f"their classes, of which {nearest} is the nearest."
        )
    if not answer.nearest:
        return "The pictures that this model was taught are not stored with it, so none can be shown beside the answer."
    return ""


def shown(answer: Answer | None) -> tuple[Any, Any]:
    """The nearest pictures and the steps of adapting, hidden where there are none."""
    near, curve = (answer.nearest, answer.curve) if answer else ([], {})
    drawn = probabilities(curve) if curve else None
    return gr.update(value=near, visible=bool(near)), gr.update(value=drawn, visible=bool(curve))


async def within(seconds: float, work: Awaitable[Made], way_out: str = "try it with fewer pictures") -> Made:
    """What comes of work, if it comes in time."""
    try:
        return await asyncio.wait_for(work, seconds)
    except TimeoutError as error:
        raise HandfulError(f"This took more than {seconds:g} s; {way_out}.") from error


def spoken(function: Callable[P, Awaitable[Made]]) -> Callable[P, Coroutine[Any, Any, Made]]:
    """A HandfulError is shown on the page as its one sentence."""

    @wraps(function)
    async def said(*args: P.args, **kwargs: P.kwargs) -> Made:
        try:
            return await function(*args, **kwargs)
        except HandfulError as error:
            raise gr.Error(str(error), title="", print_exception=False) from error

    return said
