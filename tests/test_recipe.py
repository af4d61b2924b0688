from __future__ import annotations

from pathlib import Path

import pytest
import torch
from pydantic import BaseModel

from handful.backbones import BACKBONES
from handful.decoders.linear import linear_head
from handful.errors import HandfulError
from handful.methods import METHODS
from handful.problems import Classification, RailLines, Regression, VideoAnomaly
from handful.recipe import (
    LARGEST_SEED,
    NO_MATTER,
    PartRecipe,
    load_recipe,
    parse,
    read_data_recipe,
    read_section,
    shipped_recipes,
)
from handful.registry import build
from tests.rails import HEIGHT, WIDTH

BASE = """
name: a
data: {name: glyphs}
backbone: {name: conv4}
method: {name: maml}
train: {steps: 5}
"""


def test_defaults_are_written_out_and_load_again() -> None:
    recipe = parse(BASE, "a.yaml").resolved()
    assert recipe.train.query == 15
    assert recipe.method.spec()["first_order"] is False
    assert parse(recipe.to_yaml(), "again") == recipe


def test_set_changes_one_key() -> None:
    recipe = parse(BASE, "a.yaml", ["train.steps=7", "method.inner_lr=0.1", "seed=3", "data.root=null"])
    assert (recipe.train.steps, recipe.method.spec()["inner_lr"], recipe.seed) == (7, 0.1, 3)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ("train.stepz=1", r"a.yaml: There is no recipe key 'train.stepz'; did you mean 'train.steps'\?"),
        ("train={trian: 1}", r"There is no recipe key 'train.trian'"),  # not that others are missing
        ("steps=10", r"There is no recipe key 'steps'; did you mean 'train.steps'\?"),
        ("trian=1", r"There is no recipe key 'trian'; did you mean 'train'\?"),
        ("method.inner_stepz=5", r"There is no option of method 'maml' 'inner_stepz'; did you mean 'inner_steps'\?"),
        ("method.inner_lrr=1", r"There is no option of method 'maml' 'inner_lrr'; did you mean 'inner_lr'\?"),
        ("method.name=mamal", r"There is no method 'mamal'; did you mean 'maml'\?"),
        ("backbone.name=conv5", r"There is no backbone 'conv5'; did you mean 'conv4'\?"),
        ("backbone.channels=many", r"backbone.channels is 'many' in the recipe, but backbone 'conv4' wants"),
        ("backbone.downsample=strife", r"backbone.downsample is 'strife'"),
        ("train.lr=-1", r"train.lr is -1: input should be greater than 0"),
        ("evaluate.also=[{querry: 1}]", r"There is no recipe key .*querry'; did you mean '.*query'\?"),
        ("train.steps.more=1", r"'steps' is a value, not a section"),
        ("train.steps", r"--set takes key=value"),
        ("train.lr=[1", r"--set train.lr: '\[1' is not valid YAML"),
        ("backbone.channels=0", r"backbone.channels is 0 in the recipe"),
        ("train.optimizer=sdg", r"train.optimizer is 'sdg': input should be 'adam' or 'sgd'"),
        (
            "train.schedule=cosin",
            r"train.schedule is 'cosin': input should be 'constant', 'cosine', 'linear' or 'step'",
        ),
        ("train.min_lr=-1", r"train.min_lr is -1: input should be greater than or equal to 0"),
        ("train.memory_gib=0", r"train.memory_gib is 0: input should be greater than 0"),
        (
            "train.augment=photo",
            r"is 'photo': input should be 'none', 'drawings', 'photos', 'cameras' or 'clips'",
        ),
        ("data.image_size=5000", r"data.image_size is 5000: input should be less than or equal to 4096"),
        ("train.workers=1000", r"train.workers is 1000: input should be less than or equal to 256"),
        ("evaluate.inner_steps=100000", r"evaluate.inner_steps is 100000: input should be less than or equal to 10000"),
        ("data.classes=0", r"data.classes is 0: input should be greater than or equal to 1"),
        ("method.rates=per_layer", r"method.rates is 'per_layer' in the recipe, but method 'maml' wants"),
        ("method.norm_stats=suport", r"method.norm_stats is 'suport' in the recipe"),
        ("train.memory_gib=.inf", r"train.memory_gib is inf: input should be a finite number"),
        ("train.min_lr=.inf", r"train.min_lr is inf: input should be a finite number"),
        ("train.min_lr=0.1", r"train.min_lr is 0.1: it should be at most lr, which is 0.001\."),
        ("train.lr=nan", r"train.lr is 'nan': input should be a finite number"),
        ("method.inner_lr=.nan", r"method.inner_lr is nan in the recipe, but method 'maml' wants: .*finite number"),
        ("seed=100000000000000000000", r"seed is 100000000000000000000: input should be less than or equal to"),
        ("data.split_seed=8796093022208", r"data.split_seed is 8796093022208: .*less than or equal to 8796093022207"),
        ("evaluate.norm_stats=suport", r"evaluate.norm_stats is 'suport': input should be 'batch'"),
    ],
)
def test_what_is_wrong_is_said_in_one_sentence(change: str, message: str) -> None:
    with pytest.raises(HandfulError, match=message):
        parse(BASE, "a.yaml", [change]).resolved()


