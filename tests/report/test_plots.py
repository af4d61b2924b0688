"""The pictures say what their numbers are: counts of frames and lines, limits of bands, words of titles."""

from __future__ import annotations

import subprocess
import sys
import warnings
from itertools import combinations
from pathlib import Path

import matplotlib
import numpy as np
import pytest
import torch
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.collections import PolyCollection
from matplotlib.colors import to_hex
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle
from matplotlib.transforms import Bbox
from PIL import Image

from handful import wording
from handful.errors import HandfulError
from handful.report import fitted_curves, plots, sheet
from handful.report.style import RIGHT, WRONG


def texts(ax: Axes) -> list[str]:
    return [text.get_text() for text in ax.texts]


def band(ax: Axes) -> tuple[float, float]:
    """Lowest and highest y of the first filled band."""
    polygon = next(item for item in ax.collections if isinstance(item, PolyCollection))
    y = np.asarray(polygon.get_paths()[0].vertices)[:, 1]
    return float(y.min()), float(y.max())


def frames(figure: Figure, colour: str) -> list[Rectangle]:
    hollow = [p for p in figure.axes[0].patches if isinstance(p, Rectangle) and not p.get_fill()]
    return [frame for frame in hollow if to_hex(frame.get_edgecolor()) == colour]


def task(
    way: int = 5, shot: int = 1, query: int = 3, channels: int = 1
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(0)
    support_y, query_y = (torch.arange(way).repeat_interleave(n) for n in (shot, query))
    x = [torch.rand(len(y), channels, 8, 8, generator=generator) for y in (support_y, query_y)]
    return x[0], support_y, x[1], query_y


@pytest.mark.parametrize(
    ("mean", "ci95", "metric", "said"),
    [
        (0.9668, 0.0041, "accuracy", "96.7 ± 0.4 %"),
        (0.98312, 0.0004, "accuracy", "98.31 ± 0.04 %"),
        (0.2, 0.0, "accuracy", "20.0 %"),
        (0.2, 2e-17, "accuracy", "20.0 %"),
        (0.2, None, "accuracy", "20.0 %"),
        (0.8527, 0.0123, "path IoU", "0.853 ± 0.012"),
        (31.4159, 2.5, "mean squared error", "31.4 ± 2.5"),
        (3.14159, None, "mean squared error", "3.14"),
        (0.0, None, "mean squared error", "0.0"),
        (float("nan"), 0.1, "accuracy", "not a number"),
    ],
)
def test_numbers_are_said_with_the_digits_that_are_known(
    mean: float, ci95: float | None, metric: str, said: str
) -> None:
    assert wording.measured(mean, ci95, metric) == said


def test_differences_have_a_sign_and_are_points() -> None:
    assert wording.measured(-0.0003, 0.0016, signed=True) == "−0.03 ± 0.16 points"
    assert wording.measured(0.012, 0.004, signed=True) == "+1.20 ± 0.40 points"


def test_learning_curve_names_the_best_validation_and_bands_it() -> None:
    steps = np.arange(100)
    figure = plots.learning_curve(steps, 2 - steps / 100, [30, 60, 90], [0.5, 0.9, 0.8], [0.02, 0.01, 0.01])
    loss, validation = figure.axes
    assert len(loss.lines) == 2  # raw and smooth
    assert validation.get_title(loc="left") == "Best validation 90.0 ± 1.0 % at step 60"
    assert validation.get_ylabel() == "validation accuracy (%)"
    assert band(validation) == pytest.approx((48.0, 91.0))


def test_learning_curve_knows_that_errors_are_best_when_low() -> None:
    figure = plots.learning_curve([1, 2], [1, 1], [1, 2], [0.5, 0.9], [0.1, 0.1], "mean squared error")
    assert figure.axes[1].get_title(loc="left") == "Best validation 0.50 ± 0.10 at step 1"
    assert band(figure.axes[1]) == pytest.approx((0.4, 1.0))


def test_learning_curve_without_validation_or_with_broken_losses() -> None:
    figure = plots.learning_curve([1, 2, 3], [1.0, float("nan"), 3.0], [], [], [])
    assert len(figure.axes) == 1
    assert len(np.asarray(figure.axes[0].lines[0].get_xdata())) == 2


def test_smoothing_is_the_centred_mean() -> None:
    values = np.random.default_rng(0).normal(size=30)
    naive = [values[max(i - 4, 0) : i + 5].mean() for i in range(30)]
    np.testing.assert_allclose(plots._running_mean(values, 4), naive)


def test_adaptation_curve_of_one_run_states_the_gain_and_shows_floors() -> None:
    figure = plots.adaptation_curve({"maml": ([0.2, 0.9, 0.95], [0.01, 0.01, 0.02])}, floors={"chance": 0.2})
    (ax,) = figure.axes
    assert ax.get_title(loc="left") == "2 inner steps: 20.0 % → 95.0 ± 2.0 %"
    assert texts(ax) == ["chance 20.0 %"]
    assert band(ax) == pytest.approx((19.0, 97.0))


def test_adaptation_curve_of_several_runs_has_a_line_and_a_name_each() -> None:
    figure = plots.adaptation_curve({"a": ([0.2, 0.9], None), "b": ([0.2, 0.5, 0.6], [0.1] * 3)})
    (ax,) = figure.axes
    (legend,) = figure.legends
    assert [text.get_text() for text in legend.get_texts()] == ["a", "b"]
    assert [len(np.asarray(line.get_xdata())) for line in ax.lines] == [2, 3]


def test_adaptation_curves_that_the_first_step_flattens_get_a_second_panel() -> None:
    curves = {"a": ([0.2, 0.95, 0.96], [0.01] * 3), "b": ([0.2, 0.97, 0.975, 0.98], [0.01] * 4), "c": ([0.965], [0.01])}
    figure = plots.adaptation_curve(curves, floors={"chance": 0.2})
    whole, later = figure.axes
    assert texts(whole) == ["chance 20.0 %"]
    assert texts(later) == []
    steps = [np.asarray(line.get_xdata()).tolist() for line in later.lines]
    assert steps[:2] == [[1, 2], [1, 2, 3]]
    assert later.get_ylim()[0] > 90
    (legend,) = figure.legends
    assert [text.get_text() for text in legend.get_texts()] == ["a", "b", "c (no inner steps)"]


def test_adaptation_curve_of_a_run_that_diverged() -> None:
    nan = float("nan")
    (ax,) = plots.adaptation_curve({"a": ([0.2, nan, nan], [0.1, nan, nan])}, floors={"chance": 0.2}).axes
    assert ax.get_title(loc="left") == "2 inner steps: 20.0 % → not a number"
    plots.adaptation_curve({"a": ([nan, nan], None), "b": ([0.2, 0.9, 0.91], None)})
    plots.adaptation_curve({"a": ([nan, nan], None)})


@pytest.mark.parametrize(
    ("floors", "said"),
    [
        ({"chance": 0.02, "pixels": 0.463}, ["↓ chance 2.0 %", "↓ pixels 46.3 %"]),
        ({"chance": 0.02, "pixels": 0.58}, ["pixels 58.0 %", "↓ chance 2.0 %"]),
        ({"perfect": 1.0}, ["↑ perfect 100.0 %"]),
    ],
)
def test_floors_far_from_the_curves_are_named_at_the_edge(floors: dict[str, float], said: list[str]) -> None:
    curves = {"a": ([0.6, 0.62, 0.64], [0.01] * 3), "b": ([0.6, 0.65], None)}
    (ax,) = plots.adaptation_curve(curves, floors=floors).axes
    assert texts(ax) == said
    low, high = ax.get_ylim()
    assert high - low < 20  # percent: the curves, 5 points apart, fill the picture
    found = boxes(ax)
    assert not any(a.overlaps(b) for a, b in combinations(found, 2))
    frame = ax.get_window_extent()
    assert all(frame.y0 <= box.y0 and box.y1 <= frame.y1 for box in found)


def test_task_histogram_counts_every_task_and_marks_mean_and_floors() -> None:
    values = np.repeat([0.8, 0.9, 1.0], [10, 20, 30])
    mean, ci = values.mean(), 1.96 * values.std(ddof=1) / np.sqrt(60)
    (ax,) = plots.task_histogram(values, {"chance": 0.2, "pixels": 0.4}).axes
    bars = [patch.get_height() for patch in ax.containers[0]]
    assert [height for height in bars if height] == [10, 20, 30]
    assert ax.get_title(loc="left") == f"{wording.measured(mean, ci)} over 60 tasks"
    assert [float(np.asarray(line.get_xdata())[0]) for line in ax.lines] == pytest.approx([100 * mean, 40, 20])
    assert texts(ax)[1:] == ["pixels 40.0 %", "chance 20.0 %"]  # top down, the nearest to the mean first


def boxes(ax: Axes) -> list[Bbox]:
    """Where the words of a picture are, in its pixels."""
    FigureCanvasAgg(ax.get_figure(root=True))
    return [text.get_window_extent() for text in ax.texts]


@pytest.mark.parametrize(
    ("mean", "floors"),
    [
        (0.21, {"chance": 0.2, "pixel class mean": 0.22}),
        (0.21, {"chance": 0.2, "pixel class mean": 0.2}),
        (0.95, {"chance": 0.2, "pixel class mean": 0.96, "nearest": 0.94}),
        (0.51, {"chance": 0.5, "pixel class mean": 0.51}),
    ],
)
def test_no_label_of_the_histogram_covers_another_or_leaves_the_frame(mean: float, floors: dict[str, float]) -> None:
    values = np.random.default_rng(0).normal(mean, 0.02, 300)
    (ax,) = plots.task_histogram(values, floors).axes
    found, frame = boxes(ax), ax.get_window_extent()
    assert len(found) == 1 + len(floors)
    assert not any(a.overlaps(b) for a, b in combinations(found, 2))
    assert all(frame.x0 <= box.x0 and box.x1 <= frame.x1 for box in found)
    highest = max(bar.get_height() for bar in ax.containers[0])
    assert min(box.y0 for box in found) > ax.transData.transform((0, highest))[1]


@pytest.mark.parametrize("queries", [25, 75, 300])
def test_bins_hold_equally_many_of_the_values_an_accuracy_can_have(queries: int) -> None:
    values = np.arange(queries // 5, queries + 1) / queries
    counts, _ = np.histogram(values, plots._bins(values))
    assert counts.sum() == len(values)
    assert len(counts) <= 41
    assert len(set(counts[:-1])) == 1  # no comb; the last bin may be short


def test_task_histogram_of_equal_values_and_of_one() -> None:
    assert plots.task_histogram([1.0, 1.0]).axes[0].get_title(loc="left") == "100.0 % over 2 tasks"
    assert plots.task_histogram([0.5]).axes[0].get_title(loc="left") == "50.0 % over 1 task"
    with pytest.raises(HandfulError, match="at least one finite value"):
        plots.task_histogram([float("nan")])


def test_forest_counts_the_intervals_that_are_clear_of_zero() -> None:
    (ax,) = plots.forest([("b − a", 0.02, 0.01), ("c − a", 0.001, 0.01), ("d − a", -0.03, 0.01)]).axes
    assert ax.get_title(loc="left") == "2 of 3 differences are clear of zero"
    assert [label.get_text() for label in ax.get_yticklabels()] == ["b − a", "c − a", "d − a"]
    assert texts(ax) == ["+2.00 ± 1.00", "+0.10 ± 1.00", "−3.00 ± 1.00"]
    assert ax.get_ylim()[0] > ax.get_ylim()[1]  # drawn top down
    dots = [line.get_markerfacecolor() for line in ax.lines if line.get_marker() == "o"]
    assert [dot == "white" for dot in dots] == [False, True, False]


def test_forest_breaks_long_names_in_two() -> None:
    names = ["omniglot-maml-second-order", "omniglot-maml-first-order"]
    figure = plots.forest([(f"{names[0]} − {names[1]}", 0.02, 0.01), ("b − a", 0, 0.01)])
    (ax,) = figure.axes
    assert [label.get_text() for label in ax.get_yticklabels()] == ["\n− ".join(names), "b − a"]
    FigureCanvasAgg(figure)
    assert ax.get_tightbbox().x1 <= figure.bbox.x1  # type: ignore[union-attr]


def test_contact_sheet_frames_each_mistake_and_names_what_was_predicted() -> None:
    support_x, support_y, query_x, query_y = task()
    predicted = query_y.clone()
    predicted[[0, 4, 14]] = torch.tensor([2, 3, 1])
    names = ["ant", "bee", "cat", "dog", "eel"]
    figure = plots.contact_sheet(support_x, support_y, query_x, query_y, predicted, names)
    assert len(frames(figure, WRONG)) == 3
    assert len(frames(figure, RIGHT)) == 12
    assert len(figure.axes[0].images) == 20
    red = [text.get_text() for text in figure.axes[0].texts if text.get_color() == WRONG]
    assert red == ["cat", "dog", "bee"]
    assert "12 of 15 named correctly (80.0 %)" in texts(figure.axes[0])
    assert frames(figure, WRONG)[0].get_linewidth() >= 2 * frames(figure, RIGHT)[0].get_linewidth()


def test_contact_sheet_keeps_a_class_in_its_row_whatever_the_order() -> None:
    support_x, support_y, query_x, query_y = task(way=3)
    shuffled = torch.randperm(len(query_y), generator=torch.Generator().manual_seed(1))
    predicted = query_y[shuffled].clone()
    predicted[:] = 0
    figure = plots.contact_sheet(support_x, support_y, query_x[shuffled], query_y[shuffled], predicted)
    rows = sorted({frame.get_y() for frame in frames(figure, WRONG)})
    assert len(rows) == 2  # classes 2 and 3 are all wrong, class 1 all right
    assert len({frame.get_y() for frame in frames(figure, RIGHT)}) == 1


def test_contact_sheet_shows_the_pixels_it_was_given() -> None:
    support_x, support_y, query_x, query_y = task(channels=3)
    figure = plots.contact_sheet(support_x, support_y, query_x, query_y, query_y)
    shown = figure.axes[0].images[0].get_array()
    np.testing.assert_allclose(np.asarray(shown), support_x[0].permute(1, 2, 0).numpy())


def test_contact_sheet_says_how_sure_it_was() -> None:
    support_x, support_y, query_x, query_y = task(way=2, query=1)
    every = torch.tensor([[0.75, 0.25], [0.9, 0.1]], requires_grad=True)
    predicted = torch.tensor([0, 0])
    for probability in (every, torch.tensor([0.75, 0.9])):
        figure = plots.contact_sheet(support_x, support_y, query_x, query_y, predicted, ["a", "b"], probability)
        assert {"75 %", "a\n90 %"} <= set(texts(figure.axes[0]))


def test_contact_sheet_wraps_long_rows_and_survives_any_name(tmp_path: Path) -> None:
    support_x, support_y, query_x, query_y = task(way=2, shot=6, query=31)
    names = ["$5 <b> & _{x", "Arla-Ecological-Medium-Fat-Milk-日本語-and-more-that-never-fits"]
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        figure = plots.contact_sheet(support_x, support_y, query_x, query_y, 1 - query_y, names)
        path = plots.save(figure, tmp_path / "new" / "sheet.png")
    assert len({round(frame.get_y(), 3) for frame in frames(figure, WRONG)}) == 2 * 3
    assert "$5 <b> & _{x" in texts(figure.axes[0])
    assert any(text.endswith("…") for text in texts(figure.axes[0]))
    with Image.open(path) as picture:
        assert picture.format == "PNG"


def test_names_are_broken_to_the_width_they_have() -> None:
    lines = sheet.fitted_text("Japanese_(katakana)/character12", 60, 9.0, 3)
    assert "".join(lines) == "Japanese_(katakana)/character12"
    assert all(sheet.text_width(line, 9.0) <= 60 for line in lines)
    (line,) = sheet.fitted_text("W" * 40, 60, 9.0, 1)
    assert line.endswith("…")
    assert sheet.text_width(line, 9.0) <= 60


def test_contact_sheet_refuses_what_does_not_agree() -> None:
    support_x, support_y, query_x, query_y = task()
    with pytest.raises(HandfulError, match="15 queries for 15 labels and 14 predictions"):
        plots.contact_sheet(support_x, support_y, query_x, query_y, query_y[:-1])
    with pytest.raises(HandfulError, match="4 class names for 5 classes"):
        plots.contact_sheet(support_x, support_y, query_x, query_y, query_y, list("abcd"))
    with pytest.raises(HandfulError, match=r"support_x must be .* not \[5, 8, 8\]"):
        plots.contact_sheet(support_x[:, 0], support_y, query_x, query_y, query_y)
    with pytest.raises(HandfulError, match=r"floats in 0\.\.1, not uint8"):
        plots.contact_sheet((support_x * 255).byte(), support_y, query_x, query_y, query_y)


def test_saving_leaves_only_the_picture_and_drawing_leaves_no_setting(tmp_path: Path) -> None:
    before = dict(matplotlib.rcParams)
    path = plots.save(plots.forest([("b − a", 0.02, 0.01)]), tmp_path / "forest.png")
    assert dict(matplotlib.rcParams) == before
    assert list(tmp_path.iterdir()) == [path]


def test_matplotlib_waits_for_this_room_and_pyplot_for_ever() -> None:
    code = (
        "import sys, handful.cli; print('matplotlib' in sys.modules);"
        "import handful.report; print('matplotlib.pyplot' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["False", "False"]


def test_fitted_curves_show_the_function_the_points_and_every_step() -> None:
    x = np.broadcast_to(np.linspace(-5, 5, 50), (4, 50))
    truth, fits = np.sin(x), np.stack([0 * x, 0.5 * np.sin(x), np.sin(x)])
    figure = fitted_curves(x[:, ::10], truth[:, ::10], x, truth, fits)
    panels = [ax for ax in figure.axes if ax.get_visible()]
    assert len(panels) == 4
    for ax in panels:
        assert [np.size(line.get_xdata()) for line in ax.lines] == [50, 50, 50, 50, 5]  # function, fits, support
        assert ax.get_title(loc="left") == f"error {np.square(truth[0]).mean():.2g} → 0"
    words = [text.get_text() for text in figure.legends[0].get_texts()]
    assert words == ["the function", "its 5 support points", "before", "on the way", "after 2 inner steps"]
    one = fitted_curves(x[:1, ::10], truth[:1, ::10], x[:1], truth[:1], fits[:1, :1])  # before adaptation alone
    assert "after 0 inner steps" in [text.get_text() for text in one.legends[0].get_texts()]
    with pytest.raises(HandfulError, match=r"fits \[3, 4, 50\] for curves \[3, 50\]"):
        fitted_curves(x[:, ::10], truth[:, ::10], x, truth[:3], fits)


def test_errors_have_logarithmic_axes_and_accuracies_have_not() -> None:
    errors = np.geomspace(0.001, 5, 600)
    histogram = plots.task_histogram(errors, {"support mean": 4.0}, "mean_squared_error").axes[0]
    assert histogram.get_xscale() == "log"
    bars = [p for p in histogram.patches if isinstance(p, Rectangle)]
    assert sum(bar.get_height() for bar in bars[:-1]) == 600  # the last one is the band of the interval
    mean = errors[::60]
    curve = plots.adaptation_curve({"run": (mean, mean / 5)}, "mean_squared_error", {"support mean": 4.0}).axes[0]
    assert curve.get_yscale() == "log"
    step = np.arange(1, 11)
    training = plots.learning_curve(step, mean, step, mean, 2 * mean, "mean_squared_error")
    assert [ax.get_yscale() for ax in training.axes] == ["log", "log"]
    assert training.axes[1].get_ylim()[0] > 0
    for figure in (
        plots.task_histogram(errors / 5),
        plots.adaptation_curve({"run": (mean / 5, mean / 50)}),
        plots.task_histogram(np.append(errors, 0.0), {}, "mean_squared_error"),  # no logarithm of zero
    ):
        assert (figure.axes[0].get_xscale(), figure.axes[0].get_yscale()) == ("linear", "linear")
    assert plots.task_histogram(np.full(5, 2.0), {}, "mean_squared_error").axes[0].get_xscale() == "log"
