"""What is fuzzed: valid folders, which file of them is damaged, and what reads them as a user would."""

from __future__ import annotations

import json
import os
import pickle
import re
import shutil
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import torch
import yaml
from hypothesis import strategies as st
from PIL import Image

import handful as hf
from fuzz_forms import (
    JSON,
    JSON_LINES,
    MASK,
    NPY,
    PICKLE,
    PICKLE_OR_ZIP,
    PICTURE,
    RAW,
    SETTINGS,
    TENSORS,
    TEXT,
    VIDEO,
    YAML,
    ZIP,
    Form,
    Target,
    archived,
    clip,
    mostly,
    saved,
    scratched,
)
from handful.backbones.weights import read_weights
from handful.data import check, load
from handful.data.cub import table
from handful.data.lists import class_list, picture_list
from handful.data.pictures import Picture, archive_members, decode
from handful.data.rails import load_frames
from handful.data.rails.frame import Frame
from handful.data.rails.store import stored as stored_frames
from handful.data.store import open_store, write_store
from handful.data.video.store import Clip, Truth
from handful.data.video.store import stored as stored_clips
from handful.episodes import EpisodeSampler
from handful.errors import HandfulError
from handful.files import read_tensors, write_tensors
from handful.model import LineModel, VideoModel, load_model
from handful.model.rails.card import LineCard
from handful.model.rails.model import unfitted as unfitted_lines
from handful.model.video.card import VideoCard
from handful.model.video.network import unfitted as unfitted_video
from handful.recipe import load_recipe, parse, read_data_recipe
from handful.report import write_report
from handful.run import Run
from handful.training import train_recipe

SIDE = 16
CLASSES = ("circle", "square", "star")
CONV4 = {"name": "conv4", "channels": 4, "downsample": "stride", "pooling": "mean"}
RECIPE = """name: tiny
seed: 1
data: {name: folder, root: ROOT, image_size: 16, channels: 1}
backbone: {name: conv4, channels: 4, downsample: stride, pooling: mean}
method: {name: maml, inner_lr: 0.4, inner_steps: 1}
pretrain: {steps: 2, batch: 2, validate_every: 2, validation_tasks: 2}
train: {way: 2, shot: 1, query: 2, tasks_per_step: 2, steps: 4, lr: 0.01, validate_every: 2, validation_tasks: 2}
evaluate: {tasks: 2, inner_steps: 2, also: [{norm_stats: support}]}
"""


# The valid folders


def recipes(folder: Path) -> None:
    """A recipe, changes of it, and a data section."""
    text = RECIPE.replace("ROOT", "photos")
    (folder / "recipe.yaml").write_text(text, encoding="utf-8")
    changes = ["train.steps=10", "backbone.channels=8", "evaluate.also=[{way: 3}]", "data.root=photos", "seed=3"]
    (folder / "changes.txt").write_text("\n".join(changes), encoding="utf-8")
    (folder / "data.yaml").write_text("{name: folder, root: photos, image_size: 16, channels: 1}", encoding="utf-8")


def photographs(folder: Path, classes: int = 6, each: int = 5) -> Path:
    """Class folders."""
    random = np.random.default_rng(0)
    for number in range(classes):
        (place := folder / f"class{number}").mkdir(parents=True)
        for picture in range(each):
            Image.fromarray(random.integers(0, 256, (SIDE, SIDE), np.uint8)).save(place / f"{picture}.png")
    return folder


def store(folder: Path) -> None:
    """A store of images."""
    pixels = np.random.default_rng(0).integers(0, 256, (24, 1, 8, 8), np.uint8)
    write_store(
        folder / "store",
        images=iter(pixels),
        labels=np.repeat(np.arange(6), 4).tolist(),
        image_shape=(1, 8, 8),
        class_names=[f"class{number}" for number in range(6)],
        splits={"train": [0, 1], "val": [2, 3], "test": [4, 5]},
        info={"name": "fuzzed"},
    )


def few_clips() -> list[Clip]:
    """Clips to store."""
    pixels = np.random.default_rng(0).integers(0, 256, (12, 16, 16), np.uint8)
    return [Clip(f"training/{number}", "", lambda: pixels) for number in range(3)]


