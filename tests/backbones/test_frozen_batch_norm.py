from __future__ import annotations

import torch
from torch import nn

from handful.backbones.frozen_batch_norm import FrozenBatchNorm
from handful.inner_loop import freeze_statistics, has_batch_norm
from handful.inner_loop.statistics import BatchNormStatistics


def pair() -> tuple[FrozenBatchNorm, nn.BatchNorm2d, torch.Tensor]:
    torch.manual_seed(0)
    frozen, norm = FrozenBatchNorm(3, eps=1e-3).double(), nn.BatchNorm2d(3, eps=1e-3).double()
    norm(torch.randn(8, 3, 4, 4, dtype=torch.float64) * 2 + 1)
    nn.init.uniform_(norm.weight)
    nn.init.uniform_(norm.bias)
    state = norm.state_dict()
    del state["num_batches_tracked"]
    frozen.load_state_dict(state)
    return frozen, norm, torch.randn(8, 3, 4, 4, dtype=torch.float64)


def test_it_is_batch_norm_in_eval_mode_whatever_its_mode() -> None:
    frozen, norm, maps = pair()
    torch.testing.assert_close(frozen.train()(maps), norm.eval()(maps))
    torch.testing.assert_close(frozen.eval()(maps), norm.eval()(maps))


def test_nothing_adapts_its_statistics() -> None:
    frozen, _, maps = pair()
    expected, before = frozen(maps), frozen.running_mean.clone()
    with BatchNormStatistics():
        torch.testing.assert_close(frozen(maps), expected)
    freeze_statistics(nn.Sequential(frozen), maps)
    assert torch.equal(frozen.running_mean, before)
    assert not has_batch_norm(frozen)


def test_scale_and_shift_can_be_learned() -> None:
    frozen, _, maps = pair()
    frozen(maps).square().sum().backward()
    assert frozen.weight.grad is not None
    assert frozen.bias.grad is not None
