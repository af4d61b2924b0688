"""Models of rail lines from annotated frames: a backbone alone, a run, and what cannot be learned from."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import handful as hf
from handful.data.pictures import Picture
from handful.data.rails import Frame, load_frames
from handful.errors import HandfulError
from handful.methods import MAML
from handful.model import fit_lines
from handful.model.rails import fitting
from handful.model.rails.card import LineCheck, LineFigures
from handful.model.rails.fitting import left_out, looks_alike, read
from handful.model.rails.model import LineNetwork
from handful.model.rails.start import FromBackbone, FromRun, Support
from handful.problems import RailLines
from handful.recipe import load_recipe
from handful.run import Run
from tests import rails
from tests.conftest import Command, ok, refused
from tests.model.rails.conftest import RANDOM, Painted, painted

pytestmark = pytest.mark.usefixtures("quick")

Change = Callable[[list[dict[str, Any]]], object]


def changed(folder: Path, to: Path, change: Change) -> Path:
    """A copy of an annotated folder with other records."""
    shutil.copytree(folder, to)
    content = json.loads((to / "annotations.json").read_text(encoding="utf-8"))
    change(content["records"])
    (to / "annotations.json").write_text(json.dumps(content), encoding="utf-8")
    return to


@pytest.fixture
def run(tmp_path: Path) -> Run:
    """A run of rail lines whose network is as it was made."""
    torch.manual_seed(0)
    backbone = hf.backbones.efficientnet_lite0(weights="none", resolution=None, input_shape=(3, 288, 512))
    method = MAML(backbone, inner_lr=0.01, inner_steps=1, adapt=["head"])
    method.problem = RailLines({"name": "row_distributions", "channels": 8})
    method.attach_head(2)
    recipe = load_recipe("rails-maml").model_copy(update={"name": "tiny-rails"})
    return Run(tmp_path / "run", recipe, method, rails.frames())


def test_from_a_backbone_alone(handful: Command, rendered: Path, tmp_path: Path) -> None:
    backbone = "{name: efficientnet_lite0, weights: none}"
    ran = ok(handful("fit", rendered, "--backbone", backbone, "--out", tmp_path / "line"))
    told = " ".join(ran.out.split())
    assert "The left and the right rail, from 3 annotated frames of 512x288 pixels." in told
    assert "By 2 steps of Adam from efficientnet_lite0 alone." in told
    assert "Of its own frames, in 2 parts, each left out in turn, it finds path IoU 0." in told
    card = json.loads((tmp_path / "line" / "card.json").read_text(encoding="utf-8"))
    assert card["backbone"] == RANDOM
    assert card["check"]["frames"] == 3
    assert card["check"]["folds"] == 2
    assert card["check"]["unadapted"] is None
    assert 0 < card["check"]["floor"]["path_iou"] <= 1
    model = hf.load_model(tmp_path / "line")
    again = hf.fit(rendered, backbone={"name": "efficientnet_lite0", "weights": "none"}, check=False)
    assert again.card.check is None
    assert "How good it is was not checked." in str(again.card)
    assert set(model.network.state_dict()) == set(again.network.state_dict())


def test_from_a_run(run: Run, rendered: Path, tmp_path: Path) -> None:
    model = hf.fit(rendered, run=run, inner_steps=1)
    assert model.card.recipe == "tiny-rails"
    assert model.card.steps == 1
    assert model.card.check.folds == 3  # each alone
    assert model.card.check.unadapted is not None
    assert "each left out in turn, it finds path IoU" in str(model.card)
    assert "before it was adapted path IoU" in str(model.card)
    assert "steps of maml from the run tiny-rails" in str(hf.fit(rendered, run=run, inner_steps=2, check=False).card)
    support, _ = read(load_frames(rendered))
    before, after = (FromRun(run, steps, support).learn(range(3)) for steps in (0, 1))
    with torch.no_grad():
        assert not torch.allclose(before(support.images), after(support.images))
    backbone = run.recipe.backbone.model_copy(update={"weights": "/somebody/secret.pth"})
    run.recipe = run.recipe.model_copy(update={"backbone": backbone})
    card = hf.fit(rendered, run=run, check=False).card
    assert card.backbone["weights"] == "secret.pth"


@pytest.mark.parametrize("better", ["before", "after"])
def test_it_is_adapted_where_that_helps(
    better: str, run: Run, rendered: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Frames left out decide, unless the number of steps is said."""
    good, bad = (LineFigures(path_iou=iou, points_20px=0.5, limit_error=0.1) for iou in (0.8, 0.4))
    fitted, unadapted = (bad, good) if better == "before" else (good, bad)
    found = LineCheck(frames=3, folds=3, fitted=fitted, unadapted=unadapted, floor=bad)
    monkeypatch.setattr(fitting, "left_out", lambda *_: found)
    support, _ = read(load_frames(rendered))
    start = FromRun(run, None, support)
    wanted = start.unadapted() if better == "before" else start.learn(range(3))
    model = hf.fit(rendered, run=run)
    assert model.card.steps == (0 if better == "before" else 1)
    told = "It is as it was before, since frames left out are answered better by it than by an adapted one."
    assert (told in model.card.notes) == (better == "before")
    assert "it finds path IoU 0.800, 50 % of the points" in str(model.card)
    assert f"({'adapted to the others' if better == 'before' else 'before it was adapted'} path IoU 0.4" in str(
        model.card
    )
    with torch.no_grad():
        torch.testing.assert_close(model.network.network(support.images), wanted(support.images))
    assert hf.fit(rendered, run=run, inner_steps=1).card.steps == 1
    model.save(tmp_path / "line")
    assert hf.load_model(tmp_path / "line").card == model.card


