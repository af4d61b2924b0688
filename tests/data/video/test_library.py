"""The data sets of clips: their splits, their cache, their labels and masks, and what is refused."""

from __future__ import annotations

import io
import json
import os
import shutil
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from handful.data import FILMED, VideoClips, build, load
from handful.data.video import library, store
from handful.data.video.reading import at_size
from handful.errors import HandfulError
from handful.problems.video_anomaly import ClipTasks
from handful.recipe import DataRecipe
from handful.run import check_split, open_data
from tests.conftest import Command, ok, refused
from tests.data.video.conftest import LENGTHS, footage, truth, write_folder, write_video


def opened(root: Path, **options: Any) -> VideoClips:
    return load("video_folder", root, image_size=16, **{"window": 3, **options})


def clips(data: VideoClips) -> dict[str, list[int]]:
    return {name: ids.tolist() for name, ids in data.splits.items()}


def test_the_layout_of_the_field(field: Path) -> None:
    data = opened(field, window=2)
    # two training clips are few: the last fifth of each validates
    assert data.names[:3] == ["training/01, first part", "training/01, last part", "training/02, first part"]
    assert clips(data) == {"train": [0, 2], "val": [1, 3], "test": [4, 5, 6], "normal": [0, 1, 2, 3]}
    assert data.starts.tolist() == [0, 16, 20, 44, 50, 59, 70, 78]
    assert set(data.scenes) == {"field"}
    assert (data.problem, data.input_shape) == ("video_anomaly", (2, 16, 16))
    expected = [at_size(pixels, 16, 1) for pixels in footage(9, seed=len("testing"))]
    np.testing.assert_array_equal(data.frames[50:59], expected)
    assert data.abnormal is not None
    assert data.abnormal[:50].sum() == 0
    np.testing.assert_array_equal(data.abnormal[50:], truth().any((1, 2)))
    assert data.masks is not None
    some = np.array([55, 50, 77])
    np.testing.assert_array_equal(data.masks.of(some), truth()[some - 50])
    with pytest.raises(IndexError, match="frame 49 lies before the first mask, that of frame 50"):
        data.masks.of(np.array([49]))
    assert (data.test.labelled, data.train.labelled, data.split("normal").labelled) == (True, False, False)


def test_windows_reach_to_the_end_of_each_clip_and_never_over_it(field: Path) -> None:
    data = opened(field)
    firsts = data.test.windows
    assert firsts.tolist() == [*range(50, 56), *range(59, 67), *range(70, 75)]
    np.testing.assert_array_equal(data.clip_of(firsts), data.clip_of(data.test.target(firsts)))
    assert data.test.target(firsts)[-1] == len(data.frames) - 1
    windows = data.test.fetch(firsts[[0, -1]])
    assert (windows.shape, windows.dtype) == ((2, 4, 1, 16, 16), torch.uint8)
    np.testing.assert_array_equal(windows[1], data.frames[74:78])


def test_many_training_clips_give_an_eighth_of_them_to_validation(tmp_path: Path) -> None:
    for i in range(17):
        write_folder(tmp_path / "training" / str(i), footage(6, seed=i))
    write_folder(tmp_path / "testing" / "1", footage(6, seed=99))
    data = opened(tmp_path)
    assert clips(data) == {"train": [*range(15)], "val": [15, 16], "test": [17], "normal": [*range(17)]}
    assert data.names[2] == "training/2"  # 2 before 10
    assert data.abnormal is None
    assert not data.test.labelled
    assert "no labels" in data.info["note"]


