"""Training end to end through the recipe: what it leaves, resuming, and every way it refuses or stops."""

from __future__ import annotations

import json
import math
import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from torch import nn

import handful as hf
from handful import files, training
from handful.batches import Batches
from handful.checkpoint import locked, read_metrics
from handful.data.store import ImageStore
from handful.episodes import EpisodeSampler
from handful.errors import HandfulError
from handful.evaluation import evaluate_method
from handful.files import read_tensors, write_tensors
from handful.methods import GradientBased
from handful.recipe import TrainRecipe, load_recipe
from handful.report.run_files import read_run
from handful.run import Run
from handful.runtime import device
from handful.training import learning_rate, outer_optimizer, train_recipe


def trained(recipe_file: Path, out: Path, *changes: str, **options: Any) -> Run:
    run, _ = train_recipe(load_recipe(str(recipe_file), changes), out, quiet=True, **options)
    return run


def weights(run: Run, which: str = "last") -> dict[str, torch.Tensor]:
    return read_tensors(run.weights(which))[0]


def same(a: dict[str, torch.Tensor], b: dict[str, torch.Tensor]) -> bool:
    return a.keys() == b.keys() and all(torch.equal(a[name], b[name]) for name in a)


def without_time(folder: Path) -> list[dict[str, str]]:
    return [
        {key: value for key, value in row.items() if key != "seconds"} for row in read_metrics(folder / "metrics.csv")
    ]


def test_what_a_run_leaves_behind(recipe_file: Path, tmp_path: Path) -> None:
    out = tmp_path / "run"
    run = trained(recipe_file, out)
    found = {str(path.relative_to(out)) for path in out.rglob("*") if path.is_file() and "tfevents" not in path.name}
    assert found == {
        "recipe.yaml",
        "environment.json",
        "split.json",
        "metrics.csv",
        "report.html",
        ".lock",
        *(
            f"checkpoints/{name}"
            for name in ("last/model.safetensors", "last/training.safetensors", "best/model.safetensors")
        ),
        *(f"eval/test-3w1s3q-12tasks-seed0-{stats}-2steps.json" for stats in ("batch", "support")),
        *(f"plots/{name}.png" for name in ("learning_curve", "adaptation_curve", "task_histogram", "contact_sheet")),
    }
    assert len(list(out.glob("*tfevents*"))) == 1
    rows = read_metrics(out / "metrics.csv")
    assert [int(row["step"]) for row in rows] == list(range(1, 13))
    assert [int(row["step"]) for row in rows if row["val_mean"]] == [4, 8, 12]
    result = json.loads((out / "eval" / "test-3w1s3q-12tasks-seed0-batch-2steps.json").read_text(encoding="utf-8"))
    for key in [
        "problem",
        "method",
        "backbone",
        "data",
        "split",
        "metric",
        "mean",
        "ci95",
        "tasks",
        "way",
        "shot",
        "query",
        "seed",
        "task_hash",
        "norm_stats",
        "transductive",
        "inner_steps",
        "by_inner_step",
        "floors",
        "seconds",
    ]:
        assert result[key] is not None, key
    assert len(result["by_inner_step"]) == 3
    assert result["mean"] == result["by_inner_step"][-1] == pytest.approx(sum(result["per_task"]) / 12)
    assert set(result["floors"]) == {"chance", "pixel class mean"}
    assert run.recipe.name in (out / "report.html").read_text(encoding="utf-8")
    classes = json.loads((out / "split.json").read_text(encoding="utf-8"))["classes"]
    assert not set(classes["train"]) & set(classes["test"])


@pytest.mark.parametrize("method", ["{name: maml, rates: per_tensor}", "{name: proto-maml, rates: per_element}"])
def test_learned_step_sizes_are_drawn_and_are_on_the_page(recipe_file: Path, tmp_path: Path, method: str) -> None:
    trained(recipe_file, tmp_path / "run", "train.steps=2", f"method={method}")
    assert (tmp_path / "run" / "plots" / "step_sizes.png").is_file()
    page = (tmp_path / "run" / "report.html").read_text(encoding="utf-8")
    assert "The step sizes that were learned" in page


def test_learning_happens(recipe_file: Path, tmp_path: Path) -> None:
    changes = [
        "train.steps=150",
        "train.validate_every=50",
        "evaluate.tasks=60",
        "method.rates=per_tensor",
    ]
    trained(recipe_file, tmp_path / "run", *changes)
    losses = [float(row["loss"]) for row in read_metrics(tmp_path / "run" / "metrics.csv")]
    assert sum(losses[-3:]) / 3 < losses[0] / 2


