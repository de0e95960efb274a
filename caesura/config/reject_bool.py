"""What every model of a configuration file has in common."""

from __future__ import annotations

from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field, WithJsonSchema

_RATES_SCHEMA = {
    "anyOf": [
        {"type": "number", "exclusiveMinimum": 0},
        {"type": "array", "minItems": 1, "items": {"type": "number", "exclusiveMinimum": 0}},
    ]
}

Rate = Annotated[float, Field(gt=0, le=1e6, allow_inf_nan=False)]
Rates = Annotated[list[Rate], Field(min_length=1), WithJsonSchema(_RATES_SCHEMA)]
Rule = Annotated[str, Field(min_length=1)] | dict[str, Any]
"""A policy, order or router by name, or with its parameters."""
Share = Annotated[float, Field(ge=0, allow_inf_nan=False, strict=True)]


class Strict(BaseModel):
    """A mapping whose every key is known."""

    model_config = ConfigDict(extra="forbid", frozen=True)


def one_or_many(value: object) -> object:
    """A single value as a list of one."""
    return value if isinstance(value, list) else [value]


def reject_bool(value: object) -> object:
    """Refuse YAML's on, off, yes and no as numbers: Python would take them for 1 and 0."""
    for item in value if isinstance(value, list) else [value]:
        if isinstance(item, bool):
            raise ValueError("expected a number, not true or false")
    return value
