"""The picture of prototypes: its colours lie where the shares say."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from matplotlib.backends.backend_agg import FigureCanvasAgg

from handful.decoders import next_frame
from handful.errors import HandfulError
from handful.report.prototypes import prototype_map


@pytest.mark.parametrize(("channels", "prototypes"), [(1, 3), (3, 12), (1, 25)])
def test_each_place_has_the_colour_of_its_prototype(channels: int, prototypes: int) -> None:
    torch.manual_seed(0)
    height, width = 6, 9
    decoder = next_frame(prototypes=prototypes, features=4, frame=(channels, height, width))
    found = decoder.encodings(torch.randn(1, 4 + channels, height, width))
    frame = torch.rand(channels, 2 * height, 2 * width)
    figure = prototype_map(frame, found.attention[0], found.shares[0])
    before, over, *small = figure.axes
    drawn = np.asarray(over.images[1].get_array())
    nearest = found.shares[0].argmax(1).reshape(height, width)
    assert drawn.shape == (height, width, 3)
    for number in nearest.unique().tolist():
        assert len(np.unique(drawn[nearest == number].reshape(-1, 3), axis=0)) == 1
    assert over.get_title("left") == f"{len(nearest.unique())} of {prototypes} prototypes are nearest somewhere"
    assert np.asarray(before.images[0].get_array()).shape == (2 * height, 2 * width, 3)
    for number in range(prototypes):
        part = np.asarray(small[number].images[0].get_array())
        np.testing.assert_allclose(part.mean(), 1, rtol=1e-5)  # an even part is 1
        share = float((nearest == number).double().mean())
        assert small[number].get_title("left").startswith(f"{number}: {share:.0%}, up to {part.max():.3g}x")
    FigureCanvasAgg(figure).draw()


def test_tensors_of_another_map() -> None:
    with pytest.raises(HandfulError, match=r"a frame of 6x9 and 50 positions, which are no map of it; give attention"):
        prototype_map(torch.rand(1, 6, 9), torch.rand(50, 3), torch.rand(50, 3))
