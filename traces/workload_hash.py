"""One hash of everything that a workload says.

Recorded runs carry this hash in ``run.json`` and in the name of their workload's file, so it must never change for a
workload that was recorded. Each session is written as one line. The fields that sessions had when the first of today's
recordings was made are always written; every other field is written only where it differs from its default. So a new
field of ``Session`` with a default leaves the hashes of older recordings as they are.
"""

from __future__ import annotations

import dataclasses
import functools
import hashlib
from collections.abc import Iterable
from typing import Any

from traces.session import Call, Pause, PromptPart, Session, SharedPrefix, ToolRun

_ALWAYS_WRITTEN: dict[type, tuple[str, ...]] = {
    ToolRun: ("tool", "duration", "returned"),
    Pause: ("duration", "returned", "waits_for", "tool", "keeps", "tools", "session"),
    Call: ("output", "pause"),
    SharedPrefix: ("name", "tokens"),
    PromptPart: ("tokens", "at", "output"),
    Session: ("id", "arrival", "prompt", "calls", "kind", "samples", "stream", "prefix", "hash_block"),
}
"""Do not add to it: a field that is always written changes the hash of every recorded workload."""


def workload_hash(sessions: Iterable[Session]) -> str:
    """The SHA-256 of all fields of all sessions in order, down to the last bit of every number, in hex digits."""
    return hashlib.sha256("\n".join(map(_written, sessions)).encode()).hexdigest()


def _written(value: Any) -> str:
    """A value as Python writes it; of a dataclass, only the fields that ``_ALWAYS_WRITTEN`` or their value call for."""
    kind: Any = type(value)  # to mypy, a type cannot be hashed
    if kind is tuple:
        if not value or not dataclasses.is_dataclass(value[0]):
            return repr(value)
        return f"({', '.join(map(_written, value))}{',' if len(value) == 1 else ''})"
    if (fields := _fields(kind)) is None:
        return repr(value)
    always, others = fields
    shown = [f"{name}={_written(getattr(value, name))}" for name in always]
    shown += [f"{name}={_written(given)}" for name, default in others if (given := getattr(value, name)) != default]
    return f"{kind.__name__}({', '.join(shown)})"


@functools.cache
def _fields(kind: type[object]) -> tuple[tuple[str, ...], tuple[tuple[str, Any], ...]] | None:
    """The fields of a dataclass that are always written, and the others with their defaults; None for other types."""
    if not dataclasses.is_dataclass(kind):
        return None
    fields = dataclasses.fields(kind)
    always = _ALWAYS_WRITTEN.get(kind, tuple(field.name for field in fields if field.default is dataclasses.MISSING))
    others = tuple((field.name, _default(field)) for field in fields if field.name not in always)
    return always, others


def _default(field: dataclasses.Field[Any]) -> Any:
    """The default of a field; one without a default equals nothing, so the field is always written."""
    if field.default_factory is not dataclasses.MISSING:
        return field.default_factory()
    return field.default
