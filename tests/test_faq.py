"""What docs/faq.md says of the code and no other test shows."""

from __future__ import annotations

import torch

from handful.backbones import conv4
from handful.data.store import ImageStore
from handful.episodes import Episode, EpisodeSampler
from handful.methods import MAML


def test_the_order_of_rows_changes_nothing(store: ImageStore) -> None:
    torch.manual_seed(0)
    drawn = EpisodeSampler(store.train, way=3, shot=2, query=3).episodes(0, 2)
    episode = Episode(drawn.support_x.double(), drawn.support_y, drawn.query_x.double(), drawn.query_y)
    method = MAML(conv4(channels=4, input_shape=store.input_shape), inner_lr=0.1, inner_steps=2, norm_stats="batch")
    method.attach_head(3)
    method.double()
    support, query = torch.randperm(6), torch.randperm(9)
    shuffled = Episode(
        episode.support_x[:, support],
        episode.support_y[:, support],
        episode.query_x[:, query],
        episode.query_y[:, query],
    )
    torch.testing.assert_close(method.predict(shuffled), method.predict(episode)[:, :, query])
    assert not torch.allclose(method.predict(episode)[:, :, query], method.predict(episode))