@pytest.mark.parametrize("channels", [2**60, 2**100])
def test_sizes_of_which_nothing_can_be_made(channels: int) -> None:
    with pytest.raises(HandfulError, match=r"The backbone conv4 is too large to be made \(.*\); choose smaller"):
        build("backbone", BACKBONES, {"name": "conv4", "channels": channels}, input_shape=(1, 16, 16))
    with pytest.raises(HandfulError, match=r"A head of .* outputs is too large to be made"):
        linear_head(build("backbone", BACKBONES, {"name": "conv4"}, input_shape=(1, 16, 16)), channels)


def test_an_error_is_one_line_whatever_it_names() -> None:
    assert str(HandfulError("no file a\nb\x1b[2J\udce4\u2028ä")) == r"no file a\nb\x1b[2J\udce4\u2028ä"


def test_runs_of_before_say_whether_and_not_how_images_are_varied() -> None:
    for said, means in (("true", "drawings"), ("false", "none"), ("photos", "photos")):
        assert parse(BASE, "a.yaml", [f"train.augment={said}"]).train.augment == means


def test_the_largest_seed_seeds_every_step() -> None:
    torch.manual_seed(parse(BASE, "a.yaml", [f"seed={LARGEST_SEED}"]).seed * 1_000_003 + 10**15)
    with pytest.raises(HandfulError, match="seed is"):
        parse(BASE, "a.yaml", [f"seed={LARGEST_SEED + 1}"])


OTHERS = """
name=b seed=1
data.name=omniglot data.root=photos data.image_size=20 data.channels=3 data.rotations=true data.split_seed=1
data.fractions=[0.5,0.25,0.25] data.skip_bad=true data.classes=5 data.split=a data.cropped=true data.fold=1
data.scenes=5 data.targets=ego data.window=5 data.clips=5
backbone.name=resnet12 backbone.channels=32 decoder={name:linear}
method.name=anil method.inner_lr=0.3 method.inner_steps=3 method.backprop=recompute method.fast_ops=false
pretrain.head=cosine pretrain.batch=64 train.way=6 train.shot=2 train.query=14 train.tasks_per_step=4 train.memory_gib=1
evaluate.way=6 evaluate.shot=2 evaluate.query=14 evaluate.tasks=60 evaluate.inner_steps=3 evaluate.norm_stats=support
evaluate.support=clip_start evaluate.also=[{query:1}]
"""
LOOP = """
steps=7 augment=photos optimizer=sgd lr=0.5 head_lr=0.5 momentum=0.5 weight_decay=0.5 schedule=linear min_lr=0.0005
milestones=[3] decay=0.5 clip=0.5 validate_every=7 validation_tasks=7 workers=1
"""


def test_every_key_that_changes_a_number_changes_the_hash_and_no_other_does() -> None:
    base = BASE.replace("backbone:", "pretrain: {steps: 5}\nbackbone:")
    recipe = parse(base, "a.yaml").resolved()
    changes = OTHERS.split() + [f"{stage}.{change}" for stage in ("pretrain", "train") for change in LOOP.split()]
    for change in changes:
        key = change.partition("=")[0]
        other = parse(base, "a.yaml", [change.replace(":", ": ")])
        if key != "decoder":  # there is none for pictures
            other = other.resolved()
        assert (other.hash() == recipe.hash()) == (key in NO_MATTER), change
    keys = {change.partition("=")[0] for change in changes}
    for name, section in recipe:
        if isinstance(section, PartRecipe) or not isinstance(section, BaseModel):
            continue
        assert {f"{name}.{key}" for key in type(section).model_fields} <= keys
    assert set(NO_MATTER) <= keys


def test_one_number_has_one_hash_however_it_is_written() -> None:
    recipe = parse(BASE, "a.yaml", ["train.lr=1"])
    assert recipe.hash() == parse(BASE, "a.yaml", ["train.lr=1.0"]).hash()
    assert len(recipe.hash()) == 16
    assert parse(BASE, "a.yaml", ["train.lr=0.1"]).hash() != recipe.hash()


def test_missing_key() -> None:
    with pytest.raises(HandfulError, match=r"a.yaml: the key 'data' is missing"):
        parse(BASE.replace("data: {name: glyphs}", ""), "a.yaml")
    with pytest.raises(HandfulError, match=r"the keys name, backbone, method, train are missing"):
        parse("data: {name: glyphs}", "a.yaml")


