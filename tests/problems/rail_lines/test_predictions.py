"""What a network's numbers mean as lines, their losses and their figures, against plain formulas."""

from __future__ import annotations

import math
from itertools import pairwise, product

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from matplotlib.path import Path as Polygon
from torch import Tensor

from handful.problems.rail_lines.predictions import (
    BLUR,
    NEAR,
    STEP,
    STIFFNESS,
    Found,
    Lines,
    cut,
    f1,
    finer,
    gauge_error,
    likeliest,
    limit_error,
    lines_of,
    means,
    mirrored,
    on_rows,
    path_iou,
    points_within,
    row_losses,
    smooth,
    spans,
)

ROWS = 12
Ends = tuple[float, float]


def drawn(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


def targets_with_ends(seed: int = 0, images: int = 3, rows: int = ROWS) -> Tensor:
    """Targets [images, 2, rows, 2] whose lines begin and end in the middle of rows; the last image has one line."""
    random = np.random.default_rng(seed)
    found = np.zeros((images, 2, rows, 2))
    found[..., 0] = random.uniform(0.05, 0.95, (images, 2, rows))
    for image in range(images):
        for line in range(2):
            first = random.integers(0, rows // 2)
            found[image, line, first:, 1] = 1
            found[image, line, first, 1] = random.uniform(0.2, 0.9)
    found[-1, 1, :, 1] = 0
    return torch.from_numpy(found)


def test_a_line_is_the_mean_beside_the_likeliest_path() -> None:
    predictions = drawn(2, 2, 4, 65)
    predictions[..., 5:-1] -= 30  # only five columns matter
    found = lines_of(predictions)
    for image, line in np.ndindex(2, 2):
        shares = predictions[image, line, :, :-1].softmax(-1).numpy()[:, :6]
        there = predictions[image, line, :, -1].sigmoid().numpy()

        def worth(path: tuple[int, ...], shares=shares, there=there) -> float:  # type: ignore[no-untyped-def]
            gains = sum(there[row] * math.log(shares[row, column]) for row, column in enumerate(path))
            return gains - sum(STEP * (a - b) ** 2 for a, b in pairwise(path))

        best = max(product(range(5), repeat=4), key=worth)
        gains = predictions[image, line, :, :-1].log_softmax(-1) * torch.from_numpy(there)[:, None]
        assert likeliest(gains).tolist() == [*best]
        for row, column in enumerate(best):
            near = range(max(0, column - 1), min(6, column + 2))
            sure = sum(shares[row, c] for c in near)
            x = sum(shares[row, c] * (c + 0.5) / 64 for c in near) / sure
            variance = sum(shares[row, c] * ((c + 0.5) / 64 - x) ** 2 for c in near) / sure
            assert found.spread[image, line, row].item() == pytest.approx((variance / sure) ** 0.5)
            assert found.sure[image, line, row].item() == pytest.approx(sure)
            assert found.x[image, line, row].item() == pytest.approx(x)


@pytest.mark.parametrize("columns", [32, 64, 128])
def test_how_sure_a_line_is_does_not_depend_on_how_fine_the_columns_are(columns: int) -> None:
    place = (torch.arange(columns) + 0.5) / columns
    peaks = torch.exp(-((64 * (place - 0.3)) ** 2)) + 0.5 * torch.exp(-((64 * (place - 0.7)) ** 2)) + 1e-9
    predictions = torch.cat([peaks.log(), torch.ones(1)]).expand(1, ROWS, columns + 1)
    found = lines_of(predictions)
    assert found.sure.mean().item() == pytest.approx(0.63, abs=0.04)
    assert found.x.mean().item() == pytest.approx(0.3, abs=0.5 / 64)


def test_of_two_peaks_a_line_takes_one_and_keeps_to_it() -> None:
    predictions = torch.full((1, ROWS, 65), -9.0)
    predictions[..., 10], predictions[..., 50] = 5.0, 4.9
    predictions[:, ROWS // 2, 10], predictions[:, ROWS // 2, 50] = 4.0, 5.0  # one row prefers the other
    predictions[..., -1] = 9.0
    found = lines_of(predictions)
    assert ((64 * found.x - 10.5).abs() < 0.1).all()
    assert (found.sure < 0.6).all()
    assert ((means(predictions) > 0.3) & (means(predictions) < 0.7)).all()  # between two rails, where there is none


def test_the_mean_of_a_row_and_whether_the_line_is_there() -> None:
    predictions = drawn(2, 2, ROWS, 9)
    found, mean = lines_of(predictions), means(predictions)
    for image, line, row in np.ndindex(2, 2, ROWS):
        logits = predictions[image, line, row].tolist()
        total = sum(math.exp(v) for v in logits[:-1])
        shares = [math.exp(v) / total for v in logits[:-1]]
        places = [(column + 0.5) / 8 for column in range(8)]
        x = sum(s * p for s, p in zip(shares, places))
        assert mean[image, line, row].item() == pytest.approx(x)
        assert found.there[image, line, row].item() == pytest.approx(1 / (1 + math.exp(-logits[-1])))


def test_one_column_is_the_place_itself() -> None:
    predictions = drawn(2, 2, ROWS, 2)
    found = lines_of(predictions)
    assert torch.equal(found.x, predictions[..., 0])
    assert not found.spread.any()
    assert (found.sure == 1).all()


def test_targets_on_fewer_rows_weigh_by_what_a_row_spans() -> None:
    targets = targets_with_ends()
    found = on_rows(targets, 4)
    for image, line, row in np.ndindex(3, 2, 4):
        x, there = targets[image, line, 3 * row : 3 * row + 3].unbind(-1)
        assert found[image, line, row, 1].item() == pytest.approx(there.mean().item())
        mean = (x * there).sum() / there.sum() if there.any() else x.mean()
        assert found[image, line, row, 0].item() == pytest.approx(mean.item())
    torch.testing.assert_close(on_rows(targets, ROWS), targets)


def plain_loss(predictions: Tensor, targets: Tensor) -> float:
    """The loss of one image by loops: predictions [2, R, C + 1], targets [2, R, 2] on the same rows."""
    columns = predictions.shape[-1] - 1
    apart, weight, present = 0.0, 0.0, []
    for logits, (x, there) in zip(predictions.reshape(-1, columns + 1).tolist(), targets.reshape(-1, 2).tolist()):
        places = [(i + 0.5) / columns for i in range(columns)]
        if columns == 1:
            shares, cross, mean = [1.0], 0.0, logits[0]
        else:
            shares = np.exp(np.array(logits[:-1]) - max(logits[:-1])).tolist()
            shares = [s / sum(shares) for s in shares]
            mean = sum(s * p for s, p in zip(shares, places))
            bell = [math.exp(-((p - x) ** 2) / (2 * BLUR**2)) for p in places]
            cross = -sum(b / sum(bell) * math.log(s) for b, s in zip(bell, shares))
        gap = abs(64 * (mean - x))
        apart += there * (cross + (gap**2 / 2 if gap < 1 else gap - 0.5))
        weight += there
        here = 1 / (1 + math.exp(-logits[-1]))
        present.append(-there * math.log(here) - (1 - there) * math.log(1 - here))
    return apart / max(weight, 1) + sum(present) / len(present)


@pytest.mark.parametrize("columns", [16, 1])
def test_the_loss_is_the_plain_formula_with_its_gradient(columns: int) -> None:
    predictions, targets = 0.3 * drawn(3, 2, ROWS, columns + 1), targets_with_ends()
    found = row_losses(predictions, targets)
    assert found.shape == (3,)
    for image in range(3):
        assert found[image].item() == pytest.approx(plain_loss(predictions[image], targets[image]), rel=1e-9)
    assert torch.autograd.gradcheck(lambda p: row_losses(p, targets), (predictions.requires_grad_(),))
    fine = targets.repeat_interleave(3, 2)
    torch.testing.assert_close(row_losses(predictions, fine), found)  # three equal rows are one
    beside = torch.cat([targets, torch.rand_like(targets)], -1)
    torch.testing.assert_close(row_losses(predictions, beside), found)  # the mean of the support is no target


def test_the_loss_of_a_line_that_is_nowhere_asks_for_its_absence_alone() -> None:
    predictions = drawn(1, 2, ROWS, 17)
    nowhere = torch.zeros(1, 2, ROWS, 2, dtype=torch.float64)
    absent = F.softplus(predictions[..., -1]).mean()
    assert row_losses(predictions, nowhere).item() == pytest.approx(absent.item())


def plain_span(shares: list[float]) -> Ends:
    """Of all intervals of rows, the best one, and how much of the rows at its ends and beyond is spanned."""
    best, at = 0.0, None
    for first in range(len(shares)):
        for last in range(first, len(shares)):
            gain = sum(share - 0.5 for share in shares[first : last + 1])
            if gain > best:
                best, at = gain, (first, last)
    if at is None:
        return 0.0, 0.0
    first, last = at
    if first == last:
        begin = first + (1 - shares[first]) / 2
        return begin, begin + shares[first]
    padded = [0.0, *shares, 0.0]
    return first + 1 - shares[first] - padded[first], last + shares[last] + padded[last + 2]


def test_a_line_spans_the_best_of_all_intervals() -> None:
    there = torch.rand(400, 9, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    there[:80] *= 0.55  # of which some are nowhere likely, or in one row
    begin, end = spans(there)
    expected = [plain_span(shares) for shares in there.tolist()]
    np.testing.assert_allclose(begin, [ends[0] for ends in expected], atol=1e-9)
    np.testing.assert_allclose(end, [ends[1] for ends in expected], atol=1e-9)
    lengths = {round(last - first) for first, last in expected}
    assert {0, 1, 9} <= lengths


def test_shares_of_rows_give_back_where_a_line_begins_and_ends() -> None:
    random = np.random.default_rng(0)
    for _ in range(50):
        begin, end = random.uniform(0, 6), random.uniform(9, 12)
        rows = np.arange(ROWS)
        shares = (np.minimum(rows + 1, end) - np.maximum(rows, begin)).clip(0, 1)
        found = [limit.item() for limit in spans(torch.from_numpy(shares))]
        np.testing.assert_allclose(found, [begin, end], atol=1e-9)


@pytest.mark.parametrize(("count", "rows"), [(4, 12), (36, 144), (12, 4), (2, 7)])
def test_finer_rows_are_on_straight_lines_between_and_beyond(count: int, rows: int) -> None:
    values = drawn(3, count)
    centres, wanted = ((np.arange(n) + 0.5) / n for n in (count, rows))
    found = finer(values, rows)
    assert found.shape == (3, rows)
    for line, fine in zip(values.numpy(), found.numpy()):
        expected = np.interp(wanted, centres, line)
        for inside, near, other in ((wanted < centres[0], 0, 1), (wanted > centres[-1], -1, -2)):
            slope = (line[other] - line[near]) / (centres[other] - centres[near])
            expected[inside] = line[near] + slope * (wanted[inside] - centres[near])
        np.testing.assert_allclose(fine, expected, atol=1e-12)
    assert finer(values, count) is values


def straight(foot: float, top: float, rows: int) -> Tensor:
    """x of a line on rows, from its places at the upper and the lower border."""
    height = (torch.arange(rows, dtype=torch.float64) + 0.5) / rows
    return top + (foot - top) * height


def target(sides: list[tuple[float, float, float]], rows: int = 144) -> Tensor:
    """Lines (foot, top, share of the height above which there is none) as a target [L, R, 2]."""
    height = (torch.arange(rows, dtype=torch.float64) + 0.5) / rows
    return torch.stack(
        [torch.stack([straight(foot, top, rows), (height > end).double()], -1) for foot, top, end in sides]
    )


def found_as(lines: Tensor) -> Found:
    return Found(lines[..., 0], lines[..., 1] > 0.5)


TRUE = [(0.3, 0.48, 0.3), (0.7, 0.52, 0.3)]


@pytest.mark.parametrize(
    "said",
    [
        [(0.3, 0.48, 0.3), (0.7, 0.52, 0.3)],
        [(0.35, 0.45, 0.4), (0.8, 0.5, 0.2)],
        [(0.0, 0.3, 0.1), (0.25, 0.45, 0.1)],
        [(0.75, 0.6, 0.5), (0.95, 0.7, 0.5)],  # beside the true one
        [(0.2, 0.7, 0.0), (0.8, 0.3, 0.0)],  # crossing: the path ends where they meet
    ],
)
def test_the_iou_is_that_of_filled_polygons(said: list[tuple[float, float, float]]) -> None:
    lines, truth = target(said), target(TRUE)
    across, down = np.meshgrid((np.arange(400) + 0.5) / 400, (np.arange(432) + 0.5) / 432)
    points = np.stack([across.ravel(), down.ravel()], 1)
    inside = []
    for sides in (said, TRUE):
        (foot, top, end), (other_foot, other_top, other_end) = sides
        above = max(end, other_end)
        if foot < other_foot and top > other_top:
            above = max(above, (top - other_top) / (top - other_top + other_foot - foot))
        outline = [(top + (foot - top) * y, y) for y in (1, above)]
        outline += [(other_top + (other_foot - other_top) * y, y) for y in (above, 1)]
        inside.append(Polygon(outline).contains_points(points))
    expected = (inside[0] & inside[1]).sum() / (inside[0] | inside[1]).sum()
    found = path_iou(found_as(lines), truth).item()
    assert found == pytest.approx(expected, abs=0.01)
    assert path_iou(found_as(truth), truth).item() == 1


def test_no_path_has_no_overlap() -> None:
    truth = target(TRUE)
    nothing = Found(truth[..., 0], torch.zeros(2, 144, dtype=torch.bool))
    one = Found(truth[..., 0], torch.stack([torch.ones(144), torch.zeros(144)]).bool())
    swapped = Found(truth[..., 0].flip(0), torch.ones(2, 144, dtype=torch.bool))
    for found in (nothing, one, swapped):
        assert path_iou(found, truth).item() == 0


def test_points_are_right_within_20_of_1920_pixels_where_a_line_is_said_to_be() -> None:
    truth = target(TRUE, rows=10)  # seven rows each
    found = found_as(truth)
    assert points_within(found, truth).item() == 1
    x = found.x.clone()
    x[0, 9] += 0.99 * NEAR
    x[0, 8] -= 1.01 * NEAR
    assert points_within(Found(x, found.seen), truth).item() == pytest.approx(13 / 14)
    seen = found.seen.clone()
    seen[1, :5] = False
    assert points_within(Found(x, seen), truth).item() == pytest.approx(11 / 14)
    seen[:, :3] = True  # where no true line is, nothing is asked
    assert points_within(Found(x, seen), truth).item() == pytest.approx(11 / 14)


def test_f1_counts_lines_as_tusimple_does() -> None:
    truth = target(TRUE, rows=100)  # 70 rows each
    found = found_as(truth)

    def score(x: Tensor, seen: Tensor, truth: Tensor = truth) -> float:
        return f1(Found(x, seen), truth, 16 / 9).item()

    assert score(found.x, found.seen) == 1
    x = found.x.clone()
    x[0, 90:] += 0.2  # ten of 70 wrong: 86 %
    assert score(x, found.seen) == 1
    x[0, 89] += 0.2
    assert score(x, found.seen) == 0.5
    seen = found.seen.clone()
    seen[0] = False  # one right of two true and one said
    assert score(found.x, seen) == pytest.approx(2 / 3)
    one = truth.clone()
    one[0, :, 1] = 0  # one right of one true and two said
    assert score(found.x, found.seen, one) == pytest.approx(2 / 3)


@pytest.mark.parametrize("factor", [0.99, 1.01])
def test_f1_measures_across_a_slanted_line(factor: float) -> None:
    truth = target([(0.0, 1.0, 0.0), (0.7, 0.7, 0.0)], rows=90)
    slope = 16 / 9  # pixels across for one down, of a picture of 16:9 with a line from corner to corner
    near = NEAR * math.hypot(1, slope)
    found = Found(truth[..., 0] + torch.tensor([[factor * near], [0.0]]), torch.ones(2, 90, dtype=torch.bool))
    assert f1(found, truth, 16 / 9).item() == (1 if factor < 1 else 0.5)


def test_the_gauge_error_is_a_share_of_the_gauge_of_each_row() -> None:
    truth = target(TRUE, rows=10)
    gauge = truth[1, :, 0] - truth[0, :, 0]
    x = truth[..., 0] + torch.stack([0.1 * gauge, -0.3 * gauge])
    nothing = torch.zeros(2, 10, dtype=torch.bool)
    assert gauge_error(Found(x, nothing), truth).item() == pytest.approx(0.2)
    x[:, :3] += 5  # where a true line is absent, nothing is asked
    assert gauge_error(Found(x, nothing), truth).item() == pytest.approx(0.2)


def test_the_limit_error_is_that_of_the_tops() -> None:
    truth = target(TRUE, rows=10)  # from row 3 on
    seen = torch.zeros(2, 10, dtype=torch.bool)
    seen[0, 1:], seen[1, 7:] = True, True
    assert limit_error(Found(truth[..., 0], seen), truth).item() == pytest.approx((2 + 4) / 2 / 10)
    seen[1] = False  # not found: as if it began at the lower border
    assert limit_error(Found(truth[..., 0], seen), truth).item() == pytest.approx((2 + 7) / 2 / 10)
    truth[0, :, 1] = 0  # a line that is not there has no top
    assert limit_error(Found(truth[..., 0], seen), truth).item() == pytest.approx(7 / 10)


def test_smooth_lines_minimise_what_they_say() -> None:
    random = np.random.default_rng(0)
    x, there, spread = random.uniform(0.2, 0.8, (3, 2, ROWS)), random.random((3, 2, ROWS)), random.uniform(0, 0.2)
    spreads = spread * random.random((3, 2, ROWS))
    found = smooth(Lines(*map(torch.from_numpy, (x, there, spreads, there))))
    bend = np.array([[1.0 * (j == i) - 2 * (j == i + 1) + (j == i + 2) for j in range(ROWS)] for i in range(ROWS - 2)])
    for image, line in np.ndindex(3, 2):
        weight = there[image, line] / np.maximum((64 * spreads[image, line]) ** 2, 0.1) + 1e-6
        expected = np.linalg.solve(np.diag(weight) + STIFFNESS * bend.T @ bend, weight * x[image, line])
        np.testing.assert_allclose(found.x[image, line], expected, rtol=1e-8)
    assert torch.equal(found.there, torch.from_numpy(there))


def test_a_straight_line_stays_and_an_unsure_row_follows_its_neighbours() -> None:
    x, sure = straight(0.3, 0.6, ROWS).expand(2, ROWS), torch.full((2, ROWS), 0.01, dtype=torch.float64)
    there = torch.ones(2, ROWS, dtype=torch.float64)
    torch.testing.assert_close(smooth(Lines(x, there, sure, there)).x, x)
    off, spread = x.clone(), sure.clone()
    off[:, 5] += 0.2
    spread[:, 5] = 0.5
    found = smooth(Lines(off, there, spread, there)).x
    assert (found - x).abs().max() < 0.005
    assert smooth(Lines(*(part.float() for part in (off, there, spread, there)))).x.dtype == torch.float32


def test_lines_that_are_not_finite_stay_so() -> None:
    x = torch.full((2, ROWS), 0.5)
    x[0] = math.nan
    found = smooth(Lines(x, x, x, x))
    assert found.x[0].isnan().all()
    assert found.x[1].isfinite().all()
    assert path_iou(cut(found.x, found.there, 144), target(TRUE)).isnan()


@pytest.mark.parametrize("columns", [16, 1])
def test_mirrored_twice_is_the_identity_and_once_is_the_mirror_image(columns: int) -> None:
    predictions = drawn(3, 2, ROWS, columns + 1)
    torch.testing.assert_close(mirrored(mirrored(predictions)), predictions)
    before, after = lines_of(predictions), lines_of(mirrored(predictions))
    torch.testing.assert_close(after.x, 1 - before.x.flip(-2))
    assert torch.equal(after.there, before.there.flip(-2))
    torch.testing.assert_close(after.spread, before.spread.flip(-2))


def test_a_cut_line_is_seen_from_its_beginning_to_its_end() -> None:
    there = torch.tensor([[0.0, 0.5, 1, 1], [0.1, 0.2, 0.3, 0.1]])
    found = cut(torch.rand(2, 4), there, 16)
    assert found.seen[0].tolist() == [False] * 6 + [True] * 10
    assert not found.seen[1].any()
