"""The report: one file that fetches nothing, says the number, all that belongs to it, and what is missing."""

from __future__ import annotations

import base64
import json
import os
import struct
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path
from typing import Any, get_args

import numpy as np
import pytest

from handful.errors import HandfulError
from handful.evaluation import Result
from handful.inner_loop import NormStats
from handful.report import write_comparison, write_report, write_run_plots
from handful.report.html import NORM_STATS

HEADER = "step,seconds,loss,score,lr,val_mean,val_ci95"


class Page(HTMLParser):
    """The text of a page, its tags, its addresses and its pictures."""

    def __init__(self, path: Path) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.addresses: list[str] = []
        self.pieces: list[str] = []
        self.silent = False
        self.source = path.read_text(encoding="utf-8")
        self.feed(self.source)
        self.text = " ".join(" ".join(self.pieces).split())

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.silent = tag == "style"
        self.addresses += [value or "" for name, value in attrs if name in ("src", "href", "srcset", "data")]

    def handle_data(self, data: str) -> None:
        if not self.silent:
            self.pieces.append(data)

    @property
    def pictures(self) -> list[bytes]:
        head = "data:image/png;base64,"
        return [base64.b64decode(a.removeprefix(head)) for a in self.addresses if a.startswith(head)]


def result(**changes: Any) -> dict[str, Any]:
    per_task = np.round(np.random.default_rng(0).uniform(0.9, 1.0, 600) * 75) / 75
    return {
        "problem": "classification",
        "method": "maml",
        "backbone": "conv4",
        "data": "omniglot",
        "split": "test",
        "metric": "accuracy",
        "mean": 0.9668,
        "ci95": 0.0041,
        "tasks": 600,
        "way": 5,
        "shot": 1,
        "query": 15,
        "seed": 0,
        "task_hash": "9c1fe03b77aa1200",
        "norm_stats": "batch",
        "transductive": True,
        "inner_steps": 2,
        "by_inner_step": [0.2, 0.9, 0.9668],
        "by_inner_step_ci95": [0.01, 0.01, 0.0041],
        "floors": {"chance": {"mean": 0.2, "ci95": 0.0}, "pixels": {"mean": 0.463, "ci95": 0.009}},
        "seconds": 31.2,
        "note": None,
        "run": {"recipe": "omniglot", "threads": 2},
        "per_task": per_task.tolist(),
    } | changes


def make_run(path: Path, *results: dict[str, Any]) -> Path:
    """A run folder; of the results, the last is the newest."""
    (path / "eval").mkdir(parents=True)
    (path / "recipe.yaml").write_text("name: omniglot-maml\nmethod: {name: maml, inner_lr: 0.4}\n")
    (path / "environment.json").write_text(json.dumps({"torch": "2.13.0", "gpu": None, "cpu": {"cores": 2}}))
    split = {"name": "omniglot", "hash": "12ab", "classes": {"train": 4400, "test": ["<b>ka</b>", "kha"]}}
    (path / "split.json").write_text(json.dumps(split))
    rows = [f"{step},{step * 1.5},{2 - step / 100},0.5,0.001,," for step in range(10, 100, 10)]
    rows += ["100,7380,0.5,0.8,0.001,0.95,0.01", "110,7500,0.5,0.8,0.001,0.94,0.01"]
    (path / "metrics.csv").write_text("\n".join([HEADER, *rows]) + "\n")
    for age, content in enumerate(results):
        file = path / "eval" / f"{age}.json"
        file.write_text(json.dumps(content))
        os.utime(file, (1000 + age, 1000 + age))
    return path


