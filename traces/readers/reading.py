"""One reading of a trace: what is wrong stops it or is skipped and counted, and what looks odd is remembered."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from typing import Literal, TypeVar

from traces.errors import TraceError
from traces.readers.plausibility import Plausibility
from traces.readers.records import Record, record_of, shown
from traces.readers.source import TraceSource
from traces.session import InvalidSession, Session

OnError = Literal["stop", "skip"]

T = TypeVar("T")

MOST_SKIPPED_SHOWN = 20
MOST_UNUSED_SHOWN = 20
MOST_IDS = 1_000_000


class MissingTokenizer(TraceError):
    """There is text to count and no tokenizer. It is never skipped, for every session would be."""


class Skipped:
    """The lines, rows and sessions that a reading skipped because they were wrong.

    Attributes:
        count: lines, rows or sessions.
        first: the errors of the first `MOST_SKIPPED_SHOWN` of them.
        by_field: how many by the field that was wrong; the empty field means a whole line.
    """

    def __init__(self) -> None:
        self.count = 0
        self.first: list[TraceError] = []
        self.by_field: Counter[str] = Counter()

    def add(self, error: TraceError) -> None:
        self.count += 1
        self.by_field[error.field] += 1
        if len(self.first) < MOST_SKIPPED_SHOWN:
            self.first.append(error)


class Reading:
    """The context of one reading: the file, the tokenizer, and what was skipped, left out and noted.

    Attributes:
        source: the file.
        on_error: ``stop`` raises the first error, ``skip`` counts it and goes on.
        tokenizer: counts the tokens of a text; None when none was named.
        skipped: what was wrong and left out.
        left_out: what the format's own rules leave out (failed requests, conversations without an answer), by reason.
        plausibility: watches for wrong units.
        notes: what else a user should know about the trace.
    """

    def __init__(self, source: TraceSource, on_error: OnError, tokenizer: Callable[[str], int] | None = None) -> None:
        self.source = source
        self.on_error = on_error
        self.tokenizer = tokenizer
        self.skipped = Skipped()
        self.left_out: Counter[str] = Counter()
        self.plausibility = Plausibility(source.name)
        self.notes: list[str] = []
        self._lines_of_ids: dict[str, int] = {}
        self._unused: set[str] = set()

    def tokens(self, text: str) -> int:
        """The tokens of a text.

        Raises:
            TraceError: no tokenizer was named. This is never skipped.
        """
        if self.tokenizer is None:
            raise self.without_tokenizer()
        return self.tokenizer(text)

    def without_tokenizer(self) -> MissingTokenizer:
        """The error to raise when there is text to count and nothing to count it with."""
        fix = "name one (words, chars:4, or the folder of a tokenizer.json), or convert the trace first"
        return MissingTokenizer(self.source.name, "text", "a tokenizer to count it with", fix)

    def skip(self, error: TraceError) -> None:
        """Raise the error, or count it where errors are to be skipped."""
        if self.on_error == "stop" or isinstance(error, MissingTokenizer):
            raise error
        self.skipped.add(error)

    def records(self, fields: frozenset[str] | None = None) -> Iterator[Record]:
        """The objects of a JSONL file, one a line; blank lines are passed over.

        Args:
            fields: those that the format is known to have; others are noted. None notes none.

        Raises:
            TraceError: a file that cannot be read, or without any object; (unless skipped) a line that is not UTF-8,
                not JSON, cut off, or not an object.
        """
        empty = True
        for number, raw in self.source.lines():
            if raw.isspace():
                continue
            empty = False
            try:
                record = record_of(self.source, raw, number)
            except TraceError as error:
                self.skip(error)
            else:
                if fields is not None:
                    self.note_unused(record, fields)
                yield record
        if empty:
            raise self.empty("one JSON object a line")

    def note(self, text: str) -> None:
        """Add a note on the trace, once."""
        note = f"{self.source.name}: {text}"
        if note not in self.notes:
            self.notes.append(note)

    def note_unused(self, record: Record, fields: frozenset[str]) -> None:
        """Note what an object has beyond the fields of its format: a misspelt one would be lost in silence."""
        if record.values.keys() <= fields:
            return
        for name in sorted(record.values.keys() - fields - self._unused):
            if len(self._unused) < MOST_UNUSED_SHOWN:
                self._unused.add(name)
                path = shown(f"{record.path}.{name}" if record.path else name)[1:-1]
                self.note(f"the field {path} is not used (first in line {record.line})")

    def empty(self, expected: str) -> TraceError:
        """The error to raise about a file that holds nothing."""
        return TraceError(self.source.name, "an empty file", expected, "name a trace that holds sessions")

    def before_the_first(self, line: int, arrival: float) -> TraceError:
        """The error about a row whose arrival, counted from the first row, is negative."""
        found = f"a time {-arrival:g} s before that of the first row"
        fix = "sort the file by time, or remove the row"
        return TraceError(self.source.name, found, "a time that is not before it", fix, line)

    def attempt(self, record: Record, make: Callable[..., T], *others: object) -> T | None:
        """Call ``make`` with a record and the others; None when the record is wrong and skipped."""
        try:
            return make(record, *others)
        except TraceError as error:
            self.skip(error)
        except InvalidSession as error:
            fix = "correct the line, or remove it"
            self.skip(record.wrong("", str(error), "a session that can be served", fix))
        return None

    def each(self, records: Iterable[Record], session_from: Callable[[Record], Session | None]) -> Iterator[Session]:
        """The session of every record, each with an id of its own; None stands for no session."""

        def new_session_from(record: Record) -> Session | None:
            session = session_from(record)
            if session is not None:
                self.require_new(session.id, record)
            return session

        for record in records:
            session = self.attempt(record, new_session_from)
            if session is not None:
                yield session

    def require_new(self, id: str, record: Record, field: str = "id") -> None:
        """Refuse an id that was there before; the first `MOST_IDS` are known, more would take too much memory."""
        before = self._lines_of_ids.get(id)
        if before is not None:
            found = f"{shown(id)}, which line {before} has already"
            what = "session" if field == "id" else "request"
            raise record.wrong(field, found, f"an id of its own for every {what}", "rename one of the two")
        if len(self._lines_of_ids) < MOST_IDS:
            self._lines_of_ids[id] = record.line
