"""Many rows of a tensor that come a few at a time, between large buffers that come and go.

Held as they come until the last, for `torch.cat`, they leave holes in the heap, small where the buffers were, that the
next large buffer does not fit into: it grows by gigabytes.  So they have one place, made when the first come.
"""

from __future__ import annotations

from collections.abc import Iterable

import torch
from torch import Tensor


class Rows:
    """At most `most` rows."""

    def __init__(self, most: int) -> None:
        self.most, self.count = most, 0
        self.place = torch.empty(0)

    def append(self, part: Tensor) -> None:
        """Rows [n, ...], of the shape, type and device of those before."""
        if not self.count:
            self.place = part.new_empty(self.most, *part.shape[1:])
        self.place[self.count : self.count + len(part)] = part
        self.count += len(part)

    @property
    def whole(self) -> Tensor:
        """All that came."""
        return self.place[: self.count]


def joined(parts: Iterable[Tensor], count: int) -> Tensor:
    """Parts that have `count` rows in all, one below the other."""
    rows = Rows(count)
    for part in parts:
        rows.append(part)
    return rows.whole