def test_of_no_steps_nothing_says_that_they_were_adapted(run: Run, rendered: Path) -> None:
    card = hf.fit(rendered, run=run, inner_steps=0).card
    assert card.check.fitted == card.check.unadapted
    assert "adapted to the others" not in str(card)


def test_what_is_checked_is_what_predict_says(run: Run, rendered: Path) -> None:
    """The mean over the frames of what a model of the others finds in each, worked out by hand."""
    support, _ = read(load_frames(rendered))
    start = FromRun(run, None, support)
    check = left_out(start, support, True, start.unadapted())
    found = []
    for number in range(3):
        others = [other for other in range(3) if other != number]
        network = LineNetwork(start.learn(others), torch.zeros(0), (3, 288, 512), mirror=True)
        with torch.no_grad():
            said = network(support.images[[number]])[None]
        targets = support.rows([number])[None]
        found.append((float(start.problem.score(said, targets)), start.problem.measures(said, targets)))
    assert check.fitted.path_iou == pytest.approx(np.mean([score for score, _ in found]), abs=1e-5)
    for name in ("points_20px", "limit_error"):
        assert getattr(check.fitted, name) == pytest.approx(np.mean([float(of[name]) for _, of in found]), abs=1e-5)


def test_of_many_frames_a_fifth_is_left_out_at_a_time(run: Run, rendered: Path) -> None:
    support, _ = read(load_frames(rendered))
    two, many = (Support(support.images[[0] * count], support.pairs[:1] * count) for count in (2, 9))
    assert FromRun(run, None, two).folds == 2
    assert FromRun(run, None, many).folds == 5


