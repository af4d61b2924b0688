"""The demo: the main job end to end on the embedded glyphs, in a few minutes on two CPU cores."""

from __future__ import annotations

import time
from pathlib import Path

from PIL import Image

from handful.data.store import ClassSplit, ImageStore, new_folder
from handful.demo.ending import show_end
from handful.episodes import EpisodeSampler
from handful.model import fit
from handful.recipe import load_recipe
from handful.run import Run
from handful.training import train_recipe
from handful.wording import measured

RECIPE = "glyphs-maml-5w1s"
CHANGES: list[str] = []  # a test makes it shorter


def run_demo(out: Path, max_minutes: float, fresh: bool = False) -> Run:
    """Build the data, meta-train, evaluate; then fit on five drawings of unseen characters and name seventy-five."""
    started = time.perf_counter()
    run, _ = train_recipe(load_recipe(RECIPE, CHANGES), out / "run", max_minutes=max_minutes, fresh=fresh)
    assert isinstance(run.data, ImageStore)
    support, query = write_task(run.data.test, out / "task", seed=run.recipe.seed)
    model = fit(support, run)
    model.save(out / "model")
    answers = model.predict([query])
    right = sum(Path(answer.input).parent.name == answer.label for answer in answers)
    print(
        f"\nFitted on five drawings in {support}, one of each of {', '.join(model.card.classes)}; "
        f"{right} of {len(answers)} drawings in {query} named right."
    )
    if accuracy := model.card.accuracy:
        print(f"Over {accuracy['tasks']} such tasks it is {measured(accuracy['mean'], accuracy['ci95'])}.")
    print(f"Try:  handful predict {out / 'model'} {query} --json")
    show_end(run, out, started)
    return run


def write_task(split: ClassSplit, folder: Path, seed: int) -> tuple[Path, Path]:
    """Write one 5-way 1-shot task as picture files, ink on paper as a person would draw: support/ and query/."""
    sampler = EpisodeSampler(split, way=5, shot=1, query=15, seed=seed)
    drawn = sampler.indices(0, 1)
    with new_folder(folder) as work:
        for part, ids in (("support", drawn.support[0]), ("query", drawn.query[0])):
            for index, images in zip(drawn.classes[0], split.fetch(ids)):
                place = work / part / split.class_name(index).rsplit("/", 1)[-1].title()
                place.mkdir(parents=True)
                for number, image in enumerate(images):
                    Image.fromarray(255 - image[0].numpy()).save(place / f"{number:02}.png")
    return folder / "support", folder / "query"
