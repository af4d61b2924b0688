from __future__ import annotations

import torch
import torch.nn.functional as F

from handful.episodes import Episode
from handful.problems import Classification


def test_loss_and_score_are_per_task() -> None:
    logits, targets = torch.randn(3, 7, 4), torch.randint(0, 4, (3, 7))
    problem = Classification()
    for b in range(3):
        torch.testing.assert_close(problem.loss(logits, targets)[b], F.cross_entropy(logits[b], targets[b]))
        right = sum(int(logits[b, i].argmax()) == int(targets[b, i]) for i in range(7))
        assert problem.score(logits, targets)[b].item() == right / 7
    assert problem.score(torch.stack([logits, logits]), targets).shape == (2, 3)


def test_pixel_floor_is_the_nearest_class_mean() -> None:
    generator = torch.Generator().manual_seed(0)
    support, query = (torch.rand(2, n, 1, 4, 4, generator=generator) for n in (6, 9))
    support_y, query_y = (torch.arange(3).repeat_interleave(k).expand(2, -1) for k in (2, 3))
    floors = Classification().floors(Episode(support, support_y, query, query_y))
    for b in range(2):
        right = 0
        for image, label in zip(query[b], query_y[b]):
            distances = [(image - support[b][support_y[b] == c].mean(0)).square().sum().item() for c in range(3)]
            right += distances.index(min(distances)) == int(label)
        assert floors["pixel class mean"]["accuracy"][b].item() == right / 9
    assert floors["chance"]["accuracy"].tolist() == [1 / 3, 1 / 3]
