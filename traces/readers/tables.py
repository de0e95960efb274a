"""CSV traces of single requests, read and written by columns: a request a row, thousands of rows at a time."""

from __future__ import annotations

import csv
import difflib
import io
import itertools
import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, cast

import numpy as np

from traces.errors import TraceError
from traces.readers.reading import Reading
from traces.readers.records import MOST_TOKENS
from traces.readers.request_columns import Requests
from traces.readers.typed_columns import Type, typed_columns
from traces.readers.writing import Writing
from traces.session import Session

ROWS_AT_ONCE = 16_384
MOST_SECONDS = sys.float_info.max


@dataclass(frozen=True, slots=True)
class Column:
    """One column of a CSV format.

    Attributes:
        name: as the header writes it.
        parse: text to value; raises `ValueError`.
        allowed: whether all of some parsed values are allowed.
        expected: what the messages call an allowed value.
        default: the text to take when the file has no such column; None when it must be there.
        type: what pyarrow may take it for, with the same result; of a text, each is parsed.
    """

    name: str
    parse: Callable[[str], object]
    allowed: Callable[[Sequence[Any]], bool]
    expected: str
    default: str | None = None
    type: Type = "string"


def whole(name: str, least: int) -> Column:
    """A count of tokens."""
    expected = f"a whole number >= {least}"
    return Column(name, _whole, lambda values: _within(values, least, MOST_TOKENS), expected, type="int64")


def seconds(name: str, default: str | None = None) -> Column:
    """A time in seconds."""
    expected = "a finite number of seconds >= 0"
    return Column(name, float, lambda values: _within(values, 0, MOST_SECONDS), expected, default, "double")


def moment(name: str) -> Column:
    """A date with a time, to the microsecond; all with a zone, or all without one."""
    expected = "a date with a time such as 2023-11-16 18:15:46.6805900"
    return Column(name, datetime.fromisoformat, lambda values: True, expected)


def text(name: str, default: str | None = None) -> Column:
    """Free text."""
    return Column(name, str, lambda values: True, "a text", default)


@dataclass(frozen=True, slots=True)
class TableRows:
    """Some successive rows of a table: parsed values by column, and the line of each row."""

    lines: list[int]
    columns: list[list[object]]


def read_rows(reading: Reading, columns: tuple[Column, ...], unused: tuple[str, ...] = ()) -> Iterator[TableRows]:
    """The rows of a CSV file with a header, in the order of the file, thousands at a time.

    Columns may stand in any order, and others may be there: they are not read, and noted unless they are among the
    ``unused`` ones that the format is known to have.

    Raises:
        TraceError: a file that cannot be read, without rows, or without one of the columns; (unless skipped) a row of
            another width, or a value that its column does not allow.
    """
    table: _Table | None = None
    empty = True
    blocks = _header_apart(reading.source.blocks())
    for first, block in blocks:
        typed = table.typed(first, block) if table is not None else None
        if typed is not None:
            empty = False
            yield typed
            continue
        for lines, rows in _chunks(reading, first, block, blocks):
            if table is None:
                table = _Table(reading, rows.pop(0), lines.pop(0), columns, unused)
            if rows:
                empty = False
                yield table.parsed(lines, rows)
    if table is None and reading.skipped.first:
        raise reading.skipped.first[0]
    if table is None:
        raise reading.empty(f"a header with {', '.join(column.name for column in columns)}")
    if empty:
        raise TraceError(reading.source.name, "a header only", "at least one row", "name a trace that holds requests")


def requests_of(
    reading: Reading,
    format: str,
    rows: TableRows,
    arrivals: list[float],
    lengths: tuple[int, int],
    kind: int | None = None,
) -> Requests:
    """Rows as requests; those without a prompt or without any generated token are left out, and counted.

    Args:
        reading: what counts them.
        format: its name, with which every id begins; the request's line in the file follows.
        rows: as `read_rows` gives them.
        arrivals: of each row, in seconds; a negative one lies before the first row, which is an error.
        lengths: which columns hold prompt and output tokens.
        kind: which column holds the kind.
    """
    prompts, outputs = (cast(list[int], rows.columns[place]) for place in lengths)
    kinds = cast(list[str], rows.columns[kind]) if kind is not None else [""] * len(arrivals)
    ids = [f"{format}-{line}" for line in rows.lines]
    found = Requests(ids, arrivals, prompts, outputs, kinds)
    if not arrivals or (min(prompts) > 0 and min(outputs) > 0 and min(arrivals) >= 0):
        return found
    kept = [index for index, line in enumerate(rows.lines) if _is_request(reading, line, found, index)]
    return Requests(*([column[index] for index in kept] for column in found.columns))


