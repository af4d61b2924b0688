"""The pages: links lead somewhere, nothing is left open, recipes and commands are such, and code runs."""

from __future__ import annotations

import re
import shlex
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import typer
from PIL import Image

import handful as hf
from handful.cli import app
from handful.data.store import Contents, ImageStore, write_store
from handful.evaluation import evaluate
from handful.methods import METHODS
from handful.recipe import load_recipe, parse, shipped_recipes
from handful.training import train
from tests.conftest import SIZE, drawing, pattern

ROOT = Path(__file__).parents[1]
PAGES = sorted([ROOT / "README.md", *(ROOT / "docs").glob("**/*.md")])
METHOD_PAGES = sorted((ROOT / "docs" / "methods").glob("*.md"))
TRAINING_PAGES = [ROOT / "README.md", ROOT / "docs" / "classification.md", ROOT / "docs" / "pretraining.md"]
FITTING_PAGES = [ROOT / "docs" / "own-pictures.md", ROOT / "docs" / "first-ten-minutes.md"]


def blocks(language: str, pages: list[Path]) -> list[Any]:
    """Every code block of a language, each a test case named after its page."""
    found = []
    for page in pages:
        texts = re.findall(rf"```{language}\n(.*?)```", page.read_text(encoding="utf-8"), re.DOTALL)
        found += [pytest.param(text, id=f"{page.relative_to(ROOT)}-{i}") for i, text in enumerate(texts)]
    return found


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


@pytest.mark.parametrize("text", blocks("yaml", PAGES))
def test_recipes_in_the_pages_resolve_and_those_of_a_shipped_name_are_the_shipped_ones(text: str) -> None:
    recipe = parse(text, "page").resolved()
    if recipe.name in shipped_recipes():
        assert recipe == load_recipe(recipe.name)


def test_every_method_has_a_page_with_a_recipe_and_is_in_the_table() -> None:
    index = (ROOT / "docs" / "methods" / "README.md").read_text(encoding="utf-8")
    recipes = [parse(block.values[0], "page") for block in blocks("yaml", METHOD_PAGES)]
    assert {recipe.method.name for recipe in recipes} == set(METHODS)
    assert all(f"[`{name}`](" in index for name in METHODS)


def commands(program: str) -> list[Any]:
    """Every command of a program in the pages, as words without the program's own, each a test case by its words."""
    found: set[str] = set()
    for page in PAGES:
        text = page.read_text(encoding="utf-8")
        fenced = "".join(re.findall(r"```(?:console)?\n(.*?)```", text, re.DOTALL))
        inline = re.findall(r"`([^`]+)`", re.sub(r"```.*?```", "", text, flags=re.DOTALL))
        lines = [line.strip() for line in fenced.splitlines()] + [" ".join(code.split()) for code in inline]
        found |= {line for line in lines if re.match(rf"{program} [-a-z]", line)}
    return [pytest.param(shlex.split(line, comments=True)[1:], id=line.split("  ")[0]) for line in sorted(found)]


@pytest.mark.parametrize("words", commands("handful"))
def test_commands_have_the_verbs_and_options_that_the_pages_say(words: list[str]) -> None:
    command: Any = typer.main.get_command(app)
    while isinstance(getattr(command, "commands", None), dict) and words and not words[0].startswith("-"):
        assert words[0] in command.commands
        command, words = command.commands[words[0]], words[1:]
    known = {name for option in command.params for name in (*option.opts, *option.secondary_opts)} | {"--help"}
    assert {word for word in words if word.startswith("--")} <= known
    if command.name == "train" and words and words[0].islower() and not words[0].endswith(".yaml"):
        assert words[0] in shipped_recipes()


@pytest.mark.parametrize("words", commands("python"))
def test_benches_are_there_and_have_the_options_that_the_pages_say(words: list[str]) -> None:
    if words[0].startswith("bench/"):
        text = (ROOT / words[0]).read_text(encoding="utf-8")
        beside = re.findall(r"^from (\w+) import", text, re.MULTILINE)  # options that benches share
        files = [path for name in beside if (path := ROOT / "bench" / f"{name}.py").is_file()]
        text += "".join(path.read_text(encoding="utf-8") for path in files)
        assert all(f'"{word}"' in text for word in words if word.startswith("--"))