def few_truths(lengths: list[int]) -> Truth:
    """What is abnormal in them."""
    return Truth(np.ones(12, np.uint8), np.packbits(np.ones((12, 16), bool), 1), (4, 4))


def clip_cache(folder: Path) -> None:
    """Clips as they are kept in the cache."""
    stored_clips(folder / "kept", few_clips(), 16, 1, few_truths)


def few_frames(number: int) -> Frame:
    """A frame to store."""
    lines = {side: np.array([[foot, 63.0], [60.0, 20.0]]) for side, foot in (("left", 40.0), ("right", 80.0))}
    pixels = np.zeros((64, 128, 3), np.uint8)
    return Frame(Picture(f"{number}.jpg", "", "", lambda: pixels), 128, 64, lines)


def frame_cache(folder: Path) -> None:
    """Annotated frames as they are kept in the cache."""
    stored_frames(folder / "kept", 2, few_frames)


LEFT, RIGHT = [[40, 700], [300, 400], [500, 100]], [[900, 700], [800, 400], [700, 100]]


def rails(folder: Path) -> None:
    """Annotated frames in each of the formats, and masks."""
    own = {
        "image": "1.png",
        "width": 1280,
        "height": 720,
        "left": LEFT,
        "right": RIGHT,
        "rails": [LEFT],
        "tags": ["snow"],
    }
    lanes = {"raw_file": "1.png", "h_samples": [100, 400, 700], "lanes": [[500, 300, 40], [700, 800, 900]]}
    thing = {"label": "rail", "polyline-pair": [LEFT, RIGHT]}
    rs19 = {
        "frame": "rs00001",
        "imgWidth": 1280,
        "imgHeight": 720,
        "objects": [thing, {"label": "rail", "polyline": LEFT}, {"label": "car"}],
    }
    mask = np.zeros((72, 128), np.uint8)
    mask[20:, 30:33] = mask[20:, 90:93] = 17
    mask[20:, 33:90] = 12
    files = {
        "own/annotations.json": json.dumps({"records": [own, {**own, "image": "2.png"}]}),
        "ego/ego.json": json.dumps({"1.png": {"left_rail": LEFT, "right_rail": RIGHT}}),
        "lanes/lanes.json": f"{json.dumps(lanes)}\n{json.dumps({**lanes, 'raw_file': '2.png'})}\n",
        "rs19/jsons/rs19_val/rs00001.json": json.dumps(rs19),
    }
    for name, text in files.items():
        (folder / name).parent.mkdir(parents=True)
        (folder / name).write_text(text, encoding="utf-8")
    sizes = {"own": (1280, 720), "ego": (1920, 1080), "lanes": (1280, 720)}
    for place, size in sizes.items():
        for number in (1, 2):
            (folder / place / f"{number}.png").write_bytes(saved("L", "PNG", size, compress_level=1))
    for place, size in (("rs19", (1280, 720)), ("masks", (128, 72))):
        (folder / place / "jpgs" / "rs19_val").mkdir(parents=True)
        (folder / place / "jpgs" / "rs19_val" / "rs00001.jpg").write_bytes(saved("RGB", "JPEG", size))
    (folder / "masks" / "uint8" / "rs19_val").mkdir(parents=True)
    Image.fromarray(mask).save(folder / "masks" / "uint8" / "rs19_val" / "rs00001.png")


def footage(folder: Path) -> None:
    """Clips in the field's layout, their labels in one file or in one each, with masks."""
    random = np.random.default_rng(0)
    for place in ("one", "each"):
        for part, count in (("training", 24), ("testing", 9)):
            (own := folder / place / part / "frames" / "01").mkdir(parents=True)
            for number in range(count):
                Image.fromarray(random.integers(0, 256, (12, 16), np.uint8)).save(own / f"{number}.png")
    np.save(folder / "one" / "labels.npy", np.ones(9, np.uint8))
    bits = np.packbits(np.ones((9, 35), bool), 1)
    with (folder / "one" / "pixel_masks.npz").open("wb") as file:
        np.savez(file, bits=bits, shape=[5, 7])
    (folder / "each" / "testing" / "labels").mkdir()
    np.save(folder / "each" / "testing" / "labels" / "01.npy", np.zeros(9, np.uint8))


