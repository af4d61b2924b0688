"""Every verb from the command line, end to end on small real input; errors are one sentence and exit code 2."""

from __future__ import annotations

import csv
import json
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.conftest import Command, ok, refused


def test_the_whole_way(handful: Command, recipe_file: Path, pictures: Path, tmp_path: Path) -> None:
    run, model = tmp_path / "run", tmp_path / "model"
    trained = ok(handful("train", recipe_file, "--out", run, "--set", "train.steps=30"))
    assert "accuracy" in trained.out
    assert "step 12/30" in trained.err  # a line a validation, since this is no terminal

    evaluated = json.loads(ok(handful("evaluate", run, "--tasks", 10, "--query", 2, "--json")).out)
    assert (evaluated["tasks"], evaluated["query"], evaluated["transductive"]) == (10, 2, True)
    inductive = json.loads(ok(handful("evaluate", run, "--tasks", 10, "--query", 2, "--inductive", "--json")).out)
    assert (inductive["norm_stats"], inductive["transductive"]) == ("support", False)
    assert inductive["task_hash"] == evaluated["task_hash"]
    assert "± " in ok(handful("evaluate", run, "--tasks", 10, "--split", "val", "--inner-steps", 0)).out

    support = tmp_path / "support"
    for name in ("class01", "class02", "class05"):
        (support / name).mkdir(parents=True)
        (support / name / "a.png").write_bytes((pictures / name / "0.png").read_bytes())
    assert "3 classes: class01 (1)" in ok(handful("fit", support, "--from", run, "--out", model)).out
    table = tmp_path / "table.csv"
    answers = json.loads(ok(handful("predict", model, pictures / "class02", "--json", "--csv", table, "--top", 2)).out)
    assert len(answers) == 8
    assert set(answers[0]) == {"input", "label", "probabilities", "likeness"}
    assert len(answers[0]["probabilities"]) == 2
    twice = (pictures / "class02", pictures / "class02" / "0.png")  # a folder, and a picture of it
    told = json.loads(ok(handful("predict", model, *twice, "--json")).out)
    assert [len(answer["probabilities"]) for answer in told] == [3] * 8  # each picture once, with all classes
    (support / "class01" / "a.txt.png").write_text("no picture", encoding="utf-8")
    bad = handful("fit", support, "--from", run, "--out", model)
    refused(
        bad,
        "class01/a.txt.png is no readable picture (of no known format",
        "mend it or leave it out, as --skip-bad does.",
    )
    assert "0x" not in bad.err
    with table.open(encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    assert [row["label"] for row in rows] == [answer["label"] for answer in answers]
    assert sum(float(rows[0][name]) for name in ("class01", "class02", "class05")) == pytest.approx(1, abs=1e-5)

    other = tmp_path / "other"
    told = json.loads(ok(handful("train", recipe_file, "--out", other, "--set", "train.steps=4", "--json")).out)
    assert [result["norm_stats"] for result in told] == ["batch", "support"]
    compared = json.loads(ok(handful("compare", run, other, "--tasks", 10, "--inductive", "--json")).out)
    assert not any(result["transductive"] for result in compared["results"])
    assert "report.html" in ok(handful("report", run)).out
    ok(handful("report", run, other, "--out", tmp_path / "both.html"))
    assert "other" in (tmp_path / "both.html").read_text(encoding="utf-8")


def test_compare(handful: Command, recipe_file: Path, tmp_path: Path) -> None:
    first, second, third, other_tasks, inductive = (tmp_path / name for name in ("a", "b", "c", "other", "inductive"))
    short = ("--set", "train.steps=4")
    ok(handful("train", recipe_file, "--out", first, *short))
    ok(handful("train", recipe_file, "--out", second, *short, "--set", "evaluate.inner_steps=3", "--set", "seed=1"))
    ok(handful("train", recipe_file, "--out", third, "--set", "train.steps=8"))
    ok(handful("train", recipe_file, "--out", other_tasks, *short, "--set", "data.image_size=20"))
    ok(handful("train", recipe_file, "--out", inductive, *short, "--set", "method.norm_stats=support"))

    told = json.loads(ok(handful("compare", first, second, third, "--tasks", 10, "--json")).out)
    assert [result["name"] for result in told["results"]] == [str(first), str(second), str(third)]
    assert len({result["task_hash"] for result in told["results"]}) == 1
    assert [result["inner_steps"] for result in told["results"]] == [2, 3, 2]  # each as in its own recipe
    assert [result["seed"] for result in told["results"]] == [0, 0, 0]  # the tasks of the first
    assert [(d["run"], d["baseline"], d["tasks"]) for d in told["differences"]] == [
        (str(second), str(first), 10),
        (str(third), str(first), 10),
    ]
    assert told["written"] == []

    held = set(first.rglob("*"))
    page = tmp_path / "pages" / "abc.html"
    said = ok(handful("compare", first, second, third, "--tasks", 10, "--inner-steps", 1, "--out", page)).out
    assert f"{second}: accuracy" in said
    assert "transductive (batch statistics), 1 inner step, test split" in said
    assert "points (95 % over 10 paired tasks)" in said
    assert "clear of zero." in said
    assert f"written to {page}\n" in said
    assert sorted(path.name for path in page.parent.iterdir()) == ["abc-adaptation.png", "abc-forest.png", "abc.html"]
    assert set(first.rglob("*")) == held  # the runs stay as they are
    assert "3 runs compared" in page.read_text(encoding="utf-8")

    twice = json.loads(ok(handful("compare", first, second, f"{first}/../a", "--tasks", 10, "--json")).out)
    assert [result["name"] for result in twice["results"]] == [str(first), str(second)]
    refused(handful("compare", first), "at least 2 different runs, not 1")
    refused(handful("compare", first, f"{first}/../a"), "at least 2 different runs, not 1")
    refused(handful("compare", first, tmp_path), f"{tmp_path} is not a run folder")
    refused(handful("compare", first, tmp_path / "none"), "none is not a run folder")
    refused(handful("compare", first, other_tasks, "--tasks", 10), "other was measured on other tasks", "same data")
    refused(handful("compare", first, inductive, "--tasks", 10), "inductive is inductive and", "with --inductive")
    ok(handful("compare", first, inductive, "--tasks", 10, "--inductive"))
    refused(handful("compare", first, second, "--out", tmp_path), "ends in .html")
    nearly = ("--tasks", 10, "--norm-stats", "support+1", "--json")
    told = json.loads(ok(handful("compare", first, inductive, *nearly)).out)
    assert {result["norm_stats"] for result in told["results"]} == {"support+1"}
    refused(handful("compare", first, second, "--norm-stats", "batch", "--inductive"), f"{first}: --inductive is")
    refused(handful("compare", first, second, "--data", tmp_path / "moved"), "moved")
    assert handful("compare", first, second, "--inner-steps", -1).code == 2


def test_tasks_of_other_data(handful: Command, recipe_file: Path, pictures: Path, tmp_path: Path) -> None:
    run, second, photos = tmp_path / "run", tmp_path / "second", tmp_path / "photos"
    ok(handful("train", recipe_file, "--out", run, "--set", "train.steps=4"))
    ok(handful("train", recipe_file, "--out", second, "--set", "train.steps=8"))
    photos.mkdir()
    for number, name in enumerate(sorted(path.name for path in pictures.iterdir())):
        shutil.copytree(pictures / name, photos / (name if number < 10 else f"new{99 - number}"))
    on = ("--on", f"{{name: folder, root: {photos}, image_size: 16, channels: 1}}", "--tasks", 10, "--json")

    own = json.loads(ok(handful("evaluate", run, "--tasks", 10, "--json")).out)
    assert (own["trained_on"], own["note"]) == (None, None)
    held = set(run.rglob("*"))
    found = json.loads(ok(handful("evaluate", run, *on)).out)
    assert found["task_hash"] != own["task_hash"]
    assert found["trained_on"] == "folder"
    assert found["note"].startswith("Trained on folder, tested on other data: folder.")
    (written,) = set(run.rglob("*")) - held  # beside the result of the run's own test tasks, not in its place
    assert written.name.startswith(f"folder-{found['task_hash'][:8]}-test-3w1s3q")
    seen = [json.loads(ok(handful("evaluate", run, *on, "--split", split)).out)["note"] for split in ("train", "val")]
    assert any("of its classes bear the names of training classes, such as 'class0" in note for note in seen)

    told = json.loads(ok(handful("compare", run, second, *on)).out)
    assert {result["task_hash"] for result in told["results"]} == {found["task_hash"]}
    small = f"{{name: folder, root: {photos}, image_size: 20, channels: 1}}"
    for verb in (["evaluate", run], ["compare", run, second]):
        refused(handful(*verb, "--on", small), "folder holds inputs [1, 20, 20]", "trained on [1, 16, 16]")
        refused(handful(*verb, "--on", "sinusoid"), "sinusoid is regression", "was trained for classification")
        refused(handful(*verb, "--on", "omniglott"), "did you mean 'omniglot'?")
        refused(handful(*verb, "--on", "{name: folder, rot: x}"), "'rot'", "did you mean 'root'?")
        refused(handful(*verb, "--on", "{name: fold"), "'{name: fold' is neither a name nor a section in YAML.")
        refused(handful(*verb, "--on", "{root: x}"), "'{root: x}' is neither a name nor a section in YAML with a name.")
        refused(handful(*verb, "--on", photos), f"'{{name: folder, root: {photos}}}'")
    ok(handful("evaluate", run, *on[:2], "--tasks", 50, "--inductive", "--inner-steps", 2))
    support = tmp_path / "support"
    for name in ("class01", "class02", "class05"):
        shutil.copytree(pictures / name, support / name)
        for number in range(1, 8):
            (support / name / f"{number}.png").unlink()
    ok(handful("fit", support, "--from", run, "--inner-steps", 2, "--out", tmp_path / "model"))
    card = json.loads((tmp_path / "model" / "card.json").read_text(encoding="utf-8"))
    assert card["accuracy"]["tasks"] == 12  # of the run's own test tasks, though those of other data are more


def test_compare_names_the_run_at_fault_before_any_is_scored(
    handful: Command, recipe_file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from handful import comparison

    short = ("--set", "train.steps=1")
    first, ways, steps, sines = (tmp_path / name for name in ("first", "ways", "steps", "sines"))
    ok(handful("train", recipe_file, "--out", first, *short))
    ok(handful("train", recipe_file, "--out", ways, *short, "--set", "train.way=2"))
    plus = ("--set", "method={name: maml++, inner_steps: 1}", "--set", "evaluate={tasks: 4}")
    ok(handful("train", recipe_file, "--out", steps, *short, *plus))
    regression = ("name=sines", "data={name: sinusoid}", "backbone={name: mlp, hidden: [4]}", "train.way=1")
    words = [word for change in regression for word in ("--set", change)]
    ok(handful("train", recipe_file, "--out", sines, *short, *words, "--set", "evaluate={tasks: 4}"))
    refused(handful("compare", first, ways, "--tasks", 4), f"{ways}: This head was meta-trained for 2 ways")
    refused(handful("compare", first, steps, "--tasks", 4, "--inner-steps", 2), f"{steps}: Inner step 2 has no")

    def scored(*_: object, **options: object) -> None:
        raise AssertionError("scored before all were looked at")

    monkeypatch.setattr(comparison, "evaluate", scored)
    refused(handful("compare", first, sines), f"{sines} does regression and {first} classification")
    refused(handful("compare", first, steps, "--shot", 20), f"{first}: Class ", "has 8 images")


@pytest.mark.parametrize("kind", ["methods", "backbones", "decoders", "datasets", "recipes"])
def test_list(handful: Command, kind: str) -> None:
    names = json.loads(ok(handful("list", kind, "--json")).out)
    expected = {
        "methods": "maml",
        "backbones": "conv4",
        "decoders": "row_distributions",
        "datasets": "rail_scenes",
        "recipes": "note002-maml",
    }[kind]
    assert names[expected]
    assert expected in ok(handful("list", kind)).out


def test_list_alone_names_all(handful: Command) -> None:
    told = json.loads(ok(handful("list", "--json")).out)
    assert list(told) == ["methods", "backbones", "decoders", "datasets", "recipes"]
    assert told["methods"] == json.loads(ok(handful("list", "methods", "--json")).out)
    assert told["recipes"]["omniglot-anil-5w1s"].startswith("ANIL on Omniglot, 5-way 1-shot (Raghu et al. 2020)")
    assert (
        told["recipes"]["sprites-mpn"] == "Video anomalies on rendered scenes, sized for `handful demo --problem video`"
    )
    said = ok(handful("list")).out
    assert "\n\nbackbones:\n" in said
    assert all(name in said for parts in told.values() for name in parts)


def test_data_verbs(handful: Command, pictures: Path, tmp_path: Path) -> None:
    assert "omniglot" in ok(handful("data", "list")).out
    built = ok(handful("data", "build", "folder", "--source", pictures, "--image-size", 16))
    assert "160 images [3, 16, 16] in 20 classes (13 train, 3 val, 4 test)" in built.out
    told = json.loads(ok(handful("data", "build", "folder", "--source", pictures, "--channels", 1, "--json")).out)
    assert (told["images"], told["image_shape"], told["classes"]["test"]) == (160, [1, 84, 84], 4)
    assert json.loads(ok(handful("data", "check", pictures, "--json")).out)["classes"] == 20


def test_an_unreadable_picture_is_named_and_can_be_skipped(handful: Command, pictures: Path, tmp_path: Path) -> None:
    import shutil

    copy = shutil.copytree(pictures, tmp_path / "copy")
    (copy / "class03" / "3.png").write_bytes(b"no picture")
    refused(handful("data", "build", "folder", "--source", copy), "3.png", "--skip-bad")
    assert "159 images" in ok(handful("data", "build", "folder", "--source", copy, "--skip-bad")).out
    checked = handful("data", "check", copy)
    assert checked.code == 2
    assert "3.png" in checked.out


def test_bad_input_is_one_sentence(handful: Command, recipe_file: Path, pictures: Path, tmp_path: Path) -> None:
    out = tmp_path / "run"
    refused(handful("train", "glyphs-maml-5w1", "--out", out), "glyphs-maml-5w1s")
    refused(handful("train", recipe_file, "--out", out, "--set", "train.step=1"), "'train.steps'")
    refused(handful("train", recipe_file, "--out", out, "--set", "train.way=40"), "40-way", "has 13")
    refused(handful("train", recipe_file, "--out", out, "--set", "train.query=9"), "has 8 images", "need 10")
    refused(handful("train", recipe_file, "--out", out, "--set", "data.root=/nowhere"), "/nowhere")
    refused(handful("evaluate", out), "not a run folder", f"`handful train RECIPE --out {out}` makes one")
    refused(handful("evaluate", pictures), "not a run folder; `handful train --out` makes them")
    refused(handful("report", pictures), "not a run folder")
    assert not (pictures / "report.html").exists()
    refused(handful("fit", pictures, "--from", out, "--out", tmp_path / "m"), "not a run folder")
    refused(handful("predict", tmp_path / "m", pictures), "not a model folder")
    refused(handful("list", "method"), "did you mean 'methods'?")
    refused(handful("data", "build", "omniglott"), "did you mean 'omniglot'?")
    refused(handful("data", "build", "glyphs", "--npy", tmp_path / "a.npy"), "--npy")
    refused(handful("compare", out, out), "at least 2 different runs")
    assert not out.exists()
    ok(handful("train", recipe_file, "--out", out, "--set", "train.steps=4"))
    refused(handful("train", recipe_file, "--out", out, "--set", "train.steps=5"), "another recipe", "--fresh")
    refused(handful("evaluate", out, "--split", "tset"), "did you mean 'test'?")
    refused(handful("evaluate", out, "--way", 4), "3 ways", "4 classes")
    refused(handful("report", out, out), "--out")


def test_flags_take_no_value_in_the_help(handful: Command) -> None:
    for verb in ("demo", "train", "evaluate", "compare", "fit", "predict", "data build"):
        said = ok(handful(*verb.split(), "--help")).out
        assert any(re.search(r"--(fresh|skip-bad|inductive)\b", line) for line in said.splitlines()), verb
        assert "bool" not in "".join(line for line in said.splitlines() if "--help" not in line), verb


def test_version(handful: Command) -> None:
    assert ok(handful("--version")).out.strip() == "0.1.0"


def test_unknown_options_exit_with_2(handful: Command) -> None:
    assert handful("train", "note002-maml", "--out", "x", "--max-minutes", -1).code == 2
    assert handful("train", "--nonsense").code == 2
    assert handful("evaluate").code == 2
    assert "8796093022207" in handful("evaluate", "run", "--seed", 10**20).err


@pytest.mark.parametrize("words", [["--help"], ["fit", "--help"], ["fit", "--nonsense"], ["fti"], ["list", "fti"]])
def test_help_and_mistyped_words_import_nothing_heavy(words: list[str]) -> None:
    """They are answered at once, because torch and its kind are not imported for them; typer brings pydantic."""
    code = (
        f"import sys; sys.argv = ['handful', *{words}]\n"
        "from handful.cli import main\n"
        "try: main()\nexcept SystemExit: pass\n"
        "heavy = {'torch', 'numpy', 'matplotlib', 'PIL', 'sklearn', 'yaml'} & set(sys.modules)\n"
        "assert not heavy, heavy"
    )
    subprocess.run([sys.executable, "-c", code], check=True, capture_output=True)


def test_interrupting_says_how_to_go_on(
    handful: Command, recipe_file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from handful.batches import Batches

    def interrupt(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(Batches, "__getitem__", interrupt)
    ran = handful("train", recipe_file, "--out", tmp_path / "run")
    assert ran.code == 130
    assert "the same command, without --fresh, goes on" in ran.err


@pytest.mark.parametrize("words", [("evaluate", "a"), ("compare", "a", "b")])
def test_verbs_that_keep_nothing_say_that_they_were_interrupted(
    handful: Command, monkeypatch: pytest.MonkeyPatch, words: tuple[str, ...]
) -> None:
    from handful.run import Run

    def interrupt(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(Run, "open", interrupt)
    assert handful(*words) == (130, "", "handful: interrupted.\n")
