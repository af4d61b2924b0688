"""`--precision`: training in bf16-mixed from the recipe on, what keeps to it, and what refuses it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch

import handful as hf
from handful import training
from handful.data.store import ImageStore
from handful.errors import HandfulError
from handful.memory import plan
from handful.methods import MAML, ProtoNet
from handful.run import Run, trained_in
from tests.conftest import Command, ok, refused
from tests.test_training import same, trained, weights, without_time

PROTONET = ("method={name: protonet}", "evaluate={tasks: 8}")
PRETRAIN = "pretrain={steps: 4, batch: 8, validate_every: 4, validation_tasks: 2}"


def test_training_in_mixed_precision(recipe_file: Path, tmp_path: Path) -> None:
    """Learns something else than float32 does, in float32 weights; resumed to the last bit; results say so."""
    whole = trained(recipe_file, tmp_path / "whole", *PROTONET, PRETRAIN, precision="bf16-mixed")
    trained(recipe_file, tmp_path / "broken", *PROTONET, PRETRAIN, precision="bf16-mixed", max_minutes=0)
    resumed = trained(recipe_file, tmp_path / "broken", *PROTONET, PRETRAIN, precision="bf16-mixed")
    assert same(weights(resumed), weights(whole))
    assert without_time(resumed.folder) == without_time(whole.folder)
    assert {value.dtype for value in weights(whole).values()} == {torch.float32, torch.int64}
    exact = trained(recipe_file, tmp_path / "exact", *PROTONET, PRETRAIN)
    for a, b in ((whole, exact), (stage(whole), stage(exact))):
        assert not same(weights(a), weights(b))
        assert (
            weights(a)["network.backbone.blocks.0.weight"].sub(weights(b)["network.backbone.blocks.0.weight"]).norm()
            < 0.1
        )
    results = [json.loads(path.read_text()) for path in (whole.folder / "eval").iterdir()]
    assert {result["run"]["precision"] for result in results} == {"bf16-mixed"}
    assert (trained_in(whole.folder), trained_in(exact.folder)) == ("bf16-mixed", "32-true")
    assert Run.open(whole.folder).provenance()["precision"] == "bf16-mixed"


def stage(run: Run) -> Run:
    return Run(run.folder / "pretrain", run.recipe, run.method, run.data)


def test_evaluation_stays_in_float32(recipe_file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Validation during training, too; the plan of a step's memory is made in the step's own precision."""
    seen: list[bool] = []
    original, planned = ProtoNet(hf.backbones.conv4(channels=1)).compare.__func__, []  # type: ignore[attr-defined]

    def compare(self: Any, support: torch.Tensor, *rest: torch.Tensor) -> torch.Tensor:
        if not torch.is_grad_enabled():
            seen.append(torch.is_autocast_enabled("cpu") or support.dtype != torch.float32)
        return original(self, support, *rest)

    def watched(*args: Any) -> Any:
        planned.append(torch.is_autocast_enabled("cpu"))
        return plan(*args)

    monkeypatch.setattr("handful.methods.Metric.compare", compare)
    monkeypatch.setattr(training, "plan", watched)
    trained(recipe_file, tmp_path / "run", *PROTONET, "train.steps=2", precision="bf16-mixed")
    assert len(seen) > 1
    assert not any(seen)
    assert planned == [True]


def test_a_run_goes_on_in_its_own_precision(recipe_file: Path, tmp_path: Path) -> None:
    run = trained(recipe_file, tmp_path / "run", *PROTONET, max_minutes=0)
    environment = json.loads((run.folder / "environment.json").read_text())
    with pytest.raises(HandfulError, match=r"was trained in 32-true, and would go on in bf16-mixed; .*--fresh"):
        trained(recipe_file, run.folder, *PROTONET, precision="bf16-mixed")
    assert json.loads((run.folder / "environment.json").read_text()) == environment
    assert (
        trained_in(trained(recipe_file, run.folder, *PROTONET, precision="bf16-mixed", fresh=True).folder)
        == "bf16-mixed"
    )
    del environment["precision"]
    (run.folder / "environment.json").write_text(json.dumps(environment))  # as a run of before there was a choice
    assert trained_in(run.folder) == "32-true"
    (run.folder / "environment.json").write_text("[")
    with pytest.raises(HandfulError, match=r"environment.json is missing or damaged; the run cannot say in which prec"):
        trained(recipe_file, run.folder, *PROTONET)


def test_inner_loops_refuse_half_precision(recipe_file: Path, tmp_path: Path) -> None:
    out = tmp_path / "run"
    with pytest.raises(
        HandfulError, match=r"inner loop of maml is computed in float32 alone: set precision to 32-true"
    ):
        trained(recipe_file, out, PRETRAIN, precision="bf16-mixed")
    assert not out.exists()
    run = trained(recipe_file, out, PRETRAIN, "train.steps=0", precision="bf16-mixed")
    assert len(without_time(run.folder / "pretrain")) == 4


def test_from_the_command_line(handful: Command, recipe_file: Path, tmp_path: Path) -> None:
    out, words = tmp_path / "run", [word for change in PROTONET for word in ("--set", change)]
    command = ("train", recipe_file, *words, "--set", "train.steps=1", "--out", out)
    refused(handful(*command, "--precision", "bf16"), "There is no precision 'bf16'", "bf16-mixed")
    assert not out.exists()
    ok(handful(*command, "--precision", "bf16-mixed"))
    assert trained_in(out) == "bf16-mixed"
    refused(handful(*command), "trained in bf16-mixed", "would go on in 32-true")


def test_from_python(store: ImageStore, tmp_path: Path) -> None:
    settings: dict[str, Any] = {"way": 3, "shot": 1, "query": 2, "steps": 1, "validation_tasks": 2, "quiet": True}
    backbone = hf.backbones.conv4(channels=4, input_shape=store.input_shape, downsample="stride")
    precise: dict[str, Any] = {"precision": "bf16-mixed", "evaluate": {"tasks": 2}}
    run = hf.train(ProtoNet(backbone), store, out=tmp_path / "run", **settings, **precise)
    assert trained_in(run.folder) == "bf16-mixed"
    with pytest.raises(HandfulError, match="inner loop of maml"):
        hf.train(MAML(backbone), store, out=tmp_path / "other", **settings, **precise)
