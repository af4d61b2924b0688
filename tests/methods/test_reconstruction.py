"""What must hold exactly of reconstruction distances, F1 to F12 and X1, in float64 against plain formulas."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.autograd import gradcheck

from handful.errors import HandfulError
from handful.methods.reconstruction import MOST_RHO, Form, closed, direct, distances, fastest, woodbury

FORMS: list[Any] = [closed, woodbury, direct]
WAY, QUERIES, POSITIONS, D = 3, 4, 5, 8
SIZES = {"m < d": 5, "m = d": 8, "m > d": 12}
every_form = pytest.mark.parametrize("form", FORMS, ids=lambda form: form.__name__)


def randn(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


def number(value: float) -> Tensor:
    return torch.tensor(value, dtype=torch.float64)


def inputs(m: int, tasks: int = 2, rho: float = 0.8) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Queries, supports, penalties (another one for each class) and rho."""
    penalty = randn(tasks, WAY, seed=2).exp()
    return randn(tasks, QUERIES, POSITIONS, D), randn(tasks, WAY, m, D, seed=1), penalty, number(rho)


def plain(query: Tensor, support: Tensor, penalty: Tensor, rho: Tensor, gate: Tensor | None = None) -> Tensor:
    """The definition in loops over tasks, queries and classes: argmin by least squares, residual, mean."""
    tasks, queries, positions, d = query.shape
    found = torch.empty(tasks, queries, support.shape[1], dtype=query.dtype)
    for b in range(tasks):
        for n in range(support.shape[1]):
            g = torch.ones(d, dtype=query.dtype) if gate is None else gate[b, n]
            s = support[b, n] * g
            # |Q - W S|^2 + penalty |W|^2 as ordinary least squares of (S^T; sqrt(penalty) I) against (Q^T; 0)
            tall = torch.cat([s.T, penalty[b, n].sqrt() * torch.eye(len(s), dtype=query.dtype)])
            for q in range(queries):
                target = torch.cat([(query[b, q] * g).T, torch.zeros(len(s), positions, dtype=query.dtype)])
                weights = torch.linalg.lstsq(tall, target).solution.T
                residual = query[b, q] * g - rho * weights @ s
                found[b, q, n] = residual.square().sum(1).mean()
    return found


@every_form
@pytest.mark.parametrize("m", SIZES.values(), ids=SIZES)
@pytest.mark.parametrize("gated", [False, True])
def test_every_form_is_the_definition(form: Callable[..., Tensor], m: int, gated: bool) -> None:
    """(F1, F2) and with gates (X1)."""
    given = inputs(m)
    gate = 0.5 + randn(2, WAY, D, seed=3).square() if gated else None
    torch.testing.assert_close(form(*given, gate), plain(*given, gate), rtol=1e-10, atol=1e-12)


@every_form
@pytest.mark.parametrize("shape", [(25, 64), (125, 640), (60, 20)])
def test_float32_is_close_where_the_penalty_is_as_published(
    form: Callable[..., Tensor], shape: tuple[int, int]
) -> None:
    """(F1) features are not negative, as after ReLU, and divided by sqrt(d)."""
    m, d = shape
    query, support = randn(1, 3, POSITIONS, d).relu() / d**0.5, randn(1, WAY, m, d, seed=1).relu() / d**0.5
    penalty, rho = torch.full((1, WAY), m / d, dtype=torch.float64), number(1.0)
    exact = direct(query, support, penalty, rho)
    found = form(query.float(), support.float(), penalty.float(), rho.float())
    assert found.dtype == torch.float32
    torch.testing.assert_close(found.double(), exact, rtol=1e-5, atol=0)
    half = distances(query.bfloat16(), support.bfloat16(), penalty.float(), rho.float())
    assert half.dtype == torch.float32
    with torch.autocast("cpu", dtype=torch.bfloat16):
        found = distances(query.float(), support.float(), penalty.float(), rho.float())
    torch.testing.assert_close(found.double(), exact, rtol=1e-5, atol=0)


