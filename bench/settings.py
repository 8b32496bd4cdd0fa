"""Settings that are described once, type, default and bounds, and checked at every depth; errors are one sentence.

A group of settings is a class::

    class Shape(Settings):
        width: int = Field(128, ge=1, description="channels")

The settings of a plugin are the parameters of its constructor, nested groups included: :func:`build`.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from typing import Any, TypeVar, get_args, get_type_hints

from pydantic import BaseModel, ConfigDict, ValidationError, create_model
from pydantic_core import ErrorDetails

from bench.errors import BenchError, near_matches

T = TypeVar("T")


def as_text(value: Any) -> Any:
    """Words that YAML has read as a number, as in ``precision: 32``."""
    return str(value) if isinstance(value, int | float) and not isinstance(value, bool) else value


class Settings(BaseModel):
    """A group of settings: nothing unknown, nothing of another type, nothing changed afterwards."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True, arbitrary_types_allowed=True)


def validate(cls: type[Settings], values: Mapping[str, Any], key: str = "", what: str = "") -> Any:
    """Make a group of settings from plain values.

    Args:
        cls: the group.
        values: plain dictionaries, lists and scalars.
        key: dotted name of the group in messages.
        what: whose settings these are, as in "dps"; "" for the configuration's own.

    Raises:
        BenchError: an unknown key, a wrong type or a value out of range; the sentence names the first.

    """
    try:
        return cls.model_validate(dict(values))
    except ValidationError as error:
        # unknown keys first: a misspelt key is often also a missing one
        first = min(error.errors(), key=lambda e: e["type"] != "extra_forbidden")
        raise BenchError(_sentence(cls, first, key, what)) from None


def build(make: Callable[..., T], values: Mapping[str, Any], key: str, what: str, given: Mapping[str, Any] = {}) -> T:
    """Call a constructor with settings, checked by the types of its parameters.

    Args:
        make: a class.
        values: plain settings.
        key: dotted name of the settings in messages.
        what: whose settings these are.
        given: further arguments that are no settings.

    Raises:
        BenchError: an unknown key, a wrong type or a value out of range; the sentence names it.

    """
    checked = validate(parameters(make, tuple(given)), values, key, what)
    return make(**{name: getattr(checked, name) for name in type(checked).model_fields}, **given)


def parameters(make: Callable[..., Any], given: tuple[str, ...] = ()) -> type[Settings]:
    """The settings that a constructor takes, `given` apart: its parameters, and those it passes on to its bases."""
    fields: dict[str, Any] = {}
    bases = [c for c in make.__mro__ if "__init__" in vars(c)] if inspect.isclass(make) else [make]
    for base in bases:
        if base is object:
            break
        function = base.__init__ if inspect.isclass(base) else base
        found = inspect.signature(function).parameters.values()
        try:
            hints = get_type_hints(function, include_extras=True)
        except NameError:  # a name that only a type checker knows
            hints = {}
        for p in found:
            if p.name in ("self", *given) or p.name in fields or p.kind in (p.VAR_POSITIONAL, p.VAR_KEYWORD):
                continue
            fields[p.name] = (hints.get(p.name, Any), ... if p.default is p.empty else p.default)
        if not any(p.kind is p.VAR_KEYWORD for p in found):
            break
    return create_model(getattr(make, "__name__", "settings"), __base__=Settings, **fields)


def _sentence(cls: type[Settings], error: ErrorDetails, key: str, what: str) -> str:
    location = [str(part) for part in error["loc"] if not _is_tag(part)]
    name = ".".join([*([key] if key else []), *location])
    if error["type"] == "extra_forbidden":
        known = _known(cls, error["loc"][:-1])
        owner = f" of {what}" if what else ""
        return f"{name} is no setting{owner}.{near_matches(location[-1], known)}" + ("" if known else " It has none.")
    if error["type"] == "missing":
        return f"{name} has no value: add {name}=VALUE."
    value = error["input"]
    shown = value if isinstance(value, str | int | float | bool) or value is None else type(value).__name__
    expected = error["msg"].removeprefix("Input should be ").removeprefix("Value error, ")
    return f"{name}={'null' if value is None else shown} is wrong: it should be {expected}."


def _is_tag(part: int | str) -> bool:
    """Whether a part of an error's location names a branch of a union rather than a key."""
    return isinstance(part, str) and (
        part.endswith("]") or part in ("int", "float", "str", "bool", "none", "constrained-int")
    )


def _known(cls: Any, location: tuple[int | str, ...]) -> list[str]:
    """Names of the settings at a place within a group."""
    for part in location:
        if isinstance(cls, type) and issubclass(cls, BaseModel) and part in cls.model_fields:
            cls = cls.model_fields[str(part)].annotation
        cls = _group_within(cls)
    cls = _group_within(cls)
    return sorted(cls.model_fields) if isinstance(cls, type) and issubclass(cls, BaseModel) else []


def _group_within(annotation: Any) -> Any:
    """The group of settings that an annotation holds, as Shape in Mapping[str, Shape] or Shape | None."""
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return annotation
    for argument in get_args(annotation):
        found = _group_within(argument)
        if found is not None:
            return found
    return None