@pytest.mark.parametrize(
    ("text", "message"), [("a: [1", r"not valid YAML \(line"), ("- 1", "not a recipe"), ("1: 2", "not a recipe")]
)
def test_not_a_recipe(text: str, message: str) -> None:
    with pytest.raises(HandfulError, match=message):
        parse(text, "a.yaml")


def test_shipped_recipes_are_found_by_name_and_by_path() -> None:
    names = shipped_recipes()
    assert {"glyphs-maml-5w1s", "omniglot-maml-5w1s", "omniglot-maml-20w1s", "note002-maml"} <= set(names)
    for name in names:
        assert load_recipe(name).name == name
        assert load_recipe(f"recipes/{name}.yaml") == load_recipe(name)


@pytest.mark.parametrize("name", shipped_recipes())
def test_a_shipped_recipe_can_be_built(name: str) -> None:
    """All its keys are read, its method and backbone fit together, and its protocols ask for no more steps than are.

    That each trains on its data, test_shipped_recipes.py shows.
    """
    recipe = load_recipe(name)
    again = parse(recipe.to_yaml(), "again").resolved()
    assert (again, again.hash()) == (recipe, recipe.hash())
    points = recipe.backbone.name == "mlp"
    video = recipe.decoder is not None and recipe.decoder.name == "next_frame"
    shape = (1,) if points else (3, HEIGHT, WIDTH) if recipe.decoder else (1, 28, 28)
    if video:
        shape = (4 * (recipe.data.channels or 1), 32, 32)
    backbone = build("backbone", BACKBONES, recipe.backbone.spec(), input_shape=shape)
    method = build("method", METHODS, recipe.method.spec(), backbone=backbone)
    method.problem = Regression() if points else Classification()
    if recipe.decoder:
        method.problem = (VideoAnomaly if video else RailLines)(recipe.decoder.spec())
    method.attach_head(method.problem.outputs(recipe.train.way))
    assert getattr(method, "spec") == recipe.method.spec()  # noqa: B009 - set by the registry
    for protocol in recipe.protocols():
        assert protocol.inner_steps is None or method.norms is None or protocol.inner_steps <= method.inner_steps


def test_every_method_of_the_family_has_a_shipped_recipe() -> None:
    assert {load_recipe(name).method.name for name in shipped_recipes()} == set(METHODS)


def test_note002_is_the_notes_setting() -> None:
    recipe = load_recipe("note002-maml")
    train = recipe.train
    assert (train.tasks_per_step, train.way, train.shot, train.query) == (8, 5, 1, 15)
    assert recipe.method.spec()["inner_steps"] == 5


def test_a_file_that_is_no_text(tmp_path: Path) -> None:
    (tmp_path / "a.yaml").write_bytes(b"\x89PNG\xff")
    with pytest.raises(HandfulError, match=r"a.yaml cannot be read as a recipe"):
        load_recipe(str(tmp_path / "a.yaml"))


def test_a_mistyped_path_is_not_taken_for_a_shipped_recipe() -> None:
    with pytest.raises(
        HandfulError, match=r"There is no recipe file, or shipped recipe, '/nowhere/recipes/note002-maml.yaml'"
    ):
        load_recipe("/nowhere/recipes/note002-maml.yaml")


def test_unknown_recipe() -> None:
    with pytest.raises(
        HandfulError,
        match=r"There is no recipe file, or shipped recipe, 'glyphs-maml-5w2s'; did you mean 'glyphs-maml-5w1s'",
    ):
        load_recipe("glyphs-maml-5w2s")


def test_protocols_take_what_they_leave_out_from_training() -> None:
    recipe = parse(BASE, "a", ["train.way=4", "evaluate.query=1", "evaluate.also=[{query: 15, norm_stats: support}]"])
    main, other = recipe.protocols()
    assert (main.way, main.shot, main.query, main.norm_stats) == (4, 1, 1, None)
    assert (other.way, other.query, other.norm_stats, other.tasks) == (4, 15, "support", main.tasks)


def test_file_names_win_over_shipped_names(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    Path("mine.yaml").write_text(BASE.replace("name: a", "name: mine"), encoding="utf-8")
    assert load_recipe("mine.yaml").name == "mine"


def test_a_recipe_that_is_like_none_is_sent_to_the_list() -> None:
    with pytest.raises(HandfulError, match=r"shipped recipe, 'zzz'; `handful list recipes` names all\.$"):
        load_recipe("zzz")


def test_a_section_by_its_name_or_in_yaml() -> None:
    assert read_section("protonet") == {"name": "protonet"}
    assert read_section("{name: protonet, distance: cosine}") == {"name": "protonet", "distance": "cosine"}
    assert read_data_recipe("glyphs") == read_data_recipe("{name: glyphs}")
    for text in ("3", "{name: 3}", "{name: a, 3: b}", "{a: b}", "[a]", "", "{name: a"):
        with pytest.raises(HandfulError, match="is neither a name nor a section in YAML"):
            read_section(text)