@every_form
def test_a_query_in_the_span_is_reconstructed_as_the_penalty_goes(form: Callable[..., Tensor]) -> None:
    """(F3) and by its own class alone."""
    _, support, _, _ = inputs(4)
    query = (randn(2, QUERIES, POSITIONS, 4, seed=4) @ support[:, :1]).view(2, QUERIES, POSITIONS, D)
    smallest = torch.linalg.svdvals(support[:, 0])[:, -1]
    squares = query.square().sum(-1).mean(-1)
    for size in (1e-1, 1e-3, 1e-5):
        found = form(query, support, number(size).expand(2, WAY), number(1.0))
        bound = (size / (smallest.square() + size)).square().unsqueeze(1) * squares
        assert (found[..., 0] <= bound + 1e-12).all()
        assert (found[..., 1:] > 0.1).all()
    assert found[..., 0].max() < 1e-6


@every_form
def test_a_query_orthogonal_to_the_span_is_left_whole(form: Callable[..., Tensor]) -> None:
    """(F4) for any penalty."""
    query, support, penalty, rho = inputs(5)
    support[..., 4:] = 0
    query[..., :4] = 0
    squares = query.square().sum(-1).mean(-1, keepdim=True).expand(-1, -1, WAY)
    torch.testing.assert_close(form(query, support, penalty, rho), squares, rtol=1e-12, atol=0)


@every_form
@pytest.mark.parametrize("m", SIZES.values(), ids=SIZES)
def test_distances_grow_with_the_penalty_as_the_spectrum_says(form: Callable[..., Tensor], m: int) -> None:
    """(F5) the filter penalty / (s^2 + penalty) of each singular direction, and |q|^2 in the end."""
    query, support, _, _ = inputs(m)
    _, s, right = torch.linalg.svd(support, full_matrices=False)
    along = torch.einsum("bqid,bnkd->bqnik", query, right).square()  # (v_k . q)^2
    squares = query.square().sum(-1)
    before = torch.zeros(2, QUERIES, WAY, dtype=torch.float64)
    for size in (1e-2, 1.0, 1e2, 1e9):
        found = form(query, support, number(size).expand(2, WAY), number(1.0))
        kept = (size / (s.square() + size)).square()[:, None, :, None]
        spectral = squares.unsqueeze(2) - along.sum(-1) + (kept * along).sum(-1)
        torch.testing.assert_close(found, spectral.mean(-1), rtol=1e-9, atol=1e-10)
        assert (found > before).all()
        before = found
    torch.testing.assert_close(found, squares.mean(-1, keepdim=True).expand_as(found), rtol=1e-6, atol=0)


@every_form
@pytest.mark.parametrize("m", [5, 12])
def test_what_distances_do_not_see(form: Callable[..., Tensor], m: int) -> None:
    """(F6) the order of support rows, orthogonal mixes of them, a rotation of all channels."""
    query, support, penalty, rho = inputs(m)
    expected = form(query, support, penalty, rho)
    order = torch.randperm(m, generator=torch.Generator().manual_seed(5))
    mix, rotation = torch.linalg.qr(randn(m, m, seed=6)).Q, torch.linalg.qr(randn(D, D, seed=7)).Q
    torch.testing.assert_close(form(query, support[:, :, order], penalty, rho), expected)
    torch.testing.assert_close(form(query, mix @ support, penalty, rho), expected)
    torch.testing.assert_close(form(query @ rotation, support @ rotation, penalty, rho), expected)
    assert not torch.allclose(form(query, support @ rotation, penalty, rho), expected)


@every_form
def test_a_support_set_twice_is_the_same_at_twice_the_penalty(form: Callable[..., Tensor]) -> None:
    """(F7)"""
    query, support, penalty, rho = inputs(5)
    twice = torch.cat([support, support], 2)
    torch.testing.assert_close(form(query, twice, 2 * penalty, rho), form(query, support, penalty, rho))


@every_form
def test_a_scale_of_features_is_a_scale_of_penalty_and_distance(form: Callable[..., Tensor]) -> None:
    """(F8)"""
    query, support, penalty, rho = inputs(5)
    scaled = form(3 * query, 3 * support, 9 * penalty, rho)
    torch.testing.assert_close(scaled, 9 * form(query, support, penalty, rho))


