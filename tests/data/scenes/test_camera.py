"""The pinhole camera: what is projected onto the ground's pixels is found on the ground again."""

import numpy as np

from handful.data.scenes import Camera, draw_camera


def test_a_level_camera_by_hand() -> None:
    camera = Camera(height=2, offset=0.5, pitch=0, focal=1.0, width=101, height_px=81)
    pixels, depth = camera.project(np.array([[0.5, 10.0], [1.5, 10.0]]), np.array([0.0, 2.0]))
    np.testing.assert_allclose(pixels, [[50, 40 + 101 * 2 / 10], [50 + 10.1, 40]])
    assert depth.tolist() == [10, 10]
    assert camera.horizon == 0


def test_yaw_turns_and_roll_tilts() -> None:
    far = np.array([[0.0, 1e6]])
    turned = Camera(pitch=0, yaw=0.1)
    (x, y) = turned.project(far)[0][0]
    assert abs(x - (turned.middle[0] - turned.pixels * np.tan(0.1))) < 0.01  # to the right: things move left
    assert abs(y - turned.middle[1]) < 0.01
    right = np.array([[4.0, 10.0]])
    assert Camera(pitch=0, roll=0.1).project(right)[0][0, 1] > Camera(pitch=0).project(right)[0][0, 1]


def test_pixels_find_their_place_on_the_ground_again() -> None:
    for seed in range(5):
        camera = draw_camera(np.random.default_rng(seed))
        ground = np.random.default_rng(seed).uniform([-8, 4], [8, 120], (50, 2))
        pixels, _ = camera.project(ground)
        across, below = camera.untilted(*pixels.T)
        assert (below > camera.horizon).all()
        z, a_pixel = camera.ahead(below)
        np.testing.assert_allclose(np.stack([across * a_pixel, z], 1), camera.own(ground), atol=1e-8)


def test_what_is_behind_is_no_error() -> None:
    pixels, depth = Camera().project(np.array([[0.0, -5.0]]))
    assert np.isfinite(pixels).all()
    assert depth[0] == 0.5