def test_maps_of_the_frames_are_computed_once(rendered: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[int] = []
    original = FromBackbone.views

    def views(start: FromBackbone, support: Support) -> Any:
        seen.append(len(support.pairs))
        return original(start, support)

    monkeypatch.setattr(FromBackbone, "views", views)
    hf.fit(rendered, backbone=RANDOM)
    assert seen == [3]


def test_one_rail_alone(rendered: Path, tmp_path: Path) -> None:
    def without_right(records: list[dict[str, Any]]) -> None:
        for record in records:
            record.update(right=None)

    model = hf.fit(changed(rendered, tmp_path / "one", without_right), backbone=RANDOM)
    assert model.card.lines == ["left"]
    assert "The left rail alone, from 3 annotated frames" in str(model.card)
    assert "The right rail is in no frame, so it is not looked for." in model.card.notes
    assert model.card.check.fitted.path_iou is None
    assert "path IoU" not in str(model.card)
    (answer,) = model.predict(rendered / "images" / "00.jpg")
    assert "right" not in answer.lines


def test_a_rail_that_some_frames_lack(rendered: Path, tmp_path: Path) -> None:
    folder = changed(rendered, tmp_path / "some", lambda records: records[0].update(left=[]))
    assert hf.fit(folder, backbone=RANDOM, check=False).card.notes == ["The left rail is in 2 of 3 frames."]


def test_frames_of_several_sizes(rendered: Path) -> None:
    first, second, _ = load_frames(rendered)
    pixels = second.pixels()[:200]
    lines = {name: line[line[:, 1] < 199] for name, line in second.lines.items()}
    other = Frame(Picture("b", "", "", lambda: pixels), 512, 200, lines)
    model = hf.fit([first, other], backbone=RANDOM, check=False)
    assert model.card.notes == ["The frames have several sizes (512x200, 512x288): are they of one camera?"]


def test_one_frame(rendered: Path, tmp_path: Path) -> None:
    model = hf.fit(load_frames(rendered)[:1], backbone=RANDOM)
    assert "There is one frame, so none can be left out to see how good the model is." in str(model.card)


def test_mirror_images_count_where_they_are_answered_alike() -> None:
    """What is red is left for `Painted`, also in a mirror; a network that goes by sides is the same in it."""

    class BySides(Painted):
        def forward(self, images: torch.Tensor) -> torch.Tensor:
            width = images.shape[-1] // 2
            bright = (images.amax(1, keepdim=True) > 0.9).float()
            sides = torch.cat([bright[..., :width], torch.zeros_like(bright)], -1)
            right = torch.cat([torch.zeros_like(bright[..., :width]), bright[..., width:]], -1)
            return super().forward(torch.cat([sides[..., : 2 * width], right, torch.zeros_like(bright)], 1))

    pixels = painted(size=(512, 288))
    images = torch.from_numpy(pixels.copy()).permute(2, 0, 1)[None] / 255
    left, right = (np.array([[place * 512, 287.5], [(0.5 + (place - 0.5) / 2) * 512, 72]]) for place in (0.3, 0.7))
    support = Support(images, [(left, right)])
    assert looks_alike(BySides(), support)
    assert not looks_alike(Painted(), support)


def test_mirrored_views_are_for_the_track_in_the_middle() -> None:
    images = torch.zeros(2, 3, 288, 512)

    def line(foot: float) -> np.ndarray[Any, Any]:
        return np.array([[foot, 287.5], [250, 100]])

    assert Support(images, [(line(100), line(400)), (line(200), line(300))]).has_two_sides
    assert not Support(images, [(line(100), None), (line(200), None)]).has_two_sides
    assert not Support(images, [(line(10), line(200)), (line(20), line(210))]).has_two_sides


def test_a_picture_that_is_none(handful: Command, rendered: Path, tmp_path: Path) -> None:
    folder = tmp_path / "bad"
    shutil.copytree(rendered, folder)
    (folder / "images" / "01.jpg").write_bytes(b"no picture")
    asked = ("fit", folder, "--backbone", json.dumps(RANDOM), "--no-check", "--out", tmp_path / "line")
    refused(handful(*asked), "01.jpg is no readable picture", "as --skip-bad does.")
    told = ok(handful(*asked, "--skip-bad")).out
    assert "from 2 annotated frames" in told
    assert "Left out, since they cannot be read: 01.jpg." in told
    for path in (folder / "images").iterdir():
        path.write_bytes(b"no picture")
    refused(handful(*asked, "--skip-bad"), "The pictures of all 3 frames cannot be read; mend them.")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda records: records[0].update(image="images/9.jpg"), r"images/9\.jpg is annotated, but there is no such"),
        (lambda records: records[0].update(width=640), r"00\.jpg has 512x288 pixels, but its lines were drawn in 640"),
        (
            lambda records: [
                r.update(left=None, right=None, lines={"neighbour left": [[9, 200], [9, 1]]}) for r in records
            ],
            "No frame has a line `left` or `right`, the rails to learn; there are: neighbour left",
        ),
        (lambda records: records.clear(), "annotates no picture"),
    ],
)
def test_what_cannot_be_learned_from(rendered: Path, tmp_path: Path, change: Change, message: str) -> None:
    with pytest.raises(HandfulError, match=message):
        hf.fit(changed(rendered, tmp_path / "wrong", change), backbone=RANDOM)


def test_pictures_without_annotations(handful: Command, rendered: Path, run: Run, tmp_path: Path) -> None:
    refused(
        handful("fit", rendered / "images", "--out", tmp_path / "line"),
        "holds 3 pictures, 00.jpg the first, without classes and without annotations",
        "write annotations.json",
    )
    with pytest.raises(HandfulError, match="images holds no annotated frames; known are files of"):
        hf.fit(rendered / "images", run=run)
    with pytest.raises(HandfulError, match="There are no annotated frames to learn from"):
        fit_lines([])


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"method": "protonet"}, "method is about class folders, and these are annotated frames; leave it out"),
        ({"open_set": True}, "open_set is about class folders, and these are annotated frames; leave it out"),
        ({"inner_steps": 3}, "inner_steps is about a run; name one, or leave it out"),
        ({"backbone": torch.nn.Identity()}, "A model of rail lines takes its backbone by name"),
        ({"backbone": "conv4"}, "gives no maps at strides 8, 16 and 32"),
    ],
)
def test_options_that_make_no_sense_of_frames(rendered: Path, options: dict[str, Any], message: str) -> None:
    with pytest.raises(HandfulError, match=message):
        hf.fit(rendered, **options)


def test_runs_that_make_no_sense(rendered: Path, run: Run, pictures: Path) -> None:
    with pytest.raises(HandfulError, match="A run has its backbone; leave it out, or leave out the run"):
        hf.fit(rendered, run=run, backbone=RANDOM)
    with pytest.raises(HandfulError, match=r"fit takes labelled pictures, and the run .* does rail_lines"):
        hf.fit({"a": [pictures / "class00" / "0.png"]}, run=run)
    run.method.problem = hf.problems.Classification()
    with pytest.raises(HandfulError, match="run was trained for classification, and these are annotated frames"):
        hf.fit(rendered, run=run)