@every_form
def test_one_descriptor_each_is_a_squared_sine(form: Callable[..., Tensor]) -> None:
    """(F9) blind to the sign."""
    query, support = randn(2, QUERIES, 1, D), randn(2, WAY, 1, D, seed=1)
    cosine = torch.cosine_similarity(query, support.transpose(1, 2), dim=-1)
    expected = query.square().sum(-1) * (1 - cosine.square())
    tiny, one = number(1e-6).expand(2, WAY), number(1.0)
    torch.testing.assert_close(form(query, support, tiny, one), expected, rtol=1e-7, atol=1e-8)
    torch.testing.assert_close(form(query, -support, tiny, one), expected, rtol=1e-7, atol=1e-8)


@every_form
def test_without_rho_all_classes_are_alike(form: Callable[..., Tensor]) -> None:
    """(F10)"""
    query, support, penalty, _ = inputs(5)
    squares = query.square().sum(-1).mean(-1, keepdim=True).expand(-1, -1, WAY)
    torch.testing.assert_close(form(query, support, penalty, number(0.0)), squares)
    tiny = form(query, support, penalty, number(1e-9))
    torch.testing.assert_close(tiny.softmax(-1), torch.full_like(tiny, 1 / WAY), rtol=1e-7, atol=0)


@every_form
def test_orders_of_classes_queries_and_positions(form: Callable[..., Tensor]) -> None:
    """(F11)"""
    query, support, penalty, rho = inputs(5)
    expected = form(query, support, penalty, rho)
    classes, queries, positions = [2, 0, 1], [3, 1, 0, 2], [4, 2, 0, 1, 3]
    torch.testing.assert_close(form(query, support[:, classes], penalty[:, classes], rho), expected[..., classes])
    torch.testing.assert_close(form(query[:, queries], support, penalty, rho), expected[:, queries])
    torch.testing.assert_close(form(query[:, :, positions], support, penalty, rho), expected)


@every_form
@pytest.mark.parametrize("m", [2, 4])
@pytest.mark.parametrize("rho", [0.7, 1.0, 1.6])
def test_gradients_are_those_of_finite_differences(form: Callable[..., Tensor], m: int, rho: float) -> None:
    """(F12) in queries, supports, penalties, rho and gates."""
    tensors = [randn(2, 2, 2, 3), randn(2, 2, m, 3, seed=1), 0.5 + randn(2, 2, seed=2).square()]
    tensors += [number(rho), 0.5 + randn(2, 2, 3, seed=3).square()]
    leaves = [tensor.requires_grad_() for tensor in tensors]
    assert gradcheck(form, leaves)


@every_form
def test_a_descriptor_of_zeros_has_a_gradient(form: Callable[..., Tensor]) -> None:
    """As ReLU leaves some: its distance is 0 and its gradient 0, not 0/0."""
    query, support, penalty, rho = inputs(5)
    query[:, 0] = 0
    query.requires_grad_()
    found = form(query, support, penalty, rho)
    assert torch.equal(found[:, 0], torch.zeros(2, WAY, dtype=torch.float64))
    (gradient,) = torch.autograd.grad(found.sum(), query)
    assert torch.equal(gradient[:, 0], torch.zeros_like(gradient[:, 0]))
    assert gradient[:, 1:].abs().min() > 0


@every_form
@pytest.mark.parametrize("m", [5, 12])
def test_zero_rows_change_nothing(form: Callable[..., Tensor], m: int) -> None:
    """Neither distances nor gradients: this is how classes of unequal numbers of supports are stacked."""
    query, support, penalty, rho = inputs(m)
    filled = torch.cat([support, torch.zeros(2, WAY, 4, D, dtype=torch.float64)], 2)
    leaves = [support.requires_grad_(), filled.requires_grad_()]
    found, expected = (form(query, leaf, penalty, rho) for leaf in (filled, support))
    torch.testing.assert_close(found, expected, rtol=1e-12, atol=1e-12)
    (short,) = torch.autograd.grad(expected.square().sum(), leaves[0])
    (long,) = torch.autograd.grad(found.square().sum(), leaves[1])
    torch.testing.assert_close(long[:, :, :m], short, rtol=1e-10, atol=1e-12)
    torch.testing.assert_close(long[:, :, m:], torch.zeros_like(long[:, :, m:]), rtol=0, atol=1e-12)


