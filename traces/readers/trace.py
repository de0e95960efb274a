"""A trace on disk: its format, its sessions one after the other, and what was wrong with it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

from traces.readers.plausibility import Plausibility
from traces.readers.reading import OnError, Reading, Skipped
from traces.readers.registry import detected, format_named, writable
from traces.readers.request_columns import Requests
from traces.readers.session_columns import SessionColumns
from traces.readers.source import TraceSource
from traces.readers.tokens import tokenizer_named
from traces.readers.trace_format import Format
from traces.readers.writing import writing_to
from traces.session import Session

_Batch = TypeVar("_Batch", Requests, SessionColumns)


class Trace:
    """A trace that is ready to be read, as often as wanted; `read` makes one.

    Attributes:
        format: what it was recognised as, or what the caller said.
        source: where it comes from.
    """

    def __init__(self, source: TraceSource, format: Format, on_error: OnError, tokenizer: str | None) -> None:
        self.source = source
        self.format = format
        self._on_error = on_error
        self._count_tokens = tokenizer_named(tokenizer) if tokenizer is not None else None
        self._reading = self._new_reading()

    @property
    def sessions(self) -> Iterator[Session]:
        """The sessions one by one, from the beginning of the trace; memory does not grow with its length.

        Raises:
            TraceError: (while iterating) what is wrong with the trace.
        """
        batches: Iterable[Requests] | Iterable[SessionColumns] | None = self.requests or self.columns
        if batches is not None:
            return (session for batch in batches for session in batch.sessions())
        return self._sessions()

    def __iter__(self) -> Iterator[Session]:
        return self.sessions

    @property
    def requests(self) -> Iterator[Requests] | None:
        """The sessions as columns, some thousand at a time; None when sessions may have several calls."""
        return self._watched(self.format.read_requests, Plausibility.see_requests)

    @property
    def columns(self) -> Iterator[SessionColumns] | None:
        """Sessions of several calls as columns, some thousand calls at a time; None when the format has no columns."""
        return self._watched(self.format.read_columns, Plausibility.see_columns)

    def _watched(
        self, read: Callable[[Reading], Iterator[_Batch] | None] | None, see: Callable[[Plausibility, _Batch], None]
    ) -> Iterator[_Batch] | None:
        if read is None:
            return None
        reading = self._reading = self._new_reading()
        batches = read(reading)
        return None if batches is None else _seen(reading, batches, see)

    @property
    def skipped(self) -> Skipped:
        """The errors skipped in the last reading so far."""
        return self._reading.skipped

    @property
    def left_out(self) -> Counter[str]:
        """The sessions that the format's own rules left out in the last reading so far, by reason."""
        return self._reading.left_out

    @property
    def warnings(self) -> list[str]:
        """Warnings of the last reading: units, order. They are complete once all sessions were read."""
        return [*self._reading.notes, *self._reading.plausibility.warnings()]

    def _sessions(self) -> Iterator[Session]:
        reading = self._reading = self._new_reading()
        see = reading.plausibility.see
        for session in self.format.read(reading):
            see(session)
            yield session

    def _new_reading(self) -> Reading:
        return Reading(self.source, self._on_error, self._count_tokens)


def _seen(reading: Reading, batches: Iterable[_Batch], see: Callable[[Plausibility, _Batch], None]) -> Iterator[_Batch]:
    for batch in batches:
        see(reading.plausibility, batch)
        yield batch


@dataclass(frozen=True, slots=True)
class Written:
    """The outcome of writing a trace.

    Attributes:
        sessions: how many.
        lost: what the format cannot say, and in how many sessions that was lost.
    """

    sessions: int
    lost: Counter[str]


def read(
    path: str | Path, format: str | None = None, on_error: OnError = "stop", tokenizer: str | None = None
) -> Trace:
    """Open a trace. Its sessions are read when they are asked for.

    Args:
        path: a file, plain or compressed with gzip or zstd; ``-`` is standard input.
        format: its name; None recognises it by content.
        on_error: ``stop`` at what is wrong, or ``skip`` it and count it in `Trace.skipped`.
        tokenizer: for formats that hold text: ``words``, ``chars:4``, or a path to a ``tokenizer.json`` or its folder.

    Raises:
        UnknownFormat: no format has this name.
        TraceError: the file cannot be read, or is of no known format.
        ValueError: another word for ``on_error``, or a tokenizer that is not there.
    """
    if on_error not in ("stop", "skip"):
        raise ValueError(f"on_error is {on_error!r}; it must be 'stop' or 'skip'")
    source = TraceSource(path)
    return Trace(source, detected(source) if format is None else format_named(format), on_error, tokenizer)


def detect(path: str | Path) -> str:
    """The name of the format that a trace has, by its content; raises `TraceError` when it is of no known format."""
    return detected(TraceSource(path)).name


def write(path: str | Path, sessions: Iterable[Session], format: str = "own") -> Written:
    """Write sessions as a trace. The file appears whole or not at all.

    Args:
        path: where; ``.gz`` and ``.zst`` compress, ``-`` is standard output.
        sessions: taken one by one; memory holds the ids of the first million.
        format: a name; it must be one that can be written.

    Raises:
        UnknownFormat: no format has this name, or it can only be read.
        TraceError: no session, an id that occurs twice, a session that the format cannot describe, or a place that
            cannot be written.
    """
    writer = writable(format)
    assert writer.write is not None
    with writing_to(path) as writing:
        writer.write(writing, writing.counted(sessions))
    return Written(writing.sessions, writing.lost)


def convert(trace: Trace, path: str | Path, format: str = "own") -> Written:
    """Write a trace in another format; by columns, which is several times faster, where both formats allow it.

    Raises:
        UnknownFormat, TraceError: as `write` and `Trace.sessions` do.
    """
    writer = writable(format)
    assert writer.write is not None
    with writing_to(path) as writing:
        if writer.write_requests is not None and (requests := trace.requests) is not None:
            writer.write_requests(writing, writing.counted_batches(requests))
        elif writer.write_columns is not None and (columns := trace.columns) is not None:
            writer.write_columns(writing, writing.counted_batches(columns))
        else:
            writer.write(writing, writing.counted(trace.sessions))
    return Written(writing.sessions, writing.lost)
