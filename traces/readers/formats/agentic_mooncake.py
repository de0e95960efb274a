"""Agentic Mooncake (Dynamo): requests of agents with their dependencies, versions 1 and 2, JSONL.

A row has ``request_id``, ``session_id``, ``input_length`` (the whole prompt), ``output_length`` and ``hash_ids``.
Version 1 adds ``wait_for`` [], ``delay`` and ``tool_wait_ms`` (ms, both before the request), ``tool_events`` [] and
``prefix_reset``; version 2 begins with a header (``block_size``) and adds ``play_id``, ``not_before_ms`` and
``dependencies`` [{``request_id``, ``relation``, ``trigger``, ``delay_ms``}].

The rows of one ``session_id`` (of one play) are a session, in the order of the file. The pause before a row is its
delay and tool time. What a prompt shares with the one before follows from the hashes; ``prefix_reset`` shares nothing.
How long a row waits for another session's requests depends on the server and is not in the file: such a pause holds
only the stated delay, and a session that another one spawned arrives at its ``timestamp`` or ``not_before_ms``, or else
at 0. The reading's warnings say how many rows that concerns.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace

from traces.readers.continuation import Turn, block_size_of, calls_of, shared_tokens
from traces.readers.grouping import Gathering, keys_of
from traces.readers.reading import Reading
from traces.readers.records import Record, shown
from traces.readers.trace_format import Format, Head
from traces.session import Session

SCHEMA = "dynamo.agentic_mooncake"
HASH_BLOCK = 64
VERSION = 2
HEADER = frozenset(("schema", "version", "block_size", "hash_id_scope"))
KEY = ("play_id", "session_id")
WAITS = ("wait_for", "branches", "dependencies")
TIMES = ("timestamp", "not_before_ms", "delay", "tool_wait_ms", "tool_events")
FIELDS = frozenset((*KEY, *TIMES, *WAITS, "request_id", "input_length", "output_length", "hash_ids", "prefix_reset"))
OTHERS = "requests wait for other sessions; their pauses hold only the stated delays"


@dataclass(frozen=True, slots=True)
class AgenticRow:
    """One request; ``turn`` says how it follows the one before in its session."""

    request_id: str
    begin: float
    turn: Turn
    hashes: tuple[int, ...]


def read(reading: Reading) -> Iterator[Session]:
    """The sessions, each where its last row stands in the file."""
    gathering: Gathering[AgenticRow] = Gathering(keys_of(reading.source, *KEY))
    reading.plausibility.follows_rows = True
    block, local, others = 0, False, 0
    for record in reading.records():
        if record.has("schema"):
            reading.note_unused(record, HEADER)
            block = reading.attempt(record, _block_of_header) or 0
            local = record.values.get("hash_id_scope") == "local"
            continue
        reading.note_unused(record, FIELDS)
        key = " ".join(str(record.values[name]) for name in KEY if record.has(name))
        if not key:
            reading.attempt(record, lambda record: record.text("session_id"))
            continue
        if not block:
            block = reading.attempt(record, _block_of) or 0
        before = gathering.rows(key)
        row = reading.attempt(record, _new_row, reading, before[-1] if before else None, block or HASH_BLOCK)
        others += _waits_for_others(record, before)
        if len(before) > 1:
            before[-1] = replace(before[-1], hashes=())
        rows = gathering.add(key, row)
        session = reading.attempt(record, _session, key, rows, block or HASH_BLOCK, local) if rows else None
        if session is not None:
            yield session
    if others:
        reading.note(f"{others} {OTHERS}")


def _block_of_header(header: Record) -> int:
    for name, expected in (("schema", SCHEMA), ("version", VERSION)):
        if header.values.get(name) != expected:
            found = shown(header.values.get(name))
            raise header.wrong(name, found, shown(expected), "convert the trace, or name its format")
    return header.whole("block_size", least=1)


def _block_of(record: Record) -> int:
    hashes = len(record.wholes("hash_ids"))
    return block_size_of(record.whole("input_length", least=1), hashes, HASH_BLOCK) if hashes > 1 else 0


def _new_row(record: Record, reading: Reading, before: AgenticRow | None, block: int) -> AgenticRow:
    row = _row(record, before, block)
    if row.request_id:
        reading.require_new(f"{record.identity('play_id', '')} {row.request_id}", record, "request_id")
    return row


def _row(record: Record, before: AgenticRow | None, block: int) -> AgenticRow:
    record.identity("session_id", "")
    hashes = record.wholes("hash_ids")
    delays = [one.milliseconds("delay_ms", 0.0) for one in record.records("dependencies")]
    pause = record.milliseconds("delay", 0.0) + record.milliseconds("tool_wait_ms", 0.0) + max(delays, default=0.0)
    shared = None
    if record.values.get("prefix_reset") is True:
        shared = 0
    elif before is not None and hashes and before.hashes:
        shared = shared_tokens(before.hashes, hashes, block)
    prompt, output = record.whole("input_length", least=1), record.whole("output_length", least=1)
    begin = record.milliseconds("timestamp" if record.has("timestamp") else "not_before_ms", 0.0)
    events = record.records("tool_events")
    slowest = max(events, key=lambda event: event.milliseconds("duration_ms", 0.0), default=None)
    tool = slowest.text("tool_class", "") if slowest is not None else ""
    return AgenticRow(
        record.identity("request_id", ""), begin, Turn(prompt, output, pause, shared, "tool", tool), hashes
    )


def _waits_for_others(record: Record, before: list[AgenticRow]) -> bool:
    """Whether a row waits for a request that is not its session's own."""
    waits = record.values.get("wait_for")
    names = list(waits) if isinstance(waits, list) else []
    dependencies = record.values.get("dependencies")
    for one in dependencies if isinstance(dependencies, list) else []:
        names.append(one.get("request_id") if isinstance(one, dict) else one)
    own = {row.request_id for row in before[-8:]}
    return any(not isinstance(name, str) or name not in own for name in names)


def _session(record: Record, id: str, rows: list[AgenticRow], block: int, local: bool) -> Session:
    first = rows[0]
    hashes = () if local else first.hashes
    calls = calls_of([row.turn for row in rows], block)
    return Session(id, first.begin, first.turn.prompt, calls, block_hashes=hashes, hash_block=block if hashes else 0)


def _recognised(head: Head) -> bool:
    if head.value.get("schema") == SCHEMA:
        return True
    return head.has("input_length", "output_length", "request_id") and any(
        map(head.has, ("wait_for", "tool_wait_ms", "tool_events", "branches", "prefix_reset", "session_id"))
    )


FORMAT = Format(
    "agentic-mooncake",
    "agentic Mooncake of Dynamo, versions 1 and 2 (JSONL)",
    recognises=_recognised,
    read=read,
)
