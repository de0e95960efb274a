"""JSON lines, asked field by field: whatever is wrong is reported with its file, line and field."""

from __future__ import annotations

import difflib
import json
import math
from collections.abc import Callable, Iterator
from pathlib import Path

from traces.errors import TraceError
from traces.session import Session

FIX_TYPE = "correct the value"


class Record:
    """One JSON object of a trace, with the place where it stands.

    Every getter takes a field's name and raises `TraceError` when the value is missing (and has no default), of
    another type, or out of range. JSON's ``null`` counts as missing; ``true`` is no number; 12.0 is no token count.
    """

    def __init__(self, values: dict[str, object], file: str, line: int, path: str = "") -> None:
        self.values = values
        self.file = file
        self.line = line
        self.path = path

    def has(self, name: str) -> bool:
        """Whether the field is there and not null."""
        return self.values.get(name) is not None

    def text(self, name: str, default: str | None = None) -> str:
        value = self._get(name, "a text", default)
        if not isinstance(value, str):
            raise self.wrong(name, shown(value), "a text", f'{FIX_TYPE}: put it in quotes, such as "{name}": "search"')
        return value

    def whole(self, name: str, default: int | None = None, least: int = 0) -> int:
        """A count; ``least`` is the smallest that is allowed."""
        expected = f"a whole number >= {least}"
        return self._whole(name, self._get(name, expected, default), expected, least)

    def optional_whole(self, name: str) -> int | None:
        return self.whole(name) if self.has(name) else None

    def wholes(self, name: str) -> tuple[int, ...]:
        """A list of whole numbers of either sign; empty when the field is missing."""
        expected = "a whole number"
        values = enumerate(self._list(name, "a list of whole numbers"))
        return tuple(self._whole(f"{name}[{index}]", value, expected, None) for index, value in values)

    def seconds(self, name: str, default: float | None = None) -> float:
        expected = "a finite number of seconds >= 0"
        value = self._get(name, expected, default)
        if isinstance(value, bool) or not isinstance(value, int | float):
            raise self.wrong(name, shown(value), expected, f'{FIX_TYPE}, such as "{name}": 1.5')
        try:
            seconds = float(value)
        except OverflowError:
            seconds = math.inf
        if not math.isfinite(seconds) or seconds < 0:
            raise self.wrong(name, shown(value), expected, f"{FIX_TYPE}, or remove the line")
        return seconds

    def record(self, name: str) -> Record | None:
        """The object in this field; None when it is missing."""
        return self._record(name, self.values[name]) if self.has(name) else None

    def records(self, name: str) -> list[Record]:
        """The objects of a list; empty when the field is missing."""
        return [self._record(f"{name}[{i}]", value) for i, value in enumerate(self._list(name, "a list of objects"))]

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
        return value

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
        return Record(value, self.file, self.line, ".".join(part for part in (self.path, name) if part))


def read_records(path: str | Path) -> Iterator[Record]:
    """Yield the objects of a JSONL file, one a line; blank lines are skipped.

    Raises:
        TraceError: a file that is missing, a folder, unreadable or without any object; a line that is not UTF-8, not
            JSON, cut off, or not an object.
    """
    path = Path(path)
    empty = True
    for number, raw in _numbered_lines(path):
        text = _decoded(raw, path, number)
        if text.strip():
            empty = False
            yield Record(_parsed(text, path, number), str(path), number)
    if empty:
        raise TraceError(str(path), "an empty file", "one JSON object a line", "name a trace that holds sessions")


def read_each(path: str | Path, session_from: Callable[[Record], Session]) -> list[Session]:
    """The sessions of a JSONL file, one a line, each with an id of its own.

    Raises:
        TraceError: as `read_records` and ``session_from`` do; and for an id that occurs twice.
    """
    lines: dict[str, int] = {}
    sessions = []
    for record in read_records(path):
        session = session_from(record)
        if session.id in lines:
            found = f"{shown(session.id)}, which line {lines[session.id]} has already"
            raise record.wrong("id", found, "an id of its own for every session", "rename one of the two")
        lines[session.id] = record.line
        sessions.append(session)
    return sessions


def shown(value: object) -> str:
    """A value as JSON would write it, cut to a readable length."""
    text = json.dumps(value, default=repr)
    return text if len(text) <= 60 else text[:57] + "..."


def _numbered_lines(path: Path) -> Iterator[tuple[int, bytes]]:
    expected = "a file of JSON lines"
    try:
        with path.open("rb") as file:
            yield from enumerate(file, start=1)
    except FileNotFoundError:
        raise TraceError(str(path), "no such file", expected, "check the path") from None
    except IsADirectoryError:
        raise TraceError(str(path), "a folder", expected, "name a file inside it") from None
    except OSError as error:
        found = f"a file that cannot be read ({error.strerror})"
        raise TraceError(str(path), found, expected, "check the path and its permissions") from None


def _decoded(raw: bytes, path: Path, line: int) -> str:
    try:
        return raw.decode("utf-8-sig" if line == 1 else "utf-8")
    except UnicodeDecodeError as error:
        found = f"bytes that are not UTF-8 (byte {raw[error.start]:#04x} at column {error.start + 1})"
        raise TraceError(str(path), found, "UTF-8 text", "save the file as UTF-8, uncompressed", line) from None


def _parsed(text: str, path: Path, line: int) -> dict[str, object]:
    expected = "one JSON object"
    try:
        value = json.loads(text)
    except (ValueError, RecursionError) as error:
        if not text.endswith("\n") and text.lstrip().startswith("{"):
            fix = "write or download the file again, or remove its last line"
            raise TraceError(str(path), f"a last line that is cut off ({error})", expected, fix, line) from None
        fix = "correct the line, or remove it"
        raise TraceError(str(path), f"malformed JSON ({error})", expected, fix, line) from None
    if not isinstance(value, dict):
        fix = 'write one session a line, {"id": ..., "calls": [...]}'
        raise TraceError(str(path), shown(value), expected, fix, line)
    return value
