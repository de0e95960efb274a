"""Quantities as people write them: ``600 s``, ``5 min``, ``24 GiB``, ``50000 tokens``."""

from __future__ import annotations

import math
import re
from dataclasses import dataclass
from typing import Annotated, Any

from pydantic import BeforeValidator, PlainSerializer, WithJsonSchema

SECONDS = {"us": 1e-6, "µs": 1e-6, "ms": 1e-3, "s": 1.0, "sec": 1.0, "min": 60.0, "h": 3600.0}
BYTES = {
    "B": 1,
    "kB": 10**3,
    "KB": 10**3,
    "MB": 10**6,
    "GB": 10**9,
    "TB": 10**12,
    "KiB": 2**10,
    "MiB": 2**20,
    "GiB": 2**30,
    "TiB": 2**40,
}
_QUANTITY = re.compile(r"\s*([+-]?(?:\d[\d_]*\.?\d*|\.\d+)(?:[eE][+-]?\d+)?)\s*([A-Za-zµ]*)\s*")
_DURATION_EXAMPLES = "write a number of seconds or, for example, '600 s', '5 min', '100 ms'"
_BANDWIDTH_EXAMPLES = "write, for example, '25 GB/s' or '400 MB/s'"
_CAPACITY_EXAMPLES = "write, for example, '24 GB', '24 GiB' or '50000 tokens'"


@dataclass(frozen=True, slots=True)
class Capacity:
    """A KV pool's size, in bytes or in tokens: exactly one of them is set."""

    bytes: int | None = None
    tokens: int | None = None

    def in_tokens(self, bytes_per_token: int) -> int:
        """Whole tokens that fit when one takes ``bytes_per_token`` bytes."""
        if self.tokens is not None:
            return self.tokens
        assert self.bytes is not None
        return self.bytes // bytes_per_token

    def __str__(self) -> str:
        return f"{self.tokens} tokens" if self.tokens is not None else f"{self.bytes} B"


def parse_seconds(value: object) -> float:
    """Seconds from a plain number or a text with a unit of time.

    Raises:
        ValueError: not a finite number, or an unknown unit; the message shows what to write.
    """
    if isinstance(value, int | float) and not isinstance(value, bool):
        seconds = float(value)
    else:
        number, unit = _split(value, _DURATION_EXAMPLES)
        if unit and unit not in SECONDS:
            raise ValueError(f"{value!r} has an unknown unit {unit!r}; {_DURATION_EXAMPLES}")
        seconds = number * SECONDS[unit or "s"]
    if not math.isfinite(seconds):
        raise ValueError(f"{value!r} is not a finite time; {_DURATION_EXAMPLES}")
    return seconds


def parse_capacity(value: object) -> Capacity:
    """A pool's size from a text with a unit: bytes (``GB``, ``GiB``, ...) or tokens.

    Raises:
        ValueError: no unit, an unknown one, or a size that is not positive.
    """
    if isinstance(value, Capacity):
        return value
    number, unit = _split(value, _CAPACITY_EXAMPLES)
    if not math.isfinite(number) or number <= 0:
        raise ValueError(f"{value!r} must be more than 0; {_CAPACITY_EXAMPLES}")
    if unit in ("token", "tokens"):
        return Capacity(tokens=int(number))
    if unit in BYTES:
        return Capacity(bytes=int(number * BYTES[unit]))
    fault = f"has an unknown unit {unit!r}" if unit else "needs a unit"
    raise ValueError(f"{value!r} {fault}; {_CAPACITY_EXAMPLES}")


def parse_bandwidth(value: object) -> float:
    """Bytes per second from a text such as ``25 GB/s``.

    Raises:
        ValueError: no unit, an unknown one, or a bandwidth that is not positive.
    """
    if isinstance(value, float):
        return value
    text = str(value).strip()
    unit = text.removesuffix("/s").rstrip().lstrip("0123456789._+-eE ") if text.endswith("/s") else ""
    if unit not in BYTES:
        raise ValueError(f"{value!r} is not a bandwidth; {_BANDWIDTH_EXAMPLES}")
    number, _ = _split(text.removesuffix("/s").rstrip(), _BANDWIDTH_EXAMPLES)
    if not math.isfinite(number) or number <= 0:
        raise ValueError(f"{value!r} must be more than 0; {_BANDWIDTH_EXAMPLES}")
    return number * BYTES[unit]


def format_seconds(seconds: float) -> str:
    """A duration for a person: ``90 ms``, ``4.5 s``, ``10 min``."""
    if 0 < abs(seconds) < 1:
        return f"{seconds * 1e3:g} ms"
    if seconds >= 120 and seconds % 60 == 0:
        return f"{seconds / 60:g} min"
    return f"{seconds:g} s"


def _split(value: object, examples: str) -> tuple[float, str]:
    if isinstance(value, bool) or not isinstance(value, int | float | str):
        raise ValueError(f"{value!r} is not a quantity; {examples}")
    match = _QUANTITY.fullmatch(str(value))
    if match is None:
        raise ValueError(f"{value!r} is not a quantity; {examples}")
    return float(match[1]), match[2]


def _positive_seconds(value: object) -> float:
    seconds = parse_seconds(value)
    if seconds <= 0:
        raise ValueError(f"{value!r} must be more than 0; {_DURATION_EXAMPLES}")
    return seconds


def _delay(value: object) -> float:
    seconds = parse_seconds(value)
    if seconds < 0:
        raise ValueError(f"{value!r} must be at least 0; {_DURATION_EXAMPLES}")
    return seconds


_TIME_SCHEMA: dict[str, Any] = {
    "anyOf": [
        {"type": "number", "exclusiveMinimum": 0, "description": "seconds"},
        {"type": "string", "pattern": r"^\s*[0-9._]+([eE][+-]?[0-9]+)?\s*(us|µs|ms|s|sec|min|h)?\s*$"},
    ],
    "examples": ["600 s", "5 min", "100 ms"],
}
_CAPACITY_SCHEMA: dict[str, Any] = {
    "type": "string",
    "pattern": r"^\s*[0-9._]+([eE][+-]?[0-9]+)?\s*(B|[kKMGT]B|[KMGT]iB|tokens?)\s*$",
    "examples": ["24 GB", "24 GiB", "50000 tokens"],
}

_DELAY_SCHEMA: dict[str, Any] = {
    "anyOf": [{"type": "number", "minimum": 0, "description": "seconds"}, _TIME_SCHEMA["anyOf"][1]],
    "examples": ["1 ms", 0],
}
_BANDWIDTH_SCHEMA: dict[str, Any] = {
    "type": "string",
    "pattern": r"^\s*[0-9._]+([eE][+-]?[0-9]+)?\s*(B|[kKMGT]B|[KMGT]iB)\s*/s\s*$",
    "examples": ["25 GB/s"],
}

Delay = Annotated[float, BeforeValidator(_delay), WithJsonSchema(_DELAY_SCHEMA)]
Bandwidth = Annotated[float, BeforeValidator(parse_bandwidth), WithJsonSchema(_BANDWIDTH_SCHEMA)]
PositiveSeconds = Annotated[float, BeforeValidator(_positive_seconds), WithJsonSchema(_TIME_SCHEMA)]
PoolSize = Annotated[
    Capacity, BeforeValidator(parse_capacity), PlainSerializer(str, return_type=str), WithJsonSchema(_CAPACITY_SCHEMA)
]
