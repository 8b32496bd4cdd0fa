"""Settings that are described once, type, default and bounds, and checked at every depth; errors are one sentence.

A group of settings is a class::

    class Shape(Settings):
        width: int = setting(128, "channels", ge=1)

The settings of a plugin are the parameters of its constructor, nested groups included: :func:`build`.
"""

from __future__ import annotations

import inspect
import json
from collections.abc import Callable, Iterator, Mapping
from types import UnionType
from typing import Any, TypeVar, Union, get_args, get_origin, get_type_hints

from pydantic import BaseModel, ConfigDict, Field, ValidationError, create_model
from pydantic.fields import FieldInfo
from pydantic_core import ErrorDetails

from bench.errors import BenchError, near_settings

T = TypeVar("T")

EXPECTED = {
    "int_type": "a whole number",
    "int_from_float": "a whole number",
    "float_type": "a number",
    "bool_type": "true or false",
    "string_type": "text",
    "path_type": "a path",
    "greater_than_equal": "at least {ge:g}",
    "greater_than": "above {gt:g}",
    "less_than_equal": "at most {le:g}",
    "less_than": "below {lt:g}",
    "model_type": "a group of settings",
    "mapping_type": "a group of settings",
    "dict_type": "a group of settings",
    "tuple_type": "a list",
    "list_type": "a list",
    "sequence_type": "a list",
}
"""What a value should be, by pydantic's type of error; its own words for the others."""


def as_text(value: Any) -> Any:
    """Words that YAML has read as a number, as in ``precision: 32``."""
    return str(value) if isinstance(value, int | float) and not isinstance(value, bool) else value


class Settings(BaseModel):
    """A group of settings: nothing unknown, nothing of another type, nothing changed afterwards.

    A default is written as a person would write it, and checked like any other value.
    """

    model_config = ConfigDict(
        frozen=True, extra="forbid", strict=True, arbitrary_types_allowed=True, validate_default=True
    )


def setting(default: Any, help: str, **options: Any) -> Any:
    """One setting: its default, as a person would write it, one line of help, and bounds as for pydantic's Field."""
    return Field(default, description=help, **options)


class Parameters(Settings):
    """The settings that a constructor takes; its defaults are its author's business."""

    model_config = ConfigDict(validate_default=False)


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
    try:  # as JSON, where a list may stand for a tuple and text for a path, but nothing else for anything else
        return cls.model_validate_json(json.dumps(dict(values), default=_plain))
    except ValidationError as error:
        raise BenchError(_sentence(cls, error.errors(), key, what)) from None


def _plain(value: Any) -> Any:
    return value.model_dump() if isinstance(value, BaseModel) else str(value)


def defaults(cls: type[Settings]) -> dict[str, Any]:
    """The settings that have a default, nested groups included, as plain values."""
    found = {}
    for name, field in cls.model_fields.items():
        if not field.is_required():
            value = field.get_default(call_default_factory=True)
            found[field.alias or name] = defaults(type(value)) if isinstance(value, Settings) else value
    return found


def describe(cls: type[Settings], prefix: str = "") -> Iterator[tuple[str, str, str]]:
    """Yield (KEY=DEFAULT, type and bounds, help) of every setting that has a default, nested groups included."""
    schema = cls.model_json_schema()
    for name, field in cls.model_fields.items():
        if field.is_required():
            continue
        key = f"{prefix}{field.alias or name}"
        value = field.get_default(call_default_factory=True)
        if isinstance(value, Settings):
            yield from describe(type(value), f"{key}.")
            continue
        kind = _kind(schema["properties"][field.alias or name], schema.get("$defs", {}))
        yield f"{key}={written(value)}", kind, field.description or ""


def written(value: Any) -> str:
    """Write a value as it is written on the command line."""
    if isinstance(value, list | tuple):
        return f"[{','.join(map(written, value))}]"
    if isinstance(value, Mapping):
        return "{" + ", ".join(f"{k}: {written(v)}" for k, v in value.items()) + "}"
    if isinstance(value, bool) or value is None:
        return json.dumps(value)
    return f"{value:g}" if isinstance(value, float) else str(value)


