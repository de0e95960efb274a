"""Trace files in, sessions out: one module a format, recognised by content.

    trace = traces.read("trace.csv.gz", on_error="skip")
    trace.format.name, trace.format.lacks          # what it is, and what it cannot say
    sessions = list(trace.sessions)                # or one by one: memory does not grow with the file
    trace.skipped.count, trace.skipped.first       # what was wrong
    trace.warnings                                 # what looks odd, such as milliseconds taken for seconds
    traces.write("out.jsonl.zst", sessions)        # as Caesura's own format; convert() is faster for whole files

Formats of your own: a `Format` under the entry-point group ``caesura.readers``.
"""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from traces.readers.reading import OnError, Reading, Skipped
from traces.readers.registry import UnknownFormat, all_formats
from traces.readers.request_columns import Requests
from traces.readers.trace import Trace, Written, convert, detect, read, write
from traces.readers.trace_format import Format, Head
from traces.session import Session

__all__ = [
    "Format",
    "Head",
    "OnError",
    "Reading",
    "Requests",
    "Skipped",
    "Trace",
    "UnknownFormat",
    "Written",
    "all_formats",
    "convert",
    "detect",
    "read",
    "read_own",
    "read_session_files",
    "read_sessions",
    "write",
    "write_own",
]


def read_sessions(path: str | Path, format: str | None = None) -> list[Session]:
    """All sessions of a trace at once, in its order; raises as `read` and `Trace.sessions` do."""
    return list(read(path, format).sessions)


def read_own(path: str | Path) -> list[Session]:
    """All sessions of a file in Caesura's own format."""
    return read_sessions(path, "own")


def read_session_files(path: str | Path) -> list[Session]:
    """All sessions of a recorded session file."""
    return read_sessions(path, "session-files")


def write_own(path: str | Path, sessions: Iterable[Session]) -> None:
    """Write sessions as Caesura's own JSONL; raises as `write` does."""
    write(path, sessions)
