"""Detection on made clips, against the plain computation."""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from numpy.testing import assert_allclose
from torch import Tensor

from handful.backbones import unet
from handful.data import load
from handful.data.video.store import VideoClips
from handful.detection import detected, drawn_supports, hash_of, opening
from handful.errors import HandfulError
from handful.evaluation import Result, evaluate_method
from handful.methods import MAML, GradientBased
from handful.problems import VideoAnomaly
from handful.problems.video_anomaly.floors import extrapolated, floors
from handful.problems.video_anomaly.scores import area, covering, decibels, frame_errors, smoothed, whole_clips
from handful.problems.video_anomaly.tasks import floats, windows_of
from handful.recipe import Protocol

from .problems.video_anomaly.conftest import clips

PROTOCOL = Protocol(way=1, shot=2, query=2, tasks=3)


def method(adapt: list[str], prototypes: int = 3, norm: Any = "none", **options: object) -> GradientBased:
    """One whose head already says something."""
    torch.manual_seed(0)
    backbone = unet(widths=(4, 8), norm=norm, input_shape=(4, 16, 16))
    found = MAML(backbone, inner_lr=0.05, inner_steps=2, adapt=adapt, **options)  # type: ignore[arg-type]
    found.problem = VideoAnomaly({"name": "next_frame", "prototypes": prototypes})
    found.attach_head(1)
    with torch.no_grad():
        for name, parameter in found.network.named_parameters():
            if name.startswith("head.readout"):
                parameter.add_(0.05 * torch.randn_like(parameter))
    return found


def plain(
    data: VideoClips, predict: Callable[[str], Callable[[Tensor], Tensor]], level: Callable[[str], float] | None = None
) -> dict[str, float]:
    """All of a clip at once; level: the mean local score of a scene's support, for the online score."""
    assert data.abnormal is not None
    assert data.masks is not None
    mean, local, labels, pixels, marked, online, both = [], [], [], [], [], [], []
    for clip in data.test.clips:
        frames = torch.from_numpy(data.frames[data.starts[clip] : data.starts[clip + 1], 0]).float() / 255
        x = torch.stack([frames[t : t + 4] for t in range(len(frames) - 4)])
        with torch.no_grad():
            errors = frame_errors(predict(data.scenes[clip])(x), frames[4:, None])
        mean.append(decibels(errors.mean.double().numpy()))
        local.append(decibels(errors.local.double().numpy()))
        if level:
            live = [float(local[-1][0] - level(data.scenes[clip]))]
            for value in local[-1][1:]:
                live.append(0.7 * live[-1] + 0.3 * (float(value) - level(data.scenes[clip])))
            online += live
        feature = errors.feature.double().numpy()
        if feature.any():
            far = decibels(feature)
            parts = [(part - part.min()) / np.ptp(part) for part in (mean[-1], far)]
            both += smoothed(sum(parts) / 2).tolist()
        numbers = np.arange(data.starts[clip] + 4, data.starts[clip + 1])
        labels.append(data.abnormal[numbers])
        masks = data.masks.of(numbers)
        pixels += [covering(place, mask) for place, mask in zip(errors.place.double().numpy(), masks)]
        marked += [mask.any() for mask in masks]
    return {
        **{f"auc/{name}": value for name, value in whole_clips(mean, labels).items()},
        **{f"local_auc/{name}": value for name, value in whole_clips(local, labels).items()},
        "auc/pixel": area(np.array(marked, np.uint8), np.array(pixels)),
        **({"online_auc/raw": area(np.concatenate(labels), np.array(online))} if level else {}),
        **({"prototypes_auc/minmax_smoothed": area(np.concatenate(labels), np.array(both))} if both else {}),
    }