def _is_request(reading: Reading, line: int, requests: Requests, index: int) -> bool:
    if requests.arrivals[index] < 0:
        reading.skip(reading.before_the_first(line, requests.arrivals[index]))
        return False
    for length, without in ((requests.outputs[index], "without output"), (requests.prompts[index], "without prompt")):
        if length == 0:
            reading.left_out[without] += 1
            return False
    return True


def sessions_to_requests(
    write_requests: Callable[[Writing, Iterable[Requests]], None],
) -> Callable[[Writing, Iterable[Session]], None]:
    """A writer of sessions from one of columns; it refuses, with a `TraceError`, those of more than one call."""

    def write(writing: Writing, sessions: Iterable[Session]) -> None:
        write_requests(writing, _requests_from(writing, sessions))

    return write


def _requests_from(writing: Writing, sessions: Iterable[Session]) -> Iterator[Requests]:
    sessions = iter(sessions)
    while some := list(itertools.islice(sessions, ROWS_AT_ONCE)):
        for session in some:
            writing.require_single_call(session)
            writing.lose("block hashes", bool(session.block_hashes))
            writing.lose("named prefixes", session.prefix is not None)
        yield Requests(
            [session.id for session in some],
            [session.arrival for session in some],
            [session.prompt for session in some],
            [session.calls[0].output for session in some],
            [session.kind for session in some],
        )


def _header_apart(blocks: Iterator[tuple[int, bytes]]) -> Iterator[tuple[int, bytes]]:
    """The blocks, with the first line in a block of its own."""
    for first, block in blocks:
        end = block.find(b"\n") + 1 if first == 1 else 0
        if end:
            yield first, block[:end]
        if block[end:]:
            yield (first + 1 if end else first), block[end:]


def _chunks(
    reading: Reading, first: int, block: bytes, blocks: Iterator[tuple[int, bytes]]
) -> Iterator[tuple[list[int], list[list[str]]]]:
    """The rows of a block with the line on which each ends, blank ones left out; of all that follow, too, from a block
    on that asks for care: thousands at once."""
    rows = _plain_rows(block, first)
    if rows is None:
        careful = _careful_rows(reading, itertools.chain([(first, block)], blocks))
        while some := list(itertools.islice(careful, ROWS_AT_ONCE)):
            yield [line for line, _ in some], [row for _, row in some]
    elif full := [(line, row) for line, row in enumerate(rows, start=first) if row]:
        yield [line for line, _ in full], [row for _, row in full]


def _plain_rows(block: bytes, first: int) -> list[list[str]] | None:
    """The rows of a block, one a line; None where quotes, or bytes that are not UTF-8, ask for more care."""
    if b'"' in block:
        return None
    try:
        text = block.decode("utf-8-sig" if first == 1 else "utf-8")
        return list(csv.reader(text.removesuffix("\n").split("\n"), strict=True))
    except (UnicodeDecodeError, csv.Error):
        return None


def _careful_rows(reading: Reading, blocks: Iterable[tuple[int, bytes]]) -> Iterator[tuple[int, list[str]]]:
    """The rows one by one; what cannot be read is skipped, or stops here."""
    source = reading.source
    line = 0

    def texts() -> Iterator[str]:
        nonlocal line
        for first, block in blocks:
            for line, raw in enumerate(io.BytesIO(block), start=first):
                try:
                    yield source.decoded(raw, line)
                except TraceError as error:
                    reading.skip(error)

    rows = csv.reader(texts(), strict=True)
    while True:
        try:
            for row in rows:
                if row:
                    yield line, row
        except csv.Error as error:
            found, fix = f"no CSV ({error})", "write every row on one line, with commas between the values"
            if "new-line character" in str(error):
                found = "a bare carriage return, as old Macs end lines"
                fix = "save the file with line ends of Unix or Windows"
            reading.skip(TraceError(source.name, found, "one row of values", fix, line))
        else:
            return


