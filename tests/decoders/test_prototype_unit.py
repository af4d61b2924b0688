"""The prototype unit: its two products against sums written out, its losses against loops, and what it is besides."""

from __future__ import annotations

import math

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor
from torch.nn.attention import SDPBackend, sdpa_kernel

from handful.decoders.prototype_unit import Encodings, PrototypeUnit, compactness, separateness

SIZES = [(1, 1, 1), (3, 5, 4), (6, 4, 10), (2, 2, 7)]  # H, W, M: more prototypes than positions too


def made(height: int, width: int, prototypes: int, temperature: float = 1.0) -> tuple[PrototypeUnit, Tensor]:
    torch.manual_seed(0)
    unit = PrototypeUnit(7, prototypes, temperature).double()
    return unit, torch.randn(2, 7, height, width, dtype=torch.float64, requires_grad=True)


def literal(unit: PrototypeUnit, features: Tensor) -> dict[str, Tensor]:
    """As published: every vector of every prototype at every position, [n, N, M, C]."""
    x = F.normalize(features.flatten(2).transpose(1, 2), dim=-1)
    attention = F.softmax(F.linear(x, unit.positions.weight) / unit.temperature, dim=1)
    prototypes = F.normalize((attention.unsqueeze(-1) * x.unsqueeze(2)).sum(1), dim=-1)
    similarity = (x.unsqueeze(2) * prototypes.unsqueeze(1)).sum(-1)
    shares = F.softmax(similarity / unit.temperature, dim=-1)
    query = F.normalize((shares.unsqueeze(-1) * prototypes.unsqueeze(1)).sum(2), dim=-1)
    return Encodings(x, prototypes, attention, similarity, shares, query, query + x)._asdict()


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("temperature", [1.0, 0.1])
def test_its_encodings_are_those_of_the_sums_written_out(size: tuple[int, int, int], temperature: float) -> None:
    unit, features = made(*size, temperature)
    for name, expected in literal(unit, features).items():
        torch.testing.assert_close(getattr(unit(features), name), expected, msg=f"{name} differs")


def test_its_gradients_are_those_of_the_sums_written_out() -> None:
    unit, features = made(3, 5, 4)
    weights = torch.randn(2, 15, 7, dtype=torch.float64)

    def gradients(aggregation: Tensor) -> tuple[Tensor, ...]:
        return torch.autograd.grad((aggregation * weights).sum(), [features, unit.positions.weight])

    expected = gradients(literal(unit, features)["aggregation"])
    for found, wanted in zip(gradients(unit(features).aggregation), expected, strict=True):
        torch.testing.assert_close(found, wanted)


def test_shapes_sums_and_lengths() -> None:
    unit, features = made(6, 4, 10)
    found = unit(features)
    assert {name: tuple(value.shape) for name, value in found._asdict().items()} == {
        "ae": (2, 24, 7),
        "prototypes": (2, 10, 7),
        "attention": (2, 24, 10),
        "similarity": (2, 24, 10),
        "shares": (2, 24, 10),
        "query": (2, 24, 7),
        "aggregation": (2, 24, 7),
    }
    for ones in (
        found.attention.sum(1),
        found.shares.sum(2),
        *(v.norm(dim=-1) for v in (found.ae, *found[1:2], found.query)),
    ):
        torch.testing.assert_close(ones, torch.ones_like(ones))
    assert found.shares.amax(-1).div(found.shares.amin(-1)).max() <= math.exp(2)


def test_a_map_of_any_layout_gives_the_same() -> None:
    unit, features = made(6, 4, 10)
    for name, value in unit(features.to(memory_format=torch.channels_last))._asdict().items():
        torch.testing.assert_close(value, getattr(unit(features), name))


@pytest.mark.parametrize("size", SIZES)
def test_the_losses_are_their_loops(size: tuple[int, int, int]) -> None:
    unit, features = made(*size)
    found = unit(features)
    near, apart = compactness(found), separateness(found)
    for window in range(2):
        x, q, b = found.ae[window], found.prototypes[window], found.shares[window]
        distances = torch.stack([(x[n] - q[b[n].argmax()]).square().mean() for n in range(len(x))])
        torch.testing.assert_close(near[window], distances, atol=1e-11, rtol=1e-7)
        pairs = [(i, j) for i in range(len(q)) for j in range(i + 1, len(q))]
        closeness = [(1 - (q[i] - q[j]).square().sum()).clamp(min=0) for i, j in pairs]
        torch.testing.assert_close(apart[window], sum(closeness, torch.zeros(()).double()) / max(1, len(pairs)))


