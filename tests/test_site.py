"""The documentation site: it builds without a warning, a dead link ends it, every page has its place."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path
from typing import Any
from urllib.parse import unquote

import pytest

ROOT = Path(__file__).parents[1]
PAGES = sorted((ROOT / "docs").glob("**/*.md"))


@pytest.fixture
def project(tmp_path: Path) -> Path:
    """A copy of what the site is made of."""
    for module in ("zensical", "mkdocstrings"):
        pytest.importorskip(module, reason=f"{module} is not installed: handful[docs]")
    shutil.copytree(ROOT / "docs", tmp_path / "docs")
    shutil.copy(ROOT / "zensical.toml", tmp_path)
    (tmp_path / "src").symlink_to(ROOT / "src")
    return tmp_path


def build(project: Path) -> subprocess.CompletedProcess[str]:
    """`make docs`, in a folder."""
    command = [sys.executable, "-m", "zensical", "build", "--strict", "--clean"]
    return subprocess.run(command, cwd=project, capture_output=True, text=True)


def test_the_site_builds_and_its_links_lead_somewhere(project: Path) -> None:
    ran = build(project)
    assert ran.returncode == 0, ran.stdout + ran.stderr
    assert "No issues found" in ran.stdout + ran.stderr
    site = project / "out" / "site"
    for page in PAGES:
        name = page.relative_to(ROOT / "docs").with_suffix("")
        html = site / (name.parent if name.name in ("index", "README") else name) / "index.html"
        text = html.read_text(encoding="utf-8")
        assert not re.findall(
            r'<(?:script|img|link)[^>]* (?:src|href)="?http', text
        )  # nothing is fetched from elsewhere
        for target in re.findall(r'(?:href|src)="([^"#?:]+)["#?]', text):
            assert (html.parent / unquote(target)).exists(), f"{name}: {target}"
    assert "Meta-train a method on a data set" in (site / "reference" / "index.html").read_text(encoding="utf-8")


@pytest.mark.parametrize("link", ["[gone](nowhere.md)", "[gone](results.md#nowhere)"])
def test_a_dead_link_ends_the_build(project: Path, link: str) -> None:
    with (project / "docs" / "index.md").open("a", encoding="utf-8") as page:
        page.write(f"\n{link}\n")
    assert build(project).returncode != 0


def test_every_page_has_one_place_in_the_navigation() -> None:
    def pages(entry: Any) -> list[str]:
        if isinstance(entry, str):
            return [entry]
        return [page for part in (entry.values() if isinstance(entry, dict) else entry) for page in pages(part)]

    nav = tomllib.loads((ROOT / "zensical.toml").read_text(encoding="utf-8"))["project"]["nav"]
    assert sorted(pages(nav)) == sorted(page.relative_to(ROOT / "docs").as_posix() for page in PAGES)
