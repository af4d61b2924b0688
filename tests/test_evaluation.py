from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from handful.backbones import conv4
from handful.comparison import Difference, clear_of_zero, compare, paired_differences
from handful.data import load
from handful.data.store import ImageStore
from handful.errors import HandfulError
from handful.evaluation import evaluate_method, interval
from handful.inner_loop import NormStats
from handful.methods import MAML, GradientBased, ProtoNet
from handful.recipe import Protocol

PROTOCOL = Protocol(way=3, shot=1, query=2, tasks=45)


def made(store: ImageStore, seed: int = 0) -> GradientBased:
    torch.manual_seed(seed)
    method = MAML(conv4(channels=8, input_shape=store.input_shape, downsample="stride"), inner_steps=2)
    method.attach_head(3)
    return method


def test_interval_is_the_textbook_one() -> None:
    values = np.array([1.0, 0.0, 1.0, 1.0, 0.0, 1.0, 1.0, 1.0])
    variance = sum((v - 0.75) ** 2 for v in values) / 7
    assert interval(values) == pytest.approx(1.96 * (variance / 8) ** 0.5)


def test_interval_covers_the_mean_of_a_bernoulli_95_times_in_100() -> None:
    draws = (np.random.default_rng(0).random((2000, 600)) < 0.9).astype(float)
    covered = np.abs(draws.mean(1) - 0.9) <= interval(draws)
    assert 0.93 < covered.mean() < 0.97


def test_an_untrained_network_that_cannot_adapt_scores_chance(store: ImageStore) -> None:
    result = evaluate_method(made(store), store.test, PROTOCOL.model_copy(update={"inner_steps": 0, "tasks": 400}))
    assert abs(result.mean - 1 / 3) < 2 * result.ci95
    assert result.floors["chance"]["mean"] == pytest.approx(1 / 3)
    assert result.floors["pixel class mean"]["mean"] > 0.8  # the patterns are easy


def test_evaluation_is_repeatable_and_says_what_it_did(store: ImageStore) -> None:
    first, second = (evaluate_method(made(store), store.test, PROTOCOL, seed=4) for _ in range(2))
    assert replace(first, seconds=0) == replace(second, seconds=0)
    assert (first.tasks, len(first.per_task), first.inner_steps, len(first.by_inner_step)) == (45, 45, 2, 3)
    assert first.mean == pytest.approx(np.mean(first.per_task))
    assert first.transductive
    assert not evaluate_method(
        made(store), store.test, PROTOCOL.model_copy(update={"norm_stats": "support"})
    ).transductive
    assert json.loads(first.to_json())["task_hash"] == first.task_hash


@pytest.mark.parametrize(
    ("norm_stats", "said"),
    [
        ("batch", "transductive (batch statistics), 2 inner steps, test split; floors"),
        ("support", "inductive (support statistics), 2 inner steps, test split; floors"),
        ("support+1", "inductive (support+1 statistics), 2 inner steps, test split; floors"),
    ],
)
def test_a_result_says_whose_statistics_it_used(store: ImageStore, norm_stats: NormStats, said: str) -> None:
    protocol = PROTOCOL.model_copy(update={"norm_stats": norm_stats, "tasks": 4})
    assert said in str(evaluate_method(made(store), store.test, protocol))


@pytest.mark.parametrize(
    ("asked", "said"),
    [({"norm_stats": "batch"}, "norm_stats is 'batch', but"), ({"inner_steps": 2}, "inner_steps is 2, but")],
)
def test_a_metric_method_says_nothing_of_what_it_does_not_do(
    store: ImageStore, asked: dict[str, Any], said: str
) -> None:
    method = ProtoNet(conv4(channels=8, input_shape=store.input_shape, downsample="stride"))
    protocol = PROTOCOL.model_copy(update={"tasks": 4})
    assert "inductive (running statistics), 0 inner steps" in str(evaluate_method(method, store.test, protocol))
    with pytest.raises(HandfulError, match=said):
        evaluate_method(method, store.test, protocol.model_copy(update=asked))