def archives(folder: Path) -> None:
    """Zip archives of pictures: one of Omniglot, and one whose members are known by their file names."""
    picture = saved("1", "PNG")
    names = [f"images_background/Greek/character0{i}/{j}.png" for i in (1, 2) for j in (1, 2)]
    (folder / "images_background.zip").write_bytes(archived([(name, picture) for name in names]))


def pickles(folder: Path) -> None:
    """Those of CIFAR-FS, and of tiered-ImageNet."""
    (folder / "cifar_fs").mkdir()
    (folder / "tiered").mkdir()
    few: Any = {"data": np.zeros((3, 4, 4, 3), np.uint8), "labels": [0, 0, 1]}
    (folder / "cifar_fs" / "CIFAR_FS_train.pickle").write_bytes(pickle.dumps(few, 2))
    images = [np.frombuffer(saved("RGB", "PNG"), np.uint8)] * 2
    labels = {"label_general": np.array([0, 1]), "label_specific": [0, 1], "label_general_str": ["a", "b"]}
    (folder / "tiered" / "train_images_png.pkl").write_bytes(pickle.dumps(images, 2))
    (folder / "tiered" / "train_labels.pkl").write_bytes(pickle.dumps(labels, 2))


def lists(folder: Path) -> None:
    """Lists that data sets are published with."""
    (folder / "train.csv").write_text("filename,label\na.jpg,n01\nb.jpg,n02\n", encoding="utf-8")
    (folder / "train.json").write_text(json.dumps({"class_roots": ["/data/n01", "/data/n02"]}), encoding="utf-8")
    (folder / "images.txt").write_text("1 001.a/b.jpg\n2 001.a/c.jpg\n", encoding="utf-8")
    torch.save({"weight": torch.zeros(2, 3)}, folder / "weights.pth")


def without_digest(folder: Path) -> None:
    """Weights that fit any card: else one that was damaged would be refused for the digest that they name alone."""
    file = folder / "model.safetensors"
    write_tensors(file, read_tensors(file)[0])


def inputs(folder: Path) -> None:
    """A picture and a video to predict."""
    (folder / "picture.png").write_bytes(saved("L", "PNG"))
    (folder / "clip.mp4").write_bytes(clip("mp4", "mpeg4"))


def classifier(folder: Path) -> None:
    """A model that compares features."""
    support = photographs(folder / "support", 3, 2)
    hf.fit(support, backbone=CONV4, method="protonet", open_set=True).save(folder / "model")
    without_digest(folder / "model")
    inputs(folder)


def line_model(folder: Path) -> None:
    """A model of rail lines, untrained."""
    card = LineCard(
        handful="0",
        problem="rail_lines",
        lines=["left", "right"],
        frames=5,
        width=64,
        height=32,
        size=(128, 64),
        mirror=False,
        backbone={"name": "resnet18"},
        decoder={"name": "row_distributions", "channels": 8},
        method="Adam",
        steps=1,
    )
    LineModel(unfitted_lines(card), card).save(folder / "model")
    without_digest(folder / "model")
    inputs(folder)


def watcher(folder: Path) -> None:
    """A model that watches a camera, its network untrained."""
    card = VideoCard(
        handful="0",
        problem="video_anomaly",
        window=4,
        channels=1,
        size=32,
        frame_size=(32, 24),
        frame_rate=10.0,
        frames=99,
        support=3,
        held_out_frames=49,
        mean=1.0,
        deviation=1.0,
        threshold=3.0,
        false_alarms=0.01,
        promised=True,
        backbone={"name": "unet", "widths": [3, 4]},
        decoder={"name": "next_frame", "prototypes": 3},
        method="maml",
        steps=1,
    )
    VideoModel(unfitted_video(card), card).save(folder / "model")
    without_digest(folder / "model")
    inputs(folder)


def trained(folder: Path) -> None:
    """A run, after all its steps, and its data."""
    photographs(folder / "photos", 14)
    recipe = parse(RECIPE.replace("ROOT", str(folder / "photos")), "recipe")
    train_recipe(recipe, folder / "run", quiet=True)
    shutil.copy(min((folder / "run" / "eval").glob("*.json")), folder / "run" / "eval" / "fuzzed.json")
    photographs(folder / "support", 2, 2)