def test_the_page_of_a_run_says_all_that_belongs_to_the_number(tmp_path: Path) -> None:
    run = make_run(tmp_path / "birds", result())
    made = write_run_plots(run)
    assert [path.name for path in made] == [
        "learning_curve.png",
        "adaptation_curve.png",
        "task_histogram.png",
    ]
    out = write_report([run], tmp_path / "report.html")
    assert out == tmp_path / "report.html"
    page = Page(out)
    assert page.pictures == [path.read_bytes() for path in reversed(made)]
    for words in (
        "96.7 ± 0.4 %",
        "600 tasks from the test split of omniglot, 5-way 1-shot, 15 queries a class",
        "maml on conv4",
        "Transductive : the query batch shares its statistics",
        "task hash 9c1fe03b77aa1200",
        "floor: chance 20.0 %",
        "floor: pixels 46.3 ± 0.9 %",
        "Trained for 110 steps in 2 h 5 min; best validation accuracy 95.0 ± 1.0 % at step 100.",
        "4,400 classes",
        "method: {name: maml, inner_lr: 0.4}",
        "cpu.cores 2",
        "torch 2.13.0",
    ):
        assert words in page.text, words
    assert "threads" not in page.text  # where a result comes from is no metric
    assert [path.name for path in tmp_path.iterdir() if path.name.startswith(".")] == []


def test_the_page_fetches_nothing_runs_nothing_and_escapes_names(tmp_path: Path) -> None:
    run = make_run(tmp_path / "<i>run", result(note="<script>alert(1)</script>", method="<b>maml"))
    write_run_plots(run)
    page = Page(write_report([run], tmp_path / "report.html"))
    assert all(address.startswith(("data:image/png;base64,", "#")) for address in page.addresses)
    assert "http" not in page.source
    assert "url(" not in page.source
    assert not {"script", "link", "iframe", "b", "i"} & set(page.tags)
    assert "<b>ka</b>, kha" in page.text
    assert "<script>alert(1)</script>" in page.text


def test_inductive_is_said_in_words(tmp_path: Path) -> None:
    run = make_run(tmp_path / "run", result(transductive=False, norm_stats="support"))
    text = Page(write_report([run], tmp_path / "r.html")).text
    assert "Inductive : every query is answered on its own; normalisation uses the statistics of the support" in text
    assert "ransductive" not in text


def test_all_kinds_of_statistics_have_words() -> None:
    assert set(NORM_STATS) == {*get_args(NormStats), "none"}


def test_the_headline_is_the_newest_test_result_without_a_note(tmp_path: Path) -> None:
    results = [
        result(mean=0.5),
        result(mean=0.6),
        result(mean=0.7, split="val"),
        result(mean=0.2, note="random pixels: this can only be chance"),
    ]
    run = make_run(tmp_path / "run", *results)
    text = Page(write_report([run], tmp_path / "r.html")).text
    assert "run 60.0 ± 0.4 %" in text
    assert text.index("random pixels: this can only be chance") > text.index("All evaluations")
    noted = result(mean=0.4, note="these classes are not new")
    elsewhere = result(mean=0.3, note="Trained on a, tested on b", trained_on="a")
    text = Page(write_report([make_run(tmp_path / "noted", noted, elsewhere)], tmp_path / "e.html")).text
    assert "noted 40.0 ± 0.4 %" in text  # the newer one is of other data
    only_noise = make_run(tmp_path / "noise", results[-1])
    text = Page(write_report([only_noise], tmp_path / "n.html")).text
    assert text.index("random pixels: this can only be chance") < text.index("Beside its floors")


def test_other_metrics_stand_beside_those_of_the_floors(tmp_path: Path) -> None:
    floors = {"copy last frame": {"mean": 0.7, "ci95": 0.02, "auc": {"raw": 0.61}}}
    video = result(metric="frame AUC", mean=0.853, ci95=0.012, auc={"raw": 0.84, "macro": 0.9}, floors=floors)
    run = make_run(tmp_path / "run", video | {"way": None, "by_inner_step": [], "by_inner_step_ci95": []})
    assert [path.name for path in write_run_plots(run)] == ["learning_curve.png", "task_histogram.png"]
    text = Page(write_report([run], tmp_path / "r.html")).text
    assert "frame AUC auc.raw auc.macro maml 85.3 ± 1.2 % 84.0 % 90.0 %" in text
    assert "floor: copy last frame 70.0 ± 2.0 % 61.0 % –" in text