def test_scenes_of_numbered_clips_have_their_own_normal_ones(tmp_path: Path) -> None:
    for i, name in enumerate(["01_1", "01_2", "02_1", "02_2", "03_1", "03_2", "03_3", "04_1"]):
        write_folder(tmp_path / "training" / name, footage(6, seed=i))
    write_folder(tmp_path / "testing" / "02_0014", footage(6, seed=99))
    write_folder(tmp_path / "testing" / "04_0001", footage(6, seed=98))
    data = opened(tmp_path)
    assert clips(data) == {"train": [*range(7)], "val": [7], "test": [8, 9], "normal": [2, 3, 7]}
    assert data.scenes == ["01", "01", "02", "02", "03", "03", "03", "04", "02", "04"]
    write_folder(tmp_path / "testing" / "05_0001", footage(6, seed=97))
    with pytest.raises(
        HandfulError, match=r"has test clips of scene 05 and no training clip of it.*add one to trainin"
    ):
        opened(tmp_path)


def test_videos_of_scenes_alone_give_their_ends_to_validation(tmp_path: Path) -> None:
    write_video(tmp_path / "scenes" / "road.mkv", footage(30))
    write_video(tmp_path / "scenes" / "shop.mkv", footage(40, seed=1))
    data = load("scenes", tmp_path, image_size=16, channels=3)
    assert clips(data) == {"train": [0, 2], "val": [1, 3], "test": [1, 3], "normal": [0, 2]}
    assert data.names == [f"{name}, {part} part" for name in ("road", "shop") for part in ("first", "last")]
    assert data.scenes == ["road", "road", "shop", "shop"]
    assert data.starts.tolist() == [0, 24, 30, 62, 70]
    assert data.frames.shape == (70, 3, 16, 16)
    assert data.input_shape == (12, 16, 16)
    assert data.info["note"] == (
        "There are no test clips: the last fifth of every clip both validates and tests, so that what was chosen is "
        "judged on the windows that it was chosen by, since that of road has 6 frames, and two parts take 40; and "
        "nothing says what is abnormal."
    )
    alone = opened(tmp_path / "scenes")
    assert clips(alone) == clips(data)
    assert set(alone.scenes) == {"scenes"}


def test_long_ends_validate_first_and_test_then(tmp_path: Path) -> None:
    write_video(tmp_path / "scenes" / "road.mkv", footage(160))
    write_video(tmp_path / "scenes" / "shop.mkv", footage(167, seed=1))
    data = load("scenes", tmp_path, image_size=16, window=3)
    assert clips(data) == {"train": [0, 3], "val": [1, 4], "test": [2, 5], "normal": [0, 3]}
    assert data.starts.tolist() == [0, 128, 144, 160, 294, 311, 327]
    parts = ("first", "middle", "last")
    assert data.names == [f"{name}, {part} part" for name in ("road", "shop") for part in parts]
    assert data.scenes == ["road"] * 3 + ["shop"] * 3
    assert not {*data.val.windows} & {*data.test.windows}
    assert data.test.windows.min() >= data.val.target(data.val.windows[:13]).max()  # of road, in time
    for split in (data.val, data.test):  # enough for tasks, of a window to learn from and two to predict
        ClipTasks(split, 1, 2)
    assert data.info["note"] == (
        "There are no test clips: of the last fifth of every clip the first half validates and the second tests, and "
        "nothing says what is abnormal."
    )
    assert "the last fifth of every clip both validates and tests" in load("scenes", tmp_path, window=4).info["note"]


def test_scenes_take_no_test_clips(tmp_path: Path) -> None:
    write_video(tmp_path / "scenes" / "training" / "road.mkv", footage(30))
    write_video(tmp_path / "scenes" / "testing" / "shop.mkv", footage(30))
    message = r"testing has 1 clip, but all clips of 'scenes' are normal and none tests; open .* as 'video_folder'\.$"
    with pytest.raises(HandfulError, match=message):
        load("scenes", tmp_path, image_size=16)
    write_video(tmp_path / "scenes" / "road.mkv", footage(30))
    shutil.rmtree(tmp_path / "scenes" / "training")
    with pytest.raises(HandfulError, match=message):
        load("scenes", tmp_path, image_size=16)


