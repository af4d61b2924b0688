"""What a network says of rail lines: what it means as lines, its loss, and how well lines agree with the true ones.

A prediction gives, for each line and row, a distribution over columns, whose mean is where the line crosses the row,
and whether the line is in that row: logits [L, R', C + 1] on R' rows, of which R is a multiple; the last is that of
being there.  With C = 1 the one number is the place itself, as a network that regresses it gives it.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from handful.data.rails.rows import UNIT

NEAR = 20 / 1920  # of the width: a point is right within 20 pixels of a picture 1,920 wide
BLUR = 6 / 512  # deviation of the Gaussian around the true place that the distribution is to be
STIFFNESS = 0.1
STEP = 0.05  # what a step of one unit from row to row costs a path, in nats; a longer one, the square of its length
FOUND = 0.85  # of its points right, and a line is found (TuSimple)


class Lines(NamedTuple):
    """Lines on R rows from the top, shares of the picture's sides, each [..., L, R].

    x; there: probability that the line is in the row; sure: probability that it is at x, to about a unit; spread:
    standard deviation of where it is if it is there, over the square root of `sure`.
    """

    x: Tensor
    there: Tensor
    spread: Tensor
    sure: Tensor


def means(predictions: Tensor) -> Tensor:
    """The mean of each row's distribution [..., L, R, C + 1] -> [..., L, R], or the place that a network regresses."""
    columns = predictions[..., :-1]
    return columns[..., 0] if columns.shape[-1] == 1 else columns.softmax(-1) @ centres(columns)


def centres(columns: Tensor) -> Tensor:
    """The middle of each column, in shares of the width, [C]."""
    count = columns.shape[-1]
    return (torch.arange(count, device=columns.device, dtype=columns.dtype) + 0.5) / count


def lines_of(predictions: Tensor) -> Lines:
    """What a network says [..., L, R, C + 1], as lines along their likeliest paths.

    The mean of a distribution with two peaks lies between two rails; a path keeps to one of them.  A place that is
    regressed is all that is known: nothing speaks against it.
    """
    columns, there = predictions[..., :-1], predictions[..., -1].sigmoid()
    if columns.shape[-1] == 1:
        return Lines(columns[..., 0], there, torch.zeros_like(there), torch.ones_like(there))
    places, shares = centres(columns), columns.softmax(-1)
    path = likeliest(columns.log_softmax(-1) * there.unsqueeze(-1))
    near = shares * ((places - places[path].unsqueeze(-1)).abs() < 1.01 * UNIT)
    sure = near.sum(-1).clamp(min=1e-12)
    x = (near @ places) / sure
    variance = ((near @ places.square()) / sure - x.square()).clamp(min=0)
    return Lines(x, there, (variance / sure).sqrt(), sure)


def likeliest(gains: Tensor) -> Tensor:
    """The columns of the path through rows [..., R, C] with the largest sum of gains less its steps' cost, [..., R].

    By dynamic programming (Viterbi 1967).
    """
    place = centres(gains) / UNIT
    cost = STEP * (place.unsqueeze(-1) - place).square()
    first, *others = gains.unbind(-2)
    best, came = first, []
    for row in others:
        before, origin = (best.unsqueeze(-2) - cost).max(-1)
        best = before + row
        came.append(origin)
    path = [best.argmax(-1, keepdim=True)]
    for origin in reversed(came):
        path.append(origin.gather(-1, path[-1]))
    return torch.cat(path[::-1], -1)


def smooth(lines: Lines, stiffness: float = STIFFNESS) -> Lines:
    """Lines whose rows agree: the x that minimise sum w (x - x_row)^2 + stiffness sum (second difference of x)^2.

    w: probability of being there over the variance of the place, in units: where a row is unsure, its neighbours say
    where the line goes.
    """
    rows = lines.x.shape[-1]
    weights = lines.there.double() / (lines.spread.double() / UNIT).square().clamp(min=0.1) + 1e-6
    bend = torch.zeros(rows - 2, rows, dtype=torch.float64, device=weights.device)
    for place, value in enumerate((1.0, -2.0, 1.0)):
        bend.diagonal(place).fill_(value)
    system = torch.diag_embed(weights) + stiffness * bend.mT @ bend
    factor, _ = torch.linalg.cholesky_ex(system)  # what is not finite, of a task that diverged, stays so: no error here
    x = torch.cholesky_solve((weights * lines.x).unsqueeze(-1), factor).squeeze(-1)
    return lines._replace(x=x.to(lines.x))


