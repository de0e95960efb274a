"""Checks data from YAML against a pydantic model and says every fault with its line, its key and the way out."""

from __future__ import annotations

import typing
from collections.abc import Iterable, Iterator
from typing import Any, TypeVar

from pydantic import BaseModel, ValidationError
from pydantic_core import ErrorDetails

from caesura.config.yaml_source import Loc, Source
from caesura.errors import ConfigError, did_you_mean, listed

Model = TypeVar("Model", bound=BaseModel)

_EXPECTED = {
    "bool": "true or false",
    "float": "a number",
    "int": "a whole number",
    "string": "a text",
    "list": "a list",
    "dict": "a mapping (key: value)",
    "model": "a mapping (key: value)",
}
_BOUNDS = {
    "greater_than": ("more than", "gt"),
    "greater_than_equal": ("at least", "ge"),
    "less_than": ("less than", "lt"),
    "less_than_equal": ("at most", "le"),
}


def validated(model: type[Model], source: Source) -> Model:
    """``source.data`` as a ``model``.

    Raises:
        ConfigError: with one line per fault.
    """
    try:
        return model.model_validate(source.data)
    except ValidationError as error:
        raise ConfigError(_faults(model, source, error.errors())) from None


def _faults(model: type[BaseModel], source: Source, errors: Iterable[ErrorDetails]) -> list[str]:
    """One line per place; what the members of a union say about the same place is joined by "or"."""
    by_place: dict[Loc, list[str]] = {}
    for error in errors:
        loc = _written(source.data, error)
        message = _message(model, loc, error)
        known = by_place.setdefault(loc, [])
        if message not in known:
            known.append(message)
    return [source.fault(loc, _joined(messages)) for loc, messages in by_place.items()]


def _joined(messages: list[str]) -> str:
    expected = [message for message in messages if message.startswith("expected ")]
    if len(messages) > 1 and len(expected) == len(messages):
        heads = [message.removeprefix("expected ").split(", not ")[0] for message in messages]
        return f"expected {' or '.join(heads)}, not {messages[0].split(', not ', 1)[-1]}"
    return "; ".join(messages)


def _written(data: Any, error: ErrorDetails) -> Loc:
    """The error's path without what pydantic adds to it (tags of union members and the like)."""
    loc: list[str | int] = []
    parts = error["loc"]
    for index, part in enumerate(parts):
        is_last = index == len(parts) - 1
        in_list = isinstance(data, list) and isinstance(part, int) and part < len(data)
        if in_list or (isinstance(data, dict) and part in data):
            data = data[part]
            loc.append(part)
        elif is_last and error["type"] in ("missing", "extra_forbidden"):
            loc.append(part)
    return tuple(loc)


def _message(model: type[BaseModel], loc: Loc, error: ErrorDetails) -> str:
    kind, given, context = error["type"], error["input"], error.get("ctx", {})
    if kind == "extra_forbidden":
        known = sorted(_known_keys(model, loc[:-1]))
        return f"unknown key{did_you_mean(str(loc[-1]), known)} (known here: {listed(known)})"
    if kind == "missing":
        return "this key is missing"
    if kind in ("literal_error", "enum"):
        allowed = [word.strip("'") for word in context["expected"].replace(" or ", ", ").split(", ")]
        return f"expected {listed(allowed, ' or ')}, not {given!r}{did_you_mean(str(given), allowed)}"
    if kind in _BOUNDS:
        words, limit = _BOUNDS[kind]
        return f"expected {words} {context[limit]:g}, not {given!r}"
    if kind in ("too_short", "string_too_short"):
        return "expected at least one entry, not an empty one"
    if kind in ("value_error", "assertion_error"):
        return str(context["error"])
    if kind == "int_from_float":
        return f"expected a whole number, not {given!r}"
    stem, _, ending = kind.rpartition("_")
    if ending in ("type", "parsing") and stem in _EXPECTED:
        return f"expected {_EXPECTED[stem]}, not {given!r}"
    return f"{error['msg'][0].lower()}{error['msg'][1:]}; given: {given!r}"


def _known_keys(model: type[BaseModel], loc: Loc) -> set[str]:
    """The keys that a mapping at ``loc`` below ``model`` may have."""
    models = [model]
    for part in loc:
        if isinstance(part, int):
            continue
        fields = [m.model_fields[part] for m in models if part in m.model_fields]
        if not fields:  # a name that the user gave to an entry of a mapping
            continue
        models = [found for field in fields for found in _models_in(field.annotation)]
    return {key for m in models for key in m.model_fields}


def _models_in(annotation: Any) -> Iterator[type[BaseModel]]:
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        yield annotation
    for argument in typing.get_args(annotation):
        if argument is not Ellipsis:
            yield from _models_in(argument)