@pytest.mark.parametrize("words", commands("make"))
def test_make_has_the_targets_that_the_pages_say(words: list[str]) -> None:
    assert re.search(rf"^{re.escape(words[0])}:", (ROOT / "Makefile").read_text(encoding="utf-8"), re.MULTILINE)


@pytest.mark.parametrize("text", blocks("python", PAGES))
def test_code_compiles(text: str) -> None:
    compile(text, "page", "exec")


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> ImageStore:
    """100 classes of 16 pictures [1, 16, 16]: as many classes and pictures as the pages' snippets ask for."""
    rng = np.random.default_rng(0)
    contents = Contents(
        images=iter([drawing(base, rng)[None] for base in (pattern(rng) for _ in range(100)) for _ in range(16)]),
        labels=np.repeat(np.arange(100), 16).tolist(),
        image_shape=(1, SIZE, SIZE),
        class_names=[f"pattern{i:02}" for i in range(100)],
        splits={"train": range(60), "val": range(60, 80), "test": range(80, 100)},
        info={"name": "patterns"},
    )
    return write_store(tmp_path_factory.mktemp("store") / "patterns", **contents._asdict())


@pytest.mark.parametrize("text", blocks("python", [*METHOD_PAGES, *TRAINING_PAGES]))
def test_code_that_trains_runs(
    text: str, tiny: ImageStore, pictures: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """On other data, for two steps of each stage, without evaluation and report at the end; otherwise as it stands."""

    def shortly(*args: Any, **settings: Any) -> hf.Run:
        short = {"steps": min(2, settings["steps"]), "tasks_per_step": 2, "validation_tasks": 2, "quiet": True}
        short["way"] = min(settings["way"], 20)
        stage = settings.get("pretrain") and {**settings["pretrain"], "steps": 2, "batch": 4, "validation_tasks": 2}
        protocol = {**settings.get("evaluate", {}), "tasks": 2}
        return train(*args, **{**settings, **short, "pretrain": stage, "evaluate": protocol})

    monkeypatch.chdir(tmp_path)
    for reads in ("load", "folder"):
        monkeypatch.setattr(hf.data, reads, lambda *args, **options: tiny)
    monkeypatch.setattr(hf, "train", shortly, raising=False)
    monkeypatch.setattr(
        hf, "evaluate", lambda *args, **options: evaluate(*args, **{**options, "tasks": 2}), raising=False
    )
    monkeypatch.setattr("handful.training.conclude", lambda run, protocols, progress: [])
    for place, classes in (("seven", 7), ("support", 5)):
        for folder in sorted(pictures.iterdir())[:classes]:
            (tmp_path / place / folder.name).mkdir(parents=True)
            for number in range(2):
                shutil.copy(folder / f"{number}.png", tmp_path / place / folder.name)
    for name in ("a.jpg", "drawing.png"):
        Image.new("L", (SIZE, SIZE)).save(name)
    exec(text, {})


@pytest.mark.parametrize("page", FITTING_PAGES, ids=lambda page: page.name)
def test_code_that_fits_runs(
    page: Path, pictures: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """One block after the other, on small pictures and a small backbone; ONNX files have tests of their own."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("handful.model.start.BACKBONE", {"name": "conv4", "channels": 4, "downsample": "stride"})
    monkeypatch.setattr("handful.model.start.WITHOUT_PHOTOS", {"name": "conv4", "channels": 4, "downsample": "stride"})
    kinds = dict(zip(("robin", "wren", "heron"), sorted(pictures.iterdir())))
    for place, kind, number in (
        *(("photos/robin/a", "robin", 0), ("photos/robin/b", "robin", 1), ("photos/wren/c", "wren", 0)),
        *(("photos/wren/d", "wren", 1), ("photos/heron/e", "heron", 0), ("more_birds/heron/f", "heron", 1)),
        *(("a", "robin", 2), ("c", "wren", 2), ("d", "wren", 3), ("new", "robin", 3), ("more/g", "wren", 4)),
        ("strange/Lemon", "heron", 2),
    ):
        file = tmp_path / f"{place}.jpg"
        file.parent.mkdir(parents=True, exist_ok=True)
        Image.open(kinds[kind] / f"{number}.png").save(file)
    for block in blocks("python", [page]):
        if "onnxruntime" not in block.values[0]:
            exec(block.values[0], {})
    assert capsys.readouterr().out
