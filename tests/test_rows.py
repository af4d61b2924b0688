from __future__ import annotations

import torch

from handful.rows import Rows, joined


def test_rows_come_a_few_at_a_time() -> None:
    parts = [torch.rand(3, 2), torch.rand(0, 2), torch.rand(4, 2)]
    assert torch.equal(joined(iter(parts), 7), torch.cat(parts))
    rows = Rows(9)
    for part in parts:
        rows.append(part)
    assert torch.equal(rows.whole, torch.cat(parts))


def test_none_come() -> None:
    assert joined([], 0).shape == (0,)
