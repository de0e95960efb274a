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

import numpy as np

from traces.readers.grouping import ColumnGathering, Groups
from traces.readers.reading import Reading
from traces.readers.request_columns import Requests
from traces.readers.session_columns import SessionColumns, TurnColumns
from traces.readers.tables import (
    TableRows,
    read_rows,
    requests_of,
    seconds,
    sessions_to_requests,
    text,
    whole,
    write_table,
)
from traces.readers.trace_format import Format, batches_to_sessions, head_of
from traces.readers.writing import Writing

REQUEST = (
    seconds("Timestamp"),
    whole("Request tokens", 0),
    whole("Response tokens", 0),
    text("Log Type", default=""),
)
SESSION = (*REQUEST, text("Session ID"), seconds("Elapsed time", default="0"))
WRITTEN = ("Timestamp", "Model", "Request tokens", "Response tokens", "Total tokens", "Log Type")

UNUSED = ("Model", "Total tokens")


def read_requests(reading: Reading) -> Iterator[Requests] | None:
    """The requests in the order of the rows; None when they belong to sessions."""
    return None if head_of(reading.source).has_columns("Session ID") else _requests(reading)


def read_columns(reading: Reading) -> Iterator[SessionColumns] | None:
    """The sessions; one of several turns comes where its last turn stands in the file. None when there are none."""
    return _sessions(reading) if head_of(reading.source).has_columns("Session ID") else None


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


def _sessions(reading: Reading) -> Iterator[SessionColumns]:
    ids = read_rows(Reading(reading.source, "skip"), (text("Session ID"),))
    gathering = ColumnGathering(key for rows in ids if rows.lines for key in _keys(rows, 0))
    begin = None
    for rows in read_rows(reading, SESSION, UNUSED):
        if not rows.lines:
            continue
        times, prompts, outputs, kinds, _, elapsed = rows.columns
        begin = cast(float, times[0]) if begin is None else begin
        columns = [np.array(kinds, dtype=object), *map(np.array, (times, prompts, outputs, elapsed))]
        keys = _keys(rows, 4)
        if columns[1].min() < begin:
            kept = [
                index for index, line in enumerate(rows.lines) if _in_order(reading, line, columns[1][index] - begin)
            ]
            keys, columns = [keys[index] for index in kept], [column[kept] for column in columns]
        reading.plausibility.see_rows(columns[1].tolist())
        for groups in gathering.add(keys, columns):
            yield _answered(reading, groups, begin)
    for groups in gathering.rest():
        yield _answered(reading, groups, begin or 0.0)


def _in_order(reading: Reading, line: int, arrival: float) -> bool:
    if arrival < 0:
        reading.skip(reading.before_the_first(line, arrival))
    return arrival >= 0


def _keys(rows: TableRows, column: int) -> list[str]:
    """The session of each row; one without is a session of its own."""
    keys = list(map(str.strip, cast(list[str], rows.columns[column])))
    if all(keys):
        return keys
    return [key or f"burstgpt-{line}" for key, line in zip(keys, rows.lines, strict=True)]


def _answered(reading: Reading, groups: Groups, begin: float) -> SessionColumns:
    """The sessions of groups of rows, of those requests that were answered."""
    group = np.repeat(np.arange(len(groups.keys)), np.diff(groups.begins, append=len(groups.columns[0])))
    answered = (groups.columns[2] > 0) & (groups.columns[3] > 0)
    if not answered.all():
        reading.left_out["without prompt or output"] += int(np.count_nonzero(~answered))
    kinds, times, prompts, outputs, elapsed = (column[answered] for column in groups.columns)
    group = group[answered]
    follows = np.diff(group, prepend=-1) == 0
    begins = np.flatnonzero(~follows)
    pauses = np.diff(times, prepend=0.0)
    reading.plausibility.turns_back += int(np.count_nonzero(pauses[follows] < 0))
    pauses[1:] -= elapsed[:-1]
    reading.plausibility.see_turns(int(np.count_nonzero(follows)), int(np.count_nonzero(pauses[follows] < 0)))
    turns = TurnColumns(begins, prompts, outputs, np.where(pauses < 0, 0.0, pauses))
    return SessionColumns(
        [groups.keys[number] for number in group[begins].tolist()],
        (times[begins] - begin).tolist(),
        prompts[begins].tolist(),
        kinds[begins].tolist(),
        begins.tolist(),
        outputs.tolist(),
        *turns.chained(),
        "user",
    )


FORMAT = Format(
    "burstgpt",
    "BurstGPT requests, or sessions of its third release (CSV)",
    recognises=lambda head: head.has_columns("Timestamp", "Request tokens", "Response tokens"),
    read=batches_to_sessions(read_columns),
    lacks=frozenset({"tools"}),
    write=sessions_to_requests(write_requests),
    read_requests=read_requests,
    write_requests=write_requests,
    read_columns=read_columns,
)
