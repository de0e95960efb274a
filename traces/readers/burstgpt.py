"""BurstGPT's CSV: requests to ChatGPT and GPT-4, with sessions in its third release.

``Timestamp`` (s, not from 0: arrivals count from the first row), ``Request tokens``, ``Response tokens``, ``Log Type``,
``Model``, ``Total tokens``; the third release adds ``Session ID`` and ``Elapsed time`` (s, of the whole response).
A response of 0 tokens is a request that failed: it is left out.

``Request tokens`` is taken as the whole prompt of a turn: one that is shorter than the context before it is a new
prompt. The pause before a turn lasts from the end of the response before, if its ``Elapsed time`` is given.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import cast

from traces.readers.continuation import Turn, calls_of
from traces.readers.formats import Format, head_of
from traces.readers.grouping import Gathering
from traces.readers.reading import Reading
from traces.readers.tables import (
    Requests,
    Rows,
    read_rows,
    requests_of,
    seconds,
    sessions_to_requests,
    text,
    whole,
    write_table,
)
from traces.readers.writing import Writing
from traces.session import Session

REQUEST = (
    seconds("Timestamp"),
    whole("Request tokens", 0),
    whole("Response tokens", 0),
    text("Log Type", default=""),
)
SESSION = (*REQUEST, text("Session ID"), seconds("Elapsed time", default="0"))
WRITTEN = ("Timestamp", "Model", "Request tokens", "Response tokens", "Total tokens", "Log Type")

UNUSED = ("Model", "Total tokens")

Row = tuple[float, int, int, str, str, float]


def read_requests(reading: Reading) -> Iterator[Requests] | None:
    """The requests in the order of the rows; None when they belong to sessions."""
    return None if head_of(reading.source).has_columns("Session ID") else _requests(reading)


def read(reading: Reading) -> Iterator[Session]:
    """The sessions; one of several turns comes where its last turn stands in the file."""
    ids = read_rows(Reading(reading.source, "skip"), (text("Session ID"),))
    gathering: Gathering[Row] = Gathering(key for rows in ids if rows.lines for key in _keys(rows, 0))
    begin = None
    for rows in read_rows(reading, SESSION, UNUSED):
        if not rows.lines:
            continue
        begin = cast(float, rows.columns[0][0]) if begin is None else begin
        keys = _keys(rows, 4)
        for index, group in gathering.add_all(keys, cast(Iterable[Row], zip(*rows.columns, strict=True))):
            yield from _session(reading, keys[index].strip(), group, begin)
    for key, group in gathering.rest():
        yield from _session(reading, key, group, begin or 0.0)


def write_requests(writing: Writing, batches: Iterable[Requests]) -> None:
    """Write requests; the log type is the session's kind, and the model is not known."""

    def rows() -> Iterator[Iterator[tuple[object, ...]]]:
        for batch in batches:
            writing.lose_columns(batch, kinds=False)
            totals = map(int.__add__, batch.prompts, batch.outputs)
            models = ["unknown"] * len(batch.ids)
            yield zip(batch.arrivals, models, batch.prompts, batch.outputs, totals, batch.kinds, strict=True)

    write_table(writing, WRITTEN, rows())


def _requests(reading: Reading) -> Iterator[Requests]:
    begin = None
    for rows in read_rows(reading, REQUEST, UNUSED):
        if rows.lines:
            times = cast(list[float], rows.columns[0])
            begin = times[0] if begin is None else begin
            arrivals = [time - begin for time in times]
            yield requests_of(reading, "burstgpt", rows, arrivals, lengths=(1, 2), kind=3)


def _keys(rows: Rows, column: int) -> list[str]:
    """The session of each row; one without is a session of its own."""
    keys = cast(list[str], rows.columns[column])
    if all(map(str.strip, keys)):
        return keys
    return [key if key.strip() else f"burstgpt-{line}" for key, line in zip(keys, rows.lines, strict=True)]


def _session(reading: Reading, id: str, rows: list[Row], begin: float) -> Iterator[Session]:
    """The session of a group of rows, if any of its requests was answered."""
    answered = [row for row in rows if row[1] > 0 and row[2] > 0]
    if len(answered) < len(rows):
        reading.left_out["without prompt or output"] += len(rows) - len(answered)
    if not answered:
        return
    turns = [
        Turn(row[1], row[2], max(row[0] - before[0] - before[5], 0.0), None, "user")
        for before, row in zip([answered[0], *answered], answered, strict=False)
    ]
    arrival, kind = answered[0][0] - begin, answered[0][3]
    yield Session(id, max(arrival, 0.0), answered[0][1], calls_of(turns), kind)


FORMAT = Format(
    "burstgpt",
    "BurstGPT requests, or sessions of its third release (CSV)",
    recognises=lambda head: head.has_columns("Timestamp", "Request tokens", "Response tokens"),
    read=read,
    lacks=frozenset({"tools"}),
    write=sessions_to_requests(write_requests),
    read_requests=read_requests,
    write_requests=write_requests,
)