def test_missing_parts_are_said(tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    assert write_run_plots(tmp_path / "empty") == []
    assert not (tmp_path / "empty" / "plots").exists()
    text = Page(write_report([tmp_path / "empty"], tmp_path / "r.html")).text
    for words in (
        "No evaluation yet",
        "No pictures yet",
        "No split.json",
        "No recipe.yaml",
        "No environment.json",
    ):
        assert words in text
    bare = {key: result()[key] for key in ("metric", "mean", "ci95", "tasks")}
    text = Page(write_report([make_run(tmp_path / "bare", bare)], tmp_path / "r.html")).text
    assert "96.7 ± 0.4 %" in text
    assert "No floors were recorded" in text
    assert "Not recorded whether transductive or inductive" in text


def test_runs_on_the_same_tasks_share_a_column_and_are_paired(tmp_path: Path) -> None:
    base = result()
    shift = np.random.default_rng(1).normal(0.01, 0.02, 600)
    better = np.array(base["per_task"]) + shift
    other = result(per_task=better.tolist(), mean=0.9768)
    runs = [
        make_run(tmp_path / "a", base, result(task_hash="ffff", mean=0.4)),
        make_run(tmp_path / "b", other),
        make_run(tmp_path / "c"),
    ]
    page = Page(write_report(runs, tmp_path / "r.html"))
    mean, ci = 100 * shift.mean(), 100 * 1.96 * shift.std(ddof=1) / np.sqrt(600)
    assert f"b − a {mean:+.2f} ± {ci:.2f} points" in page.text
    assert "c − a" not in page.text
    said = "transductive (batch statistics), 2 inner steps"
    assert f"a 96.7 ± 0.4 % {said} 40.0 ± 0.4 % {said}" in page.text
    assert f"b 97.7 ± 0.4 % {said} not measured" in page.text
    assert "floor: pixels 46.3 ± 0.9 % 46.3 ± 0.9 %" in page.text
    assert "c not measured not measured" in page.text
    assert "do not compare them" in page.text
    assert page.text.count("Paired differences on tasks") == 1
    assert len(page.pictures) == 2  # forest and adaptation; the runs have no plots
    assert all(struct.unpack(">II", picture[16:24])[0] > 500 for picture in page.pictures)


def test_transductive_and_inductive_results_are_never_subtracted(tmp_path: Path) -> None:
    inductive = result(transductive=False, norm_stats="support")
    runs = [make_run(tmp_path / "a", result()), make_run(tmp_path / "b", inductive)]
    page = Page(write_report(runs, tmp_path / "r.html"))
    assert "Paired differences on tasks" not in page.text
    assert "b − a" not in page.text


def test_all_kinds_of_inductive_results_may_be_subtracted(tmp_path: Path) -> None:
    kinds = [result(transductive=False, norm_stats=stats) for stats in ("support", "none")]
    runs = [make_run(tmp_path / name, kind) for name, kind in zip("ab", kinds)]
    page = Page(write_report(runs, tmp_path / "r.html"))
    assert "b − a" in page.text
    assert "inductive (support statistics), 2 inner steps" in page.text
    assert "b 96.7 ± 0.4 % inductive, 2 inner steps" in page.text


def test_a_comparison_shows_its_own_results_and_no_others(tmp_path: Path) -> None:
    old = result(task_hash="0ld", mean=0.11)
    folders = [make_run(tmp_path / "runs" / name, old) for name in "abc"]
    shifts = {"a": 0.0, "b": 0.01, "c": -0.02}
    fields = result()
    scored = {
        str(folder): Result(**fields | {"mean": 0.9 + shift, "per_task": [x + shift for x in fields["per_task"]]})
        for folder, shift in zip(folders, shifts.values())
    }
    scored[str(folders[2])] = replace(scored[str(folders[2])], by_inner_step=[0.88], by_inner_step_ci95=[0.01])
    before = {path: path.read_bytes() for path in (tmp_path / "runs").rglob("*.*")}
    written = write_comparison(scored, tmp_path / "out" / "abc.html")
    assert [path.name for path in written] == ["abc.html", "abc-forest.png", "abc-adaptation.png"]
    assert {path: path.read_bytes() for path in (tmp_path / "runs").rglob("*.*")} == before
    page = Page(written[0])
    assert page.pictures[:2] == [path.read_bytes() for path in written[1:]]
    comparison = page.text[page.text.index("3 runs compared") : page.text.index("c − a −2.00 points")]
    for words in (
        "All results are on the very same tasks",
        "a 90.0 ± 0.4 % transductive (batch statistics), 2 inner steps",
        "c 88.0 ± 0.4 %",
        "floor: chance 20.0 % floor: pixels 46.3 ± 0.9 %",
        "Scored together for this page",
        "b − a +1.00 points",
    ):
        assert words in comparison, words
    assert "0ld" not in comparison
    assert page.text.count("task hash 0ld") == 3  # each run, below, with what its folder holds


def test_a_comparison_without_inner_steps_has_no_adaptation_curve(tmp_path: Path) -> None:
    fields = result(by_inner_step=[0.9], by_inner_step_ci95=[0.1], inner_steps=0)
    scored = {str(make_run(tmp_path / name)): Result(**fields) for name in "ab"}
    assert [path.name for path in write_comparison(scored, tmp_path / "x.html")] == ["x.html", "x-forest.png"]


def test_runs_on_different_tasks_are_not_compared(tmp_path: Path) -> None:
    runs = [
        make_run(tmp_path / "x" / "run", result()),
        make_run(tmp_path / "y" / "run", result(task_hash="ffff")),
    ]
    page = Page(write_report(runs, tmp_path / "r.html"))
    assert "their numbers must not be compared" in page.text
    assert page.pictures == []
    said = "x/run 96.7 ± 0.4 % transductive (batch statistics), 2 inner steps not measured"
    assert said in page.text  # equal names get their folders
    page = Page(write_report([make_run(tmp_path / "p"), make_run(tmp_path / "q")], tmp_path / "r.html"))
    assert "nothing to compare" in page.text


def test_the_same_run_twice_is_one_run(tmp_path: Path) -> None:
    run = make_run(tmp_path / "run", result())
    assert "compared" not in Page(write_report([run, run], tmp_path / "r.html")).text


@pytest.mark.parametrize(
    ("name", "content", "said"),
    [
        ("eval/0.json", '{"mean": 0.9', "is not JSON"),
        ("eval/0.json", "[]", "a JSON object, not a list"),
        ("eval/0.json", '{"metric": "accuracy", "ci95": 0, "tasks": 1}', "mean: Field required"),
        ("eval/0.json", json.dumps(result(by_inner_step_ci95=[0.1])), "by_inner_step has 3 values"),
        ("eval/0.json", json.dumps(result(seconds=float("nan"))), "seconds: Input should be a finite number"),
        ("environment.json", "torch", "is not JSON"),
        ("split.json", "\xff", "cannot be read as text"),
        ("split.json", '{"classes": 5}', "classes must be an object"),
        ("recipe.yaml", "a: [", "not valid YAML"),
        ("metrics.csv", f"{HEADER}\n1,2,3\n", "line 2 has not as many cells"),
        ("metrics.csv", "step,loss\n1,2\n", "no column 'seconds'"),
        ("metrics.csv", f"{HEADER}\n1,2,three,4,5,,\n", "'three'"),
        ("plots/learning_curve.png", "\x89PNG", "not a whole PNG"),
    ],
)
def test_a_damaged_file_is_named(tmp_path: Path, name: str, content: str, said: str) -> None:
    run = make_run(tmp_path / "run", result())
    (run / name).parent.mkdir(exist_ok=True)
    (run / name).write_text(content, encoding="latin-1")
    with pytest.raises(HandfulError, match=said) as caught:
        write_report([run], tmp_path / "r.html")
    assert name in str(caught.value)
    assert not (tmp_path / "r.html").exists()


def test_a_folder_that_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(HandfulError, match=r"no run folder .*nowhere"):
        write_report([tmp_path / "nowhere"], tmp_path / "r.html")
