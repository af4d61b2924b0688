"""The page in a real browser: Debian's chromium, driven by playwright.  Skipped where it is not installed."""

from __future__ import annotations

import math
import re
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from playwright.sync_api import Locator, Page, expect, sync_playwright

from tests.serve.conftest import Server

CHROMIUM = shutil.which("chromium")
pytestmark = pytest.mark.skipif(CHROMIUM is None, reason="needs a browser: apt-get install chromium")
OPTIONS = (
    "--headless --no-sandbox --disable-gpu --disable-quic --no-first-run --disable-background-networking "
    "--disable-component-update --disable-sync"
)
WAIT = 60_000  # milliseconds, on a slow machine
Line = list[tuple[float, float]]
RING: Line = [(0.5 + 0.3 * math.cos(turn / 3), 0.5 + 0.3 * math.sin(turn / 3)) for turn in range(20)]
CROSS = [[(0.2, 0.2), (0.8, 0.8)], [(0.8, 0.2), (0.2, 0.8)]]


@pytest.fixture
def page(server: Server, tmp_path: Path) -> Iterator[Page]:
    """The page of the served model, and what it complains of and asks of other hosts: nothing."""
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch_persistent_context(
            tmp_path / "profile",
            executable_path=CHROMIUM,
            args=OPTIONS.split(),
            viewport={"width": 1180, "height": 900},
        )
        opened = browser.new_page()
        asked: list[str] = []
        wrong: list[str] = []
        opened.on("request", lambda request: asked.append(request.url))
        opened.on("pageerror", lambda error: wrong.append(str(error)))
        opened.on("response", lambda told: wrong.append(told.url) if told.status >= 400 else None)
        opened.set_default_timeout(WAIT)
        expect.set_options(timeout=WAIT)
        opened.goto(server.address)
        yield opened
        browser.close()
    assert wrong == []
    assert [url for url in asked if not url.startswith((server.address, "data:", "blob:"))] == []


def draw(page: Page, sheet: Locator, lines: list[Line], x: float = 0.0, y: float = 0.0, scale: float = 1.0) -> None:
    sheet.scroll_into_view_if_needed()
    box: Any = sheet.bounding_box()
    for line in lines:
        for number, (across, down) in enumerate(line):
            place = box["x"] + box["width"] * (x + scale * across), box["y"] + box["height"] * (y + scale * down)
            page.mouse.move(*place, steps=2)
            if number == 0:
                page.mouse.down()
        page.mouse.up()


def named(page: Page, card: int, name: str) -> Locator:
    found = page.locator(".card").nth(card)
    found.locator("input, textarea").first.fill(name)
    return found


def fit(page: Page, classes: int) -> None:
    page.get_by_role("button", name="Fit", exact=True).click()
    expect(page.get_by_label("What was learned, and how well")).to_have_value(re.compile(rf"{classes} classes: "))


def test_draw_two_symbols_and_see_one_recognised(page: Page) -> None:
    page.get_by_role("tab", name="Teach").click()
    draw(page, named(page, 0, "ring").locator("canvas"), [RING])
    cross = named(page, 1, "cross")
    draw(page, cross.locator("canvas"), CROSS)
    cross.get_by_text("one more").click()
    expect(cross.locator(".strip img")).to_have_count(1)
    draw(page, cross.locator("canvas"), [CROSS[0], [(0.8, 0.3), (0.3, 0.8)]])  # not the same once more
    fit(page, 2)
    told = page.get_by_label("What was learned, and how well")
    expect(told).to_have_value(
        re.compile(r"ring \(1\), cross \(2\)[\s\S]*each left out in turn[\s\S]*floors: chance 50")
    )

    page.get_by_role("tab", name="Try").click()
    sheet = page.locator(".sheet.large")
    before = sheet.locator("canvas").bounding_box()
    draw(page, sheet.locator("canvas"), [RING], 0.3, 0.25, 0.6)  # smaller, and elsewhere
    expect(page.get_by_test_id("label-output-value")).to_have_text("ring")
    expect(page.locator(".nearest .caption-label").first).to_have_text(re.compile("^ring"))
    assert sheet.locator("canvas").bounding_box() == before  # it does not move under the pen
    sheet.get_by_text("clear").click()
    draw(page, sheet.locator("canvas"), CROSS, 0.0, 0.2, 0.7)
    expect(page.get_by_test_id("label-output-value")).to_have_text("cross")
    with page.expect_download() as download:
        page.get_by_role("button", name="Download the model").click()
    assert download.value.suggested_filename == "model.zip"
    expect(page.get_by_text(re.compile(r"^model\.zip: \d"))).to_be_visible()


