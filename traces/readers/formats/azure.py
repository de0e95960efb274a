"""Azure's public traces of 2023 and 2024: single requests with their arrivals and lengths.

``TIMESTAMP`` (a date and a time, in 2024 with a zone), ``ContextTokens``, ``GeneratedTokens``. Arrivals count from the
first row, to the microsecond; the seventh decimal that the files write is always 0.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from datetime import UTC, datetime, timedelta
from typing import cast

from traces.readers.reading import Reading
from traces.readers.request_columns import Requests
from traces.readers.tables import moment, read_rows, requests_of, sessions_to_requests, whole, write_table
from traces.readers.trace_format import Format, batches_to_sessions
from traces.readers.writing import Writing

COLUMNS = (moment("TIMESTAMP"), whole("ContextTokens", 0), whole("GeneratedTokens", 0))
WRITTEN_BEGIN = datetime(2023, 11, 16, 18, tzinfo=UTC)


def read_requests(reading: Reading) -> Iterator[Requests]:
    """The requests in the order of the rows."""
    begin = None
    for rows in read_rows(reading, COLUMNS):
        if not rows.lines:
            continue
        moments = cast(list[datetime], rows.columns[0])
        begin = begin or moments[0]
        try:
            arrivals = [(moment - begin).total_seconds() for moment in moments]
        except TypeError:
            begin, moments = _in_utc(begin), list(map(_in_utc, moments))
            arrivals = [(moment - begin).total_seconds() for moment in moments]
        yield requests_of(reading, "azure", rows, arrivals, lengths=(1, 2))


def _in_utc(moment: datetime) -> datetime:
    """Put all times into UTC: where only some have a zone, the others are taken as UTC."""
    return moment if moment.tzinfo is not None else moment.replace(tzinfo=UTC)


def write_requests(writing: Writing, batches: Iterable[Requests]) -> None:
    """Write requests as a trace that begins on 16 November 2023, 18:00; arrivals count from the first one's."""
    begin = None

    def rows() -> Iterator[Iterator[tuple[object, ...]]]:
        nonlocal begin
        for batch in batches:
            writing.lose_columns(batch, kinds=True)
            if begin is None and batch.arrivals:
                begin = WRITTEN_BEGIN - timedelta(seconds=batch.arrivals[0])
            yield zip(map(_stamp, batch.arrivals), batch.prompts, batch.outputs, strict=True)

    def _stamp(arrival: float) -> str:
        assert begin is not None
        return (begin + timedelta(seconds=arrival)).strftime("%Y-%m-%d %H:%M:%S.%f0")

    write_table(writing, [column.name for column in COLUMNS], rows())


FORMAT = Format(
    "azure",
    "Azure LLM inference traces 2023 and 2024 (CSV)",
    recognises=lambda head: head.has_columns("TIMESTAMP", "ContextTokens", "GeneratedTokens"),
    read=batches_to_sessions(read_requests),
    lacks=frozenset({"calls"}),
    write=sessions_to_requests(write_requests),
    read_requests=read_requests,
    write_requests=write_requests,
)