def test_chunks_do_not_change_the_tasks(store: ImageStore, monkeypatch: pytest.MonkeyPatch) -> None:
    whole = evaluate_method(made(store), store.test, PROTOCOL)
    monkeypatch.setattr("handful.evaluation.TASKS_PER_CHUNK", 7)
    parts = evaluate_method(made(store), store.test, PROTOCOL)
    assert parts.task_hash == whole.task_hash
    assert np.abs(np.array(parts.per_task) - whole.per_task).mean() < 0.01  # float32 ties apart


def test_results_on_random_pixels_say_so() -> None:
    noise = load("random")
    result = evaluate_method(made(noise), noise.test, PROTOCOL)
    assert "can only be chance" in str(result)
    assert "can only be chance" in (json.loads(result.to_json())["note"])


def test_saved_where_the_report_looks(store: ImageStore, tmp_path: Path) -> None:
    path = evaluate_method(made(store), store.test, PROTOCOL).save(tmp_path)
    assert path == tmp_path / "eval" / "test-3w1s2q-45tasks-seed0-batch-2steps.json"
    assert json.loads(path.read_text(encoding="utf-8"))["tasks"] == 45


def test_paired_differences() -> None:
    (difference,) = paired_differences({"a": [0.5, 0.7, 0.9], "b": [0.6, 0.8, 1.0]})
    assert (difference.run, difference.baseline, difference.tasks) == ("b", "a", 3)
    assert difference.mean == pytest.approx(0.1)
    assert difference.ci95 == pytest.approx(0)
    assert difference.label == "b − a"


def test_only_the_same_tasks_compare(store: ImageStore) -> None:
    one = evaluate_method(made(store), store.test, PROTOCOL)
    other = evaluate_method(made(store, seed=1), store.test, PROTOCOL)
    (difference,) = compare({"one": one, "other": other})
    assert difference.mean == pytest.approx(other.mean - one.mean)
    inductive = evaluate_method(made(store), store.test, PROTOCOL.model_copy(update={"norm_stats": "support"}))
    with pytest.raises(HandfulError, match=r"inductive is inductive and one transductive.*--inductive"):
        compare({"one": one, "inductive": inductive})
    plain = replace(inductive, norm_stats="none")
    with pytest.raises(HandfulError, match=r"one is transductive and plain inductive \(it has no batch norm\)"):
        compare({"plain": plain, "one": one})
    assert compare({"inductive": inductive, "plain": plain})[0].mean == 0
    elsewhere = evaluate_method(made(store), store.test, PROTOCOL, seed=1)
    with pytest.raises(HandfulError, match=r"elsewhere was measured on other tasks \(\w{16}\) than one"):
        compare({"one": one, "elsewhere": elsewhere})


@pytest.mark.parametrize(
    ("clear", "total", "said"),
    [
        (0, 1, "The difference is not clear of zero"),
        (1, 1, "The difference is clear of zero"),
        (0, 3, "No difference is clear of zero"),
        (1, 3, "1 of 3 differences is clear of zero"),
        (2, 3, "2 of 3 differences are clear of zero"),
        (2, 2, "Both differences are clear of zero"),
        (3, 3, "All 3 differences are clear of zero"),
    ],
)
def test_how_many_differences_are_clear_is_said_in_words(clear: int, total: int, said: str) -> None:
    assert clear_of_zero(clear, total) == said


def test_a_difference_is_clear_when_its_interval_does_not_hold_zero() -> None:
    assert Difference("b", "a", -0.02, 0.01, 9).clear
    assert not Difference("b", "a", 0.01, 0.01, 9).clear


def test_a_result_that_does_not_beat_its_floor_says_so(store: ImageStore) -> None:
    result = evaluate_method(made(store), store.test, PROTOCOL.model_copy(update={"inner_steps": 0}))
    assert "not clearly above the floor 'pixel class mean'" in str(result)
    assert "not clearly above" not in str(replace(result, floors={"chance": {"mean": 0.1, "ci95": 0.0}}))