def _kind(schema: Mapping[str, Any], shared: Mapping[str, Any]) -> str:
    """Say in words what values a JSON schema allows."""
    if "text" in schema:
        return str(schema["text"])
    if "$ref" in schema:
        return _kind(shared[schema["$ref"].rpartition("/")[2]], shared)
    if "anyOf" in schema:
        return " or ".join(dict.fromkeys(_kind(s, shared) for s in schema["anyOf"]))
    if "enum" in schema:
        return " or ".join(map(written, schema["enum"]))
    if "const" in schema:
        return written(schema["const"])
    if schema.get("type") == "array":
        items = schema.get("items") or (schema.get("prefixItems") or [{}])[0]
        return f"{'one or a list' if schema.get('one_or_many') else 'list'}: {_kind(items, shared)}"
    names = {"integer": "whole number", "number": "number", "boolean": "true or false", "null": "null"}
    words = [names.get(schema.get("type", ""), "text" if schema.get("type") == "string" else "group")]
    for bound, word in (
        ("minimum", "from"), ("exclusiveMinimum", "above"), ("maximum", "up to"), ("exclusiveMaximum", "below")
    ):  # fmt: skip
        if bound in schema:
            words.append(f"{word} {schema[bound]:g}")
    return " ".join(words)


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
        hints = _hints(function)
        for p in found:
            if p.name in ("self", *given) or p.name in fields or p.kind in (p.VAR_POSITIONAL, p.VAR_KEYWORD):
                continue
            fields[p.name] = (hints.get(p.name, Any), ... if p.default is p.empty else p.default)
        if not any(p.kind is p.VAR_KEYWORD for p in found):
            break
    return create_model(getattr(make, "__name__", "settings"), __base__=Parameters, **fields)


def _hints(function: Any) -> dict[str, Any]:
    """Types of the parameters; Any for one that only a type checker can know."""
    try:
        return get_type_hints(function, include_extras=True)
    except NameError:
        hints = {}
        for name, annotation in function.__annotations__.items():
            try:
                hints[name] = eval(annotation, function.__globals__) if isinstance(annotation, str) else annotation
            except NameError:
                hints[name] = Any
        return hints


def _sentence(cls: type[Settings], errors: list[ErrorDetails], key: str, what: str) -> str:
    """Say what is wrong: unknown keys first, since a misspelt key is often also a missing one."""
    error = min(errors, key=lambda e: e["type"] != "extra_forbidden")
    location = _location(error)
    name = ".".join([*([key] if key else []), *location])
    if error["type"] == "extra_forbidden":
        known = _known(cls, error["loc"][:-1])
        owner = f" of {what}" if what else ""
        return f"{name} is no setting{owner}.{near_settings(location[-1], known)}" + ("" if known else " It has none.")
    if error["type"] == "missing" and isinstance(error["loc"][-1], int):
        return f"{name} is wrong: it should have more values."
    if error["type"] == "missing":
        return f"{name} has no value: add {name}=VALUE."
    value = error["input"]
    shown = written(value) if not isinstance(value, Mapping) else "{...}"
    options = [_expected(e) for e in errors if _location(e) == location]  # of all branches of a union
    return f"{name}={shown} is wrong: it should be {' or '.join(dict.fromkeys(options))}."


def _location(error: ErrorDetails) -> list[str]:
    """Keys down to a value, without the branches of unions and the places in lists."""
    return [str(part) for part in error["loc"] if not _is_tag(part)]


def _expected(error: ErrorDetails) -> str:
    if error["type"] in EXPECTED:
        return EXPECTED[error["type"]].format(**error.get("ctx", {}))
    return error["msg"].removeprefix("Input should be ").removeprefix("Value error, ")


def _is_tag(part: int | str) -> bool:
    """Whether a part of an error's location names a branch of a union, or a place in a list, rather than a key."""
    return isinstance(part, int) or part.endswith("]") or part.removeprefix("constrained-") in (
        "int", "float", "str", "bool", "none"
    )  # fmt: skip


def _known(cls: Any, location: tuple[int | str, ...]) -> list[str]:
    """Names of the settings at a place within a group, dotted for those of the groups within."""
    for part in location:
        if (field := _field(cls, str(part))) is not None:
            cls = field.annotation
        cls = _group_within(cls)
    cls = _group_within(cls)
    return sorted(_names(cls, ""))


def _names(annotation: Any, prefix: str) -> Iterator[str]:
    if get_origin(annotation) in (Union, UnionType):
        for branch in get_args(annotation):
            yield from _names(branch, prefix)
    elif isinstance(annotation, type) and issubclass(annotation, BaseModel):
        for name, field in annotation.model_fields.items():
            yield f"{prefix}{field.alias or name}"
            yield from _names(field.annotation, f"{prefix}{field.alias or name}.")


def _field(cls: Any, key: str) -> FieldInfo | None:
    """The setting that is called `key` in a configuration."""
    if not (isinstance(cls, type) and issubclass(cls, BaseModel)):
        return None
    return next((f for name, f in cls.model_fields.items() if key == (f.alias or name)), None)


def _group_within(annotation: Any) -> Any:
    """The group of settings that an annotation holds, as Shape in Mapping[str, Shape] or Shape | None."""
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return annotation
    for argument in get_args(annotation):
        found = _group_within(argument)
        if found is not None:
            return found
    return None