class TestDetected:
    def test_floors_are_the_plain_computation(self) -> None:
        data = clips()
        found = detected(method(["head"]), data.test, 2, 3, 0, 0, "normal")
        naive = plain(data, lambda scene: extrapolated)
        for name, value in naive.items():
            assert_allclose(found.floors["linear extrapolation"][2][name], value, rtol=1e-6)
        assert set(found.floors) == {"copy", "linear extrapolation", "least squares"}
        assert found.frames == 30 - 4 + 24 - 4

    @pytest.mark.parametrize("adapt", [["head"], ["head.readout"], []])
    def test_each_draw_is_the_network_that_fit_gives(self, adapt: list[str]) -> None:
        data, learner = clips(), method(adapt)
        found = detected(learner, data.test, 2, 2, 2, 0, "normal")
        for number, of in enumerate(drawn_supports(data.test, 2, 2, 0, "normal")):
            networks, levels = {}, {}
            for draw in of:
                scene, frames = data.scenes[draw.clips[0]], data.test.fetch(draw.firsts).float() / 255
                x, y = frames[:, :-1].flatten(1, 2), frames[:, -1]
                networks[scene] = learner.fit(x, y, 2)
                local = frame_errors(networks[scene](x), y).local
                levels[scene] = float(decibels(local.double().numpy()).mean())
            naive = plain(data, networks.__getitem__, levels.__getitem__)
            assert set(found.by_step[2][number]) == set(naive)
            for name, value in naive.items():
                assert_allclose(found.by_step[2][number][name], value, rtol=1e-5)
        first, second = found.by_step[0]
        assert {name for name in first if first[name] != second[name]} == {
            "online_auc/raw"
        }  # the supports' levels differ
        assert found.by_step[1][0] != found.by_step[1][1]

    def test_before_the_first_step_a_support_may_still_give_the_statistics(self) -> None:
        data, learner = clips(), method(["head"], norm="batch")
        found = detected(learner, data.test, 2, 2, 1, 0, "normal")
        for number, of in enumerate(drawn_supports(data.test, 2, 2, 0, "normal")):
            networks = {}
            for draw in of:
                frames = data.test.fetch(draw.firsts).float() / 255
                x, y = frames[:, :-1].flatten(1, 2), frames[:, -1]
                networks[data.scenes[draw.clips[0]]] = learner.fit(x, y, 0)
            assert_allclose(
                found.by_step[0][number]["auc/raw"], plain(data, networks.__getitem__)["auc/raw"], rtol=1e-5
            )
        assert found.by_step[0][0]["auc/raw"] != found.by_step[0][1]["auc/raw"]

    def test_prototypes_have_a_score_of_their_own_where_there_are_any(self) -> None:
        data = clips()
        with_unit, without = (detected(method(["head"], count), data.test, 2, 1, 1, 0, "normal") for count in (3, 0))
        assert 0 <= with_unit.by_step[1][0]["prototypes_auc/minmax_smoothed"] <= 1
        assert "prototypes_auc/minmax_smoothed" not in without.by_step[1][0]

    def test_published_supports_are_the_first_windows_of_each_clip_and_are_not_judged(self) -> None:
        data = clips()
        (draws,) = drawn_supports(data.test, 2, 5, 0, "clip_start")
        assert [draw.firsts.tolist() for draw in draws] == [
            [data.starts[clip], data.starts[clip] + 1] for clip in (3, 4)
        ]
        found = detected(method(["head"]), data.test, 2, 5, 1, 0, "clip_start")
        assert found.frames == 30 - 6 + 24 - 6
        assert [len(draws) for draws in found.by_step] == [1, 1]

    def test_the_hash_names_the_draws(self) -> None:
        data = clips()
        first = hash_of(data.test, 2, 3, 0, "normal")
        assert first == hash_of(data.test, 2, 3, 0, "normal")
        assert len({first, hash_of(data.test, 2, 3, 1, "normal"), hash_of(data.test, 2, 3, 0, "clip_start")}) == 3

    def test_abnormal_openings_are_counted(self) -> None:
        data = clips()
        assert opening(data.test, 2).endswith("in 0 of 2 clips abnormal frames are taught as normal.")
        assert data.abnormal is not None
        data.abnormal[data.starts[3] + 5] = 1
        assert "in 1 of 2 clips" in opening(data.test, 2)
        assert "the first 2 windows of each tested clip, as published" in opening(data.test, 2)


