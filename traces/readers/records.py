"""JSON lines, asked field by field: whatever is wrong is reported with its file, line and field."""

from __future__ import annotations

import difflib
import json
import math
from typing import cast

import msgspec

from traces.errors import TraceError
from traces.readers.source import TraceSource

FIX_TYPE = "correct the value"
ONE_OBJECT = "one JSON object"
MOST_TOKENS = 2**31 - 1
MOST_EXACT = 2**53


class Record:
    """One JSON object of a trace, with the place where it stands.

    Every getter takes a field's name and raises `TraceError` when the value is missing (and has no default), of
    another type, or out of range. JSON's ``null`` counts as missing; ``true`` is no number; 12.0 is no token count.
    """

    __slots__ = ("_name", "_parent", "file", "line", "values")

    def __init__(
        self, values: dict[str, object], file: str, line: int, parent: Record | None = None, name: str | int = ""
    ) -> None:
        self.values = values
        self.file = file
        self.line = line
        self._parent = parent
        self._name = name

    @property
    def path(self) -> str:
        """The path of this object in the object of its line, such as ``calls[2].pause``; empty for the line's
        object."""
        name = f"[{self._name}]" if isinstance(self._name, int) else self._name
        before = self._parent.path if self._parent is not None else ""
        return f"{before}.{name}" if before and name and not name.startswith("[") else before + name

    def has(self, name: str) -> bool:
        """Whether the field is there and not null."""
        return self.values.get(name) is not None

    def text(self, name: str, default: str | None = None) -> str:
        value = self.values.get(name)
        if type(value) is str:
            return value
        value = self._get(name, "a text", default)
        if not isinstance(value, str):
            raise self.wrong(name, shown(value), "a text", f'{FIX_TYPE}: put it in quotes, such as "{name}": "search"')
        return value

    def identity(self, name: str, default: str) -> str:
        """A name: a text or a whole number; ``default`` when the field is missing."""
        value = self.values.get(name)
        if value is None:
            return default
        if isinstance(value, bool) or not isinstance(value, str | int):
            raise self.wrong(name, shown(value), "a text or a whole number", FIX_TYPE)
        return str(value)

    def whole(self, name: str, default: int | None = None, least: int = 0) -> int:
        """A count of at most `MOST_TOKENS`; ``least`` is the smallest that is allowed."""
        value = self.values.get(name)
        if type(value) is int and least <= value <= MOST_TOKENS:
            return value
        expected = f"a whole number >= {least}"
        return self._whole(name, self._get(name, expected, default), expected, least)

    def optional_whole(self, name: str) -> int | None:
        return self.whole(name) if self.has(name) else None

    def wholes(self, name: str, least: int | None = None) -> tuple[int, ...]:
        """A list of whole numbers, of either sign if ``least`` is not given; empty when the field is missing."""
        values = self._list(name, "a list of whole numbers")
        if least is None and set(map(type, values)) <= {int}:
            return tuple(cast(list[int], values))
        expected = "a whole number" if least is None else f"a whole number >= {least}"
        return tuple(self._whole(f"{name}[{index}]", value, expected, least) for index, value in enumerate(values))

    def seconds(self, name: str, default: float | None = None) -> float:
        return self._duration(name, default, "seconds")

    def milliseconds(self, name: str, default: float | None = None) -> float:
        """A time that the trace gives in milliseconds, in seconds."""
        return self._duration(name, default, "milliseconds") / 1000

    def nanoseconds(self, name: str, default: float | None = None) -> float:
        """A time that the trace gives in nanoseconds, in seconds."""
        return self._duration(name, default, "nanoseconds") / 1_000_000_000

    def list_of_seconds(self, name: str) -> tuple[float, ...]:
        """A list of times; empty when the field is missing."""
        values = enumerate(self._list(name, "a list of numbers of seconds"))
        return tuple(self._finite(f"{name}[{index}]", value, "seconds") for index, value in values)

    def record(self, name: str) -> Record | None:
        """The object in this field; None when it is missing."""
        return self._record(name, self.values[name]) if self.has(name) else None

    def records(self, name: str) -> list[Record]:
        """The objects of a list; empty when the field is missing."""
        values = self._list(name, "a list of objects")
        if set(map(type, values)) <= {dict}:
            place = Record({}, self.file, self.line, self, name)
            objects = enumerate(cast(list[dict[str, object]], values))
            return [Record(value, self.file, self.line, place, index) for index, value in objects]
        return [self._record(f"{name}[{index}]", value) for index, value in enumerate(values)]

    def some_records(self, name: str) -> list[Record]:
        """The objects of a list that must hold at least one."""
        self._get(name, "a list of at least one object", None)
        found = self.records(name)
        if not found:
            raise self.wrong(name, "an empty list", "at least one object", f"give the {name}, or remove the line")
        return found

    def only(self, names: tuple[str, ...]) -> None:
        """Refuse any field that is not among ``names``: a misspelt one would be lost in silence."""
        for name in self.values:
            if name not in names:
                close = difflib.get_close_matches(name, names, n=1)
                fix = f'rename it to "{close[0]}"' if close else "remove it"
                raise self.wrong(name, "an unknown field", f"one of {', '.join(names)}", fix)

    def wrong(self, name: str, found: str, expected: str, fix: str) -> TraceError:
        """The error to raise about one field of this object; an empty name means the object itself."""
        field = ".".join(part for part in (self.path, name) if part)
        return TraceError(self.file, found, expected, fix, self.line, field)

    def _get(self, name: str, expected: str, default: object) -> object:
        value = self.values.get(name)
        if value is not None:
            return value
        if default is None:
            found = "null" if name in self.values else "no such field"
            raise self.wrong(name, found, expected, f'add "{name}"')
        return default

    def _whole(self, name: str, value: object, expected: str, least: int | None) -> int:
        if isinstance(value, bool) or not isinstance(value, int):
            raise self.wrong(name, shown(value), expected, f"{FIX_TYPE}: digits only, no point and no quotes")
        if least is not None and value < least:
            raise self.wrong(name, shown(value), expected, f"{FIX_TYPE}, or remove the line")
        if least is not None and value > MOST_TOKENS:
            raise self.wrong(name, shown(value), f"{expected} and <= {MOST_TOKENS}", f"{FIX_TYPE}, or remove the line")
        return value

    def _duration(self, name: str, default: float | None, unit: str) -> float:
        value = self.values.get(name)
        if type(value) is float and 0 <= value < math.inf:
            return value
        if type(value) is int and 0 <= value <= MOST_EXACT:
            return float(value)
        return self._finite(name, self._get(name, f"a finite number of {unit} >= 0", default), unit)

    def _finite(self, name: str, value: object, unit: str) -> float:
        expected = f"a finite number of {unit} >= 0"
        if isinstance(value, bool) or not isinstance(value, int | float):
            raise self.wrong(name, shown(value), expected, f'{FIX_TYPE}, such as "{name}": 1.5')
        try:
            number = float(value)
        except OverflowError:
            number = math.inf
        if not math.isfinite(number) or number < 0:
            raise self.wrong(name, shown(value), expected, f"{FIX_TYPE}, or remove the line")
        return number

    def _list(self, name: str, expected: str) -> list[object]:
        value = self.values.get(name)
        if value is None:
            return []
        if not isinstance(value, list):
            raise self.wrong(name, shown(value), expected, f"{FIX_TYPE}: put it in square brackets")
        return value

    def _record(self, name: str, value: object) -> Record:
        if not isinstance(value, dict):
            raise self.wrong(name, shown(value), "an object", f"{FIX_TYPE}: put its fields in curly brackets")
        return Record(value, self.file, self.line, self, name)


