"""The pages: every link leads somewhere, nothing is left to fill in, and the README's recipe is one."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
import torch

from handful.recipe import parse

ROOT = Path(__file__).parents[1]
PAGES = sorted([ROOT / "README.md", *(ROOT / "docs").glob("**/*.md")])


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_links_lead_somewhere_and_nothing_is_left_open(page: Path) -> None:
    text = page.read_text(encoding="utf-8")
    assert "@@" not in text
    links = re.findall(r"\]\(([^)#\s]*)(#[^)]*)?\)", text)
    assert links or page.name == "errata.md"
    for target, anchor in links:
        found = page.parent / target if target else page
        assert found.exists(), target
        if anchor:
            headings = re.findall(r"^#+ (.*)$", found.read_text(encoding="utf-8"), re.MULTILINE)
            names = {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}
            assert anchor[1:] in names, anchor


def test_the_loop_of_note_003_never_moves_its_parameters_and_the_right_one_does() -> None:
    text = (ROOT / "docs" / "regression.md").read_text(encoding="utf-8")
    wrong, right, _ = re.findall(r"```python\n(.*?)```", text, re.DOTALL)
    for code, moves in ((wrong, False), (right, True)):
        names: dict[str, Any] = {}
        exec(code, names)
        torch.manual_seed(0)
        model = torch.nn.Linear(1, 1)
        before = [p.detach().clone() for p in model.parameters()]
        names["meta_train"](model, steps=3)
        assert [not torch.equal(p, old) for p, old in zip(model.parameters(), before)] == [moves, moves]
        assert [p.grad is not None for p in model.parameters()] == [moves, moves]


def test_the_readmes_recipe_is_a_recipe() -> None:
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    (block,) = re.findall(r"```yaml\n(.*?)```", text, re.DOTALL)
    assert parse(block, "README").resolved().data.name == "folder"