def test_a_recipe_opens_it_again(field: Path, tmp_path: Path) -> None:
    data = opened(field)
    again = open_data(DataRecipe(**data.recipe()))
    assert isinstance(again, VideoClips)
    assert again.describe() == data.describe()
    assert data.describe()["clips"]["test"][0] == "testing/01 (9 frames)"
    (tmp_path / "split.json").write_text(json.dumps(data.describe()))
    check_split(tmp_path, again)
    write_folder(field / "testing" / "frames" / "04", footage(7))
    np.save(field / "frame_labels_field.npy", np.zeros(35))
    (field / "pixel_masks_field.npz").unlink()
    with pytest.raises(HandfulError, match="split"):
        check_split(tmp_path, opened(field))


def test_the_cache_is_used_as_long_as_no_file_changes(
    field: Path, cache: Path, monkeypatch: pytest.MonkeyPatch, handful: Command
) -> None:
    first = opened(field)
    assert len(list(cache.iterdir())) == 1
    with monkeypatch.context() as frozen:
        frozen.setattr(store, "write", None)  # nothing is decoded again
        assert opened(field, window=2).digest == first.digest
        with pytest.raises(TypeError):
            opened(field, rebuild=True)
        with pytest.raises(TypeError):
            opened(field, channels=3)
    assert opened(field, rebuild=True).digest == first.digest
    shutil.rmtree(field / "testing" / "frames" / "03")
    np.save(field / "frame_labels_field.npy", truth()[:20].any((1, 2)))
    (field / "pixel_masks_field.npz").unlink()
    other = opened(field)
    assert other.digest != first.digest
    assert other.masks is None
    shown = ok(handful("data", "build", "video_folder", "--source", field, "--image-size", 16)).out
    assert (
        "video_folder: 70 frames [1, 16, 16], 8 of them abnormal, in 6 clips (2 train, 2 val, 2 test, 4 normal)"
        in shown
    )
    found = json.loads(
        ok(handful("data", "build", "video_folder", "--source", field, "--image-size", 16, "--json")).out
    )
    assert (found["frames"], found["abnormal"], found["digest"]) == (70, 8, other.digest)


def array_of(values: NDArray[np.uint8]) -> bytes:
    """As a file of it."""
    file = io.BytesIO()
    np.save(file, values)
    return file.getvalue()


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("clips.json", b"[" * 100_000),
        ("clips.json", b"{}"),
        ("frames.bin", b""),
        ("abnormal.npy", b"\x93NUMPY"),
        ("abnormal.npy", b""),
        ("masks.npy", b"PK"),
        ("masks.npy", array_of(np.zeros((3, 5), np.uint8))),
    ],
)
def test_what_is_kept_and_damaged_is_made_anew(field: Path, name: str, content: bytes) -> None:
    before = opened(field)
    pixels = before.frames.copy()
    for file in Path(os.environ["HANDFUL_CACHE"]).glob(f"video_folder-field-*-16-1/{name}"):
        file.write_bytes(content)
    after = opened(field)
    assert (after.digest, after.names) == (before.digest, before.names)
    assert after.masks is not None
    np.testing.assert_array_equal(after.frames, pixels)
    np.testing.assert_array_equal(after.masks.of(np.arange(50, 78)), truth())


def test_masks_that_unpack_to_far_more_than_their_frames(field: Path) -> None:
    with zipfile.ZipFile(field / "pixel_masks_field.npz", "w", zipfile.ZIP_DEFLATED) as archive:
        for name, array in (("bits", np.zeros((28, 10**6), np.uint8)), ("shape", np.array([5, 7]))):
            with archive.open(f"{name}.npy", "w") as member:
                np.lib.format.write_array(member, array)
    with pytest.raises(HandfulError, match=r"holds no masks \(bits is larger than 140 bytes"):
        opened(field)
    np.savez(field / "pixel_masks_field.npz", bits=np.zeros((28, 5), np.uint8), shape=[10**9, 10**9])
    with pytest.raises(HandfulError, match=r"holds no masks \(they are of 1000000000x1000000000 pixels"):
        opened(field)