def settled(predictions: Tensor) -> Lines:
    """What a network says [..., L, R, C + 1], as lines whose rows agree; places that it regresses are as they are."""
    found = lines_of(predictions)
    return found if predictions.shape[-1] == 2 else smooth(found)


def mirrored(predictions: Tensor) -> Tensor:
    """Predictions [..., L, R', C + 1] of a mirrored picture, as those of the picture: left is right, L is 2."""
    other = predictions.flip(-3)
    columns, there = other[..., :-1], other[..., -1:]
    return torch.cat([columns.flip(-1) if columns.shape[-1] > 1 else 1 - columns, there], -1)


def on_rows(targets: Tensor, rows: int) -> Tensor:
    """Targets [..., L, R, 2] on fewer rows [..., L, rows, 2]: the mean place and the share that is spanned."""
    parts = targets.unflatten(-2, (rows, -1))
    there = parts[..., 1].sum(-1)
    x = (parts[..., 0] * parts[..., 1]).sum(-1) / there.clamp(min=1e-6)
    x = torch.where(there > 0, x, parts[..., 0].mean(-1))
    return torch.stack([x, there / parts.shape[-2]], -1)


def row_losses(predictions: Tensor, targets: Tensor) -> Tensor:
    """Loss of each image: predictions [..., L, R', C + 1], targets [..., L, R, 2] -> [...].

    Cross-entropy to a Gaussian around the true place, and smooth L1 of the mean in columns, over the rows where the
    line is; binary cross-entropy of its being there, over all.
    """
    x, there = on_rows(targets[..., :2], predictions.shape[-2]).unbind(-1)
    columns = predictions[..., :-1]
    count = columns.shape[-1]
    weights = there / there.sum((-1, -2), keepdim=True).clamp(min=1)
    apart = F.smooth_l1_loss(means(predictions) / UNIT, x / UNIT, reduction="none")
    if count > 1:
        places = centres(columns)
        wanted = (-(places - x.unsqueeze(-1)).square() / (2 * BLUR**2)).softmax(-1)
        apart = apart - (wanted * columns.log_softmax(-1)).sum(-1)
    present = F.binary_cross_entropy_with_logits(predictions[..., -1], there, reduction="none")
    return (weights * apart).sum((-1, -2)) + present.mean((-1, -2))


def spans(there: Tensor) -> tuple[Tensor, Tensor]:
    """Where each line begins and ends, in rows from the top, from the shares of the rows that it spans [..., R].

    It spans the interval of rows with the largest sum of shares less one half; of the rows at its ends, and just
    beyond, as much as their shares say.  Of a line that is nowhere likely both are 0.
    """
    gain = (there - 0.5).cumsum(-1)
    lowest, start = F.pad(gain, (1, 0))[..., :-1].cummin(-1)
    best, last = (gain - lowest).max(-1, keepdim=True)
    first = start.gather(-1, last)
    beside = F.pad(there, (1, 1))
    begin = first + 1 - there.gather(-1, first) - beside.gather(-1, first)
    end = last + there.gather(-1, last) + beside.gather(-1, last + 2)
    alone = first == last  # its share is that of one row
    begin = torch.where(alone, first + (1 - there.gather(-1, first)) / 2, begin)
    end = torch.where(alone, begin + there.gather(-1, first), end)
    none = best <= 0
    return begin.masked_fill(none, 0).squeeze(-1), end.masked_fill(none, 0).squeeze(-1)