def test_resume_is_bit_identical(recipe_file: Path, tmp_path: Path) -> None:
    whole = trained(recipe_file, tmp_path / "whole")

    class Unplugged(Exception):
        pass

    def unplug(self: Batches, step: int) -> Any:
        if step == 10:
            raise Unplugged
        return original(self, step)

    original = Batches.__getitem__
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Batches, "__getitem__", unplug)
        with pytest.raises(Unplugged):
            trained(recipe_file, tmp_path / "broken")
    assert len(without_time(tmp_path / "broken")) == 10  # two rows past the checkpoint of step 8
    resumed = trained(recipe_file, tmp_path / "broken")
    for which in ("last", "best"):
        assert same(weights(resumed, which), weights(whole, which))
    assert without_time(tmp_path / "broken") == without_time(tmp_path / "whole")


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_told_to_stop_it_finishes_the_step_and_loses_nothing(
    recipe_file: Path, tmp_path: Path, number: signal.Signals
) -> None:
    """Between two rows of the metrics, long before a validation."""
    changes = ("train.validate_every=30",)
    whole = trained(recipe_file, tmp_path / "whole", *changes)

    def tell(self: Batches, step: int) -> Any:
        if step == 10:
            os.kill(os.getpid(), number)
        return original(self, step)

    original = Batches.__getitem__
    before = signal.signal(number, signal.default_int_handler)  # whoever started the tests may have it ignored
    try:
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(Batches, "__getitem__", tell)
            with pytest.raises(KeyboardInterrupt):
                trained(recipe_file, tmp_path / "broken", *changes)
        assert signal.getsignal(number) is signal.default_int_handler
    finally:
        signal.signal(number, before)
    _, metadata = read_tensors(tmp_path / "broken" / "checkpoints" / "last" / "training.safetensors")
    told = json.loads(metadata["progressed"])
    assert (told["step"], len(told["losses"])) == (11, 2)
    resumed = trained(recipe_file, tmp_path / "broken", *changes)
    assert same(weights(resumed), weights(whole))
    assert without_time(tmp_path / "broken") == without_time(tmp_path / "whole")


