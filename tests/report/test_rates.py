"""The picture of learned step sizes: every value where it belongs, and a title that says what was found."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from matplotlib.axes import Axes
from torch import nn

from handful.backbones import conv4
from handful.errors import HandfulError
from handful.methods import MAML, GradientBased, Method, ProtoMAML, ProtoNet, Reptile
from handful.report import draw_step_sizes
from handful.report.plots import step_sizes
from handful.report.rates import layer_names

NAMES = ("conv 1.weight", "conv 1.bias", "norm 1.weight", "head.weight")
ONE_EACH = dict(zip(NAMES, (3.26, 0.4, -0.22, 0.12)))


def network() -> nn.Module:
    backbone = conv4(channels=2, input_shape=(1, 16, 16), downsample="stride", pooling="mean")
    return nn.Sequential(OrderedDict(backbone=backbone, head=nn.Linear(2, 5)))


def drawn(tmp_path: Path, method: Method) -> Path | None:
    """draw_step_sizes on a stand-in for a run with this method, for tasks of two classes."""
    method.attach_head(2)
    recipe = SimpleNamespace(method=SimpleNamespace(spec=lambda: {"name": "maml", "inner_lr": 0.4}))
    return draw_step_sizes(SimpleNamespace(folder=tmp_path, method=method, recipe=recipe))  # type: ignore[arg-type]


def title(figure: object) -> str:
    return " ".join(figure._suptitle.get_text().split())  # type: ignore[attr-defined]


def rows(ax: Axes) -> list[str]:
    return [label.get_text() for label in ax.get_yticklabels()]


def dots(ax: Axes) -> list[float]:
    return [float(np.asarray(line.get_xdata())[0]) for line in ax.lines if line.get_marker() == "o"]


def test_one_rate_a_tensor_is_a_bar_from_zero() -> None:
    figure = step_sizes(ONE_EACH, "tensor", 0.4)
    (ax,) = figure.axes
    assert rows(ax) == ["conv 1 weight", "conv 1 bias", "norm 1 weight", "head weight"]
    assert dots(ax) == pytest.approx(list(ONE_EACH.values()))
    texts = [text.get_text() for text in ax.texts]
    assert texts == ["start 0.4", "3.26", "0.40", "−0.22", "0.12"]
    hollow = [line.get_markerfacecolor() == "white" for line in ax.lines if line.get_marker() == "o"]
    assert hollow == [False, True, False, False]  # the bias has not moved
    places = [float(np.asarray(line.get_ydata())[0]) for line in ax.lines if line.get_marker() == "o"]
    assert np.diff(places)[0] < np.diff(places)[1]  # a gap between layers


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({}, "Adaptation happens in conv 1 weight: 3.26; all others that moved within 0.22 of zero"),
        ({"conv 1.bias": -0.1}, "Adaptation happens in conv 1 weight: 3.26; all others within 0.22 of zero"),
        ({"head.weight": -1.5}, "Largest step size: conv 1 weight, 3.26"),
        ({"head.weight": -4.0}, "Largest step size: head weight, −4.00"),
        (dict.fromkeys(NAMES, 0.4), "No step size has moved from its start, 0.4"),
        (dict.fromkeys(NAMES, 0.0), "Largest step size: conv 1 weight, 0.00"),
        (dict.fromkeys(NAMES, 0.012), "Largest step size: conv 1 weight, 0.012"),
    ],
)
def test_the_title_says_what_was_found(changes: dict[str, float], said: str) -> None:
    assert title(step_sizes(ONE_EACH | changes, "tensor", 0.4)) == said


def test_dotted_names_stay_whole() -> None:
    figure = step_sizes({"backbone.blocks.9.weight": 3.26, "head.weight": 0.1}, "tensor")
    assert rows(figure.axes[0]) == ["backbone.blocks.9.weight", "head weight"]
    assert title(figure).startswith("Adaptation happens in backbone.blocks.9.weight: 3.26")
    assert all("start" not in text.get_text() for text in figure.axes[0].texts)


def test_rates_of_every_step_are_cells_with_their_numbers() -> None:
    figure = step_sizes({"conv 1.weight": [0.4, 0.5, -1.2], "head.bias": torch.full((3,), 0.4)}, "step", 0.4)
    ax, scale = figure.axes
    assert title(figure) == "Largest step size: conv 1 weight, −1.20 in step 3"
    assert [text.get_text() for text in ax.texts] == ["0.40", "0.50", "−1.20", "0.40", "0.40", "0.40"]
    np.testing.assert_allclose(np.asarray(ax.images[0].get_array()), [[0.4, 0.5, -1.2]])
    assert ax.images[0].norm.vmin == pytest.approx(-1.2)  # white is zero
    assert ax.get_xlabel() == "inner step · grey: still where it started"
    assert [text.get_text() for text in scale.texts] == ["start 0.4"]
    many = step_sizes({"conv 1.weight": np.linspace(0, 1, 30)}, "step", 0.4)
    assert not many.axes[0].texts


def test_rates_of_every_entry_are_intervals_about_their_median() -> None:
    spread = np.arange(101).reshape(101, 1) / 100
    figure = step_sizes({"conv 1.weight": spread, "head.bias": np.full(5, 0.3)}, "element", 0.4)
    (ax,) = figure.axes
    assert title(figure) == "Step sizes differ most in conv 1 weight: 0.05 to 0.95 (5 to 95 %)"
    assert dots(ax) == pytest.approx([0.5, 0.3])
    ends = [np.asarray(item.get_paths()[0].vertices)[:, 0].tolist() for item in ax.collections[:2]]
    assert np.allclose(ends, [[0.05, 0.95], [0.25, 0.75]])


def test_what_does_not_fit_is_refused() -> None:
    with pytest.raises(HandfulError, match="at least one"):
        step_sizes({}, "tensor")
    with pytest.raises(HandfulError, match=r"as many values .* not \[1, 2\]"):
        step_sizes({"a": [1.0], "b": [1.0, 2.0]}, "step")
    with pytest.raises(HandfulError, match=r"as many values .* not \[2\]"):
        step_sizes({"a": [1.0, 2.0]}, "tensor")
    with pytest.raises(HandfulError, match="step size of b is not a finite number"):
        step_sizes({"a": 1.0, "b": float("nan")}, "tensor")
    with pytest.raises(HandfulError, match="did you mean 'element'"):
        step_sizes({"a": 1.0}, "elements")  # type: ignore[arg-type]


def test_layers_are_named_by_kind_and_order() -> None:
    names = layer_names(network())
    assert names["backbone.blocks.0"] == "conv 1"
    assert names["backbone.blocks.9"] == "conv 4"
    assert names["backbone.blocks.10"] == "norm 4"
    assert set(names) == {f"backbone.blocks.{i}" for i in (0, 1, 3, 4, 6, 7, 9, 10)}  # the head is called head


@pytest.mark.parametrize("kind", ["per_tensor", "per_step", "per_element"])
@pytest.mark.parametrize("make", [MAML, ProtoMAML])
def test_the_optimizer_tells_the_kind(
    make: Callable[..., GradientBased], kind: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Shapes do not: a bias may have as many entries as there are steps, a head from prototypes has no entries yet."""
    seen: list[tuple[list[str], str, float | None]] = []

    def remember(rates: dict[str, object], per: str, initial: float | None) -> object:
        seen.append((list(rates)[-3:], per, initial))
        return step_sizes(rates, per, initial)  # type: ignore[arg-type]

    monkeypatch.setattr("handful.report.rates.step_sizes", remember)
    path = drawn(tmp_path, make(network().get_submodule("backbone"), inner_lr=0.4, inner_steps=2, rates=kind))
    assert path == tmp_path / "plots" / "step_sizes.png"
    assert path.read_bytes().startswith(b"\x89PNG")
    assert seen == [(["norm 4.bias", "head.weight", "head.bias"], kind.removeprefix("per_"), 0.4)]


def test_nothing_is_drawn_where_nothing_was_learned(tmp_path: Path) -> None:
    for make in (MAML, Reptile, ProtoNet):
        assert drawn(tmp_path, make(network().get_submodule("backbone"))) is None
    assert list(tmp_path.iterdir()) == []