def request(folder: Path) -> None:
    """A model to be served, and a request."""
    classifier(folder)
    part = b'--x\r\nContent-Disposition: form-data; name="pictures"; filename="a.png"\r\n\r\n%b\r\n'
    body = part % saved("L", "PNG") + b"--x--\r\n"
    head = b"POST /predict HTTP/1.1\r\nHost: testserver\r\nContent-Type: multipart/form-data; boundary=x\r\n"
    (folder / "request.http").write_bytes(head + b"Content-Length: %d\r\n\r\n" % len(body) + body)


# What reads them


def fresh(folder: Path, name: str = "out") -> Path:
    """A folder below to write into, with nothing in it."""
    shutil.rmtree(folder / name, ignore_errors=True)
    return folder / name


def read_recipe(folder: Path) -> None:
    """A recipe as `handful train` reads it."""
    recipe = load_recipe(str(folder / "recipe.yaml"))
    recipe.protocols()
    parse(recipe.to_yaml(), "written")


def read_changes(folder: Path) -> None:
    """`--set`, in the bytes of a command line."""
    load_recipe(str(folder / "recipe.yaml"), os.fsdecode((folder / "changes.txt").read_bytes()).splitlines())


def read_data_section(folder: Path) -> None:
    """`--on`, and the data that it names."""
    section = read_data_recipe(os.fsdecode((folder / "data.yaml").read_bytes()))
    if section.name in ("folder", "video_folder", "rails", "scenes", "ped2", "omniglot", "sinusoid"):
        open_data = load(section.name, section.root, image_size=section.image_size, seed=section.split_seed)
        assert open_data.name


def read_parts(folder: Path) -> None:
    """A recipe with what it makes of method and backbone, on data that is there, without training."""
    recipe = load_recipe(str(folder / "run" / "recipe.yaml"))
    plain = {"steps": 0, "validation_tasks": 2, "tasks_per_step": 2}
    content = recipe.model_dump()
    content["data"] = {"name": "folder", "root": str(folder / "photos"), "image_size": 16, "channels": 1}
    content["pretrain"] = None
    content["train"] = {**content["train"], **plain, "shot": 1, "query": 1}
    content["evaluate"] = {**content["evaluate"], "tasks": 2, "query": 1, "shot": 1, "also": []}
    train_recipe(parse(yaml.safe_dump(content), "recipe"), fresh(folder), quiet=True)


def read_store(folder: Path) -> None:
    """`handful data check`, and tasks of every split."""
    check(folder / "store")
    opened = open_store(folder / "store")
    for name in opened.splits:
        EpisodeSampler(opened.split(name), way=2, shot=1, query=1).episodes(0, 2)


def read_clip_cache(folder: Path) -> None:
    """Clips that were kept."""
    found = stored_clips(folder / "kept", few_clips(), 16, 1, few_truths)
    assert found.masks is not None
    assert found.abnormal is not None
    assert found.masks.of(np.arange(24, 36)).shape == (12, 4, 4)
    assert (len(found.names), len(found.scenes), len(found.starts), len(found.abnormal)) == (3, 3, 4, 36)


def read_frame_cache(folder: Path) -> None:
    """Annotated frames that were kept."""
    pixels, lines, names = stored_frames(folder / "kept", 2, few_frames)
    assert (pixels.shape, len(lines), len(names)) == ((2, 3, 288, 512), 2, 2)
    assert all(line.ndim == 2 for found in lines for line in found.values())


def read_frames(place: str) -> Callable[[Path], None]:
    """`handful data check` of annotated frames, and their pictures."""

    def read(folder: Path) -> None:
        str(check(folder / place))
        for frame in load_frames(folder / place):
            frame.pixels()

    return read


def read_footage(place: str) -> Callable[[Path], None]:
    """`handful data check` of clips, and the clips as data."""

    def read(folder: Path) -> None:
        str(check(folder / place))
        opened = load("video_folder", folder / place, image_size=16)
        if opened.masks is not None:
            opened.masks.of(opened.test.target(opened.test.windows))

    return read


def read_archive(folder: Path) -> None:
    """`handful data check` of Omniglot's archives, and the pictures of an archive by their names."""
    str(check(folder))
    for name, content in archive_members(folder / "images_background.zip", "get it anew").items():
        decode(Picture(name, "", "", content), (1, 8, 8), "get it anew")


