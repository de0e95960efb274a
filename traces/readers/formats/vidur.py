"""Vidur's CSV: ``arrived_at`` (s), ``num_prefill_tokens``, ``num_decode_tokens``; single requests.

Its length traces have no ``arrived_at``: their requests all arrive at 0.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import cast

from traces.readers.reading import Reading
from traces.readers.request_columns import Requests
from traces.readers.tables import read_rows, requests_of, seconds, sessions_to_requests, whole, write_table
from traces.readers.trace_format import Format, batches_to_sessions
from traces.readers.writing import Writing

COLUMNS = (seconds("arrived_at", default="0"), whole("num_prefill_tokens", 0), whole("num_decode_tokens", 0))

UNUSED = ("", "total_tokens", "num_total_tokens", "pd_ratio")


def read_requests(reading: Reading) -> Iterator[Requests]:
    """The requests in the order of the rows."""
    for rows in read_rows(reading, COLUMNS, UNUSED):
        if rows.lines:
            yield requests_of(reading, "vidur", rows, cast(list[float], rows.columns[0]), lengths=(1, 2))


def write_requests(writing: Writing, batches: Iterable[Requests]) -> None:
    """Write requests; arrivals and lengths read back exactly."""

    def rows() -> Iterator[Iterator[tuple[object, ...]]]:
        for batch in batches:
            writing.lose_columns(batch, kinds=True)
            yield zip(batch.arrivals, batch.prompts, batch.outputs, strict=True)

    write_table(writing, [column.name for column in COLUMNS], rows())


FORMAT = Format(
    "vidur",
    "Vidur request traces (CSV)",
    recognises=lambda head: head.has_columns("num_prefill_tokens", "num_decode_tokens"),
    read=batches_to_sessions(read_requests),
    lacks=frozenset({"calls"}),
    write=sessions_to_requests(write_requests),
    read_requests=read_requests,
    write_requests=write_requests,
)