class _Table:
    """The columns by a file's header, and the parser of its rows."""

    def __init__(
        self, reading: Reading, header: list[str], line: int, columns: tuple[Column, ...], unused: tuple[str, ...]
    ) -> None:
        names = [name.strip() for name in header]
        self.reading = reading
        self.columns = columns
        self.width = len(names)
        self.places = [_place(reading, names, line, column) for column in columns]
        unknown = set(names).difference(unused, (column.name for column in columns))
        if unknown:
            shown = ", ".join(name for name in names if name in unknown)
            reading.note(f"the columns {shown[:200]} are not used")

    def typed(self, first: int, block: bytes) -> TableRows | None:
        """A block of plain lines, a row each, all of them right; None for any other."""
        wanted = {place: column.type for column, place in self._placed if place is not None}
        found = typed_columns(block, self.width, wanted)
        if found is None:
            return None
        count = len(next(iter(found.values())))
        try:
            values: list[Any] = [
                [column.parse(column.default or "")] * count
                if place is None
                else found[place]
                if column.type != "string"
                else list(map(column.parse, found[place].tolist()))
                for column, place in self._placed
            ]
        except ValueError:
            return None
        if not self._allowed(values):
            return None
        return TableRows(
            list(range(first, first + count)), [some if type(some) is list else some.tolist() for some in values]
        )

    def parsed(self, lines: list[int], rows: list[list[str]]) -> TableRows:
        """All rows at once where every one of them is right; else one by one."""
        try:
            turned = list(zip(*rows, strict=True))
            if len(turned) == self.width:
                values = [
                    list(map(column.parse, turned[place] if place is not None else [column.default or ""] * len(lines)))
                    for column, place in self._placed
                ]
                if self._allowed(values):
                    return TableRows(lines, values)
        except (ValueError, OverflowError):
            pass
        right = []
        for line, row in zip(lines, rows, strict=True):
            try:
                right.append((line, self._row(line, row)))
            except TraceError as error:
                self.reading.skip(error)
        return TableRows(
            [line for line, _ in right], [list(some) for some in zip(*(row for _, row in right), strict=True)]
        )

    @property
    def _placed(self) -> Iterator[tuple[Column, int | None]]:
        return zip(self.columns, self.places, strict=True)

    def _allowed(self, values: list[Any]) -> bool:
        return all(column.allowed(some) for column, some in zip(self.columns, values, strict=True))

    def _row(self, line: int, row: list[str]) -> list[object]:
        file = self.reading.source.name
        if len(row) != self.width:
            fix = "correct the row, or remove it; the last row of a file may have been cut off"
            raise TraceError(file, f"{len(row)} values", f"{self.width} values, one a column", fix, line)
        values = []
        for column, place in self._placed:
            given = row[place] if place is not None else column.default or ""
            try:
                value = column.parse(given)
                if not column.allowed([value]):
                    raise ValueError(given)
            except (ValueError, OverflowError):
                shown = repr(given if len(given) <= 60 else given[:57] + "...")
                fix = "correct the value, or remove the row"
                raise TraceError(file, shown, column.expected, fix, line, column.name) from None
            values.append(value)
        return values


def _place(reading: Reading, names: list[str], line: int, column: Column) -> int | None:
    """The index of a column in the rows; None when the file lacks it and it has a default."""
    if column.name in names:
        return names.index(column.name)
    if column.default is not None:
        return None
    close = difflib.get_close_matches(column.name, names, n=1, cutoff=0.5)
    fix = f'rename "{close[0]}" to "{column.name}"' if close else "add the column, or name the trace's format"
    found = f"the columns {', '.join(names)}"
    raise TraceError(reading.source.name, found, f'a column "{column.name}"', fix, line, column.name)


def _within(values: Sequence[Any], least: float, most: float) -> bool:
    """Whether all of some numbers lie between two; NaN does not."""
    numbers = np.asarray(values)
    return bool((numbers >= least).all() and (numbers <= most).all())


def _whole(given: str) -> int:
    if "_" in given:
        raise ValueError(given)
    return int(given)


def write_table(writing: Writing, header: Iterable[str], batches: Iterable[Iterable[Iterable[object]]]) -> None:
    """Write a header and batches of rows; texts are quoted where they have to be."""
    rows = csv.writer(writing, lineterminator="\n")
    rows.writerow(list(header))
    for batch in batches:
        rows.writerows(batch)