def read_folder(place: str) -> Callable[[Path], object]:
    """`handful data check`."""
    return lambda folder: str(check(folder / place))


def read_model(folder: Path) -> None:
    """`handful predict` on a picture, and on a video where the model takes some."""
    model: Any = load_model(folder / "model")
    str(model.card)
    if not isinstance(model, VideoModel):
        model.predict([folder / "picture.png"])
    if not isinstance(model, hf.Model):
        model.predict([folder / "clip.mp4"])


@cache
def opened_model(folder: Path) -> Any:
    """A model that is whole."""
    return load_model(folder / "model")


def predict(name: str) -> Callable[[Path], object]:
    """`handful predict` by a model that is whole."""
    return lambda folder: list(opened_model(folder).predict([folder / name]))


def read_run(folder: Path) -> None:
    """`handful evaluate` and `handful fit --from`."""
    run = Run.open(folder / "run")
    hf.evaluate(run, tasks=2, way=2, shot=1, query=1)
    hf.fit(folder / "support", run=Run.open(folder / "run", without_data=True))


def report(folder: Path) -> None:
    """`handful report`."""
    write_report([folder / "run"], fresh(folder, "report.html"))


def resume(folder: Path) -> None:
    """`handful train` with a checkpoint that is there."""
    out = fresh(folder)
    shutil.copytree(folder / "run", out)
    shutil.rmtree(out / "pretrain", ignore_errors=True)
    train_recipe(Run.read_recipe(out), out, quiet=True)


@cache
def served(folder: Path) -> tuple[Any, dict[str, Any]]:
    """A client of the app that serves a model, and what the app says of its endpoints."""
    from starlette.testclient import TestClient

    from handful.serve.api import api
    from handful.serve.limits import Limits
    from handful.serve.teaching import Shelf, Taught
    from handful.serve.worker import Worker

    model = hf.Model.load(folder / "model")
    (uploads := folder / "uploads").mkdir()
    app = api("fuzzed", Shelf(Taught(model)), Worker(), Limits(upload=2**20, pictures=4, seconds=20), uploads)
    client = TestClient(app)
    client.__enter__()  # one event loop for all requests, as a server has
    return client, app.openapi()


def ask(folder: Path) -> None:
    """Send a request, in the bytes of HTTP, to the app; AssertionError for an answer that it does not document."""
    import h11

    client, described = served(folder)
    connection = h11.Connection(h11.SERVER)
    body, head = b"", None
    try:
        connection.receive_data((folder / "request.http").read_bytes())
        connection.receive_data(b"")
        while not isinstance(event := connection.next_event(), h11.EndOfMessage | h11.ConnectionClosed):
            head = event if isinstance(event, h11.Request) else head
            body += bytes(event.data) if isinstance(event, h11.Data) else b""
    except h11.RemoteProtocolError:  # the server's parser refuses it
        return
    if head is None:
        return
    path = head.target.decode("latin-1")
    answer = client.request(
        head.method.decode("latin-1"),
        path if path.startswith("/") else "/",
        headers=[(bytes(name), bytes(value)) for name, value in head.headers],
        content=body,
        follow_redirects=False,
    )
    documented = answers_of(described, head.method.decode("latin-1"), path)
    assert documented is None or str(answer.status_code) in documented, f"{answer.status_code} is not documented"
    assert answer.status_code < 500 or answer.status_code in (501, 503), f"{answer.status_code}: {answer.text[:200]}"
    if answer.status_code >= 400:
        assert list(answer.json()) == ["error"], answer.text[:200]
        raise HandfulError(answer.json()["error"])


def answers_of(described: dict[str, Any], method: str, target: str) -> dict[str, Any] | None:
    """The statuses that are documented for a request; None for a path that is not."""
    path = target.partition("?")[0]
    for place, ways in described["paths"].items():
        if re.fullmatch(re.sub(r"\\\{\w+\\\}", "[^/]+", re.escape(place)), path) and method.lower() in ways:
            return dict(ways[method.lower()]["responses"])
    return None


