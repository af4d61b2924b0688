"""The data sets of clips: `ped2`, `scenes`, `video_folder`, your own, and `sprites`, rendered."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterable
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from handful import wording
from handful.data.functions import SPLITS
from handful.data.pictures import Pixels, check_size
from handful.data.reader import places_of
from handful.data.video.layout import TESTING, Layout, layout_of, without_normal
from handful.data.video.reading import frames
from handful.data.video.sprites import VERSION as DRAWN
from handful.data.video.sprites import render
from handful.data.video.store import WINDOW, Clip, Stored, Truth, VideoClips, stored
from handful.errors import HandfulError

SIZE = 128  # pixels of a side
VERSION = 2  # of what is stored of files
HELD_OUT = 8  # one training clip of so many validates
TAIL = 5  # where clips are few, one frame of so many does
APART = 4  # windows that share no frame, which either half of these has where one half validates and the other tests
NO_TESTS = (
    "There are no test clips: of the last fifth of every clip the first half validates and the second tests, and "
    "nothing says what is abnormal."
)
NO_ROOM = (
    "There are no test clips: the last fifth of every clip both validates and tests, so that what was chosen is judged "
    "on the windows that it was chosen by, since that of {clip} has {frames}, and two parts take {need}; and nothing "
    "says what is abnormal."
)
NO_LABELS = "The test clips have no labels: nothing says what is abnormal."
CLIPS = 24  # of sprites to train on
A_SCENE = 3  # training clips of a scene, and test clips
VAL, TEST, SUPPORT = 2, 4, 2  # scenes that validate and that test, and normal clips of each of these
RENDERED = "The clips are rendered: a result on them says nothing of real cameras."
EXPECTS = {
    "ped2": "training/ and testing/ with the clips of UCSD Ped2, as videos or folders of frames",
    "scenes": "videos of fixed cameras",
    "video_folder": "clips, videos or folders of frames, in training/ and for tests in testing/",
}


class Filmed(NamedTuple):
    """A data set of clips: what it is, and the options that it takes."""

    about: str
    options: tuple[str, ...]


OPTIONS = ("image_size", "channels", "window")
FILMED = {
    "ped2": Filmed("UCSD Ped2: people on a walkway, and what else comes along it, with labels", ("root", *OPTIONS)),
    "scenes": Filmed("videos of fixed cameras, each a scene, all of it normal", ("root", *OPTIONS)),
    "video_folder": Filmed("your own clips: training/ and testing/, with labels or without", ("root", *OPTIONS)),
    "sprites": Filmed("people who walk through rendered scenes, and odd movers with exact labels", ("clips", *OPTIONS)),
}


class Kept(NamedTuple):
    """How clips are kept: pixels of a side, 1 channel (grey) or 3, and whether they are decoded in any case."""

    cache: Path
    size: int
    channels: int
    rebuild: bool


def open_video(
    name: str, cache: Path, root: str | Path | None, options: dict[str, Any], rebuild: bool = False
) -> VideoClips:
    """A data set of `FILMED` by name, its clips decoded or rendered first if need be.

    root: the folder of the clips, or one around it, $HANDFUL_DATA/name if not said; options: image_size (128),
    channels (1), window (4) and, of `sprites`, clips, the number of training clips; rebuild: decode in any case.
    Raises HandfulError: no clips, one that cannot be read or is too short, labels that do not fit, a bad option.
    """
    kept = Kept(cache, options.get("image_size", SIZE), options.get("channels", 1), rebuild)
    window = options.get("window", WINDOW)
    check_size(kept.size)
    if kept.channels not in (1, 3):
        raise HandfulError(f"channels must be 1 (grey) or 3 (colour), not {kept.channels}.")
    if window < 2:
        raise HandfulError(f"window is {window}, but motion shows in 2 frames at least; say 2 or more.")
    chosen = {"image_size": kept.size, "channels": kept.channels, "window": window}
    if name == "sprites":
        return rendered_clips(kept, window, {"clips": options.get("clips", CLIPS), **chosen})
    found = source_of(name, root)
    chosen["root"] = str(found.folder)
    clips = stored_clips(name, found, kept)
    if name == "scenes":
        clips = clips._replace(scenes=clips.names)  # a scene a clip
    elif fault := without_normal(found):
        raise HandfulError(fault)
    return divided(name, clips, len(found.training), window, chosen)


def source_of(name: str, root: str | Path | None) -> Layout:
    """The clips of a data set; HandfulError where there are none, or such as it has not."""
    found = next(filter(None, map(layout_of, places_of(name, root))), None)
    if name == "scenes" and found is not None and found.testing:
        raise HandfulError(
            f"{found.folder / TESTING} has {wording.count(len(found.testing), 'clip')}, but all clips of 'scenes' are "
            "normal and none tests; open the folder as 'video_folder'."
        )
    if found is None or not found.training:
        start = f"{root} does not hold {EXPECTS[name]}" if root else f"The data set {name!r} was not found"
        raise HandfulError(
            f"{start}: name the folder that holds {'it' if root else EXPECTS[name]}, by data.root in the recipe, by "
            f"--source (`data build`) or --data (`evaluate`, `compare`), or as {name}/ in HANDFUL_DATA."
        )
    return found


def stored_clips(name: str, found: Layout, kept: Kept) -> Stored:
    """The clips of a folder, from the cache as long as no file has changed."""
    key = hashlib.sha256(f"{VERSION} {found.folder.resolve()} {found.fingerprint()}".encode()).hexdigest()[:16]

    def pixels(path: Path) -> Iterable[Pixels]:
        return (frame.pixels for frame in frames(path, grey=kept.channels == 1))

    listed = zip(found.names, found.scenes, found.clips)
    clips = [Clip(label, scene, partial(pixels, path)) for label, scene, path in listed]
    place = re.sub(r"\W+", "_", found.folder.resolve().name)[:40]
    folder = kept.cache / f"{name}-{place}-{key}-{kept.size}-{kept.channels}"
    return stored(folder, clips, kept.size, kept.channels, found.truth, kept.rebuild)


def divided(name: str, clips: Stored, training: int, window: int, options: dict[str, Any]) -> VideoClips:
    """The clips of a folder with their split; the first `training` ones train and validate, the others test.

    The last eighth of the training clips validates.  Where that is none, or where there are no others, it is the last
    fifth of each of them, in time.  Without others the second half of that tests, or all of it where it is short.
    """
    tested, note = len(clips.names) > training, NO_LABELS
    if tested and training >= HELD_OUT:
        train, val = np.split(np.arange(training), [training - training // HELD_OUT])
        test = np.arange(training, len(clips.names))
    else:
        short = None if tested else without_room(clips, window)
        parts = 2 if tested or short else 3
        note = NO_LABELS if tested else short or NO_TESTS
        clips, training = cut(clips, training, window, parts), parts * training
        train, val, last = (np.arange(part, training, parts) for part in (0, 1, parts - 1))
        test = np.arange(training, len(clips.names)) if tested else last
    scenes = {clips.scenes[i] for i in test}
    normal = np.array([i for i in (range(training) if tested else train) if clips.scenes[i] in scenes])
    info = {"name": name, "clips": len(clips.names)}
    if clips.abnormal is None:
        info["note"] = note
    splits = {"train": train, "val": val, "test": test, "normal": normal}
    return VideoClips(name, **clips._asdict(), splits=splits, info=info, window=window, options=options)


def last_fifth(frames: int, window: int) -> int:
    """How many frames of a clip are its last fifth: one window and the frame after it at least."""
    return max(frames // TAIL, window + 1)


def without_room(clips: Stored, window: int) -> str | None:
    """The note that names the clip with the shortest last fifth, if it is too short to be two; None if it is not."""
    lengths = np.diff(clips.starts)
    shortest, need = int(lengths.argmin()), 2 * APART * (window + 1)
    frames = last_fifth(int(lengths[shortest]), window)
    if frames >= need:
        return None
    return NO_ROOM.format(clip=clips.names[shortest], frames=wording.count(frames, "frame"), need=need)


def cut(clips: Stored, first: int, window: int, parts: int) -> Stored:
    """Each of the first clips in two, its last fifth a clip of its own; or in three, either half of that one.

    Raises HandfulError: a clip that has no two windows.
    """
    named = ["first part", *["middle part"][: parts - 2], "last part"]
    starts, names, scenes = [0], list[str](), list[str]()
    for i, (name, scene) in enumerate(zip(clips.names, clips.scenes)):
        start, end = clips.starts[i : i + 2].tolist()
        if i < first and end - start < 2 * (window + 1):
            raise HandfulError(
                f"The clip {name} has {wording.count(end - start, 'frame')}, but it trains and validates, and two "
                f"windows of {window} with the frames after them are {2 * (window + 1)}; leave it out, or give a "
                "longer one."
            )
        tail = last_fifth(end - start, window)
        starts += [end - tail, *[end - tail // 2][: parts - 2], end] if i < first else [end]
        names += [f"{name}, {part}" for part in named] if i < first else [name]
        scenes += [scene] * (parts if i < first else 1)
    return clips._replace(starts=np.array(starts), names=names, scenes=scenes)


class Take(NamedTuple):
    """A clip to render: the seed, which is that of a split, the scene, the clip, and whether odd movers come along."""

    seed: int
    scene: int
    clip: int
    odd: bool = False

    @property
    def name(self) -> str:
        """`test scene 2, clip 101`."""
        return f"{SPLITS[self.seed]} scene {self.scene}, clip {self.clip}"


def rendered_clips(kept: Kept, window: int, options: dict[str, Any]) -> VideoClips:
    """Rendered clips: scenes to train on, to validate, and to test with odd movers, and normal clips of the latter.

    Raises HandfulError: no clips to train on.
    """
    if (count := options["clips"]) < 1:
        raise HandfulError(f"clips is {count}, but training takes 1 or more; give their number.")
    takes = {
        "train": [Take(0, i // A_SCENE, i % A_SCENE) for i in range(count)],
        "val": [Take(1, scene, clip) for scene in range(VAL) for clip in range(SUPPORT)],
        "normal": [Take(2, scene, A_SCENE + clip) for scene in range(TEST) for clip in range(SUPPORT)],
        "test": [Take(2, scene, clip, odd=True) for scene in range(TEST) for clip in range(A_SCENE)],
    }
    masks: list[NDArray[np.uint8]] = []

    def pixels(take: Take) -> Iterable[Pixels]:
        for shown in render(take.seed, take.scene, take.clip, odd=take.odd, size=kept.size):
            if take.odd:
                masks.append(np.packbits(shown.odd))
            yield shown.pixels

    def truth(_: list[int]) -> Truth:
        bits = np.stack(masks)
        return Truth(np.asarray(bits.any(axis=1), np.uint8), bits, (kept.size, kept.size))

    clips = [
        Clip(take.name, f"{SPLITS[take.seed]} scene {take.scene}", partial(pixels, take))
        for own in takes.values()
        for take in own
    ]
    folder = kept.cache / f"sprites-{DRAWN}-{count}-{kept.size}-{kept.channels}"
    made = stored(folder, clips, kept.size, kept.channels, truth, kept.rebuild)
    ends = np.cumsum([len(own) for own in takes.values()])
    splits = {name: np.arange(end - len(own), end) for (name, own), end in zip(takes.items(), ends)}
    info = {"name": "sprites", "version": DRAWN, "note": RENDERED}
    return VideoClips("sprites", **made._asdict(), splits=splits, info=info, window=window, options=options)