class TestResult:
    def result(self, **changes: object) -> Result:
        learner = method(["head"])
        return evaluate_method(learner, clips().test, PROTOCOL.model_copy(update=changes))

    def test_says_what_the_command_line_prints(self) -> None:
        result = self.result()
        content = json.loads(result.to_json())
        assert content["metric"] == "frame_auc"
        assert content["frame_auc"] == content["mean"] == pytest.approx(content["auc"]["raw"])
        wanted = {"raw", "raw_smoothed", "minmax", "minmax_smoothed", "macro", "pixel"}
        assert set(content["auc"]) == wanted
        assert all(set(floor["auc"]) == wanted for floor in content["floors"].values())
        assert len(content["by_inner_step"]) == 3
        assert len(content["per_task"]) == content["tasks"] == 3
        assert content["query"] == 46
        assert content["support"] == "normal"
        shown = str(result)
        assert shown.startswith("frame auc ")
        assert "95 % over 3 draws of the support, the 46 tested frames taken as given" in shown
        rows = {line.split("  ")[0]: line for line in shown.splitlines()}
        assert f"{100 * content['auc']['macro']:.1f} ±" in rows["auc, macro"]
        assert rows["auc, macro"].endswith(f"{100 * content['floors']['least squares']['auc']['macro']:.1f}")
        assert set(content["measures_per_task"]) == set(content["measures"])
        assert all(len(values) == 3 for values in content["measures_per_task"].values())

    def test_other_statistics_than_the_methods_are_refused(self) -> None:
        with pytest.raises(HandfulError, match="with support statistics, and not running; leave norm_stats out"):
            self.result(norm_stats="running")

    def test_published_supports_come_with_their_warning(self) -> None:
        result = self.result(support="clip_start")
        assert result.tasks == 1
        assert math.isnan(result.ci95)
        assert result.note is not None
        assert result.note.startswith("The support is the first 2 windows of each tested clip, as published: in 0 of")
        assert result.file_name.endswith("clip_start.json")
        assert json.loads(result.to_json())["ci95"] is None

    def test_clips_without_labels_are_judged_by_how_well_they_are_predicted(self) -> None:
        data = clips(labels=False)
        result = evaluate_method(method(["head"]), data.test, PROTOCOL)
        assert result.metric == "psnr"
        assert result.support is None
        with pytest.raises(HandfulError, match="clips with labels, and the test split of 'made' has none; set"):
            evaluate_method(method(["head"]), data.test, PROTOCOL.model_copy(update={"support": "clip_start"}))

    def test_an_unknown_support_is_named(self) -> None:
        with pytest.raises(HandfulError, match="support"):
            self.result(support="clipstart")

    def test_it_is_saved(self, tmp_path: Path) -> None:
        assert self.result().save(tmp_path).is_file()


@pytest.mark.parametrize(
    ("image_size", "floor", "wanted", "near"),
    [
        (
            128,
            "copy",
            {"raw": 80.31, "raw_smoothed": 80.39, "minmax": 90.57, "minmax_smoothed": 92.01, "macro": 90.83},
            0.06,
        ),
        (
            *(128, "linear extrapolation"),
            {"raw": 85.69, "raw_smoothed": 86.19, "minmax": 91.29, "minmax_smoothed": 93.76, "macro": 93.36},
            0.06,
        ),
        # As others measured them, on pictures that were compressed less.
        (256, "copy", {"raw": 80.75, "minmax": 90.76, "minmax_smoothed": 92.53, "macro": 91.95}, 0.9),
        (
            *(256, "linear extrapolation"),
            {"raw": 87.24, "minmax": 92.28, "minmax_smoothed": 94.65, "macro": 96.19},
            0.5,
        ),
    ],
)
def test_the_floors_on_ped2(
    image_size: int,
    floor: str,
    wanted: dict[str, float],
    near: float,
    real_data: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    if not (real_data / "ped2").is_dir():
        pytest.skip(f"no UCSD Ped2: {real_data} has no ped2/")
    monkeypatch.setenv("HANDFUL_DATA", str(real_data))
    data: Any = load("ped2", image_size=image_size)
    predict = floors(torch.rand(1, 4, 8, 8), torch.rand(1, 1, 8, 8))[floor]
    assert data.abnormal is not None
    scores, labels = [], []
    for _, firsts in data.test.by_clip():
        x, y = windows_of(floats(data.test, firsts, torch.device("cpu")))
        scores.append(decibels(frame_errors(predict(x), y).mean.double().numpy()))
        labels.append(data.abnormal[data.test.target(firsts)])
    found = whole_clips(scores, labels)
    for name, value in wanted.items():
        assert 100 * found[name] == pytest.approx(value, abs=near)