def requests_of(valid: bytes) -> st.SearchStrategy[bytes]:
    """Requests by schemathesis, of what the app says of its endpoints: such as it should answer, and should refuse."""
    import schemathesis
    from schemathesis import GenerationMode

    _, described = served(Path.cwd().parent / "given")
    schema = schemathesis.openapi.from_dict(described)
    asked = [
        operation.as_strategy(generation_mode=mode)
        for found in schema.get_all_operations()
        if (operation := found.ok())  # type: ignore[union-attr]  # else this process ends with its error
        for mode in (GenerationMode.POSITIVE, GenerationMode.NEGATIVE)
    ]
    return st.one_of(mostly(st.one_of(asked).map(as_request)), scratched(valid))


def as_request(case: Any) -> bytes:
    """A case of schemathesis in the bytes of HTTP."""
    import requests

    prepared = requests.Request(**case.as_transport_kwargs(base_url="http://testserver")).prepare()
    body: Any = prepared.body or b""
    body = body.encode("utf-8", "surrogatepass") if isinstance(body, str) else bytes(body)
    lines = [f"{prepared.method} {prepared.path_url} HTTP/1.1", "Host: testserver"]
    headers: dict[str, Any] = dict(prepared.headers)
    lines += [f"{name}: {value}" for name, value in headers.items()]
    return "\r\n".join(lines).encode("utf-8", "surrogatepass") + b"\r\n\r\n" + body


def nasty_requests(valid: bytes) -> list[bytes]:
    """Uploads that break off, of many parts, of names that lead out, of lengths that lie."""
    head, body = valid.split(b"\r\n\r\n", 1)
    picture = saved("L", "PNG")
    part = b'--x\r\nContent-Disposition: form-data; name="pictures"; filename="%b"\r\n\r\n%b\r\n'

    def sent(content: bytes, kind: bytes = b"multipart/form-data; boundary=x", way: bytes = b"POST /predict") -> bytes:
        lines = b"%b HTTP/1.1\r\nHost: testserver\r\nContent-Type: %b\r\nContent-Length: %d" % (way, kind, len(content))
        return lines + b"\r\n\r\n" + content

    names = [
        b"../../outside.png",
        b"/outside.png",
        b"C:\\outside",
        b"",
        b"\x00",
        b"a" * 9000,
        b"\xff\xfe",
        b'"; filename="',
    ]
    ways = [
        b"/models/..%2f..%2foutside.zip",
        b"/models/served.zip",
        b"/models/%00.zip",
        b"/models/served.onnx",
        b"/health",
    ]
    ways += [
        b"/gradio_api/file=/etc/hostname",
        b"/gradio_api/queue/join",
        b"/openapi.json",
        b"//",
        b"/../../etc/hostname",
    ]
    return [
        *(sent(part % (name, picture) + b"--x--\r\n") for name in names),
        *(sent(part % (b"a.png", content) + b"--x--\r\n") for content in PICTURE.nasty(picture)[:12]),
        *(
            sent(content)
            for content in (b"", b"--x", b"--x--\r\n", b"--x\r\n\r\n", body[:-9], body * 20, b"--x\r\n" * 5000)
        ),
        *(
            sent(body, kind)
            for kind in (b"", b"multipart/form-data", b"application/json", b"multipart/form-data; boundary=")
        ),
        *(sent(b"[" * 100_000, b"application/json", b"POST " + way) for way in ways),
        *(sent(b"", b"", b"GET " + way) for way in ways),
        *(sent(b"", b"", method + b" /predict") for method in (b"GET", b"PUT", b"DELETE", b"OPTIONS", b"TRACE", b"X")),
        *(head.replace(b"Length: ", b"Length: " + more) + b"\r\n\r\n" + body for more in (b"-", b"9", b"9" * 30, b"x")),
        sent(b'--x\r\nContent-Disposition: form-data; name="pictures"\r\n\r\nno file\r\n--x--\r\n'),
        sent(b"--x\r\n" + b"A: b\r\n" * 9000 + b"\r\n\r\n--x--\r\n"),
    ]


HTTP = Form(requests_of, nasty_requests)