def test_labels_in_a_file_a_clip(field: Path) -> None:
    (field / "frame_labels_field.npy").unlink()
    first = 0
    for i, count in enumerate(LENGTHS["testing"]):
        place = field / "testing" / "test_frame_mask"
        place.mkdir(exist_ok=True)
        np.save(place / f"{i + 1:02}.npy", truth()[first : first + count].any((1, 2)).astype(np.int8))
        first += count
    data = opened(field)
    assert data.abnormal is not None
    np.testing.assert_array_equal(data.abnormal[50:], truth().any((1, 2)))
    np.save(place / "02.npy", np.zeros(4))
    with pytest.raises(HandfulError, match=r"02\.npy has 4 labels, but clip 02 has 11 frames; give a label for each"):
        opened(field)
    (place / "02.npy").unlink()
    with pytest.raises(HandfulError, match=r"has 2 files of labels for 3 test clips, 02 without its fellow; name each"):
        opened(field)


def test_labels_and_masks_that_do_not_fit(field: Path) -> None:
    labels, masks = field / "frame_labels_field.npy", field / "pixel_masks_field.npz"
    bits = np.packbits(truth().reshape(28, -1), 1)
    for content, message in (
        (np.zeros(27), r"labels_field\.npy has 27 labels, but 3 test clips have 28 frames; give a label for each"),
        (
            np.full(28, 2),
            r"labels_field\.npy has the label 2; they are numbers, 1 where a frame is abnormal and else 0",
        ),
        (np.array(["no"] * 28), r"labels_field\.npy has the label no"),
    ):
        np.save(labels, content)
        with pytest.raises(HandfulError, match=message):
            opened(field)
    labels.write_bytes(b"none")
    with pytest.raises(HandfulError, match=r"labels_field\.npy holds no labels \(.*\); they are numbers"):
        opened(field)
    np.save(labels, np.zeros(28))
    np.savez(masks, bits=bits[:-1], shape=[5, 7])
    message = r"masks_field\.npz has masks \[27, 5\] of uint8, but 28 test frames of 7x5 pixels are \[28, 5\] of uint8"
    with pytest.raises(HandfulError, match=message):
        opened(field)
    np.savez(masks, pixels=bits)
    with pytest.raises(HandfulError, match=r"masks_field\.npz holds no masks \(.*bits.*\); they are `bits`, of numpy"):
        opened(field)
    np.savez(masks, bits=bits, shape=[5, 7])
    shutil.copy(labels, field / "labels.npy")
    with pytest.raises(
        HandfulError, match=r"frame_labels_field\.npy and labels\.npy both say what is abnormal; keep on"
    ):
        opened(field)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (
            {"window": 8},
            r"The clip testing/03 has 8 frames, but a window of 8 and the frame after it are 9; leave it out",
        ),
        ({"window": 20}, "The clip training/01 has 20 frames, but it trains and validates, .* are 42; leave it out"),
        ({"window": 1}, "window is 1, but motion shows in 2 frames at least; say 2 or more"),
        ({"channels": 2}, r"channels must be 1 \(grey\) or 3 \(colour\), not 2"),
        ({"image_size": 0}, "image_size must be at least 1 pixel, not 0"),
        ({"clips": 3}, r"'video_folder' does not take clips; leave it out \(it takes root, image_size"),
        ({"fold": 1}, "'video_folder' does not take fold; leave it out"),
        ({"root": "nowhere"}, r"nowhere does not hold clips, videos or folders of frames, in training/.*data\.root"),
    ],
)
def test_what_is_refused(field: Path, options: dict[str, Any], message: str) -> None:
    with pytest.raises(HandfulError, match=message):
        load("video_folder", **{"root": field, "window": 2, **options})


