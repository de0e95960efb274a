"""Writing a trace: it appears whole or not at all, compressed as its name says, and what was lost is counted."""

from __future__ import annotations

import contextlib
import gzip
import os
import sys
from collections import Counter
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, TYPE_CHECKING, TypeVar, cast

from traces.errors import TraceError
from traces.readers.reading import MOST_IDS
from traces.readers.records import shown
from traces.session import Session

if TYPE_CHECKING:
    from traces.readers.request_columns import Requests
    from traces.readers.session_columns import SessionColumns

    Batch = TypeVar("Batch", Requests, SessionColumns)

STANDARD_OUTPUT = "-"


class Writing:
    """The context of one writing: the file, and what was written and lost.

    Attributes:
        name: of the file, for messages.
        sessions: how many were given to write so far.
        lost: what the format cannot say and the sessions had, by what it is, in sessions.
    """

    def __init__(self, name: str, stream: IO[bytes]) -> None:
        self.name = name
        self.stream = stream
        self.sessions = 0
        self.lost: Counter[str] = Counter()

    def line(self, text: str) -> None:
        """Write a line of ASCII or Unicode text."""
        self.stream.write(text.encode() + b"\n")

    def data(self, data: bytes) -> None:
        """Write text that is encoded already and has its own line ends."""
        self.stream.write(data)

    def write(self, text: str) -> None:
        """Write text that has its own line ends."""
        self.stream.write(text.encode())

    def lose(self, what: str, happens: bool) -> None:
        """Count a session that has something which the format cannot say."""
        if happens:
            self.lost[what] += 1

    def lose_columns(self, requests: Requests, kinds: bool) -> None:
        """Count the ids, and the kinds if the format has none either, that a table of requests cannot hold."""
        self.lost["ids"] += len(requests.ids)
        if kinds and (named := sum(map(bool, requests.kinds))):
            self.lost["kinds"] += named

    def refuse(self, session: Session, found: str, expected: str) -> TraceError:
        """The error to raise about a session that would become another workload."""
        fix = "write it as Caesura's own format, or leave out such sessions"
        return TraceError(self.name, f"session {shown(session.id)} with {found}", expected, fix)

    def require_plain(self, session: Session) -> None:
        """Refuse sessions that only Caesura's own format can describe."""
        expected = "one prompt, and calls that follow each other"
        if session.samples > 1:
            raise self.refuse(session, f"{session.samples} samples", expected)
        if session.stream:
            raise self.refuse(session, "a prompt that streams in", expected)
        if any(pause.session for pause in session.pauses):
            raise self.refuse(session, "a pause that waits for another session", expected)
        self.lose("runs of several tools at once", any(pause.tools for pause in session.pauses))

    def require_single_call(self, session: Session) -> None:
        """Refuse sessions of more than one call, for formats that know only single requests."""
        self.require_plain(session)
        if len(session.calls) > 1:
            raise self.refuse(session, f"{len(session.calls)} calls", "sessions of one call: the format has no others")
        self.lose("pauses after the last call", bool(session.pauses))

    def counted(self, sessions: Iterable[Session]) -> Iterator[Session]:
        """The sessions, each counted, the first `MOST_IDS` of them with ids that differ from all others."""
        ids: set[str] = set()
        for number, session in enumerate(sessions, start=1):
            if session.id in ids:
                found = f"{shown(session.id)} a second time"
                raise TraceError(self.name, found, "ids that differ", "give every session its own id", number, "id")
            if len(ids) < MOST_IDS:
                ids.add(session.id)
            self.sessions = number
            yield session

    def counted_batches(self, batches: Iterable[Batch]) -> Iterator[Batch]:
        """Sessions as columns, counted; a reader gave them ids of their own."""
        for batch in batches:
            self.sessions += len(batch.ids)
            yield batch


@contextmanager
def writing_to(path: str | Path) -> Iterator[Writing]:
    """Open a trace for writing; ``.gz`` and ``.zst`` at the end of its name compress it, ``-`` is standard output.

    The file takes its place when the block ends well. Otherwise what was there before stays.

    Raises:
        TraceError: a place that cannot be written, or nothing written.
    """
    if path == STANDARD_OUTPUT:
        yield Writing("standard output", sys.stdout.buffer)
        sys.stdout.buffer.flush()
        return
    path = Path(path)
    unfinished = path.with_name(f".{path.name}.{os.getpid()}.unfinished")
    try:
        with unfinished.open("wb") as raw, _compressing(path, raw) as stream:
            writing = Writing(str(path), stream)
            yield writing
        if writing.sessions == 0:
            fix = "write a workload that has sessions"
            raise TraceError(str(path), "no session to write", "at least one session", fix)
        unfinished.replace(path)
    except OSError as error:
        found = f"a place that cannot be written ({error.strerror})"
        raise TraceError(str(path), found, "a file name in a folder that is writable", "name another place") from None
    finally:
        with contextlib.suppress(OSError):
            unfinished.unlink()


@contextmanager
def _compressing(path: Path, raw: IO[bytes]) -> Iterator[IO[bytes]]:
    if path.suffix == ".gz":
        with gzip.GzipFile(filename="", fileobj=raw, mode="wb", mtime=0) as stream:
            yield cast(IO[bytes], stream)
    elif path.suffix == ".zst":
        import pyarrow as pa

        with pa.CompressedOutputStream(pa.PythonFile(raw, mode="w"), "zstd") as stream:
            yield stream
    else:
        yield raw
