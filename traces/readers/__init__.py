"""Trace files in, sessions out: one module a format, and `read_sessions`, which recognises the format by content."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from traces.readers.own import read_own, write_own
from traces.readers.records import Record, read_records
from traces.readers.session_files import read_session_files
from traces.session import Session

READERS: dict[str, Callable[[str | Path], list[Session]]] = {"own": read_own, "session-files": read_session_files}

__all__ = ["READERS", "read_own", "read_session_files", "read_sessions", "write_own"]


def read_sessions(path: str | Path, format: str | None = None) -> list[Session]:
    """Read the sessions of a trace file, in the order of its lines.

    Args:
        path: the file.
        format: a name in `READERS`; None recognises it by the first line.

    Raises:
        ValueError: a format that does not exist.
        TraceError: the file is missing, of no known format, or wrong in one of its lines.
    """
    if format is None:
        format = _recognised(next(read_records(path)))
    if format not in READERS:
        raise ValueError(f"no trace format {format!r}; there are {', '.join(READERS)}")
    return READERS[format](path)


def _recognised(first: Record) -> str:
    """Caesura's own sessions state one prompt and arrival; in recorded session files every call states its prompt."""
    if first.has("prompt") or first.has("arrival"):
        return "own"
    calls = first.values.get("calls")
    if isinstance(calls, list):
        states_prompt = any(isinstance(call, dict) and "prompt" in call for call in calls)
        return "session-files" if states_prompt or not calls else "own"
    fields = ", ".join(list(first.values)[:8]) or "none"
    expected = 'a session with "calls" (of Caesura\'s own format, or a recorded session file)'
    raise first.wrong("", f"an object with the fields {fields}", expected, "convert the trace to one of these formats")