def test_more_that_is_refused(field: Path, tmp_path: Path, handful: Command, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(
        HandfulError, match=r"'ped2' was not found: name the folder that holds training/ and testing/.*or"
    ):
        load("ped2")
    with pytest.raises(HandfulError, match="There is no split 'tset'; did you mean 'test'"):
        opened(field).split("tset")
    with pytest.raises(HandfulError, match="There is no data set 'sprite'; did you mean 'sprites'"):
        load("sprite")
    with pytest.raises(HandfulError, match="'glyphs' does not take window"):
        load("glyphs", window=3)
    with pytest.raises(HandfulError, match="'scenes' has no download; it is made of: videos of fixed cameras"):
        build("scenes", download=True)
    with pytest.raises(HandfulError, match=r"clips is 0, but training takes 1 or more; give their number"):
        load("sprites", clips=0)
    shutil.rmtree(field / "training")
    with pytest.raises(HandfulError, match="does not hold clips"):
        opened(field)
    refused(handful("data", "build", "ped2", "--clips", "3"), "'ped2' does not take clips")
    assert all(name in ok(handful("data", "list")).out for name in FILMED)
    monkeypatch.setenv("HANDFUL_DATA", str(tmp_path))
    write_video(tmp_path / "scenes" / "road.mkv", footage(30))
    assert load("scenes", image_size=16).names[0] == "road, first part"


def test_rendered_clips(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(library, "TEST", 1)
    monkeypatch.setattr(library, "VAL", 1)
    data = load("sprites", clips=4, image_size=32)
    assert clips(data) == {"train": [0, 1, 2, 3], "val": [4, 5], "normal": [6, 7], "test": [8, 9, 10]}
    of = {name: {data.scenes[i] for i in ids} for name, ids in clips(data).items()}
    assert of == {
        "train": {"train scene 0", "train scene 1"},
        "val": {"val scene 0"},
        "normal": {"test scene 0"},
        "test": {"test scene 0"},
    }
    assert data.abnormal is not None
    assert data.masks is not None
    tested = np.arange(data.starts[8], data.starts[-1])
    assert data.abnormal[: tested[0]].sum() == 0
    assert 0.2 < data.abnormal[tested].mean() < 0.9
    np.testing.assert_array_equal(data.masks.of(tested).any((1, 2)), data.abnormal[tested])
    assert "rendered" in data.info["note"]
    again = load(**data.recipe())
    assert isinstance(again, VideoClips)
    assert (again.digest, again.split_hash) == (data.digest, data.split_hash)


def test_ped2_as_it_is_published(real_data: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    if not (real_data / "ped2").is_dir():
        pytest.skip(f"no UCSD Ped2: {real_data} has no ped2/")
    monkeypatch.setenv("HANDFUL_DATA", str(real_data))
    data = load("ped2", image_size=32)
    assert data.frames.shape == (4560, 1, 32, 32)
    assert {name: len(ids) for name, ids in data.splits.items()} == {"train": 14, "val": 2, "test": 12, "normal": 16}
    assert np.diff(data.starts)[data.test.clips].tolist() == [
        180,
        180,
        150,
        180,
        150,
        180,
        180,
        180,
        120,
        150,
        180,
        180,
    ]
    assert data.abnormal is not None
    assert data.masks is not None
    assert (data.abnormal.sum(), data.masks.size) == (1648, (240, 360))
    targets = data.test.target(data.test.windows)
    assert (len(targets), data.abnormal[targets].sum()) == (1962, 1620)
    np.testing.assert_array_equal(data.masks.of(targets).any((1, 2)), data.abnormal[targets])
    whole = [data.abnormal[a:b].all() for a, b in zip(data.starts, data.starts[1:])]
    assert [data.names[i] for i, all_of_it in enumerate(whole) if all_of_it] == [
        f"testing/{i:02}" for i in (8, 9, 10, 11)
    ]


def test_real_scenes(real_data: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    if not (real_data / "scenes").is_dir():
        pytest.skip(f"no scenes: {real_data} has no scenes/")
    monkeypatch.setenv("HANDFUL_DATA", str(real_data))
    data = load("scenes", image_size=32)
    assert (len(data.frames), len(data.train.windows), len(data.val.windows)) == (480, 368, 80)
    assert "has 24 frames, and two parts take 40" in data.info["note"]
