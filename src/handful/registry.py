"""Parts by name: what a recipe may name, and what a part was made from.

A part (backbone, method) is a class, or a function that makes one; `@part(REGISTRY, "name")` lets a recipe build it by
name.  The signature is the schema: option names and types are read from it, and the made part remembers its options in
`spec`.
"""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable, Mapping
from typing import Any, TypeVar, get_type_hints

from pydantic import ConfigDict, ValidationError, create_model
from torch import nn

from handful.errors import HandfulError, sizes_that_fit, unknown

Maker = TypeVar("Maker", bound=Callable[..., Any])
Registry = dict[str, Callable[..., nn.Module]]
BACKBONES: Registry = {}
DECODERS: Registry = {}
METHODS: Registry = {}
# Arguments that no recipe sets: other parts, and what the data decides.
HANDED_IN = ("backbone", "input_shape", "shapes", "lines", "features", "frame")


def part(registry: Registry, name: str) -> Callable[[Maker], Maker]:
    """Register a module class, or a function that makes a module, under a name; what it makes remembers its `spec`."""

    def wrap(maker: Maker) -> Maker:
        made_by_class = inspect.isclass(maker)
        call: Callable[..., Any] = vars(maker)["__init__"] if made_by_class else maker
        signature = inspect.signature(call)

        @functools.wraps(call)
        def remember(*args: Any, **options: Any) -> Any:
            made = call(*args, **options)
            bound = signature.bind(*args, **options)
            bound.apply_defaults()
            given = {key: value for key, value in bound.arguments.items() if key not in HANDED_IN}
            part = given.pop("self", made)
            part.spec = {"name": name, **given}
            return made

        if made_by_class:
            maker.__init__ = remember  # type: ignore[method-assign]
        registry[name] = maker if made_by_class else remember
        return registry[name]  # type: ignore[return-value]

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
    maker = registry[name]
    annotated: Any = maker if not inspect.isclass(maker) else maker.__init__
    hints = get_type_hints(annotated, include_extras=True)
    parameters = inspect.signature(maker).parameters.values()
    fields: dict[str, Any] = {
        p.name: (hints[p.name], ... if p.default is p.empty else p.default)
        for p in parameters
        if p.name not in HANDED_IN
    }
    for option in options:
        if option not in fields:
            raise unknown(f"option of {kind} {name!r}", option, fields)
    model = create_model(name, __config__=ConfigDict(strict=False, extra="forbid", allow_inf_nan=False), **fields)
    try:
        return model(**options).model_dump()
    except ValidationError as error:
        first = error.errors()[0]
        if first["type"] == "missing" and len(first["loc"]) == 1:
            raise HandfulError(f"{kind} {name!r} needs {first['loc'][0]!r}; give it.") from error
        raise HandfulError(
            f"{kind}.{first['loc'][0]} is {first['input']!r} in the recipe, but {kind} {name!r} wants: {first['msg']}."
        ) from error


def spec_of(made: Any) -> dict[str, Any]:
    """How a recipe would name a part: its name with its options, or the name of a class that is not registered."""
    spec: dict[str, Any] = getattr(made, "spec", {"name": type(made).__name__})
    return spec


def build(kind: str, registry: Registry, spec: Mapping[str, Any], **given: Any) -> Any:
    """Make the part that a recipe describes: `{"name": ..., options...}`, with `given` handed in."""
    options = check_options(kind, registry, spec)
    with sizes_that_fit(f"The {kind} {spec['name']}"):
        return registry[spec["name"]](**given, **options)
