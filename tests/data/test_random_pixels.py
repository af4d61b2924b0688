from handful.data import load


def test_shape_split_and_warning(cache: object) -> None:
    store = load("random")
    assert store.images.shape == (32460, 1, 28, 28)
    assert store.images.nbytes == 25_448_640
    assert (len(store.train), len(store.val), len(store.test)) == (1028, 172, 423)
    assert "only be chance" in store.info["note"]
    assert 126 < store.images[::50].mean() < 129


def test_seeded() -> None:
    first = load("random").digest
    assert load("random", rebuild=True).digest == first
    assert load("random", seed=1).digest != first
    assert load("random").digest == first