def test_derivatives_of_first_and_second_order() -> None:
    unit, _ = made(2, 2, 3)
    features = torch.randn(1, 7, 2, 2, dtype=torch.float64, requires_grad=True)

    def function(features: Tensor, weight: Tensor) -> tuple[Tensor, ...]:
        found = torch.func.functional_call(unit, {"positions.weight": weight}, (features,))
        return found.aggregation, compactness(found), separateness(found)

    inputs = (features, unit.positions.weight.detach().clone().requires_grad_())
    assert torch.autograd.gradcheck(function, inputs)
    assert torch.autograd.gradgradcheck(function, inputs)


def test_positions_that_are_all_zero_have_derivatives() -> None:
    unit, features = made(3, 5, 4)
    dead = features.detach().clone()
    dead[:, :, 1] = 0
    dead.requires_grad_()
    found = unit(dead)
    total = found.aggregation.square().sum() + compactness(found).sum()
    (first,) = torch.autograd.grad(total, dead, create_graph=True)
    (second,) = torch.autograd.grad(first.square().sum(), dead)
    assert all(value.isfinite().all() for value in (total, first, second))
    assert not found.ae[:, 5:10].any()


def test_windows_side_by_side_are_windows_one_by_one() -> None:
    unit, features = made(3, 5, 4)
    together = unit(features)
    for window in range(2):
        for name, value in unit(features[window : window + 1])._asdict().items():
            torch.testing.assert_close(getattr(together, name)[window], value[0])
    side_by_side = torch.func.vmap(lambda one: unit(one[None]).aggregation[0])(features)
    torch.testing.assert_close(side_by_side, together.aggregation)


@pytest.mark.parametrize("temperature", [1.0, 0.1])
def test_it_is_attention_of_one_head_whose_values_are_its_keys(temperature: float) -> None:
    """What note 003 compares: queries x, keys and values the prototypes, the dot product scaled by 1 / temperature."""
    unit, features = made(6, 4, 10, temperature)
    found = unit(features)
    with sdpa_kernel(SDPBackend.MATH):
        attended = F.scaled_dot_product_attention(found.ae, found.prototypes, found.prototypes, scale=1 / temperature)
    torch.testing.assert_close(F.normalize(attended, dim=-1), found.query)
    head = torch.nn.MultiheadAttention(7, 1, bias=False, batch_first=True, dtype=torch.float64)
    with torch.no_grad():  # its own scale is 1 / sqrt(C), so the queries come larger
        head.in_proj_weight.copy_(torch.eye(7).repeat(3, 1))
        head.in_proj_weight[:7] *= math.sqrt(7) / temperature
        head.out_proj.weight.copy_(torch.eye(7))
    attended, weights = head(found.ae, found.prototypes, found.prototypes)
    torch.testing.assert_close(weights, found.shares)
    torch.testing.assert_close(F.normalize(attended, dim=-1), found.query)


def test_at_temperature_1_prototypes_begin_as_one_and_the_same() -> None:
    torch.manual_seed(0)
    features = torch.randn(1, 12, 32, 32, dtype=torch.float64).relu()

    def least_alike(temperature: float) -> float:
        torch.manual_seed(1)
        prototypes = PrototypeUnit(12, 10, temperature).double()(features).prototypes
        return float((prototypes @ prototypes.mT).detach().min())

    assert least_alike(1.0) > 0.99
    assert least_alike(0.1) < 0.9


def test_lengths_of_features_do_not_count() -> None:
    unit, features = made(3, 5, 4)
    longer = features * torch.rand(2, 1, 3, 5, dtype=torch.float64).add(0.5)
    for name, value in unit(longer)._asdict().items():
        torch.testing.assert_close(value, getattr(unit(features), name))


def test_it_holds_no_vector_for_every_prototype_and_position() -> None:
    """Of the published size [n, N, M, C] no tensor is made, on the way back neither."""
    sizes: list[int] = []

    class Watch(torch.utils._python_dispatch.TorchDispatchMode):
        def __torch_dispatch__(self, func, types, args=(), kwargs=None):  # type: ignore[no-untyped-def]
            result = func(*args, **(kwargs or {}))
            sizes.extend(
                value.numel()
                for value in (result if isinstance(result, tuple) else (result,))
                if isinstance(value, Tensor)
            )
            return result

    torch.manual_seed(0)
    unit, features = PrototypeUnit(16, 10), torch.randn(2, 16, 8, 8, requires_grad=True)
    with Watch():
        unit(features).aggregation.square().sum().backward()
    assert max(sizes) == 2 * 16 * 64
