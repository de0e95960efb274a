"""Applied Compute's JSONL (its ``trie`` workloads): tool-using sessions without arrivals.

``num_turns`` rounds of an answer and a tool's output, then a final answer: ``input_prompt_length``,
``assistant_response_length`` [], ``tool_call_output_length`` [], ``tool_call_latency`` [] (s),
``final_assistant_response_length``.
"""

from __future__ import annotations

from collections.abc import Iterator

from traces.readers.reading import Reading
from traces.readers.records import Record
from traces.readers.trace_format import Format
from traces.session import Call, Pause, Session

LISTS = ("assistant_response_length", "tool_call_output_length", "tool_call_latency")
FIELDS = frozenset((*LISTS, "num_turns", "input_prompt_length", "final_assistant_response_length", "session_id"))


def read(reading: Reading) -> Iterator[Session]:
    """The sessions in the order of the lines, all with arrival 0."""
    return reading.each(reading.records(FIELDS), _session)


def _session(record: Record) -> Session:
    prompt = record.whole("input_prompt_length", least=1)
    answers = record.wholes("assistant_response_length", least=1)
    returned = record.wholes("tool_call_output_length", least=0)
    latencies = record.list_of_seconds("tool_call_latency")
    turns = record.whole("num_turns", len(answers))
    for name, values in zip(LISTS, (answers, returned, latencies), strict=True):
        if len(values) != turns:
            fix = "correct the list, or remove the line"
            raise record.wrong(name, f"{len(values)} values", f"{turns} values, one a turn", fix)
    calls = [
        Call(answer, Pause(latency, tokens))
        for answer, latency, tokens in zip(answers, latencies, returned, strict=True)
    ]
    final = record.whole("final_assistant_response_length", 0)
    id = record.identity("session_id", f"applied-compute-{record.line}")
    if final == 0 and not calls:
        raise record.wrong("final_assistant_response_length", "0", "at least one call with output", "remove the line")
    return Session(id, 0.0, prompt, (*calls, Call(final)) if final else tuple(calls))


FORMAT = Format(
    "applied-compute",
    "Applied Compute's tool-using sessions (JSONL)",
    recognises=lambda head: head.has("input_prompt_length", "assistant_response_length"),
    read=read,
    lacks=frozenset({"arrivals", "tools"}),
)
