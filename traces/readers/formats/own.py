"""Caesura's own session files: every field of a session, one JSON object a line, read back exactly as written.

The keys are the field names of `traces.session`, in a fixed order; a field that has its default is left out. Times are
in seconds, lengths in tokens::

    {"id":"a","kind":"chat","arrival":0.5,"prompt":90,"calls":[{"output":10,"pause":{"duration":3.0,"returned":20,
     "waits_for":"user"}},{"output":5}]}
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Sequence

import msgspec

from traces.readers.formats.session_files import calls_state_prompt
from traces.readers.reading import Reading
from traces.readers.records import MOST_TOKENS, Record
from traces.readers.request_columns import Requests
from traces.readers.session_columns import SessionColumns
from traces.readers.trace_format import Format, Head
from traces.readers.writing import Writing
from traces.session import Call, Pause, PromptPart, Session, SharedPrefix, ToolRun

SESSION = ("id", "kind", "arrival", "prompt", "calls", "samples", "stream", "prefix", "block_hashes", "hash_block")
CALL = ("output", "pause")
PAUSE = ("duration", "returned", "waits_for", "tool", "keeps", "tools", "session")
TOOL_RUN = ("tool", "duration", "returned")
PROMPT_PART = ("tokens", "at", "output")
PREFIX = ("name", "tokens")

FAST, EXACT = msgspec.json.Encoder(), json.JSONEncoder(allow_nan=False, separators=(",", ":"))

Json = dict[str, object]


class _Pause(msgspec.Struct, gc=False, omit_defaults=True):
    duration: float
    returned: int = 0
    waits_for: str = "tool"
    keeps: int | None = None


class _Call(msgspec.Struct, gc=False, omit_defaults=True):
    output: int
    pause: _Pause | None = None


class _Line(msgspec.Struct, gc=False):
    id: str
    arrival: float
    prompt: int
    calls: Sequence[_Call]


class _LineOfKind(msgspec.Struct, gc=False):
    id: str
    kind: str
    arrival: float
    prompt: int
    calls: Sequence[_Call]


def read(reading: Reading) -> Iterator[Session]:
    """The sessions of a file in Caesura's own format, in the order of its lines."""
    return reading.each(reading.records(), session_from)


def write(writing: Writing, sessions: Iterable[Session]) -> None:
    """Write every field of every session. Nothing is written that could not be read back."""
    for number, session in enumerate(sessions, start=1):
        values = session_to_json(session)
        if _reads_back(session):
            writing.data(FAST.encode(values) + b"\n")
        else:
            session_from(Record(values, writing.name, number))
            writing.line(EXACT.encode(values))


def write_requests(writing: Writing, batches: Iterable[Requests]) -> None:
    """Write sessions of one call each that came as columns, line for line as `write` does."""
    for batch in batches:
        calls = list(zip(map(_Call, batch.outputs), strict=True))
        _write_lines(writing, batch.ids, batch.kinds, batch.arrivals, batch.prompts, calls)


def write_columns(writing: Writing, batches: Iterable[SessionColumns]) -> None:
    """Write sessions of several calls that came as columns, line for line as `write` does."""
    for batch in batches:
        pauses = (
            None if duration is None else _Pause(duration, returned, batch.waits_for, keeps)
            for duration, returned, keeps in zip(batch.durations, batch.returned, batch.keeps, strict=True)
        )
        calls = list(map(_Call, batch.outputs, pauses))
        chains = [calls[begin:end] for begin, end in zip(batch.begins, batch.ends, strict=True)]
        _write_lines(writing, batch.ids, batch.kinds, batch.arrivals, batch.prompts, chains)


def _write_lines(
    writing: Writing,
    ids: list[str],
    kinds: list[str],
    arrivals: list[float],
    prompts: list[int],
    chains: Sequence[Sequence[_Call]],
) -> None:
    if any(kinds):
        rows = zip(ids, kinds, arrivals, prompts, chains, strict=True)
        lines: list[_Line | _LineOfKind] = [
            _LineOfKind(id, kind, arrival, prompt, calls) if kind else _Line(id, arrival, prompt, calls)
            for id, kind, arrival, prompt, calls in rows
        ]
    else:
        lines = list(map(_Line, ids, arrivals, prompts, chains))
    writing.data(FAST.encode_lines(lines))


def session_from(record: Record) -> Session:
    """The session that one line describes; raises `TraceError` when it describes none."""
    record.only(SESSION)
    calls = record.some_records("calls")
    prefix = record.record("prefix")
    return Session(
        id=record.text("id"),
        kind=record.text("kind", ""),
        arrival=record.seconds("arrival"),
        prompt=record.whole("prompt", least=1),
        calls=tuple(_call(call, last=call is calls[-1]) for call in calls),
        samples=record.whole("samples", 1, least=1),
        stream=tuple(_prompt_part(part) for part in record.records("stream")),
        prefix=None if prefix is None else _prefix(prefix),
        block_hashes=record.wholes("block_hashes"),
        hash_block=record.whole("hash_block", 0),
    )