def finer(values: Tensor, rows: int) -> Tensor:
    """Values on rows [..., R] between them and beyond, by straight lines: [..., rows]."""
    count = values.shape[-1]
    if count == rows:
        return values
    at = (torch.arange(rows, device=values.device, dtype=values.dtype) + 0.5) * count / rows - 0.5
    low = at.floor().clamp(0, count - 2).long()
    share = at - low
    return values[..., low] * (1 - share) + values[..., low + 1] * share


class Found(NamedTuple):
    """Lines cut to where they are: x [..., L, R], seen [..., L, R] bool."""

    x: Tensor
    seen: Tensor


def cut(x: Tensor, there: Tensor, rows: int) -> Found:
    """Lines [..., L, R'], each on one interval of so many rows."""
    begin, end = (limit.unsqueeze(-1) * rows / there.shape[-1] for limit in spans(there))
    middle = torch.arange(rows, device=x.device) + 0.5
    return Found(finer(x, rows), (middle >= begin) & (middle < end))


def path_iou(found: Found, targets: Tensor) -> Tensor:
    """IoU of the areas between the first two lines [...]: row by row, the overlap of two intervals."""
    left, right = found.x[..., 0, :], found.x[..., 1, :]
    both = found.seen[..., :2, :].all(-2) & (right > left)
    there = (targets[..., :2, :, 1] > 0.5).all(-2)
    true_left, true_right = targets[..., 0, :, 0], targets[..., 1, :, 0]
    overlap = (torch.minimum(right, true_right) - torch.maximum(left, true_left)).clamp(min=0) * (both & there)
    area = (right - left) * both + (true_right - true_left) * there - overlap
    return overlap.sum(-1) / area.sum(-1).clamp(min=1e-9)


def points_within(found: Found, targets: Tensor) -> Tensor:
    """Share of the true points that the lines come within 20 of 1,920 pixels of, [...]."""
    there = targets[..., 1] > 0.5
    right = ((found.x - targets[..., 0]).abs() <= NEAR) & found.seen
    return (right & there).sum((-1, -2)) / there.sum((-1, -2)).clamp(min=1)


def f1(found: Found, targets: Tensor, aspect: float) -> Tensor:
    """F1 of the lines [...], as TuSimple counts: of a found line 85 % of the true points are come close to.

    Close is within 20 of 1,920 pixels across the line: along a row by 1 / cos of its slant (aspect: width over height
    of the picture).  A line that is said to be where there is none counts against it.
    """
    there = targets[..., 1] > 0.5
    rows = targets.shape[-2]
    across = torch.gradient(targets[..., 0], dim=-1)[0] * rows * aspect  # of the height a row is, in widths
    near = NEAR * (1 + across.square()).sqrt()
    close = ((found.x - targets[..., 0]).abs() <= near) & found.seen & there
    is_line, said = there.any(-1), found.seen.any(-1)
    right = ((close.sum(-1) >= FOUND * there.sum(-1)) & is_line & said).sum(-1)
    return 2 * right / (is_line.sum(-1) + said.sum(-1)).clamp(min=1)


def gauge_error(found: Found, targets: Tensor) -> Tensor:
    """Mean distance of the first two lines from the true ones, as a share of the true gauge of the row, [...].

    Over the rows in which both true lines are; it does not ask whether the line was said to be there.
    """
    x, there = targets[..., :2, :, 0], (targets[..., :2, :, 1] > 0.5).all(-2)
    gauge = (x[..., 1, :] - x[..., 0, :]).clamp(min=1e-3)
    away = (found.x[..., :2, :] - x).abs().mean(-2) / gauge
    return (away * there).sum(-1) / there.sum(-1).clamp(min=1)


def limit_error(found: Found, targets: Tensor) -> Tensor:
    """Mean distance between the tops of the found and the true lines, as a share of the height, [...].

    A line that is not found ends at the bottom.
    """
    rows = targets.shape[-2]
    row = torch.arange(rows, device=targets.device)

    def top(seen: Tensor) -> Tensor:
        return torch.where(seen, row, rows).min(-1).values

    there = targets[..., 1] > 0.5
    away = (top(found.seen) - top(there)).abs() * there.any(-1)
    return away.sum(-1) / there.any(-1).sum(-1).clamp(min=1) / rows
