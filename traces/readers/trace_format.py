"""A trace format: its name, how to recognise, read and write it, and what it cannot say."""

from __future__ import annotations

import codecs
import csv
import json
import re
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from traces.session import Session

if TYPE_CHECKING:
    from traces.readers.reading import Reading
    from traces.readers.request_columns import Requests
    from traces.readers.session_columns import SessionColumns
    from traces.readers.source import TraceSource
    from traces.readers.writing import Writing

TracePart = Literal["arrivals", "calls", "outputs", "pauses", "tools"]
"""What a format may lack: when sessions begin; more than one call a session; the lengths of answers; how long pauses
last; what is waited for."""

HEAD_BYTES = 2**16
LINE_END = re.compile(r"[\r\n]")
KEYS = re.compile(r'"((?:[^"\\]|\\.)*)"\s*:')


@dataclass(frozen=True)
class Head:
    """The beginning of a trace, as far as it takes to recognise the format.

    Attributes:
        text: the first `HEAD_BYTES` or fewer.
        value: the first JSON object, or the first of an array; empty when there is none or it is longer than the text.
        keys: its keys; when it is longer than the text, every key in the text, however deep.
        columns: the columns that the first line names, if it is no JSON.
        whole: whether the text is the whole trace.
    """

    text: str
    value: dict[str, object]
    keys: frozenset[str]
    columns: tuple[str, ...]
    whole: bool = False

    def has(self, *keys: str) -> bool:
        """Whether the first object has all of these keys."""
        return self.keys.issuperset(keys)

    def has_columns(self, *names: str) -> bool:
        """Whether the first line names all of these columns."""
        return set(names) <= set(self.columns)


@dataclass(frozen=True)
class Format:
    """A trace format.

    Attributes:
        name: on the command line.
        title: what it is, in half a line.
        recognises: whether a trace that begins like this is one.
        read: the sessions of a trace.
        lacks: what the format cannot say, so that its sessions hold 0 there: an arrival or a pause of 0 s.
        write: writes sessions; None when the format can only be read.
        read_requests: reads the sessions column by column, for formats of single calls; it may give None for a trace
            that has longer sessions.
        write_requests: writes sessions from these columns, as ``write`` would.
        read_columns: reads the sessions column by column, for formats of several calls; it may give None for a trace
            that has none of them.
        write_columns: writes sessions from these columns, as ``write`` would.
    """

    name: str
    title: str
    recognises: Callable[[Head], bool]
    read: Callable[[Reading], Iterator[Session]]
    lacks: frozenset[TracePart] = frozenset()
    write: Callable[[Writing, Iterable[Session]], None] | None = None
    read_requests: Callable[[Reading], Iterator[Requests] | None] | None = None
    write_requests: Callable[[Writing, Iterable[Requests]], None] | None = None
    read_columns: Callable[[Reading], Iterator[SessionColumns] | None] | None = None
    write_columns: Callable[[Writing, Iterable[SessionColumns]], None] | None = None


def batches_to_sessions(
    read_batches: Callable[[Reading], Iterator[Requests] | Iterator[SessionColumns] | None],
) -> Callable[[Reading], Iterator[Session]]:
    """A reader of sessions from one of columns."""

    def read(reading: Reading) -> Iterator[Session]:
        for batch in read_batches(reading) or ():
            yield from batch.sessions()

    return read


def head_of(source: TraceSource) -> Head:
    """The beginning of a trace.

    Raises:
        TraceError: the file cannot be read.
    """
    with source.opened() as file:
        raw = file.read(HEAD_BYTES)
    text = codecs.getincrementaldecoder("utf-8-sig")(errors="replace").decode(raw).lstrip()
    if text[:1] not in ("{", "["):
        return Head(text, {}, frozenset(), _columns(LINE_END.split(text, 1)[0]))
    value = _first_object(text)
    return Head(text, value, frozenset(value) or frozenset(KEYS.findall(text)), (), len(raw) < HEAD_BYTES)


def _columns(line: str) -> tuple[str, ...]:
    try:
        return tuple(name.strip() for name in next(csv.reader([line]), []))
    except csv.Error:
        return ()


def _first_object(text: str) -> dict[str, object]:
    start = re.match(r"[\[\s]*", text)
    try:
        value, _ = json.JSONDecoder().raw_decode(text, start.end() if start else 0)
    except (ValueError, RecursionError):
        return {}
    return value if isinstance(value, dict) else {}