TARGETS = [
    Target("recipe", recipes, "recipe.yaml", YAML, read_recipe),
    Target("recipe-set", recipes, "changes.txt", SETTINGS, read_changes),
    Target("recipe-data", recipes, "data.yaml", YAML, read_data_section),
    Target("recipe-parts", trained, "run/recipe.yaml", YAML, read_parts),
    Target("store-record", store, "store/store.json", JSON, read_store),
    Target("store-images", store, "store/images.npy", NPY, read_store),
    Target("store-labels", store, "store/labels.npy", NPY, read_store),
    Target("clips-record", clip_cache, "kept/clips.json", JSON, read_clip_cache),
    Target("clips-frames", clip_cache, "kept/frames.bin", RAW, read_clip_cache),
    Target("clips-labels", clip_cache, "kept/abnormal.npy", NPY, read_clip_cache),
    Target("clips-masks", clip_cache, "kept/masks.npy", NPY, read_clip_cache),
    Target("frames-record", frame_cache, "kept/frames.json", JSON, read_frame_cache),
    Target("frames-pixels", frame_cache, "kept/pixels.npy", NPY, read_frame_cache),
    Target("rails-own", rails, "own/annotations.json", JSON, read_frames("own")),
    Target("rails-ego-path", rails, "ego/ego.json", JSON, read_frames("ego")),
    Target("rails-tusimple", rails, "lanes/lanes.json", JSON_LINES, read_frames("lanes")),
    Target("rails-railsem19", rails, "rs19/jsons/rs19_val/rs00001.json", JSON, read_frames("rs19")),
    Target("rails-masks", rails, "masks/uint8/rs19_val/rs00001.png", MASK, read_frames("masks")),
    Target("video-labels", footage, "one/labels.npy", NPY, read_footage("one")),
    Target("video-labels-each", footage, "each/testing/labels/01.npy", NPY, read_footage("each")),
    Target("video-masks", footage, "one/pixel_masks.npz", ZIP, read_footage("one")),
    Target("archive", archives, "images_background.zip", ZIP, read_archive),
    Target("pickle-cifar-fs", pickles, "cifar_fs/CIFAR_FS_train.pickle", PICKLE, read_folder("cifar_fs")),
    Target("pickle-tiered-images", pickles, "tiered/train_images_png.pkl", PICKLE, read_folder("tiered")),
    Target("pickle-tiered-labels", pickles, "tiered/train_labels.pkl", PICKLE, read_folder("tiered")),
    Target("list-pictures", lists, "train.csv", TEXT, lambda folder: picture_list(folder / "train.csv")),
    Target("list-classes", lists, "train.json", JSON, lambda folder: class_list(folder / "train.json")),
    Target("list-cub", lists, "images.txt", TEXT, lambda folder: table(folder / "images.txt")),
    Target("weights-pth", lists, "weights.pth", PICKLE_OR_ZIP, lambda folder: read_weights(folder / "weights.pth")),
    Target("model-card", classifier, "model/card.json", JSON, read_model),
    Target("model-weights", classifier, "model/model.safetensors", TENSORS, read_model),
    Target("lines-card", line_model, "model/card.json", JSON, read_model),
    Target("watcher-card", watcher, "model/card.json", JSON, read_model),
    Target("watcher-weights", watcher, "model/model.safetensors", TENSORS, read_model),
    Target("run-recipe", trained, "run/recipe.yaml", YAML, read_run),
    Target("run-split", trained, "run/split.json", JSON, read_run),
    Target("run-environment", trained, "run/environment.json", JSON, read_run),
    Target("run-weights", trained, "run/checkpoints/best/model.safetensors", TENSORS, read_run),
    Target("run-checkpoint", trained, "run/checkpoints/last/training.safetensors", TENSORS, resume),
    Target("run-metrics", trained, "run/metrics.csv", TEXT, report),
    Target("report-environment", trained, "run/environment.json", JSON, report),
    Target("report-split", trained, "run/split.json", JSON, report),
    Target("report-result", trained, "run/eval/fuzzed.json", JSON, report),
    Target("fit-result", trained, "run/eval/fuzzed.json", JSON, read_run),
    Target("picture", classifier, "picture.png", PICTURE, predict("picture.png")),
    Target("picture-lines", line_model, "picture.png", PICTURE, predict("picture.png")),
    Target("video-lines", line_model, "clip.mp4", VIDEO, predict("clip.mp4")),
    Target("video-watched", watcher, "clip.mp4", VIDEO, predict("clip.mp4")),
    Target("served", request, "request.http", HTTP, ask),
]
