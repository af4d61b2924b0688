"""Many tasks of one split, each of whose images is embedded once.

A task draws its images from a split that is much smaller than all tasks together: 10,000 tasks of 5 ways with 20 images
a class draw a million from mini-ImageNet's 12,000.  Where a feature depends on its own image alone, each is computed
once, and a task is a look-up and the head's algebra.
"""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from handful.episodes import Episode, EpisodeSampler
from handful.inner_loop import evaluating
from handful.memory import free_memory, sharing
from handful.methods import Metric
from handful.rows import joined

SHARE = 0.5  # of the free memory that features may take
VALUES = 2**22  # of the query features that a head is given at a time: with more its products leave the cache of a CPU


class EmbeddedTasks:
    """Predicts the first `tasks` tasks of a sampler, to be asked for in order and in chunks of one size."""

    def __init__(self, method: Metric, sampler: EpisodeSampler, tasks: int, chunk: int) -> None:
        self.method, self.sampler, self.tasks, self.chunk = method, sampler, tasks, chunk
        self.sharing = sharing(method.device)  # all processes are here, and will not be where they embed
        self.stop = 0  # the tasks before it have their features at hand
        self.ids: NDArray[np.int64] = np.empty(0, np.int64)
        self.features = torch.empty(0)

    def predict(self, episode: Episode, start: int, stop: int) -> Tensor:
        """Logits [1, B, N*Q, N] of the tasks start to stop, whose labels are those of `episode`."""
        if stop > self.stop:
            self._embed(start)
        drawn = self.sampler.indices(start, stop)
        support, query = (self._rows(ids.reshape(stop - start, -1)) for ids in drawn[1:])
        task = query.shape[1] * self.features[0].numel()
        together = max(1, VALUES // task) if self.features.device.type == "cpu" else len(query)
        parts = zip(*(rows.split(together) for rows in (support, episode.support_y, query)))
        with evaluating(self.method.network), torch.no_grad():
            logits = [self.method.compare(self.features[s], labels, self.features[q]) for s, labels, q in parts]
        return torch.cat(logits)[None]

    def _embed(self, start: int) -> None:
        """The features of all remaining tasks, or of as many as the memory holds."""
        chunks = -(-(self.tasks - start) // self.chunk)
        free = free_memory(self.method.device) / self.sharing
        budget = SHARE * free / (4 * np.prod(self.method.feature_shape))
        while True:
            self.stop = min(start + chunks * self.chunk, self.tasks)
            _, support, query = self.sampler.indices(start, self.stop)
            self.ids = np.unique(np.concatenate([support.ravel(), query.ravel()]))
            if len(self.ids) <= budget or chunks == 1:
                break
            chunks = -(-chunks // 2)
        self.features = joined(self.method.embedded(self.sampler.split, self.ids), len(self.ids))

    def _rows(self, ids: NDArray[np.int64]) -> Tensor:
        return torch.from_numpy(np.searchsorted(self.ids, ids)).to(self.features.device)