def record_of(source: TraceSource, raw: bytes, line: int) -> Record:
    """The object that one line of JSONL holds.

    Raises:
        TraceError: the line is not UTF-8, not JSON, cut off, or not an object.
    """
    try:
        value = msgspec.json.decode(raw)
    except (ValueError, RecursionError):
        value = _slowly_parsed(source, raw, line)
    if not isinstance(value, dict):
        fix = "write one object a line, in curly brackets"
        raise TraceError(source.name, shown(value), ONE_OBJECT, fix, line)
    return Record(value, source.name, line)


def shown(value: object) -> str:
    """A value as JSON would write it, cut to a readable length."""
    text = json.dumps(value, default=repr)
    return text if len(text) <= 60 else text[:57] + "..."


def _slowly_parsed(source: TraceSource, raw: bytes, line: int) -> object:
    """What the standard library makes of a line that is not strictly JSON (NaN is let through, to be named later)."""
    text = source.decoded(raw, line)
    try:
        return json.loads(text)
    except (ValueError, RecursionError) as error:
        if not text.endswith("\n") and text.lstrip().startswith("{"):
            fix = "write or download the file again, or remove its last line"
            raise TraceError(source.name, f"a last line that is cut off ({error})", ONE_OBJECT, fix, line) from None
        fix = "correct the line, or remove it"
        raise TraceError(source.name, f"malformed JSON ({error})", ONE_OBJECT, fix, line) from None
