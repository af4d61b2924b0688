"""Rendered frames: the same for the same numbers, and their lines lie on the rails that are drawn."""

from dataclasses import replace

import numpy as np
import pytest

from handful.data.rails import pairs
from handful.data.scenes import GROUNDS, LIGHTS, Camera, draw_camera, draw_scene, ground, render, render_frame
from handful.data.scenes.render import FAINTEST, seen
from handful.errors import HandfulError


def test_the_same_numbers_give_the_same_frame_and_others_another() -> None:
    one, same, other = render_frame(3, 5), render_frame(3, 5), render_frame(3, 6)
    np.testing.assert_array_equal(one.pixels(), same.pixels())
    assert list(one.lines) == list(same.lines)
    assert all(np.array_equal(line, same.lines[name]) for name, line in one.lines.items())
    assert not np.array_equal(one.pixels(), other.pixels())
    assert not np.array_equal(one.pixels(), render_frame(4, 5).pixels())


def test_frames_are_sound_whatever_is_drawn() -> None:
    for index in range(14):
        frame = render_frame(0, index)
        assert frame.pixels().shape == (288, 512, 3)
        assert frame.faults() == []
        assert ("left-hand left" in frame.lines) <= ("switch" in frame.tags)
        assert {"left", "right"} <= set(frame.lines) or "fog" in frame.tags
        assert all((np.diff(line[:, 1]) < 0.5).all() for line in frame.lines.values())


@pytest.mark.parametrize("light", LIGHTS)
def test_every_light_can_be_asked_for(light: str) -> None:
    frame = render_frame(1, 2, light=light, ground="ballast")
    assert frame.tags[:2] == ("ballast", light)
    assert 3 < frame.pixels().mean() < 230


def test_night_is_darker_than_day() -> None:
    day, night = (render_frame(1, 0, light=light, ground="ballast").pixels().mean() for light in ("day", "night"))
    assert night < 0.6 * day


def test_lines_end_where_the_haze_hides_them() -> None:
    random = np.random.default_rng(4)
    camera, scene = draw_camera(random), draw_scene(random, "fog", "ballast")
    scene = replace(scene, light=replace(scene.light, haze=10.0))
    end = seen(scene, camera, np.zeros((camera.height_px, camera.width), bool))["left"][-1]
    _, below = camera.untilted(*end)
    assert float(camera.ahead(below)[0]) == pytest.approx(10 * np.log(1 / FAINTEST), abs=1)


def test_one_camera_for_many_frames_and_another_size() -> None:
    camera = Camera(height=3, focal=0.8, width=256, height_px=144)
    frames = [render_frame(0, index, camera=camera, ground="ballast") for index in range(3)]
    assert {(frame.width, frame.height) for frame in frames} == {(256, 144)}
    feet = [frame.lines["left"][0] for frame in frames]
    assert all(y > 142 for _, y in feet)  # also behind a dashboard
    assert np.ptp(np.array(feet), 0).max() < 10  # in the same place, but for the curve
    assert render_frame(0, 0, size=(320, 200)).pixels().shape == (200, 320, 3)
    large = render_frame(0, 1, size=(1024, 576)).lines["left"]
    small = render_frame(0, 1).lines["left"]
    at_half = np.interp(small[:, 1], ((large[::-1, 1] + 0.5) / 2 - 0.5), (large[::-1, 0] + 0.5) / 2 - 0.5)
    np.testing.assert_allclose(at_half[2:-2], small[2:-2, 0], atol=0.3)


@pytest.mark.parametrize(
    ("options", "words"),
    [({"light": "dya"}, "no light 'dya'; did you mean 'day'"), ({"ground": "ice"}, "no ground 'ice'")],
)
def test_what_there_is_not(options: dict[str, str], words: str) -> None:
    with pytest.raises(HandfulError, match=words):
        render_frame(0, 0, **options)  # type: ignore[arg-type]


@pytest.mark.parametrize("kind", GROUNDS)
def test_the_lines_lie_in_the_middle_of_the_rails_that_are_drawn(kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """With white rails on black ground, the light of each row is centred where the line says."""
    white = np.zeros((5, 3), np.float32)
    white[0] = 255
    monkeypatch.setattr("handful.data.scenes.ground.materials", lambda scene, random: white)
    checked = 0
    for seed in range(6):
        random = np.random.default_rng(seed)
        camera, scene = draw_camera(random), draw_scene(random, "day", kind)
        scene = replace(scene, tracks=scene.tracks[:1])
        scene = replace(scene, light=replace(scene.light, haze=1e9))
        first, drawn, _ = ground.ground(scene, camera, random)
        lines = seen(scene, camera, np.zeros((camera.height_px, camera.width), bool))
        for name in ("left", "right"):
            x, y = lines[name].T
            steep = np.abs(np.gradient(x)) < 2 * np.abs(np.gradient(y))
            rows = np.arange(max(first, int(y[-1]) + 12), int(y[0]))
            for row in rows[np.interp(rows, y[::-1], steep[::-1]) == 1]:
                at = float(np.interp(row, y[::-1], x[::-1]))
                near = np.arange(int(at) - 4, int(at) + 6)
                if near[0] < 0 or near[-1] >= camera.width:
                    continue
                bright = drawn[row - first, near, 0]
                assert bright.sum() > 0
                assert abs((bright * near).sum() / bright.sum() - at) < 0.35
                checked += 1
    assert checked > 300


def test_what_hides_the_rails_ends_the_lines() -> None:
    random = np.random.default_rng(0)
    camera, scene = draw_camera(random), draw_scene(random, "day", "ballast")
    hidden = np.zeros((camera.height_px, camera.width), bool)
    whole = seen(scene, camera, hidden)["left"]
    hidden[:200] = hidden[270:] = True
    cut = seen(scene, camera, hidden)["left"]
    assert whole[-1, 1] < 200 - 0.5 <= cut[-1, 1] < 202
    assert 268 < cut[0, 1] <= 269.5
    hidden[:] = True
    assert seen(scene, camera, hidden) == {}


def test_every_track_has_its_pair_of_lines() -> None:
    random = np.random.default_rng(1)
    names = set()
    for index in range(16):
        names |= {left for left, _ in pairs(render_frame(2, index).lines)}
    assert names == {
        f"{which}{part}left"
        for which in ("", "neighbour ", "second neighbour ", "left-hand ", "right-hand ")
        for part in ("", "inner ")
    }
    assert render(draw_scene(random), draw_camera(random)).image.dtype == np.uint8
