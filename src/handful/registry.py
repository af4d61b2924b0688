"""Parts by name: what a recipe may name, and what a part was made from.

A part (backbone, method) is a class; `@part(REGISTRY, "name")` lets a recipe build it by name.  The constructor's
signature is the schema: option names and types are read from it, and the made part remembers its options in `spec`.
"""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable, Mapping
from typing import Any, TypeVar, get_type_hints

from pydantic import ConfigDict, ValidationError, create_model
from torch import nn

from handful.errors import HandfulError, unknown

Part = TypeVar("Part", bound=type)
Registry = dict[str, type[nn.Module]]
BACKBONES: Registry = {}
METHODS: Registry = {}
# Arguments that no recipe sets: other parts, and what the data decides.
HANDED_IN = ("backbone", "input_shape")


def part(registry: Registry, name: str) -> Callable[[Part], Part]:
    """Register a module class under a name, and let its instances remember their options in `spec`."""

    def wrap(cls: Part) -> Part:
        init = cls.__init__  # type: ignore[misc]
        signature = inspect.signature(init)

        @functools.wraps(init)
        def remember(self: Any, *args: Any, **options: Any) -> None:
            init(self, *args, **options)
            bound = signature.bind(self, *args, **options)
            bound.apply_defaults()
            given = list(bound.arguments.items())[1:]
            self.spec = {"name": name, **{key: value for key, value in given if key not in HANDED_IN}}

        cls.__init__ = remember  # type: ignore[misc]
        registry[name] = cls
        return cls

    return wrap


def check_options(kind: str, registry: Registry, spec: Mapping[str, Any]) -> dict[str, Any]:
    """Validate a recipe's `{"name": ..., options...}` against the part's constructor, before any work starts.

    Returns all options, converted to the annotated types and with defaults filled in; raises one sentence for an
    unknown name, an unknown option or a wrong type.
    """
    name = spec["name"]
    options = {key: value for key, value in spec.items() if key != "name"}
    if name not in registry:
        raise unknown(kind, name, registry)
    init = registry[name].__init__
    hints = get_type_hints(init, include_extras=True)
    parameters = list(inspect.signature(init).parameters.values())[1:]
    fields: dict[str, Any] = {p.name: (hints[p.name], p.default) for p in parameters if p.name not in HANDED_IN}
    for option in options:
        if option not in fields:
            raise unknown(f"option of {kind} {name!r}", option, fields)
    model = create_model(name, __config__=ConfigDict(strict=False, extra="forbid"), **fields)
    try:
        return model(**options).model_dump()
    except ValidationError as error:
        first = error.errors()[0]
        raise HandfulError(
            f"{kind}.{first['loc'][0]} is {first['input']!r} in the recipe, but {kind} {name!r} wants: {first['msg']}."
        ) from error


def build(kind: str, registry: Registry, spec: Mapping[str, Any], **given: Any) -> Any:
    """Make the part that a recipe describes: `{"name": ..., options...}`, with `given` handed in."""
    options = check_options(kind, registry, spec)
    return registry[spec["name"]](**given, **options)
