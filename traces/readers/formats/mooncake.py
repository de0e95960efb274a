"""Mooncake's JSONL: single requests with block hashes, or the turns of sessions with the delay before each.

``timestamp`` (ms), ``input_length``, ``output_length``, ``hash_ids`` (one a block of 512 tokens; other sizes are
inferred from the lengths); AIPerf and Dynamo add ``session_id`` and ``delay`` (ms after the answer before), and write
``input_tokens``, ``output_tokens``, ``created_time`` and ``delay_ms`` for the same things.

A later turn whose ``hash_ids`` begin as those of the turn before states its whole prompt; any other states the tokens
that it appends, as AIPerf replays it. A later turn with a ``timestamp`` and no ``delay`` pauses for the time since the
turn before, the server's work included.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from typing import NamedTuple

from traces.readers.continuation import Turn, block_size_of, calls_of, shared_tokens
from traces.readers.grouping import Gathering, keys_of
from traces.readers.reading import Reading
from traces.readers.records import Record
from traces.readers.trace_format import Format, Head
from traces.readers.writing import Writing
from traces.session import Call, Pause, Session

HASH_BLOCK = 512
LENGTHS = (("input_length", "output_length"), ("input_tokens", "output_tokens"))
TIMES = ("timestamp", "created_time", "delay", "delay_ms")
FIELDS = frozenset((*LENGTHS[0], *LENGTHS[1], *TIMES, "session_id", "hash_ids", "text_input"))


class MooncakeRow(NamedTuple):
    """One line: a request, or a turn of a session.

    Attributes:
        timestamp: seconds; None when the line has none.
        delay: seconds after the answer before; None when the line has none.
        tokens: of the prompt, or of what this turn appends to it.
        output: tokens generated.
        hashes: of the prompt's blocks.
        block: tokens a hash stands for.
        shared: tokens in the blocks that this turn and the one before it begin with.
    """

    timestamp: float | None
    delay: float | None
    tokens: int
    output: int
    hashes: tuple[int, ...]
    block: int
    shared: int = 0


def read(reading: Reading) -> Iterator[Session]:
    """The sessions; one of several turns comes where its last turn stands in the file."""
    gathering: Gathering[MooncakeRow] | None = None
    block = HASH_BLOCK
    for record in reading.records(FIELDS):
        row = reading.attempt(record, _row, block)
        if row is not None:
            block = row.block
        session: Session | None = None
        if record.has("session_id"):
            if gathering is None:
                gathering = Gathering(keys_of(reading.source, "session_id"))
            key = str(record.values["session_id"])
            rows = gathering.add(key, None if row is None else _compared(gathering.rows(key), row))
            if rows is not None:
                session = reading.attempt(record, _of_turns, key, rows, reading)
        elif row is not None:
            session = reading.attempt(record, _single, row, reading)
        if gathering is not None and row is not None and row.timestamp is not None:
            reading.plausibility.see_rows([row.timestamp])
        if session is not None:
            yield session


def write(writing: Writing, sessions: Iterable[Session]) -> None:
    """Write single requests as Mooncake does, and longer sessions as turns with ``session_id`` and ``delay``."""
    for session in sessions:
        writing.require_plain(session)
        if any(pause.keeps is not None for pause in session.pauses):
            raise writing.refuse(session, "a rewritten context", "contexts that only grow: the format says no more")
        writing.lose("kinds", bool(session.kind))
        writing.lose("named prefixes", session.prefix is not None)
        writing.lose("what pauses wait for", any(p.tool or p.waits_for != "tool" for p in session.pauses))
        several = len(session.calls) > 1
        writing.lose("ids", not several)
        before: Pause | None = None
        for index, call in enumerate(session.calls):
            row: dict[str, object] = {"session_id": session.id} if several else {}
            if before is None:
                row |= {"timestamp": _in_ms(session.arrival), "input_length": session.prompt}
            else:
                row |= {"delay": _in_ms(before.duration), "input_length": before.returned}
            row["output_length"] = call.output
            if index == 0 and session.block_hashes:
                row["hash_ids"] = list(session.block_hashes)
            writing.line(json.dumps(row, ensure_ascii=False))
            before = call.pause
        writing.lose("pauses after the last call", before is not None)


def _row(record: Record, block: int) -> MooncakeRow:
    prompt, output = LENGTHS[1] if record.has("input_tokens") else LENGTHS[0]
    delay = _time(record, "delay", "delay_ms")
    record.identity("session_id", "")
    later = delay is not None and record.has("session_id")
    tokens = record.whole(prompt, least=0 if later else 1)
    hashes = record.wholes("hash_ids")
    return MooncakeRow(
        _time(record, "timestamp", "created_time"),
        delay,
        tokens,
        record.whole(output),
        hashes,
        block if len(hashes) < 2 else block_size_of(tokens, len(hashes), block),
    )


def _time(record: Record, name: str, alias: str) -> float | None:
    values = record.values
    if values.get(name) is not None:
        return record.milliseconds(name)
    return record.milliseconds(alias) if values.get(alias) is not None else None


def _single(record: Record, row: MooncakeRow, reading: Reading) -> Session | None:
    if row.output == 0:
        reading.left_out["without output"] += 1
        return None
    arrival = row.timestamp if row.timestamp is not None else record.milliseconds("timestamp")
    id = f"mooncake-{record.line}"
    return Session(
        id, arrival, row.tokens, (Call(row.output),), "", 1, (), None, row.hashes, row.block if row.hashes else 0
    )


def _compared(before: list[MooncakeRow], row: MooncakeRow) -> MooncakeRow:
    """A turn that knows what it shares with the one before; that one's hashes are needed no longer."""
    if not before or not before[-1].hashes:
        return row
    last = before[-1]
    if len(before) > 1:
        before[-1] = last._replace(hashes=())
    return row._replace(shared=shared_tokens(last.hashes, row.hashes, row.block))


def _of_turns(record: Record, id: str, rows: list[MooncakeRow], reading: Reading) -> Session:
    first = rows[0]
    turns = [Turn(first.tokens, first.output)]
    last = first.timestamp or 0.0
    for row in rows[1:]:
        pause = row.delay
        if pause is None:
            passed = (row.timestamp if row.timestamp is not None else last) - last
            reading.plausibility.turns_back += passed < 0
            pause = max(passed, 0.0)
        context = turns[-1].prompt + turns[-1].output
        if row.shared > 0:
            turns.append(Turn(row.tokens, row.output, pause, row.shared))
        else:
            turns.append(Turn(context + row.tokens, row.output, pause))
        last = row.timestamp if row.timestamp is not None else last
    return _session(id, first.timestamp or 0.0, first, calls_of(turns, first.block))


def _session(id: str, arrival: float, first: MooncakeRow, calls: tuple[Call, ...]) -> Session:
    block = first.block if first.hashes else 0
    return Session(id, arrival, first.tokens, calls, block_hashes=first.hashes, hash_block=block)


def _in_ms(seconds: float) -> int | float:
    """Milliseconds that read back as these seconds, without a point where there is nothing behind it."""
    milliseconds = round(seconds * 1000, 6)
    return int(milliseconds) if milliseconds.is_integer() else milliseconds


def _recognised(head: Head) -> bool:
    return head.has("input_length", "output_length") or head.has("input_tokens", "output_tokens")


FORMAT = Format(
    "mooncake",
    "Mooncake requests with block hashes, or turns with session_id and delay (JSONL)",
    recognises=_recognised,
    read=read,
    lacks=frozenset({"tools"}),
    write=write,
)