def session_to_json(session: Session) -> Json:
    """A session as a JSON object in the fixed key order, without the fields that have their defaults."""
    values: Json = {"id": session.id}
    if session.kind:
        values["kind"] = session.kind
    values["arrival"] = session.arrival
    values["prompt"] = session.prompt
    values["calls"] = [_call_to_json(call) for call in session.calls]
    if session.samples != 1:
        values["samples"] = session.samples
    if session.stream:
        values["stream"] = [_prompt_part_to_json(part) for part in session.stream]
    if session.prefix is not None:
        values["prefix"] = {"name": session.prefix.name, "tokens": session.prefix.tokens}
    if session.block_hashes:
        values["block_hashes"] = list(session.block_hashes)
    if session.hash_block:
        values["hash_block"] = session.hash_block
    return values


def _reads_back(session: Session) -> bool:
    """Whether a session certainly reads back as it is: it has no rare fields, and every value its proper type."""
    if session.stream or session.prefix is not None or not _fits(session.block_hashes):
        return False
    if not (type(session.id) is type(session.kind) is str and type(session.arrival) in (float, int)):
        return False
    for number in (session.prompt, session.samples, session.hash_block):
        if type(number) is not int or number > MOST_TOKENS:
            return False
    return all(map(_call_reads_back, session.calls))


def _call_reads_back(call: Call) -> bool:
    if type(call.output) is not int or call.output > MOST_TOKENS:
        return False
    pause = call.pause
    if pause is None:
        return True
    if pause.tools or pause.session or pause.not_before is not None:
        return False
    keeps = 0 if pause.keeps is None else pause.keeps
    return (
        type(pause.returned) is type(keeps) is int
        and pause.returned <= MOST_TOKENS >= keeps
        and type(pause.waits_for) is type(pause.tool) is str
        and type(pause.duration) in (float, int)
    )


def _fits(hashes: tuple[int, ...]) -> bool:
    """Whether block hashes are whole numbers of 64 bits, as nearly all are."""
    return not hashes or (set(map(type, hashes)) == {int} and min(hashes) >= -(2**63) and max(hashes) < 2**64)


def _call(record: Record, last: bool) -> Call:
    record.only(CALL)
    pause = record.record("pause")
    if pause is None and not last:
        fix = 'add it, with "duration": 0 where the next call follows at once'
        raise record.wrong("pause", "no pause", "a pause: another call follows", fix)
    return Call(record.whole("output", least=1), None if pause is None else _pause(pause))


def _pause(record: Record) -> Pause:
    record.only(PAUSE)
    return Pause(
        duration=record.seconds("duration"),
        returned=record.whole("returned", 0),
        waits_for=record.text("waits_for", "tool"),
        tool=record.text("tool", ""),
        keeps=record.optional_whole("keeps"),
        tools=tuple(_tool_run(run) for run in record.records("tools")),
        session=record.text("session", ""),
    )


def _tool_run(record: Record) -> ToolRun:
    record.only(TOOL_RUN)
    return ToolRun(record.text("tool"), record.seconds("duration"), record.whole("returned", 0))


def _prompt_part(record: Record) -> PromptPart:
    record.only(PROMPT_PART)
    return PromptPart(record.whole("tokens"), record.seconds("at"), record.whole("output", 0))


def _prompt_part_to_json(part: PromptPart) -> Json:
    values: Json = {"tokens": part.tokens, "at": part.at}
    return values | ({"output": part.output} if part.output else {})


def _prefix(record: Record) -> SharedPrefix:
    record.only(PREFIX)
    return SharedPrefix(record.text("name"), record.whole("tokens"))


def _call_to_json(call: Call) -> Json:
    return (
        {"output": call.output} if call.pause is None else {"output": call.output, "pause": _pause_to_json(call.pause)}
    )


def _pause_to_json(pause: Pause) -> Json:
    values: Json = {"duration": pause.duration}
    if pause.returned:
        values["returned"] = pause.returned
    if pause.waits_for != "tool":
        values["waits_for"] = pause.waits_for
    if pause.tool:
        values["tool"] = pause.tool
    if pause.keeps is not None:
        values["keeps"] = pause.keeps
    if pause.tools:
        values["tools"] = [_tool_run_to_json(run) for run in pause.tools]
    if pause.session:
        values["session"] = pause.session
    return values


def _tool_run_to_json(run: ToolRun) -> Json:
    values: Json = {"tool": run.tool, "duration": run.duration}
    if run.returned:
        values["returned"] = run.returned
    return values


def _recognised(head: Head) -> bool:
    """Caesura's own sessions state one prompt and arrival; in recorded session files every call states its prompt."""
    if not head.has("calls"):
        return False
    return head.has("prompt") or head.has("arrival") or not calls_state_prompt(head)


FORMAT = Format(
    "own",
    "Caesura's own JSONL: every field of a session",
    recognises=_recognised,
    read=read,
    write=write,
    write_requests=write_requests,
    write_columns=write_columns,
)