def test_told_to_stop_in_the_last_validation_it_is_kept_and_the_tests_wait(
    recipe_file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where other processes wait for a share of it, a validation goes on to its end."""

    def tell(run: Run, protocol: Any, progressed: Any, told: Any) -> dict[str, float]:
        found = original(run, protocol, progressed, told)
        told.stop = progressed.step == 12
        return found

    original = training.validate
    monkeypatch.setattr(training, "validate", tell)
    with pytest.raises(KeyboardInterrupt):
        trained(recipe_file, tmp_path / "run")
    assert without_time(tmp_path / "run")[-1]["val_mean"]
    assert not (tmp_path / "run" / "eval").exists()
    monkeypatch.undo()
    trained(recipe_file, tmp_path / "run")
    assert len(list((tmp_path / "run" / "eval").iterdir())) == 2


def test_a_folder_that_other_processes_do_not_see(
    recipe_file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(training, "gathered", lambda part: [part, False])
    with pytest.raises(HandfulError, match="run is not one folder that all processes see; name one that they share"):
        trained(recipe_file, tmp_path / "run")
    assert not (tmp_path / "run" / "checkpoints").exists()


def test_results_of_weights_that_are_gone_are_deleted(recipe_file: Path, tmp_path: Path) -> None:
    run = trained(recipe_file, tmp_path / "run")
    run.save_weights("last")
    assert list((tmp_path / "run" / "eval").glob("*.json"))
    run.save_weights("best")
    assert not list((tmp_path / "run").glob("eval/*.json"))


def test_max_minutes_stops_cleanly_and_the_rest_follows(recipe_file: Path, tmp_path: Path) -> None:
    whole = trained(recipe_file, tmp_path / "whole")
    short = trained(recipe_file, tmp_path / "short", max_minutes=0)
    assert len(without_time(tmp_path / "short")) == 1
    trained(recipe_file, tmp_path / "short", max_minutes=0)  # already spent: nothing more is trained
    assert len(without_time(tmp_path / "short")) == 1
    assert list((tmp_path / "short" / "eval").glob("*.json"))
    rest = trained(recipe_file, tmp_path / "short")
    assert same(weights(rest), weights(whole))
    assert same(weights(rest, "best"), weights(whole, "best"))
    assert without_time(tmp_path / "short") == without_time(tmp_path / "whole")
    assert short.folder == rest.folder


def test_max_minutes_that_are_used_up_are_told(
    recipe_file: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for said in ("stopped by max-minutes at step 1 of 12", "have had their max-minutes; a larger one goes on"):
        train_recipe(load_recipe(str(recipe_file)), tmp_path / "run", max_minutes=1e-9)
        assert said in capsys.readouterr().err


def test_a_finished_run_is_not_trained_again(recipe_file: Path, tmp_path: Path) -> None:
    run = trained(recipe_file, tmp_path / "run")
    before = weights(run)
    assert same(weights(trained(recipe_file, tmp_path / "run")), before)
    assert len(without_time(tmp_path / "run")) == 12


def test_fresh_starts_anew(recipe_file: Path, tmp_path: Path) -> None:
    trained(recipe_file, tmp_path / "run")
    again = trained(recipe_file, tmp_path / "run", "train.steps=4", fresh=True)
    assert len(without_time(tmp_path / "run")) == 4
    assert again.recipe.train.steps == 4


def test_workers_change_nothing(recipe_file: Path, tmp_path: Path) -> None:
    whole = trained(recipe_file, tmp_path / "whole", "train.steps=2")
    workers = trained(recipe_file, tmp_path / "workers", "train.steps=2", "train.workers=2")
    assert same(weights(workers), weights(whole))


def test_a_run_folder_of_another_recipe(recipe_file: Path, tmp_path: Path) -> None:
    run = trained(recipe_file, tmp_path / "run")
    before = weights(run)
    with pytest.raises(
        HandfulError, match=r"trained with another recipe \(train.lr is 0.01 there and 0.02 now\).*--fresh"
    ):
        trained(recipe_file, tmp_path / "run", "train.lr=0.02")
    assert same(weights(run), before)


def test_a_checkpoint_that_tells_more_than_is_kept_now_is_resumed(recipe_file: Path, tmp_path: Path) -> None:
    run = trained(recipe_file, tmp_path / "run")
    before = weights(run)
    path = tmp_path / "run" / "checkpoints" / "last" / "training.safetensors"
    tensors, metadata = read_tensors(path)
    told = json.loads(metadata["progressed"]) | {"best_step": 8}  # as before this was dropped
    write_tensors(path, tensors, metadata | {"progressed": json.dumps(told)})
    assert same(weights(trained(recipe_file, tmp_path / "run")), before)


def test_further_evaluations_may_be_asked_of_a_run_that_is_done(recipe_file: Path, tmp_path: Path) -> None:
    run = trained(recipe_file, tmp_path / "run")
    before = weights(run)
    trained(recipe_file, tmp_path / "run", "evaluate.also=[{query: 1}]")
    assert same(weights(run), before)
    assert any("-3w1s1q-" in path.name for path in (tmp_path / "run" / "eval").iterdir())
    assert "query: 1\n" in (tmp_path / "run" / "recipe.yaml").read_text(encoding="utf-8")


def test_a_folder_that_is_no_run(recipe_file: Path, tmp_path: Path) -> None:
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "precious.txt").write_text("keep", encoding="utf-8")
    for fresh in (False, True):
        with pytest.raises(HandfulError, match=r"exists and is not a run folder"):
            trained(recipe_file, tmp_path / "mine", fresh=fresh)
    assert (tmp_path / "mine" / "precious.txt").read_text(encoding="utf-8") == "keep"


def test_way_larger_than_the_test_split_is_refused_before_training(recipe_file: Path, tmp_path: Path) -> None:
    with pytest.raises(HandfulError, match=r"9-way tasks need 9 classes, but the val split of 'folder' has 3"):
        trained(recipe_file, tmp_path / "run", "train.way=9")
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        (["evaluate.also=[{norm_stats: running}]"], "running"),
        (["evaluate.also=[{norm_stats: per_step}]"], "per_step"),
        (["method={name: maml++, inner_steps: 2}", "evaluate.inner_steps=3"], "2 inner steps"),
        (["method={name: maml++, inner_steps: 2}", "evaluate={also: [{inner_steps: 5}]}"], "2 inner steps"),
        (["evaluate.way=2"], "meta-trained for 3 ways"),
        (["evaluate.also=[{way: 2}]"], "meta-trained for 3 ways"),
        (["method={name: protonet}"], "inner_steps is 2"),
    ],
)
def test_what_cannot_be_evaluated_is_refused_before_training(
    recipe_file: Path, tmp_path: Path, changes: list[str], said: str
) -> None:
    with pytest.raises(HandfulError, match=said):
        trained(recipe_file, tmp_path / "run", *changes)
    assert not (tmp_path / "run").exists()


def test_running_statistics_may_come_from_pre_training(recipe_file: Path, tmp_path: Path) -> None:
    pretrain = "pretrain={steps: 2, batch: 8, validate_every: 2, validation_tasks: 2}"
    changes = (pretrain, "train.steps=2", "evaluate.also=[{norm_stats: running}]")
    trained(recipe_file, tmp_path / "run", *changes)
    assert {path.name.split("-")[4] for path in (tmp_path / "run" / "eval").iterdir()} == {"batch", "running"}


def test_results_are_saved_as_soon_as_they_are_there_and_the_main_one_is_the_headline(
    recipe_file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    original, found = evaluate_method, tmp_path / "run" / "eval"
    before: list[int] = []

    def watch(method: Any, split: Any, *args: Any, **options: Any) -> Any:
        if split.name == "test":
            before.append(len(list(found.glob("*.json"))))
        return original(method, split, *args, **options)

    monkeypatch.setattr(training, "evaluate_method", watch)
    trained(recipe_file, tmp_path / "run", "train.steps=2")
    assert before == [0, 1]
    main = read_run(tmp_path / "run").main
    assert main is not None
    assert main.norm_stats == "batch"


HOLD = """
import sys, time
from pathlib import Path
from handful.checkpoint import locked
with locked(Path(sys.argv[1])):
    print("held", flush=True)
    time.sleep(60)
"""


@pytest.mark.skipif(sys.platform == "win32", reason="there is no flock")
def test_one_process_at_a_time_trains_into_a_folder(recipe_file: Path, tmp_path: Path) -> None:
    """Killed, it leaves the folder free, and the file of the lock is nothing foreign."""
    out = tmp_path / "run"
    with subprocess.Popen([sys.executable, "-c", HOLD, str(out)], stdout=subprocess.PIPE) as other:
        try:
            assert other.stdout is not None
            assert other.stdout.readline() == b"held\n"
            for fresh in (False, True):
                with pytest.raises(HandfulError, match=r"run is being trained by another process; wait for it, or"):
                    trained(recipe_file, out, fresh=fresh)
            assert [path.name for path in out.iterdir()] == [".lock"]
        finally:
            other.kill()
    run = trained(recipe_file, out, "train.steps=2")
    with locked(out), pytest.raises(HandfulError, match="is being trained by another process"):
        trained(recipe_file, out, "train.steps=3", fresh=True)
    assert len(without_time(out)) == 2
    assert same(weights(trained(recipe_file, out, "train.steps=2")), weights(run))


def test_a_folder_that_cannot_be_made(recipe_file: Path, tmp_path: Path) -> None:
    with pytest.raises(HandfulError, match=r"tiny.yaml.run cannot be written"):
        trained(recipe_file, recipe_file / "run")


def test_class_with_too_few_images(recipe_file: Path, tmp_path: Path) -> None:
    with pytest.raises(HandfulError, match=r"'class\d\d' has 8 images.*need 9"):
        trained(recipe_file, tmp_path / "run", "train.query=8")


def test_nan_stops_with_the_step_and_keeps_the_last_good_weights(
    recipe_file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    original = GradientBased.forward

    def poisoned(self: GradientBased, episode: Any) -> Any:
        outcome = original(self, episode)
        return outcome._replace(loss=outcome.loss * math.nan) if self.outer_step == 6 else outcome

    monkeypatch.setattr(GradientBased, "forward", poisoned)
    with pytest.raises(HandfulError, match=r"not finite at step 7 \(tasks 24 to 27 of seed 0\).*last good checkpoint"):
        trained(recipe_file, tmp_path / "run")
    kept, metadata = read_tensors(tmp_path / "run" / "checkpoints" / "last" / "training.safetensors")
    assert json.loads(metadata["progressed"])["step"] == 4
    assert all(value.isfinite().all() for value in kept.values())


def test_infinite_gradient_with_a_finite_loss(
    recipe_file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    original = GradientBased.forward

    def steep(self: GradientBased, episode: Any) -> Any:
        outcome = original(self, episode)
        zero = torch.stack([(p - p.detach()).square().sum() for p in self.parameters()]).sum()
        return outcome._replace(loss=outcome.loss + torch.sqrt(zero) * 0)  # d sqrt(0) is infinite, times 0 is NaN

    monkeypatch.setattr(GradientBased, "forward", steep)
    with pytest.raises(HandfulError, match=r"not finite at step 1 .*no checkpoint was written yet"):
        trained(recipe_file, tmp_path / "run")


def test_an_interrupted_save_leaves_the_old_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "model.safetensors"
    files.write_tensors(path, {"a": torch.ones(3)})

    def full(*_: Any) -> None:
        raise OSError("No space left on device")

    monkeypatch.setattr(files, "save_file", full)
    with pytest.raises(HandfulError, match=r"model.safetensors cannot be written \(No space.*unchanged"):
        files.write_tensors(path, {"a": torch.zeros(3)})
    assert read_tensors(path)[0]["a"].tolist() == [1, 1, 1]
    assert [p.name for p in tmp_path.iterdir()] == ["model.safetensors"]


def test_damaged_weights_are_named(recipe_file: Path, tmp_path: Path) -> None:
    run = trained(recipe_file, tmp_path / "run", "train.steps=4")
    content = run.weights("best").read_bytes()
    run.weights("best").write_bytes(content[: len(content) // 2])
    with pytest.raises(HandfulError, match=r"best.model.safetensors is damaged"):
        Run.open(tmp_path / "run")


def test_a_run_is_opened_on_the_device(recipe_file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """With a stand-in for a GPU, which holds no values."""
    run = trained(recipe_file, tmp_path / "run", "train.steps=1")
    assert Run.open(run.folder).method.device == device()
    monkeypatch.setattr("handful.run.device", lambda: torch.device("meta"))
    monkeypatch.setattr(Run, "load_weights", lambda *_: None)
    assert Run.open(run.folder).method.device == torch.device("meta")


def test_opening_what_is_no_run(tmp_path: Path) -> None:
    with pytest.raises(HandfulError, match="is not a run folder"):
        Run.open(tmp_path)


def test_python_interface(store: ImageStore, tmp_path: Path) -> None:
    method = hf.methods.MAML(hf.backbones.conv4(channels=8, input_shape=store.input_shape, downsample="stride"))
    run = hf.train(
        method,
        store,
        way=3,
        shot=1,
        query=2,
        steps=3,
        tasks_per_step=2,
        validation_tasks=4,
        out=tmp_path / "run",
        evaluate={"tasks": 8},
        quiet=True,
    )
    result = hf.evaluate(run, store.test, way=3, shot=2, tasks=10)
    assert (result.tasks, result.shot) == (10, 2)
    assert (
        "% (95 % over 10 tasks, 3-way 2-shot, 2 queries a class, transductive (batch statistics), 5 inner steps, "
        "test split; floors: chance 33.3 %"
    ) in str(result)
    written = yaml.safe_load((tmp_path / "run" / "recipe.yaml").read_text(encoding="utf-8"))
    assert written["backbone"]["channels"] == 8
    assert written["train"]["way"] == 3


def test_rate_follows_the_cosine(recipe_file: Path, tmp_path: Path) -> None:
    trained(recipe_file, tmp_path / "run")
    rates = [float(row["lr"]) for row in read_metrics(tmp_path / "run" / "metrics.csv")]
    assert rates == pytest.approx([0.005 * (1 + math.cos(math.pi * step / 12)) for step in range(1, 13)])
    trained(recipe_file, tmp_path / "flat", "train.schedule=constant")
    assert {row["lr"] for row in read_metrics(tmp_path / "flat" / "metrics.csv")} == {"0.01"}


def test_validation_comes_on_time_whatever_its_period(recipe_file: Path, tmp_path: Path) -> None:
    trained(recipe_file, tmp_path / "run", "train.steps=60", "train.validate_every=25", "train.tasks_per_step=1")
    rows = read_metrics(tmp_path / "run" / "metrics.csv")
    assert [int(row["step"]) for row in rows if row["val_mean"]] == [25, 50, 60]


def test_keys_that_change_no_result_may_change_on_resume(recipe_file: Path, tmp_path: Path) -> None:
    trained(recipe_file, tmp_path / "run", max_minutes=0)
    trained(recipe_file, tmp_path / "run", "train.workers=0", "method.backprop=recompute", "method.fast_ops=false")
    assert len(without_time(tmp_path / "run")) == 12


def test_a_changed_class_split_is_refused(recipe_file: Path, pictures: Path, tmp_path: Path) -> None:
    """One more class folder draws the split anew: the old run's training classes could be among the test ones."""
    copy = shutil.copytree(pictures, tmp_path / "copy")
    changes = (f"data.root={copy}", "train.steps=4")
    trained(recipe_file, tmp_path / "run", *changes)
    shutil.copytree(pictures / "class00", copy / "class99")
    with pytest.raises(HandfulError, match=r"split otherwise now than when .*run was trained"):
        Run.open(tmp_path / "run")
    with pytest.raises(HandfulError, match=r"split otherwise now"):
        trained(recipe_file, tmp_path / "run", *changes)


def test_fractions_of_the_split_are_kept(pictures: Path, tmp_path: Path) -> None:
    data = hf.data.folder(pictures, image_size=16, channels=1, fractions=(0.4, 0.2, 0.4))
    method = hf.methods.MAML(hf.backbones.conv4(channels=4, input_shape=data.input_shape, downsample="stride"))
    settings: dict[str, Any] = {"way": 3, "shot": 1, "query": 2, "steps": 1, "tasks_per_step": 1, "validation_tasks": 2}
    hf.train(method, data, out=tmp_path / "run", evaluate={"tasks": 2}, quiet=True, **settings)
    assert Run.open(tmp_path / "run").data.split_hash == data.split_hash


def test_fresh_deletes_only_what_training_wrote(recipe_file: Path, tmp_path: Path) -> None:
    trained(recipe_file, tmp_path / "run", "train.steps=4")
    (tmp_path / "run" / "notes.txt").write_text("mine", encoding="utf-8")
    trained(recipe_file, tmp_path / "run", "train.steps=2", fresh=True)
    assert (tmp_path / "run" / "notes.txt").read_text(encoding="utf-8") == "mine"
    assert len(list((tmp_path / "run").glob("events*"))) == 1
    with pytest.raises(HandfulError, match="is not a run folder"):  # the folder of the recipe itself
        trained(recipe_file, recipe_file.parent, fresh=True)
    assert recipe_file.exists()


def test_a_backbone_of_your_own_trains_resumes_and_opens(store: ImageStore, pictures: Path, tmp_path: Path) -> None:
    class Flat(nn.Module):
        out_features = 256

        def __init__(self) -> None:
            super().__init__()
            self.scale = nn.Parameter(torch.ones(256))
            self.drop = nn.Dropout(0.2)

        def forward(self, images: torch.Tensor) -> torch.Tensor:
            return self.drop(images.flatten(1)) * self.scale

    data = hf.data.folder(pictures, image_size=16, channels=1)
    settings: dict[str, Any] = {
        "way": 3,
        "shot": 1,
        "query": 2,
        "steps": 4,
        "tasks_per_step": 2,
        "validation_tasks": 4,
        "validate_every": 2,
    }

    def go(out: Path, **options: Any) -> Run:
        torch.manual_seed(0)
        method = hf.methods.MAML(Flat(), inner_lr=0.1)
        return hf.train(method, data, out=out, evaluate={"tasks": 4}, quiet=True, **settings, **options)

    go(tmp_path / "run", max_minutes=0)
    resumed, whole = go(tmp_path / "run"), go(tmp_path / "whole")
    assert same(weights(resumed), weights(whole))  # dropout too is drawn from seed and step
    opened = Run.open(tmp_path / "run", backbone=Flat())
    assert hf.evaluate(opened).per_task == hf.evaluate(resumed).per_task
    with pytest.raises(HandfulError, match="There is no backbone 'Flat'"):
        Run.open(tmp_path / "run")


def test_a_backbone_for_other_images(store: ImageStore, tmp_path: Path) -> None:
    method = hf.methods.MAML(hf.backbones.conv4(channels=4))
    with pytest.raises(HandfulError, match=r"takes inputs \[3, 84, 84\], but those of 'patterns' are \[1, 16, 16\]"):
        hf.train(method, store, way=3, shot=1, query=2, steps=1, out=tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_clip_bounds_every_entry(recipe_file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[float] = []
    original = torch.optim.Adam.step

    def watch(self: torch.optim.Adam, *args: Any, **options: Any) -> Any:
        seen.append(
            max(float(p.grad.abs().max()) for g in self.param_groups for p in g["params"] if p.grad is not None)
        )
        return original(self, *args, **options)

    monkeypatch.setattr(torch.optim.Adam, "step", watch)
    trained(recipe_file, tmp_path / "run", "train.clip=0.001", "train.steps=2")
    assert seen == [pytest.approx(0.001)] * 2


def rates_of(schedule: str, lr: float, min_lr: float, steps: int) -> list[float]:
    """The outer rate at steps 0, 1, ..., `steps`."""
    settings = TrainRecipe(steps=steps, lr=lr, min_lr=min_lr, schedule=schedule, optimizer="sgd")
    optimizer = outer_optimizer(nn.Linear(2, 2), nn.Linear(2, 2), settings)
    scheduler, found = learning_rate(optimizer, settings), []
    for _ in range(steps):
        found.append(optimizer.param_groups[0]["lr"])
        optimizer.step()
        scheduler.step()
    return [*found, optimizer.param_groups[0]["lr"]]


@pytest.mark.parametrize(("lr", "min_lr"), [(1.0, 0.0), (0.01, 0.002)])
def test_schedules_go_from_lr_to_min_lr(lr: float, min_lr: float) -> None:
    """Start, middle and end, and every step in between by the formula."""
    steps = 40
    cosine, linear = (rates_of(schedule, lr, min_lr, steps) for schedule in ("cosine", "linear"))
    half = (lr + min_lr) / 2
    for rates in (cosine, linear):
        assert (rates[0], rates[20], rates[-1]) == pytest.approx((lr, half, min_lr), abs=1e-12)
    assert linear == pytest.approx([lr + (min_lr - lr) * step / steps for step in range(steps + 1)], abs=1e-12)
    expected = [min_lr + (lr - min_lr) * (1 + math.cos(math.pi * step / steps)) / 2 for step in range(steps + 1)]
    assert cosine == pytest.approx(expected, abs=1e-12)
    assert set(rates_of("constant", lr, min_lr, steps)) == {lr}


def test_a_resumed_run_goes_on_along_its_line(recipe_file: Path, tmp_path: Path) -> None:
    """With plain gradient descent outside, whose rates and weights are those of a run that was not broken off."""
    changes = ("train.schedule=linear", "train.min_lr=0.004", "train.optimizer=sgd", "train.steps=6")
    whole = trained(recipe_file, tmp_path / "whole", *changes)
    trained(recipe_file, tmp_path / "broken", *changes, max_minutes=0)
    resumed = trained(recipe_file, tmp_path / "broken", *changes)
    assert without_time(tmp_path / "broken") == without_time(tmp_path / "whole")
    assert same(weights(resumed), weights(whole))
    assert float(without_time(tmp_path / "whole")[-1]["lr"]) == pytest.approx(0.004)


def test_sgd_moves_by_the_rate_times_the_gradient(store: ImageStore) -> None:
    """No momentum, no decay; and what is frozen is not handed to the optimizer."""
    method = hf.methods.MAMLPlusPlus(
        hf.backbones.conv4(channels=4, input_shape=store.input_shape, downsample="stride"), inner_steps=2
    )
    method.attach_head(3)
    settings = TrainRecipe(steps=5, lr=0.5, optimizer="sgd", schedule="constant")
    optimizer = outer_optimizer(method, method.backbone, settings)
    assert type(optimizer) is torch.optim.SGD
    assert type(outer_optimizer(method, method.backbone, TrainRecipe(steps=5))) is torch.optim.Adam
    handed = {id(p) for group in optimizer.param_groups for p in group["params"]}
    assert handed == {id(p) for p in method.parameters() if p.requires_grad}
    episode = EpisodeSampler(store.train, 3, 1, 2).episodes(0, 2)
    for _ in range(2):
        optimizer.zero_grad()
        before = {name: p.detach().clone() for name, p in method.named_parameters()}
        method(episode).loss.backward()
        optimizer.step()
        for name, p in method.named_parameters():
            moved = before[name] if p.grad is None else before[name] - 0.5 * p.grad
            torch.testing.assert_close(p.detach(), moved)
