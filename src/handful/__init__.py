"""Handful teaches a vision model a new task from a handful of examples.

    import handful as hf
    data = hf.data.folder("photos/", image_size=84)
    method = hf.methods.MAML(hf.backbones.conv4(channels=64, input_shape=data.input_shape), inner_lr=0.4)
    run = hf.train(method, data, way=5, shot=1, query=15, steps=20_000, out="runs/birds")
    print(hf.evaluate(run, data.test, way=5, shot=1, tasks=600))
    model = hf.fit("support/", run=run)
    model.predict(["a.jpg"])

Names are loaded when they are first used: `import handful` costs nothing.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from handful import backbones, data, methods, problems
    from handful.errors import HandfulError
    from handful.evaluation import evaluate
    from handful.model import LineModel, Model, VideoModel, fit, load_model
    from handful.model.classifier import FewShotClassifier
    from handful.reproduction import reproduce
    from handful.run import Run
    from handful.training import train

_PLACES = {
    "FewShotClassifier": "handful.model.classifier",
    "HandfulError": "handful.errors",
    "LineModel": "handful.model",
    "Model": "handful.model",
    "Run": "handful.run",
    "VideoModel": "handful.model",
    "evaluate": "handful.evaluation",
    "fit": "handful.model",
    "load_model": "handful.model",
    "reproduce": "handful.reproduction",
    "train": "handful.training",
}
_ROOMS = ("backbones", "data", "methods", "problems")
__all__ = [
    "FewShotClassifier",
    "HandfulError",
    "LineModel",
    "Model",
    "Run",
    "VideoModel",
    "backbones",
    "data",
    "evaluate",
    "fit",
    "load_model",
    "methods",
    "problems",
    "reproduce",
    "train",
]


def __getattr__(name: str) -> Any:
    if name in _ROOMS:
        return import_module(f"handful.{name}")
    if name not in _PLACES:
        raise AttributeError(f"module 'handful' has no attribute {name!r}")
    return getattr(import_module(_PLACES[name]), name)


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