def test_upload_pictures_fit_and_see_the_name(page: Page, pictures: Path) -> None:
    page.get_by_text("Drop pictures").click()
    page.get_by_role("tab", name="Teach").click()
    for card, name in enumerate(("class03", "class08")):
        files = [pictures / name / f"{number}.png" for number in range(3)]
        place = named(page, card, name)
        place.locator("input[type=file]").set_input_files(files)
        expect(place.locator("img")).to_have_count(3)
    fit(page, 2)
    page.get_by_role("tab", name="Try").click()
    page.locator("[data-testid=image] input[type=file]").set_input_files(pictures / "class08" / "6.png")
    expect(page.get_by_test_id("label-output-value")).to_have_text("class08")
    expect(page.locator(".nearest .caption-label").first).to_have_text(re.compile("^class08"))


def test_what_is_drawn_and_what_is_dropped_are_not_mixed(page: Page, pictures: Path) -> None:
    page.get_by_text("Drop pictures").click()
    page.locator("[data-testid=image] input[type=file]").set_input_files(pictures / "class08" / "6.png")
    name = page.get_by_test_id("label-output-value")
    expect(name).to_have_text("class08")
    expect(page.get_by_text("are not stored with it")).to_be_visible()
    page.get_by_text("Draw", exact=True).click()
    page.locator(".sheet.large").get_by_text("clear").click()
    expect(name).not_to_be_visible()


def test_a_file_that_takes_long_is_made_while_the_page_stays(page: Page) -> None:
    pytest.importorskip("onnxscript", reason="onnxscript is not installed: handful[onnx]")
    with page.expect_download(timeout=3 * WAIT) as download:
        page.get_by_role("button", name="As an ONNX file").click()
        expect(page.get_by_text("model.onnx is being written")).to_be_visible()
    assert download.value.suggested_filename == "model.onnx"
    expect(page.get_by_text(re.compile(r"^model\.onnx: \d"))).to_be_visible()


def test_a_broken_picture_is_said_to_be_one(page: Page, tmp_path: Path) -> None:
    page.get_by_text("Drop pictures").click()
    (tmp_path / "broken.png").write_bytes(b"no picture")
    page.locator("[data-testid=image] input[type=file]").set_input_files(tmp_path / "broken.png")
    expect(page.get_by_text("broken.png is no readable picture (of no known format")).to_be_visible()


def test_what_a_screen_reader_reads_out(page: Page) -> None:
    page.get_by_role("tab", name="Teach").click()
    expect(page.get_by_role("textbox", name="name of class 1", exact=True)).to_be_visible()
    expect(page.get_by_role("img", name="a sheet to draw on").first).to_be_visible()
    expect(page.get_by_text("Textbox")).to_have_count(0)


def test_what_is_wrong_is_said_on_the_page(page: Page) -> None:
    page.get_by_role("tab", name="Teach").click()
    page.get_by_role("button", name="Fit", exact=True).click()
    expect(page.get_by_text("There is nothing to learn from yet")).to_be_visible()
    expect(page.locator(".card:visible")).to_have_count(5)
    page.get_by_role("button", name="Add a class").click()
    expect(page.locator(".card:visible")).to_have_count(6)