@every_form
def test_a_constant_gate_is_a_penalty_and_a_scale(form: Callable[..., Tensor]) -> None:
    """(X1) c on both sides: penalty / c^2 and c^2 times the distance."""
    query, support, penalty, rho = inputs(5)
    constants = torch.tensor([[0.5, 1.0, 3.0], [2.0, 0.1, 1.5]], dtype=torch.float64)
    gate = constants.unsqueeze(2).expand(-1, -1, D)
    expected = constants.square().unsqueeze(1) * form(query, support, penalty / constants.square(), rho)
    torch.testing.assert_close(form(query, support, penalty, rho, gate), expected)


def test_a_gate_is_weighted_least_squares() -> None:
    """(X1) the gradient of |(Q - W S) diag(g)|^2 + penalty |W|^2 is zero at the W whose residual is the distance."""
    query, support, gate = randn(POSITIONS, D), randn(4, D, seed=1), 0.5 + randn(D, seed=2).square()
    gated, penalty = support * gate, 0.3
    weights = (query * gate) @ gated.T @ torch.linalg.inv(gated @ gated.T + penalty * torch.eye(4, dtype=torch.float64))
    weights.requires_grad_()
    residual = (query - weights @ support) * gate
    (slope,) = torch.autograd.grad(residual.square().sum() + penalty * weights.square().sum(), weights)
    assert slope.abs().max() < 1e-12
    one = number(1.0)
    found = distances(query[None, None], support[None, None], number(penalty).view(1, 1), one, gate[None, None])
    torch.testing.assert_close(found.squeeze(), residual.square().sum(1).mean().detach())


def test_a_factor_on_a_support_row_is_a_penalty_of_its_own() -> None:
    """(X1) w on row j: penalty / w^2 on its weight."""
    query, support, factors = (
        randn(POSITIONS, D),
        randn(4, D, seed=1),
        torch.tensor([1.0, 0.5, 2.0, 3.0], dtype=torch.float64),
    )
    penalty = 0.3
    own = torch.diag(penalty / factors.square())
    weights = query @ support.T @ torch.linalg.inv(support @ support.T + own)
    expected = (query - weights @ support).square().sum(1).mean()
    scaled = (factors[:, None] * support)[None, None]
    one = number(1.0)
    found = distances(query[None, None], scaled, number(penalty).view(1, 1), one)
    torch.testing.assert_close(found.squeeze(), expected)


@pytest.mark.parametrize("name", ["auto", "closed", "woodbury", "direct"])
def test_a_form_is_chosen_by_name(name: Form, monkeypatch: pytest.MonkeyPatch) -> None:
    called = []
    for form in FORMS:

        def spy(*args: Any, form: Any = form) -> Tensor:
            called.append(form.__name__)
            return form(*args)

        monkeypatch.setattr(f"handful.methods.reconstruction.{form.__name__}", spy)
    given = inputs(5)
    torch.testing.assert_close(distances(*given, form=name), plain(*given))
    assert called == ["closed" if name == "auto" else name]


def test_the_fastest_form_is_taken_by_size() -> None:
    sizes = {
        "5-way 1-shot": (1875, 25, 640, "closed"),
        "5-way 5-shot": (1875, 125, 640, "closed"),
        "5-way 20-shot": (1875, 500, 640, "woodbury"),
        "5-way 20-shot, many queries": (100_000, 500, 640, "closed"),
        "Conv-4, 5-way 1-shot": (1875, 25, 64, "closed"),
        "Conv-4, 5-way 5-shot": (1875, 125, 64, "woodbury"),
    }
    for name, (rows, m, d, expected) in sizes.items():
        assert fastest(rows, m, d, rho=1.0) == expected, name
    assert fastest(1875, 25, 640, rho=MOST_RHO) == "direct"


@pytest.mark.parametrize("rho", [2.0, 3.5])
def test_a_rho_beyond_two(rho: float) -> None:
    """The closed form says that it has no answer; the others, and auto, have."""
    given = inputs(5, rho=rho)
    with pytest.raises(HandfulError, match=rf"rho is {rho:.3g}, .* less than 2, .* direct or auto"):
        closed(*given)
    for found in (distances(*given), woodbury(*given)):
        torch.testing.assert_close(found, plain(*given))
