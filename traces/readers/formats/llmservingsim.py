"""LLMServingSim's JSONL: sessions of sub-requests with tool times, and flat requests between them.

A session has ``session_id``, ``arrival_time_ns`` and ``sub_requests``, each with its whole prompt ``input_toks``, its
``output_toks`` and ``tool_duration_ns`` (after it; the last one has no effect); a flat row has ``input_toks``,
``output_toks`` and ``arrival_time_ns``. AgentServeSim adds the ``tool``. What a later prompt shares with the context
before it follows from ``input_tok_ids`` and ``output_tok_ids`` where both are given, else from ``prefix_reuse_toks``;
without them a prompt that is no shorter than the context continues it, and a shorter one shares nothing.
"""

from __future__ import annotations

from collections.abc import Iterator

from traces.readers.continuation import Turn, calls_of, shared_tokens
from traces.readers.reading import Reading
from traces.readers.records import Record
from traces.readers.trace_format import Format
from traces.session import Call, Session

TURN = frozenset(("input_toks", "output_toks", "input_tok_ids", "output_tok_ids"))
SESSION = TURN | {"session_id", "arrival_time_ns", "sub_requests"}
SUB_REQUEST = TURN | {"tool", "tool_duration_ns", "prefix_reuse_toks"}


def read(reading: Reading) -> Iterator[Session]:
    """The sessions in the order of the lines."""
    return reading.each(reading.records(SESSION), lambda record: _session(record, reading))


def _session(record: Record, reading: Reading) -> Session:
    id = record.identity("session_id", f"llmservingsim-{record.line}")
    arrival = record.nanoseconds("arrival_time_ns", 0.0)
    if record.has("workflow_id") or record.has("nodes"):
        fix = "convert the graph to sessions first"
        raise record.wrong("nodes", "a graph of requests", "a session or a flat request", fix)
    if not record.has("sub_requests"):
        call = Call(record.whole("output_toks", least=1))
        return Session(id, arrival, record.whole("input_toks", least=1), (call,))
    requests = record.some_records("sub_requests")
    for request in requests:
        reading.note_unused(request, SUB_REQUEST)
    turns = [_turn(request, before) for request, before in zip(requests, [None, *requests], strict=False)]
    return Session(id, arrival, turns[0].prompt, calls_of(turns))


def _turn(request: Record, before: Record | None) -> Turn:
    prompt, output = request.whole("input_toks", least=1), request.whole("output_toks", least=1)
    if before is None:
        return Turn(prompt, output)
    return Turn(
        prompt,
        output,
        pause=before.nanoseconds("tool_duration_ns", 0.0),
        shared=_shared(before, request),
        tool=before.text("tool", ""),
    )


def _shared(before: Record, request: Record) -> int | None:
    if request.has("input_tok_ids") and before.has("input_tok_ids"):
        context = before.wholes("input_tok_ids") + before.wholes("output_tok_ids")
        return shared_tokens(context, request.wholes("input_tok_ids"), 1)
    return request.optional_whole("prefix_reuse_toks")


FORMAT = Format(
    "llmservingsim",
    "LLMServingSim sessions and flat requests (JSONL)",
    recognises=lambda head: head.has("sub_requests") or head.has("input_toks", "output_toks"),
    read=read,
)
